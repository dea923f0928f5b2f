"""Exponential histograms are added up as their buckets say, whatever their offsets and zero thresholds are."""

import math
from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics
from collector.otlp.merge_points import merge_points

COUNTS = st.sampled_from([0, 1, 2, 127, 128, 2**40])


@st.composite
def histograms(draw):
    """Offset and counts of both sides, zero count and threshold, sum, start."""
    side = st.tuples(st.sampled_from([-500, -3, 0, 1, 4, 20_000]), st.lists(COUNTS, max_size=5))
    return {
        "series": draw(st.sampled_from("xy")),
        "positive": draw(side),
        "negative": draw(side),
        "zero_count": draw(st.integers(0, 3)),
        "zero_threshold": draw(st.sampled_from([0.0, 2.0**-3, 2.0])),  # bounds of buckets at scale 0
        "start": draw(st.integers(1, 5)),
    }


def request(rows):
    message = ExportMetricsServiceRequest()
    metric = message.resource_metrics.add().scope_metrics.add().metrics.add(name="a").exponential_histogram
    metric.aggregation_temporality = 2
    for row in rows:
        point = metric.data_points.add(time_unix_nano=9, start_time_unix_nano=row["start"], count=1, sum=0.5)
        point.attributes.add(key="series").value.string_value = row["series"]
        point.zero_count, point.zero_threshold = row["zero_count"], row["zero_threshold"]
        for side in ("positive", "negative"):
            getattr(point, side).offset = row[side][0]
            getattr(point, side).bucket_counts.extend(row[side][1])
        point.exemplars.add(as_double=float(row["start"]))
    return Metrics.from_wire(message.SerializeToString())


def buckets(offset, counts, shift):
    found = Counter()
    for number, count in enumerate(counts):
        found[offset + number >> shift] += count
    return Counter({index: count for index, count in found.items() if count})


@given(st.lists(histograms(), max_size=6))
def test_exponential_histograms_are_added_up(rows):
    """Buckets by index, at a scale at which they fit; those within the widest zero bucket are added to it."""
    batch = request(rows)
    out = merge_points(batch, np.ones(batch.table("metrics").row_count, np.bool_), "max")
    message = ExportMetricsServiceRequest.FromString(out.wire)
    points = message.resource_metrics[0].scope_metrics[0].metrics[0].exponential_histogram.data_points if rows else []
    assert [point.attributes[0].value.string_value for point in points] == list(
        dict.fromkeys(row["series"] for row in rows)
    )
    for point in points:
        merged = [row for row in rows if row["series"] == point.attributes[0].value.string_value]
        threshold = max(row["zero_threshold"] for row in merged)
        assert point.start_time_unix_nano == min(row["start"] for row in merged)
        assert point.count == len(merged)
        assert sorted(exemplar.as_double for exemplar in point.exemplars) == sorted(row["start"] for row in merged)
        zero_count = sum(row["zero_count"] for row in merged)
        is_widened = any(row["zero_threshold"] != threshold for row in merged)
        width = 2.0**-point.scale
        first_kept = math.ceil(math.log2(threshold) / width) if is_widened else -(10**9)
        for side in ("positive", "negative"):
            expected = sum((buckets(*row[side], -point.scale) for row in merged), Counter())
            within = [index for index in expected if index < first_kept]
            if first_kept - 1 in within:
                threshold = 2.0 ** (first_kept * width)
            zero_count += sum(expected.pop(index) for index in within)
            got = getattr(point, side)
            assert buckets(got.offset, got.bucket_counts, 0) == expected
            assert len(got.bucket_counts) <= 10_000
        assert point.zero_count == zero_count
        assert point.zero_threshold == threshold
