"""ConcurrencyLimit: how many requests an overloaded backend receives at once.

Additive increase, multiplicative decrease, as TCP does it: a sign of overload halves the limit, and each round of
requests that succeed raises it by one. Without such signs there is no limit beyond that of the queue.
"""

from typing import Final

from collector.api import ConsumeError, RetryableError

__all__ = ["ConcurrencyLimit", "is_overload"]

_DECREASE: Final = 0.5
# What the backend usually needs follows its latency over about this many requests.
_USUAL_REQUESTS: Final = 100
_MIN_REQUESTS: Final = 20  # observed before latency is judged
# Below this a backend is quick enough, and what differs is our own event loop.
_MIN_EXCESS_S: Final = 0.1
_OVERLOAD_REASONS: Final = frozenset(
    {"http_429", "grpc_resource_exhausted", "timeout", "grpc_deadline_exceeded", "http_504"}
)


def is_overload(error: ConsumeError) -> bool:
    """Whether the error means that the backend receives more than it can take."""
    return error.reason in _OVERLOAD_REASONS or (isinstance(error, RetryableError) and error.retry_after_s is not None)


class ConcurrencyLimit:
    """The limit for one signal of one exporter, from 1 to ``max_count``.

    ``latency_factor``: how many times its usual latency the backend may need; 0 disables the comparison.
    """

    def __init__(self, max_count: int, latency_factor: float = 0.0) -> None:
        self._max_count = float(max_count)
        self._limit = self._max_count
        self._latency_factor = latency_factor
        self._usual_s = 0.0
        self._observed_count = 0
        self._lowered_at_s = -1.0

    @property
    def limit(self) -> int:
        """Requests that may be in flight at once."""
        return int(self._limit)

    @property
    def is_limiting(self) -> bool:
        """Whether the limit is below the maximum."""
        return self._limit < self._max_count

    @property
    def observes_latency(self) -> bool:
        """Whether :meth:`succeed` needs the latency of every request."""
        return self._latency_factor > 0

    def succeed(self, started_s: float, now_s: float) -> None:
        """Note that a request succeeded, begun at ``started_s``."""
        if self._latency_factor and self._is_slow(now_s - started_s):
            self.overload(started_s, now_s)
        elif self._limit < self._max_count:
            self._limit = min(self._limit + 1.0 / self._limit, self._max_count)

    def overload(self, started_s: float, now_s: float) -> None:
        """Halve the limit, but only once for all requests that were in flight when it was last halved."""
        if started_s > self._lowered_at_s:
            self._limit = max(self._limit * _DECREASE, 1.0)
            self._lowered_at_s = now_s

    def restart(self, now_s: float) -> None:
        """Begin with a single request: the backend was down."""
        self._limit, self._lowered_at_s = 1.0, now_s

    def _is_slow(self, latency_s: float) -> bool:
        """Whether the latency is far above the usual one, which follows it slowly."""
        usual_s = self._usual_s
        self._observed_count += 1
        self._usual_s += (latency_s - usual_s) / min(self._observed_count, _USUAL_REQUESTS)
        return (
            self._observed_count > _MIN_REQUESTS
            and latency_s > usual_s * self._latency_factor
            and latency_s > usual_s + _MIN_EXCESS_S
        )
