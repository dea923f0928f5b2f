"""Whether the backend of an exporter accepts what it is sent."""

from typing import Final

from collector.api import Clock, HealthCheck, Host, PermanentError, RetryableError, Status

__all__ = ["BackendHealth"]

_UNHEALTHY_AFTER_S: Final = 60.0  # of failures without a single success


class BackendHealth:
    """Health and status of a backend, from the outcomes of attempts. ``name`` is that of the health check."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._host: Host | None = None
        self._failing_since_s: float | None = None
        self._last_success_s: float | None = None
        self.last_error = ""

    def start(self, host: Host) -> None:
        """Register the health check and report status changes to ``host`` from now on."""
        self._host = host
        host.add_health_check(self._name, self._check)

    def record_success(self) -> None:
        """Note that the backend accepted an attempt."""
        self._last_success_s = self._clock.monotonic_s()
        if self._failing_since_s is not None:
            self._end_outage()

    def record_failure(self, error: PermanentError | RetryableError) -> None:
        """Note that an attempt failed. A backend that refuses the data has answered, so it counts as reachable."""
        self.last_error = str(error)
        if isinstance(error, PermanentError):
            if self._failing_since_s is not None:
                self._end_outage()
        elif self._failing_since_s is None:
            self._failing_since_s = self._clock.monotonic_s()
            if self._host is not None:
                self._host.report(Status.RECOVERABLE_ERROR, str(error))

    def _end_outage(self) -> None:
        self._failing_since_s = None
        if self._host is not None:
            self._host.report(Status.OK)

    def _check(self) -> HealthCheck:
        if self._failing_since_s is None:
            return HealthCheck(self._name, healthy=True)
        now_s = self._clock.monotonic_s()
        failing_s, success_s = now_s - self._failing_since_s, self._last_success_s
        success = "never succeeded" if success_s is None else f"last success {now_s - success_s:.0f} s ago"
        message = f"failing for {failing_s:.0f} s, {success}: {self.last_error}"
        return HealthCheck(self._name, healthy=failing_s < _UNHEALTHY_AFTER_S, message=message)
