"""Editors of attributes agree with what they do to one map after the other."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import LogsBuilder, Signal
from collector.ottl.draft import Draft
from collector.ottl.map_edits import limited, merged, truncate, with_changed_texts, with_renamed_keys
from collector.ottl.paths import attribute_maps
from collector.ottl.statements import compile_group

KEYS = st.sampled_from(["a", "ab", "b", "k1", "k2"])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-5, 5), st.sampled_from(["", "aé", "text of some length", "1"]),
    st.lists(st.integers(0, 2), max_size=2), st.dictionaries(KEYS, st.integers(0, 3), max_size=2),
)  # fmt: skip
MAPS = st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5)

RENAME = 'replace_all_patterns(attributes, "key", "^a", "x")'
REFERENCES = {
    'delete_key(attributes, "a")': lambda m: {k: v for k, v in m.items() if k != "a"},
    'delete_matching_keys(attributes, "^a")': lambda m: {k: v for k, v in m.items() if not k.startswith("a")},
    'keep_matching_keys(attributes, "^a")': lambda m: {k: v for k, v in m.items() if k.startswith("a")},
    'keep_keys(attributes, ["a", "k1"])': lambda m: {k: v for k, v in m.items() if k in {"a", "k1"}},
    "limit(attributes, 2, [])": lambda m: limited(m, 2, []),
    'limit(attributes, 2, ["b"])': lambda m: limited(m, 2, ["b"]),
    "truncate_all(attributes, 2)": lambda m: with_changed_texts(m, lambda t: truncate(t, 2, utf8_safe=True)),
    'merge_maps(attributes, {"a": 9, "z": "n"}, "upsert")': lambda m: merged(m, {"a": 9, "z": "n"}, "upsert"),
    'merge_maps(attributes, {"a": 9, "z": "n"}, "insert")': lambda m: merged(m, {"a": 9, "z": "n"}, "insert"),
    'merge_maps(attributes, {"a": 9, "z": "n"}, "update")': lambda m: merged(m, {"a": 9, "z": "n"}, "update"),
    'replace_all_patterns(attributes, "value", "t", "T")': lambda m: with_changed_texts(m, lambda t: t.replace("t", "T")),
    RENAME: lambda m: with_renamed_keys(
        m, lambda k: "x" + k[1:] if k.startswith("a") else None
    ),
    'set(attributes["a"], attributes["b"])': lambda m: m if m.get("b") is None else {**m, "a": m["b"]},
    'set(attributes["k1"]["x"], 1) where IsMap(attributes["k1"])': lambda m: (
        {**m, "k1": {**m["k1"], "x": 1}} if isinstance(m.get("k1"), dict) else m
    ),
}  # fmt: skip


def records(maps):
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({"service.name": "shop"}), "example")
    builder.records(scope, times=list(range(len(maps))), bodies=["x"] * len(maps), attributes=maps)
    return builder.build()


def maps_after(batch, *statements):
    """The attributes after the statements, in the index that was carried over and in that of the bytes alone."""
    draft = Draft(batch)
    failed = []
    compile_group(statements, Signal.LOGS, context="log").apply(draft, lambda *given, **_: failed.append(given))
    out = draft.finished()
    again = type(out).from_wire(out.wire)
    values = [attribute_maps(each, "records").objects[1] for each in (out, again)]
    assert values[0] == values[1]
    return values[0]


def without_nil(maps):
    """Builders leave out attributes that are None."""
    return [{key: value for key, value in entries.items() if value is not None} for entries in maps]


@pytest.mark.parametrize("statement", REFERENCES)
@given(maps=MAPS)
def test_agrees_with_the_editor_of_single_maps(statement, maps):
    """The column-wise editor gives what its definition gives for each map."""
    batch = records(without_nil(maps))
    before = attribute_maps(batch, "records").objects[1]
    assert maps_after(batch, statement) == [REFERENCES[statement](entries) for entries in before]


@given(maps=MAPS, chosen=st.lists(st.sampled_from(sorted(REFERENCES)), min_size=2, max_size=5))
def test_statements_see_what_those_before_them_did(maps, chosen):
    """Any sequence of statements gives what the definitions give one after the other."""
    batch = records(without_nil(maps))
    expected = attribute_maps(batch, "records").objects[1]
    for statement in chosen:
        expected = [REFERENCES[statement](entries) for entries in expected]
    assert maps_after(batch, *chosen) == expected


def test_a_batch_on_which_nothing_changes_stays_the_same_object():
    """No bytes are written for statements without effect."""
    batch = records([{"a": 1}, {}])
    draft = Draft(batch)
    compile_group(["truncate_all(attributes, 100)", 'set(attributes["z"], nil)'], Signal.LOGS, context="log").apply(
        draft, lambda *_, **__: None
    )
    assert draft.finished() is batch
    assert np.array_equal(draft.attribute("a").int, [1, 0])
