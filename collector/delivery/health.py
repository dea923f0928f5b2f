"""Whether an exporter's backend takes what it is sent."""

from typing import Final

from collector.api import Clock, HealthCheck, Host, PermanentError, RetryableError, Status

__all__ = ["BackendHealth"]

_UNHEALTHY_AFTER_S: Final = 60.0  # failing this long without one success


class BackendHealth:
    """What became of the attempts so far. ``name`` is that of the check."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._name = name
        self._clock = clock
        self._host: Host | None = None
        self._failing_since_s: float | None = None
        self._last_success_s: float | None = None
        self.last_error = ""

    def start(self, host: Host) -> None:
        """Report to ``host`` from now on."""
        self._host = host
        host.add_health_check(self._name, self._check)

    def succeeded(self) -> None:
        """One attempt was taken."""
        self._last_success_s = self._clock.monotonic_s()
        self._lives()

    def failed(self, error: PermanentError | RetryableError) -> None:
        """One attempt was not. A refusal of the data is an answer too: the backend lives."""
        self.last_error = str(error)
        if isinstance(error, PermanentError):
            self._lives()
        elif self._failing_since_s is None:
            self._failing_since_s = self._clock.monotonic_s()
            if self._host is not None:
                self._host.report(Status.RECOVERABLE_ERROR, str(error))

    def _lives(self) -> None:
        if self._failing_since_s is not None:
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
