"""Streams of exponential histograms convert as a slow implementation in Python does, for any sequence of batches."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics
from collector.model.checkpoint import CheckpointError, decode_checkpoint, encode_checkpoint
from collector.otlp.streams import Streams

DELTA, CUMULATIVE = 1, 2
SIDES = ("positive", "negative")
THRESHOLDS = (0.0, 0.125, 1.0, 3.0)


@st.composite
def points(draw):
    """One histogram."""
    start = draw(st.integers(0, 6))
    side = st.tuples(st.sampled_from([-400, -3, 0, 1, 300]), st.lists(st.sampled_from([0, 1, 2, 200]), max_size=4))
    row = {
        "series": draw(st.sampled_from("xy")),
        "start": start,
        "time": draw(st.integers(start, 12)),
        "no_value": draw(st.integers(0, 9)) == 0,
        "scale": draw(st.integers(-1, 2)),
        "zero_count": draw(st.integers(0, 2)),
        "zero_threshold": draw(st.sampled_from(THRESHOLDS)),
        "sum": draw(st.sampled_from([None, 0.5, 4.0, math.nan])),
        "min": draw(st.sampled_from([None, 0.5])),
        "positive": draw(side),
        "negative": draw(side),
    }
    return row | {"count": row["zero_count"] + sum(row["positive"][1]) + sum(row["negative"][1])}


def request(rows, temporality):
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="a").exponential_histogram
    metric.aggregation_temporality = temporality
    for row in rows:
        point = metric.data_points.add(start_time_unix_nano=row["start"], time_unix_nano=row["time"])
        point.attributes.add(key="series").value.string_value = row["series"]
        point.flags = int(row["no_value"])
        for name in ("scale", "zero_count", "zero_threshold", "count"):
            setattr(point, name, row[name])
        for name in ("sum", "min"):
            if row[name] is not None:
                setattr(point, name, row[name])
        for side in SIDES:
            getattr(point, side).offset = row[side][0]
            getattr(point, side).bucket_counts.extend(row[side][1])
    return Metrics.from_wire(message.SerializeToString())


def shown(batch):
    """The points of a batch in the form of the reference."""
    fresh = Metrics.from_wire(batch.wire)
    assert repr(batch.table().rows.tolist()) == repr(fresh.table().rows.tolist())  # the index was carried over
    found = []
    for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
        data = resource.scope_metrics[0].metrics[0].exponential_histogram
        for point in data.data_points:
            row = {
                "series": point.attributes[0].value.string_value,
                "start": point.start_time_unix_nano,
                "time": point.time_unix_nano,
                "scale": point.scale,
                "count": point.count,
                "zero_count": point.zero_count,
                "zero_threshold": point.zero_threshold,
                "sum": point.sum if point.HasField("sum") else None,
                "min": point.min if point.HasField("min") else None,
                "temporality": data.aggregation_temporality,
            }
            for side in SIDES:
                buckets = getattr(point, side)
                row[side] = {buckets.offset + i: count for i, count in enumerate(buckets.bucket_counts) if count}
            found.append(row)
    return found


def parsed(row):
    """The row with its buckets by index."""
    return row | {side: {row[side][0] + i: n for i, n in enumerate(row[side][1]) if n} for side in SIDES}


def coarser(row, scale):
    """The histogram at a lower scale."""
    changed = row | {"scale": scale}
    for side in SIDES:
        found = Counter()
        for index, count in row[side].items():
            found[index >> row["scale"] - scale] += count
        changed[side] = dict(found)
    return changed


def widened(row, threshold):
    """The histogram with a wider zero bucket."""
    if threshold <= row["zero_threshold"]:
        return row
    width = 2.0 ** -row["scale"]
    first_kept = math.ceil(round(math.log2(threshold) / width, 9))
    changed = row | {"zero_threshold": threshold}
    for side in SIDES:
        if first_kept - 1 in row[side]:
            changed["zero_threshold"] = max(changed["zero_threshold"], 2.0 ** (first_kept * width))
        changed["zero_count"] += sum(count for index, count in row[side].items() if index < first_kept)
        changed[side] = {index: count for index, count in row[side].items() if index >= first_kept}
    return changed


def sent(row, **changes):
    """The row as it is sent on."""
    return {name: value for name, value in row.items() if name not in {"no_value", "known_sum"}} | changes


def difference(row, before):
    """The delta; None after a reset."""
    if row["count"] < before["count"] or row["zero_threshold"] < before["zero_threshold"]:
        return None
    if row["scale"] > before["scale"]:
        return None
    before = widened(coarser(before, row["scale"]), row["zero_threshold"])
    if row["zero_count"] < before["zero_count"]:
        return None
    changes = {"zero_count": row["zero_count"] - before["zero_count"]}
    for side in SIDES:
        if any(row[side].get(index, 0) < count for index, count in before[side].items()):
            return None
        counts = {index: count - before[side].get(index, 0) for index, count in row[side].items()}
        changes[side] = {index: count for index, count in counts.items() if count}
    return changes


def began_again(row, before):
    return row["start"] >= before["time"] and row["start"] != before["start"]


def slow_delta(rows, last, initial, began):
    out, dropped = [], []
    for given_row in rows:
        row, before = parsed(given_row), last.get(given_row["series"])
        if row["no_value"]:
            dropped.append("no_value")
            continue
        known_sum = row["sum"] or 0.0
        if math.isnan(known_sum):
            known_sum = before["known_sum"] if before else 0.0
        if before is None or began_again(row, before):
            if initial == "keep" or (initial == "auto" and row["start"] >= began and row["time"] != row["start"]):
                out.append(sent(row, temporality=DELTA, min=None))
            else:
                dropped.append("initial")
        elif row["time"] < before["time"]:
            dropped.append("out_of_order")
            continue
        elif (changes := difference(row, before)) is None:
            dropped.append("reset")
        else:
            if row["sum"] is not None and not math.isnan(row["sum"]):
                changes["sum"] = row["sum"] - before["known_sum"]
            count = row["count"] - before["count"]
            out.append(sent(row, temporality=DELTA, min=None, start=before["time"], count=count, **changes))
        last[row["series"]] = row | {"known_sum": known_sum}
    return out, dropped


def width(*counts):
    used = [index for part in counts for index in part]
    return max(used) - min(used) + 1 if used else 0


def fitted(one, other):
    """Both at a scale at which their sides together have at most 160 buckets."""
    scale = min(one["scale"], other["scale"])
    while True:
        pair = coarser(one, scale), coarser(other, scale)
        if max(width(pair[0][side], pair[1][side]) for side in SIDES) <= 160:
            return pair
        scale -= 1


def slow_total(rows, totals):
    out, dropped = [], []
    for given_row in rows:
        row, total = parsed(given_row), totals.get(given_row["series"])
        if row["no_value"]:
            dropped.append("no_value")
        elif row["sum"] is not None and math.isnan(row["sum"]):
            dropped.append("not_finite")
        elif total is None:
            totals[row["series"]] = fitted(row, row)[0]
            out.append(sent(row, temporality=CUMULATIVE))
        elif row["start"] < total["start"]:
            dropped.append("older_start")
        elif row["time"] <= total["time"]:
            dropped.append("out_of_order")
        else:
            one, other = fitted(total, row)
            threshold = max(one["zero_threshold"], other["zero_threshold"])
            one, other = widened(one, threshold), widened(other, threshold)
            new = one | {"time": row["time"], "zero_threshold": max(one["zero_threshold"], other["zero_threshold"])}
            for name in ("count", "zero_count"):
                new[name] = one[name] + other[name]
            for name, join in (("sum", sum), ("min", min)):
                pair = (one[name], other[name])
                new[name] = None if None in pair else join(pair)
            for side in SIDES:
                new[side] = dict(Counter(one[side]) + Counter(other[side]))
            totals[row["series"]] = new
            out.append(sent(new, temporality=CUMULATIVE))
    return out, dropped


def ordered(rows):
    return sorted(
        repr(sorted((name, sorted(value.items()) if isinstance(value, dict) else value) for name, value in row.items()))
        for row in rows
    )


def restarted(streams):
    """The streams of the next process."""
    later = Streams(streams.max_streams)
    later.restore(decode_checkpoint(encode_checkpoint("streams", 1, streams.parts()), "streams", 1), 0.0)
    assert len(later) == len(streams)
    return later


BATCHES = st.lists(st.lists(points(), max_size=6), max_size=4)


@given(batches=BATCHES, initial=st.sampled_from(["auto", "keep", "drop"]), grows=st.booleans(), restarts=st.booleans())
def test_deltas_agree_with_the_slow_reference(batches, initial, grows, restarts):
    """Buckets, intervals and the reasons of drops, over any sequence of batches."""
    streams, last = Streams(1000), {}
    for number, rows in enumerate(batches):
        streams = restarted(streams) if restarts else streams
        if grows:  # as real histograms do, so that there is something to subtract
            for row in rows:
                row["start"], row["time"], row["scale"], row["zero_threshold"] = 2, 10 + number, 0, 0.125
                row["positive"] = (0, [(number + 1) * count for count in row["positive"][1]])
                row["count"] = 1000 * (number + 1)
        batch = request(rows, CUMULATIVE)
        everything = np.ones(batch.table("metrics").row_count, np.bool_)
        got = streams.to_delta(batch, everything, initial=initial, began_unix_nano=2, now_s=0)
        expected, dropped = slow_delta(rows, last, initial, 2)
        assert ordered(shown(got.batch)) == ordered(expected)
        assert got.dropped() == {reason: dropped.count(reason) for reason in dropped}


@given(batches=BATCHES, restarts=st.booleans())
def test_totals_agree_with_the_slow_reference(batches, restarts):
    """Buckets, scales, start times and the reasons of drops, over any sequence of batches."""
    streams, totals = Streams(1000), {}
    for rows in batches:
        streams = restarted(streams) if restarts else streams
        got = streams.to_cumulative(request(rows, DELTA), now_s=0)
        expected, dropped = slow_total(rows, totals)
        assert ordered(shown(got.batch)) == ordered(expected)
        assert got.dropped() == {reason: dropped.count(reason) for reason in dropped}


def histogram(series, time, offset, counts):
    row = {"series": series, "start": 1, "time": time, "no_value": False, "scale": 0, "zero_count": 0, "sum": None}
    return row | {"zero_threshold": 0.0, "min": None, "positive": (offset, counts), "negative": (0, []), "count": 1}


def test_memory_does_not_grow_with_streams_that_come_and_go():
    """Buckets of streams that have expired are given back, and what stays keeps its totals."""
    streams = Streams(10_000)
    for round_ in range(1, 100):
        rows = [histogram("kept", 10 + round_, 0, [1] * 100)]
        rows += [histogram(f"{round_}/{number}", 10, 0, [1] * 100) for number in range(20)]
        got = streams.to_cumulative(request(rows, DELTA), now_s=round_)
        assert shown(got.batch)[0]["positive"] == dict.fromkeys(range(100), round_)
        streams.expire(round_)
    assert len(streams) == 21
    assert streams.memory_bytes < 300_000


def test_a_wide_histogram_does_not_take_more_memory():
    """The buckets of 100,000 indices become 160 of a total, and 640 of a cumulative value."""
    streams = Streams(10)
    for time in (10, 11):
        got = streams.to_cumulative(request([histogram("a", time, -50_000, [1] * 100_000)], DELTA), now_s=0)
    (row,) = shown(got.batch)
    assert len(row["positive"]) <= 160
    assert sum(row["positive"].values()) == 200_000
    assert streams.memory_bytes < 300_000


def test_all_streams_count_for_the_limit():
    """Streams of exponential histograms are bounded together with the others."""
    streams = Streams(2)
    rows = [histogram(name, 10, 0, [1]) for name in "xyz"]
    assert streams.to_cumulative(request(rows, DELTA), now_s=0).dropped() == {"limit": 1}
    assert len(streams) == 2


def test_buckets_that_were_not_saved_are_refused():
    """Whatever stands in a checkpoint, a stream cannot refer to memory that is not its own."""
    streams = Streams(10)
    streams.to_cumulative(request([histogram("x", 2, 0, [1, 2])], DELTA), now_s=0)
    prefix = "exponential/table/column "
    for name, value in (
        ("place", -1), ("place", 1), ("place", 2**62), ("capacity", 2**31 - 1), ("capacity", 1), ("scale", 2**62),
        ("length", [2**62, 0]), ("length", [-1, 3]), ("offset", [2**62, 0]),
    ):  # fmt: skip
        parts = streams.parts()
        parts[prefix + name] = np.array([value], parts[prefix + name].dtype)
        later = Streams(10)
        with pytest.raises(CheckpointError, match="buckets"):
            later.restore(parts, 0.0)
        assert len(later) == 0
