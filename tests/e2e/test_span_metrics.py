"""The results equal those of the Go collector's span_metrics for the same spans and the same configuration.

Calls, buckets, sums and events are equal.
"""

import json
import math
import random

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port

SERVICE = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
START = 1_700_000_000_000_000_000
REQUESTS, SPANS = 10, 200
GO = """
extensions: {health_check: {endpoint: "127.0.0.1:HEALTH"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}}}}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
"""
OURS = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}}}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
"""
# collector.instance.id differs by nature; the Collector adds it by default.
CONNECTOR = """
  span_metrics/NAME:
    metrics_flush_interval: 500ms
    exclude_dimensions: [collector.instance.id]
    OPTIONS"""
OPTIONS = {
    "defaults": "aggregation_cardinality_limit: 0",
    "explicit": "histogram: {unit: s, explicit: {buckets: [1ms, 5ms, 100ms, 1s, 30s]}}",
    "exponential": "histogram: {exponential: {max_size: 20}}",
    "exponential_seconds": "histogram: {unit: s, exponential: {}}",
    "dimensions": (
        "dimensions: [{name: http.method, default: GET}, {name: tenant}, {glob: 'k8s.*.name'}]\n"
        "    calls_dimensions: [{name: number}]\n"
        "    histogram: {dimensions: [{name: flag}]}\n"
        "    enable_metrics_sampling_method: true"
    ),
    "events": "events: {enabled: true, dimensions: [{name: exception.type}, {name: tenant}]}",
    "capped": "aggregation_cardinality_limit: 5\n    resource_metrics_key_attributes: [service.name]",
}

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def request_of(seed):
    """Return spans of every kind and status, some with an adjusted count that is a whole number.

    Counts that are rounded at random could differ.
    """
    rng, request = random.Random(seed), ExportTraceServiceRequest()
    for number in range(4):
        resource = request.resource_spans.add()
        if number < 3:
            resource.resource.attributes.add(key="service.name").value.string_value = f"service-{number}"
        resource.resource.attributes.add(key="k8s.pod.name").value.string_value = f"pod-{number}"
        scope = resource.scope_spans.add()
        scope.scope.name = "lib"
        for _ in range(SPANS // 4):
            start = START + rng.randrange(10**9)
            ns = rng.choice([0, -7, 2_000_000, 1_000_000_000, rng.randrange(1, 10**6), int(rng.lognormvariate(15, 3))])
            span = scope.spans.add(
                name=rng.choice(["GET /a", "POST /b", "job"]), kind=rng.randrange(6), trace_id=rng.randbytes(16), span_id=rng.randbytes(8),
                start_time_unix_nano=start, end_time_unix_nano=start + ns, trace_state=rng.choice(["", "", "ot=th:8", "x=y,ot=th:c"]),
            )  # fmt: skip
            span.status.code = rng.randrange(3)
            for key, value in (
                ("tenant", rng.choice(["a", "b"])),
                ("http.method", rng.choice(["GET", "PUT"])),
                ("k8s.node.name", "n"),
            ):
                if rng.random() < 0.7:
                    span.attributes.add(key=key).value.string_value = value
            span.attributes.add(key="number").value.int_value = rng.randrange(3)
            span.attributes.add(key="flag").value.bool_value = rng.random() < 0.5
            for _ in range(rng.randrange(3)):
                event = span.events.add(name="exception", time_unix_nano=start)
                event.attributes.add(key="exception.type").value.string_value = rng.choice(["E", "F"])
    return request.SerializeToString()


def last_points(path):
    """Return {(resource, metric, attributes): point} of the last flush in the file."""
    found = {}
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    for line in [line for line in lines if line.endswith("\n")][-1:]:
        request = json_format.ParseDict(json.loads(line), ExportMetricsServiceRequest())
        for resource in request.resource_metrics:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                data = getattr(metric, metric.WhichOneof("data"))
                for point in data.data_points:
                    kind = metric.WhichOneof("data"), metric.unit, data.aggregation_temporality
                    found[attributes(resource.resource), (metric.name, *kind), attributes(point)] = point
    return found


def attributes(message):
    return tuple(sorted((each.key, each.value.WhichOneof("value"), str(each.value)) for each in message.attributes))


def counts(points):
    """Return what must have been counted in the end: the weight of all spans, in calls and in durations."""
    totals = {}
    for (_, (name, *_), _), point in points.items():
        totals[name] = totals.get(name, 0) + (point.as_int if name.endswith(("calls", "events")) else point.count)
    return totals


def configured(text, folder):
    """Return a configuration with all of OPTIONS, each with a file of its own."""
    names = list(OPTIONS)
    pipelines = [f"traces: {{receivers: [otlp], exporters: [{', '.join(f'span_metrics/{name}' for name in names)}]}}"]
    pipelines += [f"metrics/{name}: {{receivers: [span_metrics/{name}], exporters: [file/{name}]}}" for name in names]
    exporters = "".join(f"\n  file/{name}: {{path: {folder}/{name}.json}}" for name in names)
    connectors = "".join(
        CONNECTOR.replace("NAME", name).replace("OPTIONS", options) for name, options in OPTIONS.items()
    )
    return (
        f"{text}  pipelines:\n    " + "\n    ".join(pipelines) + f"\nexporters:{exporters}\nconnectors:{connectors}\n"
    )


def check_equal(mine, theirs):
    """Compare the series without times; sums may differ in the last digits, because the order of addition differs."""
    assert mine.keys() == theirs.keys()
    for key, point in mine.items():
        expected = theirs[key]
        for message in (point, expected):
            for field in ("start_time_unix_nano", "time_unix_nano", "attributes"):
                message.ClearField(field)
        if key[1][1] != "sum":
            assert math.isclose(point.sum, expected.sum, rel_tol=1e-9, abs_tol=1e-12)
            point.sum = expected.sum
            if key[1][1] == "exponential_histogram" and not expected.negative.bucket_counts:
                expected.ClearField("negative")  # there an empty message, here none
        assert point == expected, key


def test_numbers_are_those_of_the_go_collector(gateway, load, server, tmp_path):
    """Calls, buckets, exponential buckets and their scale, events, dimensions and the limit are compared.

    The user's YAML is the same for both.
    """
    go, health, ours, folder = free_port(), free_port(), free_port(), tmp_path / "go"
    folder.mkdir()
    text = GO.replace("GRPC", str(go)).replace("HEALTH", str(health))
    (folder / "otelcol.yaml").write_text(configured(text, folder))
    requests = [request_of(seed) for seed in range(REQUESTS)]
    running = gateway(configured(OURS.replace("GRPC", str(ours)), tmp_path))
    arguments = [server.binary("otelcol"), f"--config={folder}/otelcol.yaml"]
    with server.running(arguments, f"http://127.0.0.1:{health}/", folder):
        for port in (go, ours):
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                export = channel.unary_unary(SERVICE, bytes, bytes)
                for request in requests:
                    export(request, timeout=20, wait_for_ready=True)
        for name in OPTIONS:
            files = folder / f"{name}.json", tmp_path / f"{name}.json"
            assert load[2](
                lambda files=files: (found := counts(last_points(files[0]))) and found == counts(last_points(files[1]))
            ), name
            theirs, mine = map(last_points, files)
            assert counts(mine)["traces.span.metrics.calls"] > REQUESTS * SPANS * 3 // 4
            check_equal(mine, theirs)
    assert all(row["imbalance"] == 0 for row in running.ledger())
    assert running.stop() == 0
