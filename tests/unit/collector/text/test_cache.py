"""The cache of texts: what it returns, and that its size is bounded per entry and in all."""

from held_memory import assert_bounded

from collector.text.cache import TextCache


def test_values_are_found_again():
    cache = TextCache[int]()
    cache.put("a", 1)
    cache.put("a", 2)
    assert (cache.get("a", 0), cache.get("b", 0), len(cache)) == (1, 0, 1)


def test_an_entry_that_is_too_large_is_not_kept():
    cache = TextCache[str](max_entry_bytes=1000)
    cache.put("x" * 1000, "")
    cache.put("short", "y" * 1000)
    assert len(cache) == cache.memory_bytes == 0


def test_a_full_cache_is_emptied():
    cache = TextCache[int](max_bytes=10_000)
    for number in range(1000):
        cache.put(f"{number:04}", number)
        assert cache.get(f"{number:04}", -1) == number
        assert 0 < cache.memory_bytes <= 10_000


def test_memory_is_bounded():
    cache = TextCache[int]()
    assert_bounded(lambda text: cache.put(text, 1), max_bytes=5 * 1024 * 1024)
