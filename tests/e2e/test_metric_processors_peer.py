"""Metric processors beside the Go collector's: the recorded results are still its own."""

import base64
import random
from collections import Counter

import pytest
from metric_processor_cases import cases, digest, encoded, golden, run_program, theirs
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from processors.cumulative_to_delta import factory as cumulative_to_delta
from processors.delta_to_cumulative import factory as delta_to_cumulative

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def test_the_recorded_transformations_are_the_go_collectors(server):
    """What the unit tests compare ours with is what the Collector does today."""
    listed = cases()
    results = theirs(server.binary("metric_processors"), [transforms for _, transforms, _ in listed])
    assert {name: digest(text) for (name, _, _), text in zip(listed, results, strict=True)} == golden()


START = 4_000_000_000_000_000_000  # after the start of the processors, so that first points are kept
STEP = 1_000_000_000


def deltas(count):
    """Exponential histograms with changing scales, offsets, zero thresholds, and sums that are missing."""
    rng = random.Random(5)
    for number in range(count):
        request = ExportMetricsServiceRequest()
        metric = request.resource_metrics.add().scope_metrics.add().metrics.add(name="a").exponential_histogram
        metric.aggregation_temporality = 1
        for series in "abcd":
            late = rng.choice((0, 0, 0, 1))
            time = START + (number + 1 - late) * STEP
            point = metric.data_points.add(
                time_unix_nano=time, start_time_unix_nano=START - rng.choice((0, 0, 0, STEP))
            )
            point.attributes.add(key="series").value.string_value = series
            point.scale = rng.choice((3, 4, 4, 5))
            point.zero_count = rng.randrange(3)
            point.zero_threshold = rng.choice((0.25, 0.5))
            for side in (point.positive, point.negative):
                # The Collector fails at negative scales, and rounds negative indices the wrong way.
                side.offset = rng.choice((0, 5, 100, 600) if series == "d" else (0, 5, 60))
                side.bucket_counts.extend(rng.randrange(4) for _ in range(rng.choice((0, 3, 20))))
            point.count = point.zero_count + sum(point.positive.bucket_counts) + sum(point.negative.bucket_counts)
            if rng.random() < 0.95:
                point.sum, point.min, point.max = 0.5, rng.random(), rng.random()
        yield request


def growing(count):
    """Cumulative values of all types that grow, lose precision and begin again."""
    rng = random.Random(6)
    state = {}
    for number in range(count):
        request = ExportMetricsServiceRequest()
        metrics = request.resource_metrics.add().scope_metrics.add().metrics
        sums, histogram = metrics.add(name="sum").sum, metrics.add(name="histogram").histogram
        exponential = metrics.add(name="exponential").exponential_histogram
        sums.is_monotonic = True
        for data in (sums, histogram, exponential):
            data.aggregation_temporality = 2
        for series in "abc":
            if series not in state or rng.random() < 0.05:
                state[series] = {"start": START + number * STEP, "value": 0, "counts": [0, 0, 0], "scale": 3,
                                 "threshold": 0.0625, "zeros": 0, "buckets": Counter()}  # fmt: skip
            one = state[series]
            one["value"] += rng.randrange(5)
            one["counts"] = [count + rng.randrange(3) for count in one["counts"]]
            if rng.random() < 0.2:
                one["scale"] -= 1
                one["buckets"] = halved(one["buckets"])
            if rng.random() < 0.2 and one["threshold"] < 1:
                one["threshold"] *= 2
                zeros = [place for place in one["buckets"] if 2.0 ** ((place[1] + 1) / 2.0 ** one["scale"])
                         <= one["threshold"] * 1.0000001]  # fmt: skip
                one["zeros"] += sum(one["buckets"].pop(place) for place in zeros)
            one["zeros"] += rng.randrange(2)
            for _ in range(5):
                side = rng.choice(("positive", "negative"))
                one["buckets"][side, rng.randrange(8 * 2 ** max(one["scale"], 0))] += 1
            times = {"time_unix_nano": START + (number + 1) * STEP, "start_time_unix_nano": one["start"]}
            point = sums.data_points.add(as_int=one["value"], **times)
            point.attributes.add(key="series").value.string_value = series
            total = sum(one["counts"])
            point = histogram.data_points.add(count=total, sum=0.5 * total, explicit_bounds=[1, 2], **times)
            point.bucket_counts.extend(one["counts"])
            point.attributes.add(key="series").value.string_value = series
            total = one["zeros"] + sum(one["buckets"].values())
            point = exponential.data_points.add(count=total, sum=0.5 * total, scale=one["scale"], **times)
            point.attributes.add(key="series").value.string_value = series
            point.zero_count, point.zero_threshold = one["zeros"], one["threshold"]
            for name in ("positive", "negative"):
                own = {index: count for (side, index), count in one["buckets"].items() if side == name}
                if own:
                    side = getattr(point, name)
                    side.offset = min(own)
                    side.bucket_counts.extend(own.get(index, 0) for index in range(min(own), max(own) + 1))
        yield request


def halved(buckets):
    found = Counter()
    for (side, index), count in buckets.items():
        found[side, index >> 1] += count
    return found


def lines(wire):
    """The points of a request; empty buckets at the ends do not count, and thresholds are rounded."""
    found = []
    for resource in ExportMetricsServiceRequest.FromString(wire).resource_metrics:
        for metric in resource.scope_metrics[0].metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            for point in data.data_points:
                sides = []
                for name in ("positive", "negative"):
                    side = getattr(point, name, None)
                    counts = enumerate(side.bucket_counts) if side else ()
                    sides.append({side.offset + number: count for number, count in counts if count})
                threshold = round(getattr(point, "zero_threshold", 0), 9)
                for name in ("positive", "negative", "zero_threshold"):
                    if hasattr(point, name):
                        point.ClearField(name)
                found.append(f"{metric.name} {data.aggregation_temporality} {point} {sides} {threshold}")
    return sorted(found)


@pytest.mark.parametrize(
    ("factory", "name", "config", "requests"),
    [
        (delta_to_cumulative, "deltatocumulative", {}, deltas(60)),
        (cumulative_to_delta, "cumulativetodelta", {}, growing(60)),
        (cumulative_to_delta, "cumulativetodelta", {"initial_value": "drop"}, growing(60)),
    ],
    ids=["totals", "deltas", "deltas without the first"],
)
def test_conversions_are_the_go_collectors(server, factory, name, config, requests):
    """All types, with changing scales and zero buckets, and streams that begin again."""
    data = list(requests)
    request = {"processor": name, "config": config, "data": [encoded(message) for message in data]}
    (answer,) = run_program(server.binary("metric_processors"), [request])
    processor = factory.create(make_settings(factory, signals={Signal.METRICS}), factory.config_type(**config))
    count = 0
    for message, result in zip(data, answer["data"], strict=True):
        own = lines(processor.transform(Metrics.from_wire(message.SerializeToString())).wire)
        assert own == lines(base64.b64decode(result))
        count += len(own)
    assert count > 100
