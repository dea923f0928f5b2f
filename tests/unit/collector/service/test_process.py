"""Settings of the whole process."""

import platform

from collector.service.process import SystemClock, raise_malloc_thresholds


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
