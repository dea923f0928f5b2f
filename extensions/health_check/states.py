"""The states of components, added up to those of pipelines and of the service, as ``healthcheckv2`` shows them.

Source: opentelemetry-collector-contrib extension/healthcheckv2extension (README, internal/http) and pkg/status.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from collector.api import Clock, HealthCheck, Host, Overview, PipelineOverview, Status
from extensions.health_check.config import ComponentHealth

__all__ = ["HTTP_STATUSES", "ComponentStates", "State"]

HTTP_STATUSES: Final = {
    Status.STARTING: 503,
    Status.OK: 200,
    Status.RECOVERABLE_ERROR: 200,
    Status.PERMANENT_ERROR: 200,
    Status.FATAL_ERROR: 500,
    Status.STOPPING: 503,
    Status.STOPPED: 503,
}
_NAMES: Final = {
    Status.STARTING: "StatusStarting",
    Status.OK: "StatusOK",
    Status.RECOVERABLE_ERROR: "StatusRecoverableError",
    Status.PERMANENT_ERROR: "StatusPermanentError",
    Status.FATAL_ERROR: "StatusFatalError",
    Status.STOPPING: "StatusStopping",
    Status.STOPPED: "StatusStopped",
}
_FIRST: Final = (Status.FATAL_ERROR, Status.STARTING, Status.STOPPING, Status.STOPPED)
"""What decides the state of a whole before any other error."""
_NS_PER_S: Final = 1_000_000_000


@dataclass(frozen=True, slots=True)
class State:
    """The state of a component, a pipeline or the service."""

    status: Status
    is_healthy: bool
    error: str
    since_unix_nano: int
    parts: Mapping[str, "State"] = field(default_factory=dict)

    def to_json(self, *, verbose: bool) -> dict[str, Any]:
        """The document of the Collector; ``verbose``: with the parts."""
        document: dict[str, Any] = {"healthy": self.is_healthy, "status": _NAMES[self.status]}
        if self.error:
            document["error"] = self.error
        document["status_time"] = _time(self.since_unix_nano)
        if verbose and self.parts:
            document["components"] = {name: part.to_json(verbose=True) for name, part in self.parts.items()}
        return document


class ComponentStates:
    """The states at the time of each call. ``config`` None: no error makes anything unhealthy."""

    def __init__(self, host: Host, clock: Clock, config: ComponentHealth | None) -> None:
        self._host, self._clock, self._config = host, clock, config
        self._has_been_ready = False
        errors = (Status.PERMANENT_ERROR, Status.RECOVERABLE_ERROR)
        if config is not None and config.include_recoverable_errors and not config.include_permanent_errors:
            errors = errors[::-1]
        self._precedence = (*_FIRST, *errors, Status.OK)

    def service(self) -> State:
        """The state of the service; its parts are the extensions and the pipelines."""
        overview, checks = self._host.overview(), self._checks()
        began = overview.start_time_unix_nano
        extensions = {
            f"extension:{name}": self._component(f"extensions/{name}", overview, checks) for name in overview.extensions
        }
        parts = {"extensions": self._whole(extensions, began)} if extensions else {}
        parts |= {f"pipeline:{each.id}": self._pipeline(each, overview, checks) for each in overview.pipelines}
        state = self._whole(parts, began)
        is_ready = self._host.ready()
        self._has_been_ready |= is_ready
        if is_ready or state.status is Status.FATAL_ERROR:
            return state
        status = Status.STOPPING if self._has_been_ready else Status.STARTING
        return State(status, state.is_healthy, state.error, state.since_unix_nano, parts)

    def pipeline(self, name: str) -> State | None:
        """The state of a pipeline, None if there is none of this name; its parts are its components."""
        overview = self._host.overview()
        found = next((each for each in overview.pipelines if each.id == name), None)
        return None if found is None else self._pipeline(found, overview, self._checks())

    def document(self, state: State, *, verbose: bool) -> dict[str, Any]:
        """What is shown of the service or of a pipeline."""
        return {"start_time": _time(self._host.overview().start_time_unix_nano), **state.to_json(verbose=verbose)}

    def _checks(self) -> dict[str, HealthCheck]:
        return {check.name: check for check in self._host.health()}

    def _pipeline(self, pipeline: PipelineOverview, overview: Overview, checks: Mapping[str, HealthCheck]) -> State:
        places = [
            *(("receiver", "receivers", name, name) for name in pipeline.receivers),
            *(("processor", "processors", name, f"{name}@{pipeline.id}") for name in pipeline.processors),
            *(("exporter", "exporters", name, name) for name in pipeline.exporters),
        ]
        parts = {}
        for kind, section, name, place in places:
            is_connector = f"connectors/{name}" in overview.statuses and f"{section}/{place}" not in overview.statuses
            where = f"connectors/{name}" if is_connector else f"{section}/{place}"
            parts[f"{'connector' if is_connector else kind}:{name}"] = self._component(where, overview, checks)
        return self._whole(parts, overview.start_time_unix_nano)

    def _component(self, name: str, overview: Overview, checks: Mapping[str, HealthCheck]) -> State:
        word, _, error = overview.statuses.get(name, Status.OK).partition(": ")
        status = Status(word)
        check = checks.get(name)
        failing_s = check.failing_s if check is not None else 0.0
        since = self._clock.time_unix_nano() - round(failing_s * _NS_PER_S) if failing_s else 0
        return State(status, self._is_healthy(status, failing_s), error, since or overview.start_time_unix_nano)

    def _is_healthy(self, status: Status, failing_s: float) -> bool:
        config = self._config
        if config is None:
            return True
        if status is Status.PERMANENT_ERROR:
            return not config.include_permanent_errors
        if status is Status.RECOVERABLE_ERROR and config.include_recoverable_errors:
            return failing_s <= config.recovery_duration
        return status is not Status.FATAL_ERROR

    def _whole(self, parts: Mapping[str, State], began_unix_nano: int) -> State:
        """The sum of the parts: what matters most of them."""
        if not parts:
            return State(Status.OK, is_healthy=True, error="", since_unix_nano=began_unix_nano)
        first = min(parts.values(), key=lambda part: (self._precedence.index(part.status), part.is_healthy))
        return State(first.status, _all_healthy(parts.values()), first.error, first.since_unix_nano, parts)


def _all_healthy(parts: Iterable[State]) -> bool:
    return all(part.is_healthy for part in parts)


def _time(unix_nano: int) -> str:
    return datetime.fromtimestamp(unix_nano / _NS_PER_S, UTC).isoformat()
