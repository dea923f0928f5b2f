"""Limits on spans or bytes per second, applied to many traces at once.

They are sequential by nature: whether a trace passes depends on the traces before it. The loops end as soon as nothing
more can pass, and are not entered if everything passes.
"""

from typing import Final

import numpy as np

from collector.model.arrays import I64, Mask

__all__ = ["SecondCounter", "TokenBucket"]

_NANOS: Final = 1e9


class TokenBucket:
    """Starts with ``burst`` tokens and gains ``rate`` tokens per second, up to ``burst``.

    Source: golang.org/x/time/rate, Limiter.AllowN: what does not pass takes no tokens, and what lacks less than the
    tokens of one nanosecond passes.
    """

    def __init__(self, rate: int, burst: int) -> None:
        self._rate, self._burst = float(rate), burst
        self._tokens = float(burst)
        self._last_s: float | None = None

    def allow(self, sizes: I64, now_s: float) -> Mask:
        """bool[n]: which of these pass at ``now_s``, in order."""
        if self._last_s is not None:
            self._tokens = min(float(self._burst), self._tokens + max(0.0, now_s - self._last_s) * self._rate)
        self._last_s = now_s
        slack = self._rate / _NANOS
        fitting = np.flatnonzero(sizes <= self._burst)
        allowed = np.zeros(len(sizes), np.bool_)
        total = int(sizes[fitting].sum())
        if total <= self._tokens:
            allowed[fitting] = True
            self._tokens -= total
            return allowed
        smallest = int(sizes[fitting].min())
        for row, size in zip(fitting.tolist(), sizes[fitting].tolist(), strict=True):
            if size < self._tokens + slack or size == self._tokens:
                self._tokens -= size
                allowed[row] = True
            elif self._tokens + slack < smallest:
                break
        return allowed


class SecondCounter:
    """At most ``limit`` in each second of the wall clock. After one that does not fit, a smaller one may still fit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._second: int | None = None
        self._used = 0

    def allow(self, sizes: I64, second: int) -> Mask:
        """bool[n]: which of these fit into ``second``, in order."""
        if second != self._second:
            self._second, self._used = second, 0
        allowed = np.zeros(len(sizes), np.bool_)
        if not len(sizes):
            return allowed
        total = int(sizes.sum())
        if self._used + total <= self._limit:
            self._used += total
            allowed[:] = True
            return allowed
        smallest = int(sizes.min())
        for row, size in enumerate(sizes.tolist()):
            if self._used + size <= self._limit:
                self._used += size
                allowed[row] = True
            elif self._used + smallest > self._limit:
                break
        return allowed
