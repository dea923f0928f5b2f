"""The compiled arithmetic, compared with slow Python over hostile histories; and arguments outside their arrays.

The reference applies the rules of docs/reference/cardinality.md as they are written, one point after the other.
"""

import math
from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import METRIC_HISTOGRAM, METRIC_SUM, Metrics, combine_keys
from collector.wire.layout import ATTRIBUTE, METRIC, POINT
from processors.cardinality._histograms import add_histograms, bounds_of, wrong_buckets
from processors.cardinality._updates import add_numbers, add_totals, any_empty, take_updates
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.fold import Fold
from processors.cardinality.records import ACCUMULATOR, ADDS, DROP_REASONS, SOURCE, UPDATE

COUNT_MAX = 2**48
INF = math.inf


@dataclass
class Point:
    """A point as a source sends it."""

    source: int
    kind: str  # "sum" | "gauge" | "histogram"
    start: int
    time: int
    value: float = 0  # int or float
    bounds: tuple[float, ...] | None = None
    buckets: tuple[int, ...] = ()
    count: int = 0
    sum: float | None = None

    @property
    def binned(self):
        """Upper bound → count; of a histogram whose buckets do not add up to its count, only the count is used."""
        fits = self.bounds is not None and len(self.buckets) == len(self.bounds) + 1 and sum(self.buckets) == self.count
        return (
            (self.bounds, Counter(dict(zip((*self.bounds, INF), self.buckets, strict=True))))
            if fits
            else (None, Counter({INF: self.count}))
        )


@dataclass
class Source:
    """What is known of a source."""

    last: Point | None = None
    target: int = -1
    freed: bool = False
    start: int = 0
    restarted: bool = False


@dataclass
class Accumulator:
    """A series that is written."""

    ints: int = 0
    doubles: float = 0.0
    is_double: bool = False
    count: int = 0
    sum: float = 0.0
    lacks_sum: bool = False
    bounds: object = "unset"
    buckets: Counter = field(default_factory=Counter)


def moved(bounds, buckets, into):
    """Bucket counts at the bounds ``into``: each goes up to the next bound that both have."""
    found = Counter()
    shared = sorted(set(bounds or ()) & set(into or ()))
    for upper, count in buckets.items():
        found[next((bound for bound in shared if bound >= upper), INF)] += count
    return found


class Reference:
    """Sources and accumulators, by number."""

    def __init__(self, full_from, delta, monotonic):
        self.full_from, self.delta, self.monotonic = full_from, delta, monotonic
        self.sources = {}
        self.restarting = set()
        self.accumulators = {}

    def add(self, points, targets, own_name):
        """Add a batch; targets and own_name by source. Returns why each point was dropped, "" if it was not."""
        reasons = [self.unusable(point) for point in points]
        usable = [i for i, reason in enumerate(reasons) if not reason]
        keys = {i: (points[i].source, 0) for i in usable}
        into, unsure = dict(enumerate(targets)), set()
        if not self.delta:
            for number in {points[i].source for i in usable}:
                self.separate(number, points, [i for i in usable if points[i].source == number], keys, into, unsure)
        order = sorted(usable, key=lambda i: (keys[i], points[i].time))
        for k, i in enumerate(order):
            point = points[i]
            source = self.sources.get(keys[i], Source())
            later = order[k + 1] if k + 1 < len(order) else None
            if (later is not None and (keys[later], points[later].time) == (keys[i], point.time)) or (
                source.last is not None and point.time <= source.last.time
            ):
                reasons[i] = "out_of_order"
            else:
                self.take(keys[i], point, source, into[point.source], own_name[point.source], keys[i] in unsure)
        return reasons

    def separate(self, number, points, rows, keys, into, unsure):
        """Rule 13: points of other processes with the identity of the source belong to sources of their own."""
        first = self.sources.get((number, 0))
        known = next((points[i].start for i in rows if points[i].start), 0) if first is None else first.start
        if not known or points[rows[0]].kind == "gauge":
            return
        others = [i for i in rows if points[i].start not in {0, known}]
        newest = max([points[i].time for i in rows if i not in others] + ([first.last.time] if first else []))
        restart = min((points[i].start for i in others if points[i].start >= newest), default=None)
        for i in others:
            if points[i].start == restart:
                continue
            keys[i] = (number, points[i].start)
            if first is not None and first.restarted and points[i].start < known and keys[i] not in self.sources:
                unsure.add(keys[i])
        if first is not None:
            into[number] = first.target if first.target >= 0 else into[number]
            first.restarted |= restart is not None
        elif restart is not None:
            self.restarting.add(number)

    @staticmethod
    def unusable(point):
        if point.kind == "histogram":
            return "out_of_range" if point.count > COUNT_MAX else ""
        return "not_finite" if point.kind == "sum" and not math.isfinite(point.value) else ""

    def take(self, key, point, source, target, own_name, unsure):
        before, self.sources[key] = source.last, source
        started, source.start = source.start, point.start or source.start
        source.restarted |= key[1] == 0 and key[0] in self.restarting
        enters = source.target < 0
        source.target = source.target if source.target >= 0 else target
        source.last = point
        overwrites = before is not None and enters and own_name and not source.freed and not self.delta
        source.freed = False
        if (
            source.target < 0
            or point.kind == "gauge"
            or (point.kind == "sum" and not self.monotonic and not self.delta)
        ):
            return
        into = self.accumulators.setdefault(source.target, Accumulator())
        if point.kind == "histogram" and into.bounds == "unset":
            into.bounds = point.binned[0]
        if before is None and not self.delta and (point.start < self.full_from or unsure):
            return
        restarted = before is not None and point.start != started and point.start >= before.time
        whole = self.delta or before is None or overwrites or restarted
        if point.kind == "sum":
            self.gain_number(into, point, before, whole)
        else:
            self.gain_histogram(into, point, before, whole)

    @staticmethod
    def gain_number(into, point, before, whole):
        was = before.value if before is not None else 0
        into.is_double |= isinstance(point.value, float) or (isinstance(was, float) and was != 0)
        base = 0 if whole or point.value < was else was
        for value, sign in ((point.value, 1), (base, -1)):
            if isinstance(value, int):
                into.ints += sign * value
            else:
                into.doubles += sign * value

    @staticmethod
    def gain_histogram(into, point, before, whole):
        bounds, buckets = point.binned
        now = moved(bounds, buckets, into.bounds)
        gained, count, total = now, point.count, point.sum or 0.0
        if not whole and point.count >= before.count:
            was_bounds, was_buckets = before.binned
            was = moved(was_bounds, was_buckets, into.bounds)
            fell = into.bounds is not None and any(now[bound] < was[bound] for bound in (*into.bounds, INF))
            if not fell or bounds != was_bounds:
                count, total = point.count - before.count, total - (before.sum or 0.0)
                gained = (
                    Counter({INF: count}) if fell else Counter({bound: now[bound] - was[bound] for bound in now | was})
                )
        into.count += count
        into.sum += total
        into.lacks_sum |= point.sum is None
        into.buckets.update(gained)


START = 5
SOURCES, TARGETS = 3, 2
BOUNDS = ((1.0, 2.0), (1.0, 2.0, 4.0), (0.5,), (), None)

NUMBERS = st.one_of(
    st.integers(0, 40),
    st.integers(0, 40).map(lambda n: n / 8),
    st.sampled_from([math.nan, math.inf, -5, 2**40, -1 / 8]),
)
TIMES = st.integers(1, 12)
STARTS = st.sampled_from([0, START - 1, START, START, START, START + 1, 9, 14, 22])


@st.composite
def numbers(draw, kind="sum"):
    return Point(draw(st.integers(0, SOURCES - 1)), kind, draw(STARTS), draw(TIMES), draw(NUMBERS))


@st.composite
def histograms(draw):
    bounds = draw(st.sampled_from(BOUNDS))
    buckets = (
        tuple(draw(st.lists(st.integers(0, 6), min_size=len(bounds) + 1, max_size=len(bounds) + 1)))
        if bounds is not None
        else ()
    )
    count = sum(buckets) if bounds is not None else draw(st.integers(0, 20))
    count = draw(st.sampled_from([count, count, count, count, count + 1, COUNT_MAX + 1]))
    return Point(
        draw(st.integers(0, SOURCES - 1)),
        "histogram",
        draw(STARTS),
        draw(TIMES),
        bounds=bounds,
        buckets=buckets,
        count=count,
        sum=draw(st.one_of(st.none(), st.integers(0, 80).map(lambda n: n / 8))),
    )


def wire_of(points, delta, monotonic):
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
    data = getattr(metric, points[0].kind)
    if points[0].kind != "gauge":
        data.aggregation_temporality = 1 if delta else 2
    if points[0].kind == "sum":
        data.is_monotonic = monotonic
    for point in points:
        sent = data.data_points.add(start_time_unix_nano=point.start, time_unix_nano=point.time)
        if point.kind != "histogram":
            if isinstance(point.value, int):
                sent.as_int = point.value
            else:
                sent.as_double = point.value
            continue
        sent.count = point.count
        sent.explicit_bounds.extend(point.bounds or ())
        sent.bucket_counts.extend(point.buckets)
        if point.sum is not None:
            sent.sum = point.sum
    return made.SerializeToString()


def fold_of(kind, count):
    fold = Fold(
        start_time_unix_nano=START,
        initial="auto",
        state_max_bytes=2**26,
        exemplars=ExemplarPool(0, frozenset()),
    )
    slots, _ = fold.accumulators.insert(np.array([[i, 1] for i in range(count)], np.uint64))
    for slot in slots.tolist():
        fold.new_accumulator(slot, kind=kind, fold=ADDS, now_unix_nano=START)
    return fold


def folded(fold, batch):
    """Adds a batch of the history to the compiled fold; returns why each point was dropped."""
    points, targets, own_name, delta, monotonic = batch
    keys = np.array([[point.source, 7] for point in points], np.uint64)
    reasons, _ = fold.add(
        Metrics.from_wire(wire_of(points, delta, monotonic)),
        np.arange(len(points)),
        keys,
        fold.sources.find(keys),
        np.array([targets[point.source] for point in points], np.int32),
        np.array([own_name[point.source] for point in points]),
        START,
        1.0,
    )
    return [DROP_REASONS[reason] for reason in reasons.tolist()]


def histories(points):
    batch = st.tuples(
        st.lists(points, min_size=1, max_size=8),
        st.lists(st.integers(-1, TARGETS - 1), min_size=SOURCES, max_size=SOURCES),
        st.lists(st.booleans(), min_size=SOURCES, max_size=SOURCES),
    )
    return st.lists(batch, min_size=1, max_size=5)


def later(points, number):
    """Moves the times of a batch after those of the one before, with some overlap."""
    for point in points:
        point.time += 8 * number
    return points


@pytest.mark.parametrize("kind", ["sum", "gauge"])
@given(history=histories(numbers()), delta=st.booleans(), monotonic=st.booleans())
@settings(max_examples=150, deadline=None)
def test_numbers_are_those_of_the_reference(kind, history, delta, monotonic):
    """Sums and last values: ints and doubles, repeated, late, restarted, falling, and not finite."""
    fold, reference = fold_of(METRIC_SUM, TARGETS), Reference(START, delta and kind == "sum", monotonic)
    for number, (points, targets, own_name) in enumerate(history):
        for point in later(points, number):
            point.kind = kind
        assert folded(fold, (points, targets, own_name, delta, monotonic)) == reference.add(points, targets, own_name)
    column = fold.accumulators.column
    for slot in range(TARGETS):
        expected = reference.accumulators.get(slot)
        got = int(column("int")[slot]), float(column("double")[slot]), bool(column("is_double")[slot])
        assert got == ((expected.ints, expected.doubles, expected.is_double) if expected else (0, 0.0, False))
    for (number, start), source in reference.sources.items():
        key = np.array([[number, 7]], np.uint64)
        slot = fold.sources.find(combine_keys(key, np.array([start], np.uint64)) if start else key)[0]
        bits = fold.sources.column("value")[slot]
        value = bits.view(np.float64) if fold.sources.column("is_double")[slot] else bits
        assert np.array_equal(value, source.last.value, equal_nan=True)
        assert fold.sources.column("accumulator")[slot] == source.target
    assert len(fold.sources) == len(reference.sources)


@given(
    history=histories(histograms()),
    delta=st.booleans(),
    opening=st.lists(histograms(), min_size=TARGETS, max_size=TARGETS),
)
@settings(max_examples=150, deadline=None)
def test_histograms_are_those_of_the_reference(history, delta, opening):
    """Bounds that differ, change and contradict their counts; sums that are missing; counts out of range."""
    fold, reference = fold_of(METRIC_HISTOGRAM, TARGETS), Reference(START, delta, monotonic=True)
    for source, point in enumerate(opening):  # each accumulator keeps the bounds of its first point
        point.source = source
        if point.count > COUNT_MAX:
            point.count = sum(point.buckets)
    for number, (points, targets, own_name) in enumerate(
        [(opening, [*range(TARGETS), -1], [False] * SOURCES), *history]
    ):
        assert folded(fold, (later(points, number), targets, own_name, delta, True)) == reference.add(
            points, targets, own_name
        )
    column = fold.accumulators.column
    for slot, expected in reference.accumulators.items():
        assert int(column("count")[slot]) == expected.count
        assert float(column("sum")[slot]) == expected.sum
        assert bool(column("lacks_sum")[slot]) == expected.lacks_sum
        set_, row = int(column("set")[slot]), int(column("row")[slot])
        counts = fold.histograms.accumulator_pools[set_]["counts"][row].tolist()
        bounds = tuple(fold.histograms.bounds[set_].tolist())
        assert (bounds if counts else None) == expected.bounds
        assert counts == [expected.buckets[bound] for bound in (*bounds, INF)][: len(counts)]
    assert len(fold.sources) == len(reference.sources)


def test_an_int_that_leaves_62_bits_continues_as_a_double():
    """It is counted, and never wraps."""
    fold = fold_of(METRIC_SUM, 1)
    for time in range(1, 6):
        points = [Point(time, "sum", START, time, 2**61)]
        keys = np.array([[time, 7]], np.uint64)
        _, inexact = fold.add(
            Metrics.from_wire(wire_of(points, False, True)),
            np.arange(1),
            keys,
            fold.sources.find(keys),
            np.zeros(1, np.int32),
            np.zeros(1, bool),
            START,
            1.0,
        )
        assert inexact["integer_overflow"] == (1 if time in {2, 4} else 0)
    column = fold.accumulators.column
    assert column("double")[0] + column("int")[0] == 5 * 2.0**61
    assert column("is_double")[0] == 1


def arguments(**changed):
    """Valid arguments of ``take_updates``: one point of a sum."""
    points, metrics = np.zeros(1, POINT), np.zeros(1, METRIC)
    metrics["type"] = METRIC_SUM
    given = {
        "points": points,
        "metrics": metrics,
        "rows": np.zeros(1, np.intp),
        "slots": np.zeros(1, np.int32),
        "targets": np.zeros(1, np.int32),
        "own_name": np.zeros(1, np.uint8),
        "sources": np.zeros(1, SOURCE),
        "accumulators": np.zeros(1, ACCUMULATOR),
        "reasons": np.zeros(1, np.uint8),
    }
    return {**given, **changed}


def parented(number):
    points = np.zeros(1, POINT)
    points["parent"] = number
    return points


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": np.array([1])},
        {"rows": np.array([-1])},
        {"slots": np.array([1], np.int32)},
        {"targets": np.array([1], np.int32)},
        {"targets": np.array([-2], np.int32)},
        {"points": parented(1)},
        {"points": parented(-1)},
        {"own_name": np.zeros(2, np.uint8)},
        {"reasons": np.zeros(0, np.uint8)},
        {"sources": np.zeros(1, ACCUMULATOR)},
        {"points": np.zeros(4, POINT)[::2]},
        {"ended": np.zeros(2, np.uint64)},
    ],
)
def test_points_outside_their_arrays_are_refused(changed):
    """Every row, slot and record is checked."""
    options = {"full_from": 0, "began": 0, "never_full": False, "ended": changed.pop("ended", None)}
    options |= {"believed_until": 0, "now_s": 1.0}
    with pytest.raises(ValueError, match=r"outside|differ|contiguous"):
        take_updates(*arguments(**changed).values(), **options)


def update(**fields):
    made = np.zeros(1, UPDATE)
    for name, value in fields.items():
        made[name] = value
    return made


@pytest.mark.parametrize(
    "wrong",
    [
        update(point=1),
        update(point=-1),
        update(source=1),
        update(source=-1),
        update(accumulator=1),
        update(accumulator=-2),
    ],
)
def test_arithmetic_outside_its_arrays_is_refused(wrong):
    """Every update is checked as well."""
    points, metrics, sources, accumulators = (
        np.zeros(1, POINT),
        np.zeros(1, METRIC),
        np.zeros(1, SOURCE),
        np.zeros(1, ACCUMULATOR),
    )
    wrong["kind"] = METRIC_SUM
    with pytest.raises(ValueError, match="outside"):
        add_numbers(points, metrics, wrong, sources, accumulators)
    with pytest.raises(ValueError, match="outside"):
        add_histograms(b"", points, wrong, *(np.zeros(1, np.int32),) * 2, [], [], None, sources, accumulators)
    if wrong["source"][0] == 0:
        with pytest.raises(ValueError, match="outside"):
            add_totals(points, wrong, accumulators, np.zeros(1, np.uint64), np.zeros(1), np.zeros(1, np.uint8))


def histogram_arguments(**changed):
    """Valid arguments of ``add_histograms``: one cumulative histogram with one bucket."""
    points, sources, accumulators = np.zeros(1, POINT), np.zeros(1, SOURCE), np.zeros(1, ACCUMULATOR)
    sources["value"] = changed.pop("value", -1)
    for name in ("buckets",):
        points[name] = changed.pop(name, 0)
    for name in ("set", "row"):
        accumulators[name] = changed.pop(name, 0)
    given = {
        "wire": bytes(8),
        "points": points,
        "updates": update(is_first=True, is_last=True, is_cumulative=True, is_new=True, counts_in_full=True),
        "sets": np.zeros(1, np.int32),
        "rows": np.zeros(1, np.int32),
        "source_rows": [{"cells": np.zeros((1, 3), np.uint64)}],
        "accumulator_rows": [{"counts": np.zeros((1, 1), np.uint64)}],
        "shared": lambda of, into: (np.zeros(1, np.int32), True),
        "sources": sources,
        "accumulators": accumulators,
    }
    return [*{**given, **changed}.values()]


@pytest.mark.parametrize(
    "changed",
    [
        {"buckets": 1},
        {"buckets": -1},
        {"set": 1},
        {"set": -1},
        {"row": 1},
        {"row": -1},
        {"sets": np.array([1], np.int32)},
        {"rows": np.array([1], np.int32)},
        {"rows": np.array([-1], np.int32)},
        {"value": 1},
        {"value": 1 << 32},
        {"source_rows": [{"cells": np.zeros((1, 3))}]},
        {"accumulator_rows": []},
        {
            "set": 1,
            "source_rows": [{"cells": np.zeros((1, 3), np.uint64)}] * 2,
            "accumulator_rows": [{"counts": np.zeros((1, 1), np.uint64)}] * 2,
            "shared": lambda of, into: (np.ones(1, np.int32), True),
        },
    ],
)
def test_histograms_outside_their_stores_are_refused(changed):
    """Offsets, sets, rows of buckets, and the places of buckets."""
    assert add_histograms(*histogram_arguments()) == 0
    with pytest.raises(ValueError, match=r"outside|no such set|cells must|differ"):
        add_histograms(*histogram_arguments(**changed))


def test_buckets_outside_the_request_are_refused():
    """The kernel raises an error instead of reading them."""
    with pytest.raises(ValueError, match="outside the request"):
        wrong_buckets(bytes(15), np.zeros(1, POINT), update(), np.array([2], np.int32))
    with pytest.raises(ValueError, match="outside its array"):
        bounds_of(np.zeros(1, POINT), update(point=1))
    with pytest.raises(ValueError, match="differ"):
        wrong_buckets(b"", np.zeros(1, POINT), update(), np.zeros(2, np.int32))


@pytest.mark.parametrize(
    ("kind", "length", "is_empty"), [(0, 0, True), (1, 0, True), (1, 1, False), (3, 0, False), (5, 0, False)]
)
def test_an_attribute_without_a_value_is_found(kind, length, is_empty):
    """An absent value or an empty text; an int has no length, and an empty array is a value."""
    rows = np.zeros(3, ATTRIBUTE)
    rows["kind"], rows["value_len"] = 1, 4
    assert not any_empty(rows)
    rows["kind"][1], rows["value_len"][1] = kind, length
    assert any_empty(rows) == is_empty
