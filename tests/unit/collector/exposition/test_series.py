import numpy as np
import pytest

from collector.exposition import Identity, Page, SeriesTable, TextPage
from collector.exposition.families import Family, family_of, trim_suffixes, ucum_unit
from collector.exposition.write import SUM, Layout
from collector.model import Metrics

SECOND = 1_000_000_000


def table(**keys):
    return SeriesTable(
        lambda name, labels: {**dict(labels), "__name__": name},
        lambda labels: Identity("job", "host:1"),
        lambda identity: {"service.name": identity.job},
        ("scope", "1"),
        **keys,
    )


async def convert(series, text, openmetrics=False, **keys):
    return await series.convert(Page.of(TextPage(text.encode(), openmetrics)), 5_000, **keys)


def points(wire):
    """(metric, value, flags) of each point."""
    batch = Metrics.from_wire(wire)
    rows = batch.table("points").rows["parent"]
    names = batch.field("name", "metrics").to_list()
    flags = batch.field("flags").tolist()
    return sorted(zip([names[row] for row in rows], batch.field("value").tolist(), flags, strict=True))


async def test_a_page_with_the_same_series_uses_the_same_layout():
    """Values and times are new, and no series counts as added."""
    series = table()
    assert (await convert(series, "a 1\nb 2\n")).added_count == 2
    again = await convert(series, "a 3\nb 4 7000\n")
    assert (again.added_count, points(again.wire)) == (0, [("a", 3.0, 0), ("b", 4.0, 0)])
    assert sorted(Metrics.from_wire(again.wire).field("time_unix_nano").tolist()) == [5 * SECOND, 7 * SECOND]


async def test_series_that_disappear_are_marked_once():
    """With the flag NoRecordedValue; one with a timestamp of its own is not followed."""
    series = table()
    await convert(series, "a 1\nb 2\nc 3 1000\n")
    gone = await convert(series, "a 1\n")
    assert [(name, flags) for name, _, flags in points(gone.stale)] == [("b", 1)]
    assert not (await convert(series, "a 1\n")).stale
    assert (await convert(series, "a 1\nb 2\n")).added_count == 1


async def test_series_that_come_back_after_an_empty_page_are_known():
    """As after a scrape that failed: they were marked, and are not new."""
    series = table()
    await convert(series, "a 1\nb 2\n")
    assert len(points((await convert(series, "")).stale)) == 2
    again = await convert(series, "a 1\nb 2\n")
    assert (again.added_count, len(points(again.wire)), again.stale) == (0, 2, b"")


async def test_the_end_marks_everything():
    """All parts of a histogram are one point."""
    series = table()
    await convert(series, '# TYPE h histogram\nh_bucket{le="+Inf"} 1\nh_sum 1\nh_count 1\na 1\n')
    assert [(name, flags) for name, _, flags in points(series.end(9_000))] == [("a", 1), ("h", 1)]


async def test_a_histogram_whose_buckets_decrease_is_dropped():
    """And so is one without a count; both are counted."""
    page = '# TYPE h histogram\nh_bucket{le="1"} 5\nh_bucket{le="2"} 4\nh_count 6\n# TYPE g histogram\ng_sum 1\na 1\n'
    result = await convert(table(), page)
    assert points(result.wire) == [("a", 1.0, 0)]
    assert result.losses == {"incomplete": 1, "invalid": 1, "other_timestamp": 0}


async def test_a_part_with_another_time_is_left_out():
    """A point has one time."""
    page = '# TYPE h histogram\nh_sum 1 100\nh_count 6 100\nh_bucket{le="1"} 5 200\n'
    result = await convert(table(), page)
    assert result.losses["other_timestamp"] == 1
    assert result.point_count == 1


async def test_of_equal_series_the_last_one_counts():
    """As in the Collector."""
    assert points((await convert(table(), "a 1\na{} 2\n")).wire) == [("a", 2.0, 0)]


async def test_changed_metadata_changes_the_type():
    """What was known about the series is worked out again."""
    series = table()
    await convert(series, "# TYPE a gauge\na 1\n")
    batch = Metrics.from_wire((await convert(series, "# TYPE a counter\na 1\n")).wire)
    assert batch.field("monotonic", "metrics").tolist() == [True]


async def test_an_error_leaves_the_table_usable():
    """A page that a limit refuses is as if it had not been."""
    series = table()

    def refuse(count):
        if count > 1:
            raise ValueError(count)

    await convert(series, "a 1\n", limit=refuse)
    with pytest.raises(ValueError, match="2"):
        await convert(series, "a 1\nb 2\n", limit=refuse)
    result = await convert(series, "a 1\n", limit=refuse)
    assert (points(result.wire), result.stale, result.added_count) == ([("a", 1.0, 0)], b"", 0)


async def test_the_table_does_not_grow_with_series_that_come_and_go():
    """Its size depends on the page, not on the past."""
    series = table()
    sizes = []
    for i in range(60):
        await convert(series, "".join(f"m{i}_{j} 1\n" for j in range(200)))
        sizes.append(series.memory_bytes)
    assert max(sizes[30:]) <= max(sizes[:30])


@pytest.mark.parametrize(
    ("name", "metadata", "expected"),
    [
        ("a", {}, Family("a", "a", "unknown", "", "")),
        ("a_total", {"a": {"TYPE": "counter"}}, Family("a_total", "a", "counter", "", "")),
        ("a_created", {"a": {"TYPE": "counter"}}, Family("a_total", "a", "counter", "", "")),
        ("a_bucket", {"a": {"TYPE": "histogram", "HELP": "x"}}, Family("a", "a", "histogram", "x", "")),
        ("a_info", {"a": {"TYPE": "info"}}, Family("a", "a", "info", "", "")),
        ("a_sum", {"a_sum": {"TYPE": "untyped"}}, Family("a_sum", "a_sum", "unknown", "", "")),
    ],
)
def test_the_family_of_a_series(name, metadata, expected):
    """By its own name, or without a suffix."""
    assert family_of(name, metadata) == expected


def test_units_and_suffixes():
    """As the Collector translates them."""
    assert [ucum_unit(text) for text in ("seconds", "bytes_per_second", "", "things")] == ["s", "By/s", "", "things"]
    assert trim_suffixes("a_seconds_total", SUM, "seconds") == "a"


def test_a_layout_checks_what_it_is_given():
    """The kernel must not read beyond its columns."""
    with pytest.raises(ValueError, match="agree"):
        Layout([(b"", b"", 1)], [(5, b"", b"", 1)], [b""], [0, 2], [0], [0], [0.0])
    layout = Layout([(b"", b"", 1)], [(5, b"", b"", 1)], [b""], [0, 1], [3], [0], [0.0])
    with pytest.raises(ValueError, match="expected 4"):
        layout.write(np.zeros(3), np.zeros(3, np.int64), 1)
