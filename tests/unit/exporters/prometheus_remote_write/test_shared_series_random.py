"""Whatever streams share series: every point is sent, folded or dropped, and no series has two samples at one time."""

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import RecordingTelemetry, make_settings
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig

SECOND = 1_000_000_000


def random_request(rng, now_ms):
    """Points of a few streams that differ in their host only, at times around now."""
    request = ExportMetricsServiceRequest()
    for _ in range(int(rng.integers(1, 5))):
        metrics = request.resource_metrics.add()
        metrics.resource.attributes.add(key="host.name").value.int_value = int(rng.integers(0, 3))
        for _ in range(int(rng.integers(1, 6))):
            kind, name = int(rng.integers(0, 6)), f"m{rng.integers(0, 3)}"
            metric = metrics.scope_metrics.add().metrics.add(name=name + ("_count" if rng.random() < 0.1 else ""))
            for _ in range(int(rng.integers(1, 4))):
                times = {
                    "time_unix_nano": int(now_ms + rng.choice([0, 0, 1, 5, -5, 400_000, 10**8, -(10**6)])) * 10**6,
                    "start_time_unix_nano": int(rng.choice([0, now_ms, now_ms - 10])) * 10**6,
                    "flags": int(rng.random() < 0.1),
                }
                if kind == 0:
                    metric.gauge.data_points.add(as_double=1.0, **times)
                elif kind <= 2:
                    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, kind == 1
                    metric.sum.data_points.add(as_int=int(rng.integers(0, 100)), **times)
                elif kind == 3:
                    metric.histogram.aggregation_temporality = 2
                    bounds = [[], [1.0], [1.0, 2.0], [1.0, float("inf")]][int(rng.integers(0, 4))]
                    counts = rng.integers(0, 9, len(bounds) + 1).tolist()
                    point = metric.histogram.data_points.add(
                        count=sum(counts), bucket_counts=counts, explicit_bounds=bounds, **times
                    )
                    if rng.random() < 0.8:
                        point.sum = 1.0
                elif kind == 5:
                    metric.exponential_histogram.aggregation_temporality = 2
                    counts = rng.integers(0, 300, int(rng.integers(0, 5))).tolist()
                    point = metric.exponential_histogram.data_points.add(
                        count=sum(counts), scale=int(rng.integers(-4, 21)), **times
                    )
                    point.positive.offset = int(rng.choice([0, -3, 7, 10**6, 2**31 - 10, -(2**31)]))
                    point.positive.bucket_counts.extend(counts)
                else:
                    point = metric.summary.data_points.add(count=1, sum=1, **times)
                    point.quantile_values.add(quantile=0.5, value=1)
    return Metrics.from_wire(request.SerializeToString())


@pytest.mark.parametrize("seed", range(15))
def test_random_streams(write_request, seed):
    rng = np.random.default_rng(seed)
    telemetry = RecordingTelemetry()
    settings = make_settings(factory, signals={Signal.METRICS}, telemetry=telemetry)
    config = {"endpoint": "http://localhost:1/", "disable_scope_info": True, "max_batch_size_bytes": 500}
    sut = factory.create(settings, PrometheusRemoteWriteConfig.model_validate(config))
    received = sent = 0
    for _ in range(40):
        batch = random_request(rng, settings.clock.time_unix_nano() // 10**6)
        received += batch.item_count
        parts = sut.encode(batch)
        sent += sum(part.item_count for part in parts)
        ledger = telemetry.ledger
        assert received == sent + sum(ledger.dropped.values()) + sum(ledger.folded.values())
        seen = set()
        for part in parts:
            for series in write_request.FromString(part.payload.body).timeseries:
                labels = tuple((label.name, label.value) for label in series.labels)
                times = [sample.timestamp for sample in [*series.samples, *series.histograms]]
                assert times == sorted(set(times))
                assert not seen & {(labels, time) for time in times}
                seen |= {(labels, time) for time in times}
        settings.clock.move(float(rng.choice([1, 10, 400])))
    assert telemetry.ledger.folded[Signal.METRICS] > 10
