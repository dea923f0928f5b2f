"""Entries are put together as one after the other would be, however they are divided into blocks."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from log_operator_rig import block_of, pipeline_of, records_of, run


def reference(lines, *, first, count_max, unmatched_max, size_max):
    """The groups that the Collector's algorithm makes, entry by entry."""
    made, group, matched = [], [], False

    def flush():
        nonlocal group, matched
        if group:
            made.append(joined(group))
        group, matched = [], False

    def joined(texts):
        text = ""
        for part in texts:
            text += ("|" if text else "") + part
        return text

    def add(line, is_match):
        nonlocal matched
        group.append(line)
        matched = matched or is_match
        limit = count_max if matched else min(unmatched_max or count_max, count_max)
        if len(joined(group)) > size_max or len(group) >= limit:
            flush()

    for line in lines:
        is_match = line.startswith("M")
        if is_match and first:
            flush()
        add(line, is_match)
        if is_match and not first:
            flush()
    flush()
    return made


@given(
    st.lists(st.sampled_from(["M", "Mx", "a", "bb", "", "cccc"]), max_size=30),
    st.booleans(),
    st.integers(1, 6),
    st.integers(0, 5),
    st.integers(1, 12),
    st.lists(st.integers(1, 6), max_size=8),
)
def test_groups_are_those_of_the_reference(lines, first, count_max, unmatched_max, size_max, sizes):
    """The texts are the same for any limits and any blocks."""
    key = "is_first_entry" if first else "is_last_entry"
    pipeline = pipeline_of(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                key: 'body startsWith "M"',
                "combine_with": "|",
                "max_batch_size": count_max,
                "max_unmatched_batch_size": unmatched_max,
                "max_log_size": size_max,
            }
        ]
    )
    made, at = [], 0
    for size in [*sizes, len(lines)]:
        made += pipeline.process(block_of(lines[at : at + size]))
        at += size
    made += pipeline.flush()
    bodies = [record["body"] or "" for record in records_of(made)]
    assert bodies == reference(lines, first=first, count_max=count_max, unmatched_max=unmatched_max, size_max=size_max)
    assert (pipeline.held_items(), pipeline.held_bytes()) == (0, 0)


def test_sources_are_kept_apart():
    """Entries of different files are not put together, also if they come in one block."""
    pipeline = pipeline_of([{"type": "recombine", "combine_field": "body", "is_first_entry": 'body startsWith "A"'}])
    sets = [{"log.file.path": "/a"}, {"log.file.path": "/b"}]
    import numpy as np

    block = block_of(
        ["A1", "A2", " x", " y", "A3"], attributes=sets, attribute_codes=np.array([0, 1, 0, 1, 0], np.int32)
    )
    made = [*pipeline.process(block), *pipeline.flush()]
    assert sorted((record["attributes"]["log.file.path"], record["body"]) for record in records_of(made)) == [
        ("/a", "A1\n x"),
        ("/a", "A3"),
        ("/b", "A2\n y"),
    ]


def test_open_groups_are_flushed_when_they_are_old():
    """A group that is not complete is sent after force_flush_period, and not before."""
    pipeline = pipeline_of(
        [{"type": "recombine", "combine_field": "body", "is_last_entry": 'body == "end"', "force_flush_period": "2s"}]
    )
    assert pipeline.next_flush_unix_nano() is None
    assert pipeline.process(block_of(["a", "b"], observed_time_unix_nano=10_000_000_000, token="t")) == []
    assert (pipeline.held_items(), pipeline.held_tokens()) == (2, {"t"})
    assert pipeline.next_flush_unix_nano() == 12_000_000_000
    assert pipeline.flush(11_999_999_999) == []
    (record,) = records_of(pipeline.flush(12_000_000_000))
    assert record["body"] == "a\nb"
    assert (pipeline.held_items(), pipeline.held_tokens()) == (0, frozenset())


@pytest.mark.parametrize(("overwrite_with", "level"), [("oldest", "1"), ("newest", "3")])
def test_other_fields_are_those_of_one_entry(overwrite_with, level):
    """The first or the last entry gives the fields that are not put together."""
    (record,) = run(
        [
            {"type": "regex_parser", "regex": "^(?P<level>.)"},
            {
                "type": "recombine",
                "combine_field": "body",
                "is_last_entry": 'body startsWith "3"',
                "overwrite_with": overwrite_with,
                "combine_with": "",
            },
        ],
        ["1a", "2b", "3c"],
    )
    assert (record["body"], record["attributes"]) == ("1a2b3c", {"level": level})


def test_too_many_sources_flush_all_groups():
    """The number of open groups is limited; when it is reached, all are sent."""
    pipeline = pipeline_of(
        [
            {
                "type": "recombine",
                "combine_field": "body",
                "is_first_entry": 'body startsWith "A"',
                "max_sources": 2,
            }
        ]
    )
    made = []
    for number in range(5):
        made += pipeline.process(block_of([f"A{number}"], attributes=[{"log.file.path": f"/{number}"}]))
    assert pipeline.held_items() <= 2
    made += pipeline.flush()
    assert sorted(record["body"] for record in records_of(made)) == ["A0", "A1", "A2", "A3", "A4"]
