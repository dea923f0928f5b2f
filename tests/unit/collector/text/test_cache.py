"""The cache of texts: what it returns, and that its size is bounded per entry and in all."""

import gc

from held_memory import assert_bounded

from collector.text.cache import TextCache, cached_by_text, cached_text_bytes


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


def test_a_full_cache_forgets_what_is_not_used():
    cache = TextCache[int](max_bytes=10_000)
    cache.put("used", -1)
    for number in range(1000):
        cache.put(f"{number:04}", number)
        assert cache.get(f"{number:04}", -1) == number
        assert cache.get("used", 0) == -1, "texts in use stay"
        assert 0 < cache.memory_bytes <= 10_000
    assert cache.get("0000", -1) == -1


def test_tuples_count_with_their_members():
    cache = TextCache[tuple[str, ...]](max_entry_bytes=1000)
    cache.put(("a", ("x" * 1000, None)), ())
    cache.put("b", ("y" * 1000,))
    cache.put(("c", b"c"), ("z",))
    assert (cache.get(("c", b"c"), ()), len(cache)) == (("z",), 1)


def test_a_cleared_cache_is_empty():
    cache = TextCache[int](max_bytes=10_000)
    for number in range(100):
        cache.put(f"{number:04}", number)
    cache.clear()
    assert (len(cache), cache.memory_bytes, cache.get("0099", -1)) == (0, 0, -1)


def test_results_are_cached_also_if_they_are_none():
    calls = []
    cached = cached_by_text(lambda text: calls.append(text), max_entry_bytes=1000)
    for text in ("a", "a", "x" * 1000, "x" * 1000):
        assert cached(text) is None
    assert calls == ["a", "x" * 1000, "x" * 1000]


def test_all_caches_of_the_process_are_counted():
    gc.collect()
    before = cached_text_bytes()
    cache = TextCache[int]()
    cache.put("a", 1)
    assert cached_text_bytes() == before + cache.memory_bytes > before
    del cache
    gc.collect()
    assert cached_text_bytes() == before


def test_memory_is_bounded():
    cache = TextCache[int]()
    assert_bounded(lambda text: cache.put(text, 1), max_bytes=5 * 1024 * 1024)
    function = cached_by_text(len)
    assert_bounded(function, max_bytes=5 * 1024 * 1024)
