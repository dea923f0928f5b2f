"""Totals compared with the Go collector's: both make the same points of the same deltas, request by request."""

import json
import random

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import free_port, make_settings
from processors.delta_to_cumulative import factory

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

START = 1_700_000_000_000_000_000
STEP = 1_000_000_000


def go_config(folder, health, port):
    return json.dumps(
        {
            "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
            "receivers": {"otlp": {"protocols": {"grpc": {"endpoint": f"127.0.0.1:{port}"}}}},
            "processors": {"deltatocumulative": {}},
            "exporters": {"file": {"path": f"{folder}/go.jsonl"}},
            "service": {
                "extensions": ["health_check"],
                "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "fatal"}},
                "pipelines": {
                    "metrics": {"receivers": ["otlp"], "processors": ["deltatocumulative"], "exporters": ["file"]}
                },
            },
        }
    )


def requests(count):
    """Deltas of a few series: in order, late, repeated, with older starts, other bounds, and without sums."""
    rng = random.Random(7)
    for number in range(count):
        request = ExportMetricsServiceRequest()
        resource = request.resource_metrics.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "shop"
        metrics = resource.scope_metrics.add().metrics
        for name in ("ints", "doubles", "levels", "cumulative"):
            total = metrics.add(name=name).sum
            total.aggregation_temporality = 2 if name == "cumulative" else 1
            total.is_monotonic = name != "levels"
            for series in "abc":
                point = placed(total.data_points.add(), series, number, rng)
                if name == "doubles":
                    point.as_double = rng.choice((0.5, 1.25, 3.0))
                else:
                    point.as_int = rng.randrange(-3 if name == "levels" else 0, 9)
        histogram = metrics.add(name="histogram").histogram
        histogram.aggregation_temporality = 1
        for series in "abc":
            point = placed(histogram.data_points.add(), series, number, rng)
            point.explicit_bounds.extend([1.0, 2.0] if rng.random() < 0.9 else [1.0, 3.0])
            point.bucket_counts.extend(rng.randrange(5) for _ in range(3))
            point.count = sum(point.bucket_counts)
            if rng.random() < 0.9:
                point.sum = point.count * 0.5
                point.min, point.max = rng.choice((0.1, 0.2)), rng.choice((4.0, 5.0))
        metrics.add(name="gauge").gauge.data_points.add(time_unix_nano=START, as_int=number)
        yield request


def placed(point, series, number, rng):
    late = rng.choice((0, 0, 0, 0, 1, 2))
    point.attributes.add(key="series").value.string_value = series
    point.time_unix_nano = START + max(1, number + 1 - late) * STEP
    point.start_time_unix_nano = START if rng.random() < 0.9 else START - STEP
    return point


def points(request):
    """Every point as text, with its metric and temporality."""
    found = []
    for resource in request.resource_metrics:
        for metric in resource.scope_metrics[0].metrics:
            data = getattr(metric, metric.WhichOneof("data"))
            temporality = getattr(data, "aggregation_temporality", 0)
            found += [
                f"{metric.name} {temporality} {json_format.MessageToJson(point, indent=None)}"
                for point in data.data_points
            ]
    return sorted(found)


def test_makes_the_totals_of_the_go_collector(server, tmp_path):
    """Values, start times, what is dropped, and what is left alone."""
    program = server.binary("otelcol")
    health, port = free_port(), free_port()
    (tmp_path / "go.json").write_text(go_config(tmp_path, health, port))
    data = [request.SerializeToString() for request in requests(40)]
    with (
        server.running([program, f"--config={tmp_path}/go.json"], f"http://127.0.0.1:{health}/", tmp_path),
        grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
    ):
        export = channel.unary_unary("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", bytes, bytes)
        for wire in data:
            export(wire, timeout=60, wait_for_ready=True)
    theirs = [
        point
        for line in (tmp_path / "go.jsonl").read_text().splitlines()
        for point in points(json_format.Parse(line, ExportMetricsServiceRequest()))
    ]
    processor = factory.create(make_settings(factory, signals={Signal.METRICS}), factory.config_type())
    ours = [
        point
        for wire in data
        for point in points(ExportMetricsServiceRequest.FromString(processor.transform(Metrics.from_wire(wire)).wire))
    ]
    assert sorted(ours) == sorted(theirs)
    assert 200 < len(ours) < 40 * 16  # some points were dropped
