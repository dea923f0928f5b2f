"""The kernel adds exponential histograms up as the slow reference does."""

import numpy as np
import pytest
from exponential_reference import Merger
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics
from collector.prometheus import _exponential as exponential

STREAMS, SERIES = 4, 2
COUNTS = st.lists(st.sampled_from((0, 0, 1, 3, 300, 2**63, 2**64 - 1)), max_size=6)
SIDE = st.tuples(
    st.sampled_from((0, 0, -3, 7, 330, -500, 10**6, 2**31 - 400, -(2**31))),
    st.one_of(COUNTS, COUNTS, COUNTS, st.integers(315, 500).map(lambda width: [1] * width)),
)
POINT = st.fixed_dictionaries(
    {
        "stream": st.integers(0, STREAMS - 1),
        "time_ns": st.integers(1, 9).map(lambda tick: tick * 400_000),
        "start_ns": st.sampled_from((0, 0, 1_000_000, 2_000_000)),
        "scale": st.sampled_from((0, 0, 1, 3, 20, -3, -4, 2**31 - 1, -(2**31))),
        "count": st.integers(0, 9),
        "zero_count": st.sampled_from((0, 1, 2, 2**64 - 1)),
        "sides": st.tuples(SIDE, SIDE),
    }
)
BATCH = st.tuples(st.lists(POINT, max_size=6), st.booleans(), st.integers(0, 2))


def varints(data):
    values, value, shift = [], 0, 0
    for byte in data:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(value)
            value = shift = 0
    return values


class Kernel:
    """The kernel with its table; streams have the records 1 to 4, and series those after them."""

    def __init__(self):
        self.table = np.zeros(1 + STREAMS + SERIES, exponential.RECORD)
        self.last_time = np.zeros(STREAMS, np.uint64)

    def merge(self, histogram, streams, is_baseline, emitted_ms):
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="m")
        metric.exponential_histogram.CopyFrom(histogram)
        batch = Metrics.from_wire(request.SerializeToString())
        points = batch.table("points").rows.copy()
        times = points["time"].copy()
        stream = np.array(streams, np.int32)
        count = len(points)
        written, states = exponential.merge(
            batch.wire, points.view(np.uint8), self.table.view(np.uint8), np.arange(count), 1 + stream,
            1 + STREAMS + stream % SERIES, stream, times, np.full(count, is_baseline, np.uint8),
            np.full(count, emitted_ms * 1_000_000, np.uint64), self.last_time, len(batch.wire),
        )  # fmt: skip
        wire = batch.wire + written
        return [
            None if state & exponential.LOST else self.read(point, wire) if state & exponential.SENT else False
            for state, point in zip(states, points, strict=True)
        ]

    @staticmethod
    def read(point, wire):
        sides = []
        for name in ("positive", "negative"):
            begin = int(point[name])
            counts = varints(wire[begin : begin + int(point[name + "_len"])])
            sides.append((int(point[name + "_offset"]), counts))
        return (
            int(point["scale"]), int(point["count"]), int(point["zero_count"]), float(point["sum"]),
            float(point["zero_threshold"]), tuple(sides),
        )  # fmt: skip


@settings(max_examples=200)
@given(st.lists(BATCH, min_size=1, max_size=3))
def test_it_agrees_with_the_reference(batches):
    """Over several batches: scales, widths, resets, overflow, late starts, several points of one millisecond."""
    kernel, reference = Kernel(), Merger()
    for described, is_baseline, emitted_ms in batches:
        described = sorted(described, key=lambda point: (point["stream"] % SERIES, point["time_ns"]))
        histogram = ExportMetricsServiceRequest().resource_metrics.add().scope_metrics.add().metrics.add()
        histogram = histogram.exponential_histogram
        for given_point in described:
            point = histogram.data_points.add(
                time_unix_nano=given_point["time_ns"], start_time_unix_nano=given_point["start_ns"],
                scale=given_point["scale"], count=given_point["count"], sum=float(given_point["count"]),
                zero_count=given_point["zero_count"], zero_threshold=given_point["count"] / 8,
            )  # fmt: skip
            for side, (offset, counts) in zip((point.positive, point.negative), given_point["sides"], strict=True):
                side.offset = offset
                side.bucket_counts.extend(counts)
        streams = [point["stream"] for point in described]
        expected = reference.merge(
            [
                (stream, stream % SERIES, is_baseline, emitted_ms, point)
                for stream, point in zip(streams, histogram.data_points, strict=True)
            ]
        )
        found = kernel.merge(histogram, streams, is_baseline, emitted_ms) if described else []
        assert found == [
            value if not value else (value.scale, value.count, value.zero_count, value.sum, value.zero_threshold,
                                     value.sides)
            for value in expected
        ]  # fmt: skip


def test_rows_outside_of_their_tables_are_an_error():
    """Not a wild access."""
    for bad in ({"rows": 1}, {"stream": 3}, {"series": -1}, {"source": 1}):
        number = {"rows": 0, "stream": 1, "series": 2, "source": 0, **bad}
        with pytest.raises(IndexError):
            exponential.merge(
                b"", np.zeros(1, Metrics.from_wire(b"").table("points").rows.dtype).view(np.uint8),
                np.zeros(3, exponential.RECORD).view(np.uint8), np.array([number["rows"]]),
                np.array([number["stream"]], np.int32), np.array([number["series"]], np.int32),
                np.array([number["source"]], np.int32), np.ones(1, np.uint64), np.zeros(1, np.uint8),
                np.zeros(1, np.uint64), np.zeros(1, np.uint64), 0,
            )  # fmt: skip
