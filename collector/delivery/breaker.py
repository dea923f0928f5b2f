"""CircuitBreaker: whether to attempt anything while a backend is down.

Closed, every attempt is made. After some failures in a row the circuit opens: attempts wait, except for a probe from
time to time (half-open). The first attempt that succeeds closes the circuit again. This module only decides; waiting is
the business of ``gate``.
"""

import math
from collections.abc import Callable
from enum import IntEnum

from collector.delivery.retry import Backoff

__all__ = ["CircuitBreaker", "CircuitState"]


class CircuitState(IntEnum):
    """The state, as the metric ``tailrace_exporter_circuit_state`` shows it."""

    CLOSED = 0
    HALF_OPEN = 1
    OPEN = 2


class CircuitBreaker:
    """The circuit of one signal of one exporter.

    ``intervals`` creates the waits between the probes of one outage. A threshold of 0 disables the breaker: the circuit
    stays closed.
    """

    def __init__(self, failure_threshold: int, intervals: Callable[[], Backoff]) -> None:
        self._threshold = failure_threshold or math.inf
        self._new_intervals = intervals
        self._intervals: Backoff | None = None
        self._failure_count = 0
        self.state = CircuitState.CLOSED
        self.probe_at_s = math.inf
        """When the next probe is due while the circuit is open."""
        self.opened_at_s = 0.0

    @property
    def is_calm(self) -> bool:
        """Whether nothing has failed since the last success, so that a success changes nothing."""
        return self._failure_count == 0

    def allows(self, now_s: float) -> bool:
        """Whether an attempt may begin. If the circuit is open, the attempt is the probe."""
        return self.state is CircuitState.CLOSED or (self.state is CircuitState.OPEN and now_s >= self.probe_at_s)

    def begin(self, now_s: float) -> None:
        """Note that an attempt begins. It is the probe if one is due."""
        if self.state is CircuitState.OPEN and now_s >= self.probe_at_s:
            self.state = CircuitState.HALF_OPEN

    def succeed(self) -> bool:
        """Note that the backend has answered. Returns True if that closes the circuit."""
        self._failure_count = 0
        was_closed = self.state is CircuitState.CLOSED
        self.state, self.probe_at_s, self._intervals = CircuitState.CLOSED, math.inf, None
        return not was_closed

    def fail(self, now_s: float, retry_after_s: float | None) -> bool:
        """Note that an attempt failed; ``retry_after_s`` is what the backend demanded. Returns True if it opens."""
        self._failure_count += 1
        if self.state is CircuitState.OPEN or self._failure_count < self._threshold:
            return False  # attempts that began before the circuit opened do not delay the probe
        was_closed = self.state is CircuitState.CLOSED
        if self._intervals is None:
            self._intervals = self._new_intervals()
            self.opened_at_s = now_s
        self.state = CircuitState.OPEN
        self.probe_at_s = now_s + (self._intervals.next_wait_s(now_s, retry_after_s) or 0.0)
        return was_closed

    def abort(self, now_s: float) -> None:
        """Note that an attempt ended without an outcome. If it was the probe, another one is due at once."""
        if self.state is CircuitState.HALF_OPEN:
            self.state, self.probe_at_s = CircuitState.OPEN, now_s
