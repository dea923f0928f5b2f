"""Whether the backend of an exporter accepts what it is sent."""

from collections.abc import Mapping
from typing import Final

from collector.api import Clock, HealthCheck, Host, PermanentError, RetryableError, Status
from collector.delivery.gate import Gate
from collector.delivery.queue import SendingQueue
from collector.model import Signal

__all__ = ["BackendHealth"]

_UNHEALTHY_AFTER_S: Final = 60.0  # of failures or refusals without a single success


class BackendHealth:
    """Health and status of a backend, from the outcomes of attempts. ``name`` is that of the health check.

    A backend that fails is a recoverable error of the exporter. One that has refused everything for a minute, for
    example because of wrong credentials, is a permanent error, which lasts until it accepts something.
    """

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._host: Host | None = None
        self._queues: Mapping[Signal, SendingQueue] = {}
        self._gates: Mapping[Signal, Gate] = {}
        self._failing_since_s: float | None = None
        self._refusing_since_s: float | None = None
        self._refused_last_s = 0.0
        self._last_success_s: float | None = None
        self._status = Status.OK
        self.last_error = ""

    def watch(self, queues: Mapping[Signal, SendingQueue], gates: Mapping[Signal, Gate]) -> None:
        """Show also the age of what is in the queues, and what holds requests back."""
        self._queues, self._gates = queues, gates

    def start(self, host: Host) -> None:
        """Register the health check and report status changes to ``host`` from now on."""
        self._host = host
        host.add_health_check(self._name, self._check)

    @property
    def last_success_unix_s(self) -> float:
        """When the backend accepted something last; 0 if it never has."""
        if self._last_success_s is None:
            return 0.0
        return self._clock.time_unix_nano() / 1e9 - (self._clock.monotonic_s() - self._last_success_s)

    def record_success(self) -> None:
        """Note that the backend accepted an attempt."""
        self._last_success_s = self._clock.monotonic_s()
        if self._failing_since_s is not None or self._refusing_since_s is not None:
            self._failing_since_s = self._refusing_since_s = None
            self._report(Status.OK)

    def record_failure(self, error: PermanentError | RetryableError) -> None:
        """Note that an attempt failed. A backend that refuses the data has answered, so it counts as reachable."""
        self.last_error = str(error)
        now_s = self._clock.monotonic_s()
        if isinstance(error, PermanentError):
            self._failing_since_s = None
            self._refused_last_s = now_s
            if self._refusing_since_s is None:
                self._refusing_since_s = now_s
            is_permanent = now_s - self._refusing_since_s >= _UNHEALTHY_AFTER_S
            self._report(Status.PERMANENT_ERROR if is_permanent else Status.OK, self.last_error)
        elif self._failing_since_s is None:
            self._failing_since_s = now_s
            self._report(Status.RECOVERABLE_ERROR, self.last_error)

    def _report(self, status: Status, message: str = "") -> None:
        if status is not self._status:
            self._status = status
            if self._host is not None:
                self._host.report(status, message if status is not Status.OK else "")

    def _check(self) -> HealthCheck:
        now_s = self._clock.monotonic_s()
        failing_s, word = 0.0, ""
        if self._failing_since_s is not None:
            failing_s, word = now_s - self._failing_since_s, "failing"
        elif self._refusing_since_s is not None:  # that nothing was sent since then is no failure
            failing_s, word = self._refused_last_s - self._refusing_since_s, "refusing"
        parts = [f"{signal}: {text}" for signal, gate in self._gates.items() if (text := gate.describe())]
        if word:
            success_s = self._last_success_s
            success = "never succeeded" if success_s is None else f"last success {now_s - success_s:.0f} s ago"
            parts.insert(0, f"{word} for {failing_s:.0f} s, {success}: {self.last_error}")
        return HealthCheck(
            self._name,
            healthy=failing_s < _UNHEALTHY_AFTER_S,
            message="; ".join(parts),
            status=self._status,
            failing_s=failing_s,
            queue_age_s=max((queue.oldest_age_s() for queue in self._queues.values()), default=0.0),
        )
