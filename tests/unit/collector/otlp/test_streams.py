"""Streams convert between temporalities as a slow implementation in Python does, for any sequence of batches."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics
from collector.model.checkpoint import CheckpointError, decode_checkpoint, encode_checkpoint
from collector.otlp.streams import Streams

DELTA, CUMULATIVE = 1, 2
BOUNDS = ([], [1.0], [1.0, 2.0], [1.0, 3.0])


@st.composite
def points(draw):
    """(metric, series, is histogram, value kind or bounds, start, time, value …) of one point."""
    start = draw(st.integers(0, 3))
    base = {
        "name": draw(st.sampled_from("ab")),
        "series": draw(st.sampled_from("xy")),
        "start": start,
        "time": draw(st.integers(start, 12)),
        "no_value": draw(st.integers(0, 9)) == 0,
    }
    if draw(st.booleans()):
        bounds = draw(st.sampled_from(BOUNDS))
        counts = draw(st.lists(st.integers(0, 3), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
        sum_ = draw(st.sampled_from([None, 0.0, 1.5, 4.0, math.nan]))
        low = draw(st.sampled_from([None, 0.5]))
        return base | {"bounds": bounds, "counts": counts, "sum": sum_, "min": low, "count": sum(counts)}
    value = draw(st.one_of(st.integers(-5, 20), st.sampled_from([0.0, 0.5, 2.5, 7.0, math.nan])))
    return base | {"value": value}


def request(rows, temporality):
    message = ExportMetricsServiceRequest()
    scope = message.resource_metrics.add().scope_metrics.add()
    for row in rows:
        metric = scope.metrics.add(name=row["name"])
        data = metric.histogram if "bounds" in row else metric.sum
        data.aggregation_temporality = temporality
        if "bounds" not in row:
            metric.sum.is_monotonic = True
        point = data.data_points.add(start_time_unix_nano=row["start"], time_unix_nano=row["time"])
        point.attributes.add(key="series").value.string_value = row["series"]
        point.flags = int(row["no_value"])
        if "bounds" in row:
            point.explicit_bounds.extend(row["bounds"])
            point.bucket_counts.extend(row["counts"])
            point.count = row["count"]
            for name in ("sum", "min"):
                if row[name] is not None:
                    setattr(point, name, row[name])
        elif isinstance(row["value"], int):
            point.as_int = row["value"]
        else:
            point.as_double = row["value"]
    return Metrics.from_wire(message.SerializeToString())


def shown(batch):
    """The points of a batch in the form of the reference."""
    fresh = Metrics.from_wire(batch.wire)
    assert repr(batch.table().rows.tolist()) == repr(fresh.table().rows.tolist())  # the index was carried over
    found = []
    for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
        for metric in resource.scope_metrics[0].metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                row = {
                    "name": metric.name,
                    "series": point.attributes[0].value.string_value,
                    "start": point.start_time_unix_nano,
                    "time": point.time_unix_nano,
                    "temporality": data.aggregation_temporality,
                }
                if metric.HasField("histogram"):
                    row |= {"bounds": list(point.explicit_bounds), "counts": list(point.bucket_counts)}
                    row |= {"count": point.count, "max": point.max if point.HasField("max") else None}
                    row |= {name: getattr(point, name) if point.HasField(name) else None for name in ("sum", "min")}
                else:
                    row["value"] = getattr(point, point.WhichOneof("value"))
                found.append(row)
    return found


def key_of(row):
    kind = "histogram" if "bounds" in row else type(row["value"]).__name__
    return row["name"], row["series"], kind


def shape(row, **changes):
    """The row as it is sent on."""
    kept = {name: value for name, value in row.items() if name != "no_value"}
    if "bounds" in row:
        kept["max"] = None
    return kept | changes


def began_again(row, before):
    return row["start"] >= before["time"] and row["start"] != before["start"]


def slow_delta(rows, last, initial, began):
    out, dropped = [], []
    for row in rows:
        key, before = key_of(row), last.get(key_of(row))
        if row["no_value"]:
            dropped.append("no_value")
            continue
        if "value" in row and math.isnan(row["value"]):
            out.append(shape(row, temporality=DELTA))
            continue
        changes = {"temporality": DELTA} | ({"min": None} if "bounds" in row else {})
        known_sum = row.get("sum") or 0.0
        if "bounds" in row and math.isnan(known_sum):
            known_sum = before["known_sum"] if before else 0.0
        if before is None or began_again(row, before):
            if initial == "keep" or (initial == "auto" and row["start"] >= began and row["time"] != row["start"]):
                out.append(shape(row, **changes))
            else:
                dropped.append("initial")
        elif row["time"] < before["time"]:
            dropped.append("out_of_order")
            continue
        elif "bounds" in row:
            if row["bounds"] != before["bounds"]:
                dropped.append("bucket_mismatch")
            elif any(new < old for new, old in zip(row["counts"], before["counts"], strict=True)):
                dropped.append("reset")
            else:
                counts = [new - old for new, old in zip(row["counts"], before["counts"], strict=True)]
                sum_ = row["sum"]
                if sum_ is not None and not math.isnan(sum_):
                    sum_ -= before["known_sum"]
                changes |= {"counts": counts, "count": sum(counts), "sum": sum_}
                out.append(shape(row, start=before["time"], **changes))
        elif row["value"] < before["value"]:
            dropped.append("reset")
        else:
            out.append(shape(row, start=before["time"], value=row["value"] - before["value"], **changes))
        last[key] = row | {"known_sum": known_sum}
    return out, dropped


def slow_total(rows, totals):
    out, dropped = [], []
    for row in rows:
        key, total = key_of(row), totals.get(key_of(row))
        value = row["sum"] if "bounds" in row else row["value"]
        if row["no_value"]:
            dropped.append("no_value")
        elif value is not None and math.isnan(value):
            dropped.append("not_finite")
        elif total is None:
            totals[key] = dict(row)
            out.append(shape(row, temporality=CUMULATIVE))
        elif row["start"] < total["start"]:
            dropped.append("older_start")
        elif row["time"] <= total["time"]:
            dropped.append("out_of_order")
        elif "bounds" in row and row["bounds"] != total["bounds"]:
            totals[key] = dict(row)
            out.append(shape(row, temporality=CUMULATIVE))
        else:
            total["time"] = row["time"]
            if "bounds" in row:
                total["counts"] = [new + old for new, old in zip(row["counts"], total["counts"], strict=True)]
                total["count"] += row["count"]
                both = row["sum"] is not None and total["sum"] is not None
                total["sum"] = row["sum"] + total["sum"] if both else None
                both = row["min"] is not None and total["min"] is not None
                total["min"] = min(row["min"], total["min"]) if both else None
            else:
                total["value"] += row["value"]
            out.append(shape(total, temporality=CUMULATIVE))
    return out, dropped


def ordered(rows):
    return sorted(repr(sorted(row.items())) for row in rows)


def restarted(streams):
    """The streams of the next process."""
    later = Streams(streams.max_streams)
    later.restore(decode_checkpoint(encode_checkpoint("streams", 1, streams.parts()), "streams", 1), 0.0)
    assert len(later) == len(streams)
    return later


RESTARTS = st.booleans()


@given(
    batches=st.lists(st.tuples(st.lists(points(), max_size=12), RESTARTS), max_size=4),
    initial=st.sampled_from(["auto", "keep", "drop"]),
)
def test_deltas_agree_with_the_slow_reference(batches, initial):
    """Values, intervals and the reasons of drops, over any sequence of batches and restarts."""
    streams, last = Streams(1000), {}
    for rows, ends in batches:
        streams = restarted(streams) if ends else streams
        batch = request(rows, CUMULATIVE)
        everything = np.ones(batch.table("metrics").row_count, np.bool_)
        got = streams.to_delta(batch, everything, initial=initial, began_unix_nano=2, now_s=0)
        # Numbers and histograms are different streams: their order among each other does not matter.
        expected, dropped = slow_delta(rows, last, initial, 2)
        assert ordered(shown(got.batch)) == ordered(expected)
        assert got.dropped() == {reason: dropped.count(reason) for reason in dropped}


@given(batches=st.lists(st.tuples(st.lists(points(), max_size=12), RESTARTS), max_size=4))
def test_totals_agree_with_the_slow_reference(batches):
    """Values, start times and the reasons of drops, over any sequence of batches and restarts."""
    streams, totals = Streams(1000), {}
    for rows, ends in batches:
        streams = restarted(streams) if ends else streams
        got = streams.to_cumulative(request(rows, DELTA), now_s=0)
        expected, dropped = slow_total(rows, totals)
        assert ordered(shown(got.batch)) == ordered(expected)
        assert got.dropped() == {reason: dropped.count(reason) for reason in dropped}


def histogram(series, time, counts, bounds):
    row = {"name": "h", "series": series, "start": 1, "time": time, "no_value": False}
    return row | {"bounds": bounds, "counts": counts, "sum": None, "min": None, "count": sum(counts)}


def test_buckets_that_were_not_saved_are_refused():
    """Whatever stands in a checkpoint, a stream cannot refer to memory that is not its own."""
    streams = Streams(10)
    streams.to_cumulative(request([histogram("x", 2, [1, 2], [1.0])], DELTA), now_s=0)
    for place, count in ((-1, 2), (1, 2), (2**62, 2), (0, 3), (0, 2**31 - 1)):
        parts = streams.parts()
        parts["table/column place"] = np.array([place])
        parts["table/column bucket_count"] = np.array([count], np.int32)
        later = Streams(10)
        with pytest.raises(CheckpointError, match="buckets"):
            later.restore(parts, 0.0)
        assert len(later) == 0


def test_memory_does_not_grow_with_streams_that_come_and_go():
    """The buckets of streams that expired, or changed their bounds, are given back."""
    streams = Streams(100)
    for round_ in range(50):
        bounds = [float(bound) for bound in range(100 + round_ % 3)]
        rows = [histogram(f"{round_}/{number}", 10 + round_, [1] * (len(bounds) + 1), bounds) for number in range(20)]
        streams.to_cumulative(request(rows, DELTA), now_s=round_)
        assert streams.expire(round_ - 1) in (0, 20)
    assert len(streams) <= 60
    assert streams.memory_bytes < 200_000


def test_kept_streams_survive_that_others_go():
    """Totals stay right when the buckets move."""
    streams = Streams(10_000)
    bounds = [float(bound) for bound in range(100)]
    for round_ in range(1, 60):
        rows = [histogram("kept", 10 + round_, [1] * 101, bounds)]
        rows += [histogram(f"{round_}/{number}", 10, [1] * 101, bounds) for number in range(5)]
        got = streams.to_cumulative(request(rows, DELTA), now_s=round_)
        assert shown(got.batch)[0]["counts"] == [round_] * 101
        streams.expire(round_)


def test_streams_beyond_the_limit_are_dropped():
    """Those that are known go on."""
    streams = Streams(2)
    rows = [{"name": "a", "series": name, "start": 1, "time": 2, "no_value": False, "value": 1} for name in "xyz"]
    assert streams.to_cumulative(request(rows, DELTA), now_s=0).dropped() == {"limit": 1}
    later = [row | {"time": 3} for row in rows]
    got = streams.to_cumulative(request(later, DELTA), now_s=0)
    assert [row["value"] for row in shown(got.batch)] == [2, 2]


@pytest.mark.parametrize("temporality", [DELTA, CUMULATIVE])
def test_what_is_not_to_be_converted_is_the_same_object(temporality):
    """Deltas are no work for to_delta, and cumulative values none for to_cumulative."""
    rows = [{"name": "a", "series": "x", "start": 1, "time": 2, "no_value": False, "value": 1}]
    batch = request(rows, temporality)
    everything = np.ones(1, np.bool_)
    if temporality == DELTA:
        got = Streams(9).to_delta(batch, everything, initial="keep", began_unix_nano=0, now_s=0)
    else:
        got = Streams(9).to_cumulative(batch, now_s=0)
    assert got.batch is batch
    assert got.counts == {}
