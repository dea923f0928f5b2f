"""What belongs to the process rather than to the graph: the clock and malloc's settings."""

import asyncio
import ctypes
import time
from collections.abc import Callable

__all__ = ["SystemClock", "raise_malloc_thresholds", "trim_heap"]

# malloc.h. Requests of some hundred kilobytes come and go. With its defaults glibc returns their pages to the system
# and requests them again each time, which costs about 30 % on large messages.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_TRIM_BYTES = 128 * 1024 * 1024
_TOP_PAD_BYTES = 16 * 1024 * 1024
_MMAP_BYTES = 32 * 1024 * 1024  # the largest glibc accepts on 64 bits (DEFAULT_MMAP_THRESHOLD_MAX)


class SystemClock:
    """The real clock: a :class:`collector.api.Clock`."""

    def time_unix_nano(self) -> int:
        """The wall clock."""
        return time.time_ns()

    def monotonic_s(self) -> float:
        """A monotonic clock, for intervals."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        await asyncio.sleep(seconds)


def raise_malloc_thresholds() -> bool:
    """Let glibc keep the memory of large messages. Returns False where there is no glibc (musl, macOS)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    wanted = ((_M_MMAP_THRESHOLD, _MMAP_BYTES), (_M_TRIM_THRESHOLD, _TRIM_BYTES), (_M_TOP_PAD, _TOP_PAD_BYTES))
    taken = [mallopt(option, value) == 1 for option, value in wanted]
    return all(taken)


def trim_heap() -> None:
    """Return free pages inside the heap to the system, which ``raise_malloc_thresholds`` keeps there.

    Blocks of all sizes and ages share the heap, so after a busy time most of it can be free and still not shrink by
    itself. Takes some milliseconds; does nothing without glibc.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def _find_malloc_trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):
        return None
    return found


_malloc_trim = _find_malloc_trim()
