"""Answers probes: 200 while the service is ready, 503 before that and during shutdown. The format is the Collector's.

With ``component_health`` the states of components count too, here and at ``/health/ready`` on the admin port. The full
list of checks is at ``/health`` on the admin port. Source: opentelemetry-collector-contrib
extension/healthcheckextension, extension/healthcheckv2extension and internal/healthcheck (``Server available``,
``upSince``, ``uptime``).
"""

from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from collector.api import Extension, Host, Settings, Status
from collector.transport.http import HTTPServer, Request, Response, Route
from extensions.health_check.config import HealthCheckConfig
from extensions.health_check.version_2 import StatusServers

__all__ = ["HealthCheckExtension"]

_SHUTDOWN_GRACE_S = 1.0
_NS_PER_S = 1_000_000_000


class HealthCheckExtension(Extension):
    """An HTTP listener that answers probes."""

    def __init__(self, settings: Settings, config: HealthCheckConfig) -> None:
        self._settings, self._config = settings, config
        self._host: Host | None = None
        self._up_since_unix_nano = 0
        self._server: HTTPServer | None = None
        self._version_2 = StatusServers(settings, config, self._unready_reason) if config.use_v2 else None

    @property
    def port(self) -> int:
        """The port of HTTP; 0 before the start."""
        if self._version_2 is not None:
            return self._version_2.http_port
        return self._server.port if self._server else 0

    @property
    def grpc_port(self) -> int:
        """The port of gRPC; 0 if it does not listen there."""
        return self._version_2.grpc_port if self._version_2 is not None else 0

    async def start(self, host: Host) -> None:
        """Start to listen. The answer is 503 until the whole service is ready."""
        self._host = host
        if self._config.component_health is not None:
            host.add_readiness_check(self._unready_reason)
        self._warn_of_unused_keys()
        if self._version_2 is not None:
            await self._version_2.start(host)
            return
        key = f"extensions::{self._settings.id}"
        route = _Probe(self._answer)
        answers_everywhere = self._config.path == "/"  # as in Go's mux
        server = HTTPServer(
            self._config,
            {} if answers_everywhere else {self._config.path: route},
            default=route if answers_everywhere else None,
            key=key,
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
        )
        await server.start(host)
        self._server = server

    async def shutdown(self) -> None:
        """Stop listening."""
        if self._version_2 is not None:
            await self._version_2.shutdown()
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown(_SHUTDOWN_GRACE_S)

    def _warn_of_unused_keys(self) -> None:
        config = self._config
        keys = [key for key in ("http", "grpc") if getattr(config, key) is not None] if not config.use_v2 else []
        if config.use_v2:
            keys = sorted(config.model_fields_set & {"endpoint", "path", "response_body", "check_collector_pipeline"})
        keys += [
            f"check_collector_pipeline::{key}"
            for key in ("interval", "exporter_failure_threshold")
            if not config.use_v2 and key in config.check_collector_pipeline.model_fields_set
        ]
        if keys:
            self._settings.telemetry.log.warning("keys of health_check have no effect here", keys=keys)

    def _answer(self) -> Response:
        is_healthy = self._is_healthy()
        now = self._settings.clock.time_unix_nano()
        if not is_healthy:
            self._up_since_unix_nano = 0
        elif not self._up_since_unix_nano:
            self._up_since_unix_nano = now
        body = self._config.response_body
        if body is not None:
            return Response.text(200 if is_healthy else 503, body.healthy if is_healthy else body.unhealthy)
        document = {
            "status": "Server available" if is_healthy else "Server not available",
            "upSince": datetime.fromtimestamp(self._up_since_unix_nano / _NS_PER_S, UTC).isoformat()
            if is_healthy
            else "0001-01-01T00:00:00Z",
            "uptime": _go_duration((now - self._up_since_unix_nano) / _NS_PER_S) if is_healthy else "",
        }
        return Response(200 if is_healthy else 503, orjson.dumps(document), "application/json")

    def _is_healthy(self) -> bool:
        assert self._host is not None  # set before the server listens
        if not self._host.ready():
            return False
        if self._config.check_collector_pipeline.enabled and not all(check.healthy for check in self._host.health()):
            return False
        return not self._unready_reason()

    def _unready_reason(self) -> str:
        """The first component whose state counts, and why; empty if there is none."""
        config = self._config.component_health
        if config is None or self._host is None:
            return ""
        for check in self._host.health():
            if check.status is Status.FATAL_ERROR or (
                config.include_permanent_errors and check.status is Status.PERMANENT_ERROR
            ):
                return f"{check.name}: {check.message}"
            if (
                config.include_recoverable_errors
                and check.status is Status.RECOVERABLE_ERROR
                and check.failing_s > config.recovery_duration
            ):
                return f"{check.name}: {check.message}"
            if config.max_queue_age and check.queue_age_s > config.max_queue_age:
                return f"{check.name}: the oldest data in the queue is {check.queue_age_s:.0f} s old"
        return ""


class _Probe(Route):
    """Answers every request from its head, without reading a body."""

    def __init__(self, answer: Callable[[], Response]) -> None:
        self._answer = answer

    def check(self, request: Request) -> Response:  # noqa: ARG002 - every request gets the same answer
        """The answer to a probe."""
        return self._answer()


def _go_duration(seconds: float) -> str:
    """The duration in the form of Go's time.Duration: ``1h2m3.5s``."""
    minutes, remaining_s = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (
        (f"{hours}h" if hours else "")
        + (f"{minutes}m" if hours or minutes else "")
        + f"{remaining_s:.9f}".rstrip("0").rstrip(".")
        + "s"
    )
