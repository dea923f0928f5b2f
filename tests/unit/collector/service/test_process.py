"""Settings of the whole process."""

import platform

import numpy as np
import psutil
import pytest

from collector.service.process import SystemClock, raise_malloc_thresholds, trim_heap


def test_glibc_takes_all_three_thresholds():
    """Returns True exactly where the C library is glibc."""
    assert raise_malloc_thresholds() is (platform.libc_ver()[0] == "glibc")


async def test_the_clock_goes_forward():
    """Wall clock in nanoseconds, monotonic clock in seconds, and a sleep that takes time."""
    clock = SystemClock()
    before = clock.monotonic_s()
    await clock.sleep(0.001)
    assert clock.monotonic_s() - before >= 0.001
    assert clock.time_unix_nano() > 1_700_000_000_000_000_000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has malloc_trim")
def test_free_pages_inside_the_heap_are_returned():
    """A block that is still in use at the end of the heap keeps them from being returned by free alone."""
    raise_malloc_thresholds()
    blocks = [np.ones(100_000, np.uint8) for _ in range(1000)]
    in_use = blocks[-1]
    blocks.clear()
    before = psutil.Process().memory_info().rss
    trim_heap()
    assert psutil.Process().memory_info().rss < before - 50_000_000
    assert in_use.all()
