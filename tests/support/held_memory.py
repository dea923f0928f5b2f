"""Whether something that is keyed by text from outside stays small, however many texts it meets and however long."""

import gc
import tracemalloc
from collections.abc import Callable

__all__ = ["assert_bounded"]

_MIB = 1024 * 1024


def assert_bounded(
    feed: Callable[[str], object],
    *,
    max_bytes: int = 8 * _MIB,
    long_chars: int = 15_000_000,
    short_texts: int = 20_000,
) -> None:
    """Feed a few distinct long texts, then many of every length up to 1 000, and check what is held afterwards.

    Memory that only Python and numpy allocate is seen, not that of C libraries.
    """
    feed("warm")
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(4):
            feed(f"{number:04}" + "x" * long_chars)
        gc.collect()
        after_long, _ = tracemalloc.get_traced_memory()
        assert after_long - before <= max_bytes, f"{after_long - before} bytes are held after 4 long texts"
        for number in range(short_texts):
            feed(f"{number:08}" + "y" * (number % 1000))
        gc.collect()
        after_short, _ = tracemalloc.get_traced_memory()
        assert after_short - before <= max_bytes, f"{after_short - before} bytes are held after {short_texts} texts"
    finally:
        tracemalloc.stop()
