"""Streams whose labels become the same: what differs between their resources is not a label."""

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import RecordingTelemetry, make_settings
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig

SECOND = 1_000_000_000


class Rig:
    """An exporter, and what it would send: the values of each series by time in seconds."""

    def __init__(self, write_request):
        self.write_request = write_request
        self.telemetry = RecordingTelemetry()
        settings = make_settings(factory, signals={Signal.METRICS}, telemetry=self.telemetry)
        self.clock = settings.clock
        self.exporter = factory.create(
            settings,
            PrometheusRemoteWriteConfig.model_validate(
                {"endpoint": "http://localhost:1/", "target_info": {"enabled": False}}
            ),
        )

    def send(self, *metrics):
        batch = Metrics.concat([request_of(*one) for one in metrics])
        parts = self.exporter.encode(batch)
        ledger = self.telemetry.ledger
        sent = {}
        for part in parts:
            for series in self.write_request.FromString(part.payload.body).timeseries:
                labels = {label.name: label.value for label in series.labels}
                key = labels["__name__"] + (":" + labels["le"] if "le" in labels else "")
                assert key not in sent, "one TimeSeries per series"
                sent[key] = {sample.timestamp / 1000: sample.value for sample in series.samples} | {
                    native.timestamp / 1000: native_counts(native) for native in series.histograms
                }
        lost = sum(ledger.dropped.values()) + sum(ledger.folded.values())
        self.received = getattr(self, "received", 0) + batch.item_count
        self.sent_points = getattr(self, "sent_points", 0) + sum(part.item_count for part in parts)
        assert self.received == self.sent_points + lost
        return sent


def request_of(kind, host, time_s, value, start_s=0, bounds=(1.0, 2.0), flags=0):
    """One point of a stream that only ``host.name`` tells apart. A histogram's value is its bucket counts."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add()
    for key, text in (("service.name", "api"), ("host.name", host)):
        metrics.resource.attributes.add(key=key).value.string_value = text
    metric = metrics.scope_metrics.add().metrics.add(name="m")
    times = {"time_unix_nano": int(time_s * SECOND), "start_time_unix_nano": int(start_s * SECOND), "flags": flags}
    if kind == "gauge":
        metric.gauge.data_points.add(as_double=value, **times)
    elif kind == "histogram":
        metric.histogram.aggregation_temporality = 2
        metric.histogram.data_points.add(
            count=sum(value), sum=float(sum(value)), bucket_counts=value, explicit_bounds=bounds, **times
        )
    elif kind == "exponential":
        metric.exponential_histogram.aggregation_temporality = 2
        scale, offset, counts = value
        point = metric.exponential_histogram.data_points.add(
            count=sum(counts) + 1, sum=float(sum(counts)), zero_count=1, scale=scale, **times
        )
        point.positive.offset = offset
        point.positive.bucket_counts.extend(counts)
    else:
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, kind == "counter"
        metric.sum.data_points.add(as_int=value, **times)
    return Metrics.from_wire(request.SerializeToString())


def native_counts(native):
    """Scale, count, zero count and the count of each bucket that is not empty, by OpenTelemetry's index."""
    found, index, running = {}, 0, 0
    deltas = iter(native.positive_deltas)
    for span in native.positive_spans:
        index += span.offset
        for _ in range(span.length):
            running += next(deltas)
            found[index - 1] = running
            index += 1
    buckets = {index: count for index, count in found.items() if count}
    return native.schema, native.count_int, native.zero_count_int, buckets


@pytest.fixture
def rig(write_request):
    return Rig(write_request)


def test_counters_of_one_request_are_added_up(rig):
    """Two replicas at the same time: their sum, counted as folded and logged once."""
    assert rig.send(("counter", "a", 10, 5), ("counter", "b", 10, 7)) == {"m_total": {10: 12}}
    assert rig.send(("counter", "a", 20, 6), ("counter", "b", 20, 9)) == {"m_total": {20: 15}}
    assert rig.telemetry.ledger.folded[Signal.METRICS] == 2
    (line,) = rig.telemetry.log.of_level("warning")
    assert line.fields["metrics"] == "m of api"


def test_counters_of_different_requests_are_added_up(rig):
    """The second stream continues the series; the first one then adds what it has gained since."""
    assert rig.send(("counter", "a", 10, 100)) == {"m_total": {10: 100}}
    assert rig.send(("counter", "a", 20, 110), ("counter", "b", 20, 7)) == {"m_total": {20: 117}}
    assert rig.send(("counter", "b", 21, 8)) == {"m_total": {21: 118}}
    assert rig.send(("counter", "a", 30, 111)) == {"m_total": {30: 119}}


def test_a_reset_of_one_counter_does_not_reset_the_sum(rig):
    """By a lower value, or by a start after the last point."""
    rig.send(("counter", "a", 10, 5), ("counter", "b", 10, 7))
    assert rig.send(("counter", "a", 20, 2), ("counter", "b", 20, 8)) == {"m_total": {20: 15}}
    assert rig.send(("counter", "a", 30, 9, 25), ("counter", "b", 30, 8)) == {"m_total": {30: 24}}
    assert rig.send(("counter", "c", 40, 1)) == {"m_total": {40: 25}}


def test_an_old_point_changes_nothing(rig):
    """It is neither a reset nor a sample out of order."""
    rig.send(("counter", "a", 10, 5), ("counter", "b", 10, 7))
    assert rig.send(("counter", "a", 9, 4)) == {}
    assert rig.send(("counter", "a", 20, 6)) == {"m_total": {20: 13}}


def test_a_stream_behind_the_others_adds_its_part_to_their_next_sample(rig):
    """A clock that is 30 s behind must not produce samples out of order."""
    rig.send(("counter", "a", 100, 5), ("counter", "b", 70, 7))
    assert rig.send(("counter", "b", 80, 17)) == {}
    assert rig.send(("counter", "a", 110, 6)) == {"m_total": {110: 23}}


def test_up_down_counters_are_added_up_until_they_end(rig):
    """Of streams that are alive."""
    assert rig.send(("updown", "a", 10, 5), ("updown", "b", 10, 7)) == {"m": {10: 12}}
    assert rig.send(("updown", "a", 20, 3), ("updown", "b", 20, 7)) == {"m": {20: 10}}
    assert rig.send(("updown", "b", 30, 0, 0, (), 1)) == {"m": {30: 3}}
    rig.send(("updown", "b", 40, 4))
    rig.clock.move(200)
    rig.send(("updown", "a", 50, 3))
    rig.clock.move(200)
    assert rig.send(("updown", "a", 60, 2)) == {"m": {60: 2}}


def test_of_gauges_the_latest_stands(rig):
    """Adding them up would be wrong; what it replaces is counted."""
    assert rig.send(("gauge", "a", 10, 5.0), ("gauge", "b", 10, 7.0)) == {"m": {10: 7}}
    assert rig.telemetry.ledger.dropped == {(Signal.METRICS, "duplicate_timestamp"): 1}


def test_histograms_are_added_up(rig):
    """Buckets, sum and count, with the resets of each stream."""
    first = rig.send(("histogram", "a", 10, (1, 0, 2)), ("histogram", "b", 10, (0, 4, 1)))
    assert first == {
        "m_bucket:1": {10: 1}, "m_bucket:2": {10: 5}, "m_bucket:+Inf": {10: 8}, "m_sum": {10: 8}, "m_count": {10: 8},
    }  # fmt: skip
    second = rig.send(("histogram", "a", 20, (0, 1, 0)), ("histogram", "b", 20, (1, 4, 1)))
    assert second == {
        "m_bucket:1": {20: 2}, "m_bucket:2": {20: 7}, "m_bucket:+Inf": {20: 10}, "m_sum": {20: 10}, "m_count": {20: 10},
    }  # fmt: skip


def test_exponential_histograms_are_added_up(rig):
    """At the lower of their scales, with the resets of each."""
    first = rig.send(("exponential", "a", 10, (1, -2, (1, 2, 3))), ("exponential", "b", 10, (0, 0, (4, 5))))
    assert first == {"m": {10: (0, 17, 2, {-1: 3, 0: 3 + 4, 1: 5})}}
    second = rig.send(("exponential", "a", 20, (1, -2, (1, 2, 4))), ("exponential", "b", 20, (0, 0, (1, 0))))
    assert second == {"m": {20: (0, 17 + 1 + 2, 3, {-1: 3, 0: 7 + 1 + 1, 1: 5})}}
    assert rig.send(("exponential", "a", 19, (1, -2, (1, 2, 3)))) == {}
    assert rig.send(("exponential", "c", 30, (0, 900, (7,)))) == {"m": {30: (-2, 28, 4, {-1: 3, 0: 14, 225: 7})}}


def test_a_histogram_with_other_bounds_is_counted(rig):
    """Its buckets cannot be added to those of the series; after a pause, new bounds replace the old ones."""
    now_s = rig.clock.time_unix_nano() // SECOND
    rig.send(("histogram", "a", now_s, (1, 0, 2)), ("histogram", "b", now_s, (0, 4, 1)))
    assert rig.send(("histogram", "a", now_s + 1, (1, 2), 0, (5.0,))) == {}
    assert rig.telemetry.ledger.dropped == {(Signal.METRICS, "histogram_bounds"): 1}
    rig.clock.move(400)
    found = rig.send(
        ("histogram", "a", now_s + 400, (1, 2), 0, (5.0,)), ("histogram", "b", now_s + 400, (4, 0), 0, (5.0,))
    )
    assert found["m_bucket:5"] == {now_s + 400: 5}
    assert found["m_count"] == {now_s + 400: 7}


def test_random_replicas_lose_no_increment(rig):
    """The sum grows by what all of them count, in whatever order and requests their points arrive."""
    rng = np.random.default_rng(1)
    counts = dict.fromkeys("abcd", 0)
    grown, total = 0, 0
    for step in range(1, 200):
        hosts = [host for host in counts if rng.random() < 0.5] if step > 1 else list(counts)
        metrics = []
        for host in hosts:
            gain = int(rng.integers(0, 9))
            counts[host] = gain if rng.random() < 0.1 and gain < counts[host] else counts[host] + gain
            grown += gain
            metrics.append(("counter", host, step, counts[host]))
        if metrics:
            (total,) = rig.send(*metrics)["m_total"].values()
            assert total == grown
    assert total == grown > 1000
