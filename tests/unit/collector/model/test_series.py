"""The identity of series, over an index written by hand: what belongs to it and what does not."""

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model.series import series_key
from collector.wire import layout

NUMBERS = {
    bool: layout.KIND_BOOL,
    int: layout.KIND_INT,
    float: layout.KIND_DOUBLE,
    str: layout.KIND_STRING,
    bytes: layout.KIND_BYTES,
}


@dataclass
class Rows:
    rows: np.ndarray


@dataclass
class Point:
    """Everything that makes up a point's identity; each point gets a resource, scope and metric of its own."""

    attributes: list = field(default_factory=list)
    name: str | None = "requests"
    unit: str | None = "s"
    type: int = layout.METRIC_SUM
    temporality: int = 2
    monotonic: int = 1
    scope_name: str | None = "lib"
    scope_version: str | None = "1"
    scope_attributes: list = field(default_factory=list)
    resource_attributes: list = field(default_factory=list)


class Index:
    """The part of a Metrics batch that ``series_key`` reads."""

    def __init__(self, points):
        self.buffer = bytearray(b"\xff")
        count = len(points)
        self.tables = {
            "resources": np.zeros(count, layout.RESOURCE),
            "scopes": np.zeros(count, layout.SCOPE),
            "metrics": np.zeros(count, layout.METRIC),
            "points": np.zeros(count, layout.POINT),
        }
        for name, rows in self.tables.items():
            rows["parent"] = -1 if name == "resources" else np.arange(count)
        self.sets = {name: [] for name in self.tables}
        self.keys = {}
        for row, point in enumerate(points):
            for name, column in (("scopes", "name"), ("scopes", "version"), ("metrics", "name"), ("metrics", "unit")):
                text = getattr(point, f"scope_{column}" if name == "scopes" else column)
                self.tables[name][row][column], self.tables[name][row][f"{column}_len"] = self.put(text)
            for column in ("type", "temporality", "monotonic"):
                self.tables["metrics"][row][column] = getattr(point, column)
            for name, pairs in (
                ("resources", point.resource_attributes),
                ("scopes", point.scope_attributes),
                ("points", point.attributes),
            ):
                self.sets[name] += [self.attribute(row, key, value) for key, value in pairs]
        self.wire = bytes(self.buffer)

    def put(self, text):
        if text is None:
            return -1, 0
        self.buffer += (encoded := text.encode() if isinstance(text, str) else text)
        return len(self.buffer) - len(encoded), len(encoded)

    def attribute(self, owner, key, value):
        row = np.zeros((), layout.ATTRIBUTE)
        row["owner"], row["kind"] = owner, NUMBERS.get(type(value), layout.KIND_EMPTY)
        row["key"], row["key_len"] = self.put(key)
        row["key_code"] = self.keys.setdefault(key, len(self.keys))
        row["value"] = -1
        if isinstance(value, (str, bytes)):
            row["value"], row["value_len"] = self.put(value)
        elif isinstance(value, float):
            row["double_value"] = value
        elif value is not None:
            row["int_value"] = value
        return row

    def table(self, name):
        return Rows(self.tables[name])

    def attributes(self, name):
        return Rows(np.array(self.sets[name], layout.ATTRIBUTE))


def same(*points):
    """Whether all points belong to one series."""
    return len({tuple(row) for row in series_key(Index(points)).tolist()}) == 1


values = st.one_of(
    st.text(max_size=5), st.integers(-5, 5), st.floats(allow_nan=False), st.booleans(), st.binary(max_size=3)
)
sets = st.dictionaries(st.text(max_size=4), values, max_size=6)


@given(sets, st.randoms(use_true_random=False))
def test_the_order_of_attributes_does_not_matter(attributes, random):
    pairs = list(attributes.items())
    shuffled = random.sample(pairs, len(pairs))
    assert same(
        Point(pairs, resource_attributes=pairs, scope_attributes=pairs),
        Point(shuffled, resource_attributes=shuffled, scope_attributes=shuffled),
    )


def canonical(attributes):
    return {(key, type(value), str(value)) for key, value in attributes.items()}


@given(sets, sets)
def test_different_sets_are_different_series(left, right):
    assert same(Point(list(left.items())), Point(list(right.items()))) == (canonical(left) == canonical(right))


@pytest.mark.parametrize(("left", "right"), [(1, "1"), (True, 1), (1, 1.0), ("a", b"a"), ("", None)])
def test_values_of_different_kinds_are_different_series(left, right):
    assert not same(Point([("k", left)]), Point([("k", right)]))


@pytest.mark.parametrize("table", ["attributes", "scope_attributes", "resource_attributes"])
def test_of_a_key_that_stands_twice_the_last_counts(table):
    twice, once, other = ([("k", "1"), ("j", 2), ("k", "2")], [("k", "2"), ("j", 2)], [("k", "1"), ("j", 2)])
    assert same(Point(**{table: twice}), Point(**{table: once}))
    assert not same(Point(**{table: twice}), Point(**{table: other}))


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"unit": "ms"},
        {"type": layout.METRIC_GAUGE},
        {"temporality": 1},
        {"monotonic": 0},
        {"scope_name": "other"},
        {"scope_version": "2"},
        {"scope_attributes": [("a", 1)]},
        {"resource_attributes": [("a", 1)]},
        {"attributes": [("a", 1)]},
        {"name": "s", "unit": "requests"},
    ],
)
def test_every_part_belongs_to_the_identity(change):
    assert not same(Point(), Point(**change))


def test_an_attribute_on_another_level_is_another_series():
    one = [("a", 1)]
    assert not same(Point(attributes=one), Point(scope_attributes=one))
    assert not same(Point(scope_attributes=one), Point(resource_attributes=one))


def test_an_unset_text_equals_an_empty_one():
    assert same(Point(unit=None, scope_name=None, scope_version=None), Point(unit="", scope_name="", scope_version=""))


def test_a_key_of_the_cluster_gives_the_same_identity_everywhere():
    index = Index([Point([("a", 1)])])
    assert np.array_equal(series_key(index, b"k" * 16), series_key(Index([Point([("a", 1)])]), b"k" * 16))
    assert not np.array_equal(series_key(index, b"k" * 16), series_key(index))


def test_a_batch_without_points_has_no_keys():
    assert series_key(Index([])).shape == (0, 2)
