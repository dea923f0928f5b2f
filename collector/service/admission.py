"""The memory budget of the process, which the door consults before it takes bytes.

One object for all receivers and queues.

Bytes held = open reservations + what queues charge + what stages hold. Above the soft limit the door refuses,
retryably; so it does while the process's resident memory (RSS) is above its own limits, which a timer reads
(``watch``). Above the hard limit of the RSS it also runs Python's garbage collector, at most once an interval. Rules:
the Collector's internal/memorylimiter.
"""

import gc
from collections.abc import Callable
from types import TracebackType
from typing import Any

import psutil
import structlog

from collector.api import Clock, HealthCheck, RetryableError
from collector.service import memory
from collector.service.process import trim_heap

__all__ = ["DEFAULT_SHARE", "ServiceAdmission"]

_LOG_INTERVAL_S = 10.0
_TRIM_INTERVAL_S = 10.0
_UNHEALTHY_AFTER_S = 60.0  # of refusing without a pause; shorter peaks are what the limit is for
DEFAULT_SHARE = 0.5  # of the available memory, if no memory_limiter is configured
_RETRY_AFTER_S = 1.0


class ServiceAdmission:
    """An :class:`collector.api.Admission`."""

    def __init__(
        self,
        clock: Clock,
        *,
        available_bytes: int | None = None,
        rss: Callable[[], int] | None = None,
        log: Any = None,
    ) -> None:
        self._clock = clock
        self._log = log or structlog.get_logger()
        self._log_next_s = self._refused_since_s = self._refused_last_s = float("-inf")
        self._available_bytes = memory.available_bytes() if available_bytes is None else available_bytes
        self._soft_bytes = self._hard_bytes = int(self._available_bytes * DEFAULT_SHARE)
        self._rss_soft_bytes = self._rss_hard_bytes = 0
        self._rss = rss or _own_rss
        self._check_interval_s = 1.0
        self._gc_interval_soft_s = 10.0
        self._gc_interval_hard_s = 0.0
        self._collected_at_s = self._trimmed_at_s = float("-inf")
        self._used_bytes = 0
        self._sources: list[Callable[[], int]] = []
        self._is_rss_high = False
        self.rss_bytes = 0
        """Resident memory when it was last read."""
        self.refused_count = 0
        """Number of requests refused."""
        self.collected_count = 0
        """Number of garbage collections forced."""

    def reserve(self, size_bytes: int) -> "_Reservation":
        """Hold ``size_bytes`` while the context is open; see :class:`collector.api.Admission`.

        Raises:
            RetryableError: now, not when the context opens.
        """
        if self._is_rss_high or self.used_bytes + size_bytes > self._soft_bytes:
            self._refuse(size_bytes)
        return _Reservation(self, size_bytes)

    def hold(self, size_bytes: int) -> None:
        """Like ``reserve``, but the caller releases the bytes with ``charge(-size_bytes)``.

        Raises:
            RetryableError: as ``reserve`` does.
        """
        held_bytes = self._used_bytes + size_bytes
        if (
            self._is_rss_high
            or held_bytes > self._soft_bytes
            or (self._sources and self.used_bytes + size_bytes > self._soft_bytes)
        ):
            self._refuse(size_bytes)
        self._used_bytes = held_bytes

    def room_bytes(self) -> int:
        """How many more bytes may be held at present."""
        return 0 if self._is_rss_high else max(self._soft_bytes - self.used_bytes, 0)

    def charge(self, size_bytes: int) -> None:
        """Add to the bytes held; a negative size releases them. Never refuses."""
        self._used_bytes += size_bytes

    def limit(
        self,
        *,
        soft_bytes: int,
        hard_bytes: int,
        rss: Callable[[], int] | None = None,
        check_interval_s: float = 1.0,
        min_gc_interval_soft_s: float = 10.0,
        min_gc_interval_hard_s: float = 0.0,
    ) -> None:
        """The ``memory_limiter``'s limits: of bytes held, and of the RSS that ``rss`` reads (our own if None).

        With several, the lowest limits hold. Intervals: the Collector's ``check_interval`` and
        ``min_gc_interval_when_*_limited``.
        """
        if self._rss_soft_bytes:
            soft_bytes, hard_bytes = min(soft_bytes, self._rss_soft_bytes), min(hard_bytes, self._rss_hard_bytes)
            check_interval_s = min(check_interval_s, self._check_interval_s)
        self._soft_bytes = self._rss_soft_bytes = soft_bytes
        self._hard_bytes = self._rss_hard_bytes = max(soft_bytes, hard_bytes)
        self._rss = rss or self._rss
        self._check_interval_s = check_interval_s
        self._gc_interval_soft_s, self._gc_interval_hard_s = min_gc_interval_soft_s, min_gc_interval_hard_s

    def reset_limits(self, *, available_bytes: int | None = None) -> None:
        """Return to the default budget: a reload may have removed the ``memory_limiter``."""
        self._available_bytes = memory.available_bytes() if available_bytes is None else available_bytes
        self._soft_bytes = self._hard_bytes = int(self._available_bytes * DEFAULT_SHARE)
        self._rss_soft_bytes = self._rss_hard_bytes = 0
        self._is_rss_high = False
        self._check_interval_s = 1.0

    def add_source(self, held_bytes: Callable[[], int]) -> Callable[[], None]:
        """Count the result of ``held_bytes`` as used (stages). Returns a function that removes the source."""
        self._sources.append(held_bytes)
        return lambda: self._sources.remove(held_bytes) if held_bytes in self._sources else None

    @property
    def used_bytes(self) -> int:
        """Bytes held at present."""
        used = self._used_bytes
        for source in self._sources:
            used += source()
        return used

    @property
    def available_bytes(self) -> int:
        """How much memory the process may use: the container's limit, or the machine's memory."""
        return self._available_bytes

    @property
    def soft_bytes(self) -> int:
        """The door refuses requests above this many bytes."""
        return self._soft_bytes

    @property
    def hard_bytes(self) -> int:
        """Above this resident memory a garbage collection is forced as well."""
        return self._hard_bytes

    async def watch(self) -> None:
        """Read the RSS at every check interval, until cancelled."""
        while True:
            self.check()
            await self._clock.sleep(self._check_interval_s)

    def check(self) -> None:
        """Read the RSS once and act on it. Source: the Collector's memorylimiter.CheckMemLimits."""
        now_s = self._clock.monotonic_s()
        if now_s - self._trimmed_at_s >= _TRIM_INTERVAL_S:
            self._trimmed_at_s = now_s
            trim_heap()
        self.rss_bytes = self._rss()
        if not self._rss_soft_bytes:
            return
        if self.rss_bytes > self._rss_hard_bytes:
            self._collect(self._gc_interval_hard_s)
        elif self.rss_bytes > self._rss_soft_bytes:
            self._collect(self._gc_interval_soft_s)
        was_high, self._is_rss_high = self._is_rss_high, self.rss_bytes > self._rss_soft_bytes
        if was_high and not self._is_rss_high:
            self._log.info("the process's memory is below its limit again; requests are accepted", **self._state())

    def health(self) -> HealthCheck:
        """Whether requests are refused; unhealthy if that has lasted for a minute."""
        now_s = self._clock.monotonic_s()
        if now_s - self._refused_last_s > _LOG_INTERVAL_S:
            return HealthCheck("memory", healthy=True)
        refusing_s = now_s - self._refused_since_s
        message = f"requests have been refused for {refusing_s:.0f} s because of the memory limit"
        return HealthCheck("memory", healthy=refusing_s < _UNHEALTHY_AFTER_S, message=message)

    def _state(self) -> dict[str, int]:
        return {
            "rss_bytes": self.rss_bytes,
            "rss_limit_bytes": self._rss_soft_bytes,
            "held_bytes": self.used_bytes,
            "held_limit_bytes": self._soft_bytes,
        }

    def _note_refusal(self) -> None:
        """Log it, at most every ten seconds, and remember since when requests are refused."""
        now_s = self._clock.monotonic_s()
        if now_s - self._refused_last_s > _LOG_INTERVAL_S:
            self._refused_since_s = now_s
        self._refused_last_s = now_s
        if now_s >= self._log_next_s:
            self._log_next_s = now_s + _LOG_INTERVAL_S
            self._log.warning(
                "requests are refused because of the memory limit", refused_requests=self.refused_count, **self._state()
            )

    def _collect(self, min_interval_s: float) -> None:
        now = self._clock.monotonic_s()
        if now - self._collected_at_s >= min_interval_s:
            self._collected_at_s = now
            self.collected_count += 1
            gc.collect()
            trim_heap()
            self.rss_bytes = self._rss()

    def _refuse(self, size_bytes: int) -> None:
        self.refused_count += 1
        self._note_refusal()
        if self._is_rss_high:
            message = f"the process uses {self.rss_bytes} bytes of memory; its limit is {self._rss_soft_bytes}"
        else:
            message = (
                f"{size_bytes} bytes in addition to the {self.used_bytes} held would exceed "
                f"the memory budget of {self._soft_bytes} bytes"
            )
        raise RetryableError(message, reason="memory_limit", retry_after_s=_RETRY_AFTER_S)


class _Reservation:
    __slots__ = ("_admission", "_size_bytes")

    def __init__(self, admission: ServiceAdmission, size_bytes: int) -> None:
        self._admission, self._size_bytes = admission, size_bytes

    def __enter__(self) -> None:
        self._admission.charge(self._size_bytes)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.charge(-self._size_bytes)


_process = psutil.Process()


def _own_rss() -> int:
    rss: Any = _process.memory_info().rss
    return int(rss)
