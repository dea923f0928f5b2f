"""Senders that use a new key on every record cannot make statements slow: attributes are then changed row by row."""

import json

import pytest

from collector.model import LogsBuilder, Signal
from collector.ottl.draft import Draft
from collector.ottl.paths import attribute_maps
from collector.ottl.statements import compile_group

ROWS = 2_500


@pytest.fixture
def batch():
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({}), "example")
    builder.records(
        scope,
        times=list(range(ROWS)),
        bodies=[json.dumps({f"new{row}": "value"}) for row in range(ROWS)],
        attributes=[{f"key{row}": "some text", "keep": row} for row in range(ROWS)],
    )
    return builder.build()


def after(batch, statement):
    draft = Draft(batch)
    failed = []
    compile_group([statement], Signal.LOGS, context="log").apply(draft, lambda *given, **_: failed.append(given))
    assert not failed
    return attribute_maps(draft.finished(), "records").objects[1]


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ('delete_matching_keys(attributes, "^key")', lambda row: {"keep": row}),
        ('keep_keys(attributes, ["keep"])', lambda row: {"keep": row}),
        ("truncate_all(attributes, 4)", lambda row: {f"key{row}": "some", "keep": row}),
        (
            'merge_maps(attributes, ParseJSON(body), "upsert")',
            lambda row: {f"key{row}": "some text", "keep": row, f"new{row}": "value"},
        ),
        ('limit(attributes, 1, ["keep"])', lambda row: {"keep": row}),
        ("set(attributes, ParseJSON(body))", lambda row: {f"new{row}": "value"}),
        (
            'set(attributes[Concat([attributes["keep"], "x"], "")], 1)',
            lambda row: {f"key{row}": "some text", "keep": row, f"{row}x": 1},
        ),
        ('replace_all_patterns(attributes, "key", "^key", "k")', lambda row: {f"k{row}": "some text", "keep": row}),
    ],
)
def test_a_key_on_each_row(batch, statement, expected):
    """The result is the same as with few keys."""
    assert after(batch, statement) == [expected(row) for row in range(ROWS)]


def test_a_cache_with_too_many_keys_is_an_error(batch):
    """Columns of a cache have no other form, so a statement fails that would make too many of them."""
    draft = Draft(batch)
    failed = []
    group = compile_group(["set(cache, ParseJSON(body))"], Signal.LOGS, context="log")
    group.apply(draft, lambda statement, count, reason, silent: failed.append(count))
    assert failed == [ROWS]
