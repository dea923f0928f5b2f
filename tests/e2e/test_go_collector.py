"""With the Go collector as sender and as receiver, over gRPC and HTTP with gzip: the same content arrives."""

import base64
import collections
import contextlib
import json

import grpc
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port, logs_request, metrics_request, traces_request

# Go's file exporter has a file of its own for each signal; ours is given the same names.
GO = """
extensions: {health_check: {endpoint: "127.0.0.1:HEALTH"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}, http: {endpoint: "127.0.0.1:HTTP"}}}}
exporters: {EXPORTERS}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [TRACES]}
    metrics: {receivers: [otlp], exporters: [METRICS]}
    logs: {receivers: [otlp], exporters: [LOGS]}
"""
OURS = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"ENGINE}, http: {endpoint: "127.0.0.1:HTTP"}}}}
processors: {batch: {timeout: 200ms}}
exporters: {EXPORTERS}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [TRACES]}
    metrics: {receivers: [otlp], processors: [batch], exporters: [METRICS]}
    logs: {receivers: [otlp], processors: [batch], exporters: [LOGS]}
"""
FILES = "file/traces: {path: FOLDER/traces.jsonl}, file/metrics: {path: FOLDER/metrics.jsonl}, file/logs: {path: FOLDER/logs.jsonl}"
SIGNALS = {
    "traces": (ExportTraceServiceRequest, traces_request, "spans", "trace.v1.TraceService"),
    "metrics": (ExportMetricsServiceRequest, metrics_request, "points", "metrics.v1.MetricsService"),
    "logs": (ExportLogsServiceRequest, logs_request, "records", "logs.v1.LogsService"),
}
REQUESTS, ITEMS = 20, 100

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def configured(text, exporters, *names, **ports):
    text = text.replace("EXPORTERS", exporters)
    for signal, name in zip(("TRACES", "METRICS", "LOGS"), names, strict=True):
        text = text.replace(f"[{signal}]", f"[{name}]")
    for word, port in ports.items():
        text = text.replace(word, str(port))
    return text


def plain(message):
    """Return the message without empty sub-messages: Go writes ``"status": {}`` where there was none.

    A value without content stays.
    """
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        for each in value if field.is_repeated else [value]:
            plain(each)
        if (
            not field.is_repeated
            and field.containing_oneof is None
            and field.message_type.name != "AnyValue"
            and not value.ByteSize()
        ):
            message.ClearField(field.name)
    return message


def items(request):
    """Return each item with its resource and scope, as bytes, with its number of occurrences."""
    found = collections.Counter()
    for resource in request.ListFields()[0][1] if request.ListFields() else ():
        head = plain(resource.resource).SerializeToString(deterministic=True), resource.schema_url
        scopes = next(value for field, value in resource.ListFields() if field.name.startswith("scope_"))
        for scope in scopes:
            inner = *head, plain(scope.scope).SerializeToString(deterministic=True), scope.schema_url
            for each in next(
                value for field, value in scope.ListFields() if field.name in {"spans", "metrics", "log_records"}
            ):
                found.update((*inner, *one) for one in points(plain(each)))
    return found


def points(item):
    """Return the points of a metric, each with the fields of the metric; any other item unchanged."""
    if item.DESCRIPTOR.name != "Metric":
        return [(item.SerializeToString(deterministic=True),)]
    kept = getattr(item, item.WhichOneof("data"))
    each = [point.SerializeToString(deterministic=True) for point in kept.data_points]
    kept.ClearField("data_points")
    return [(item.SerializeToString(deterministic=True), point) for point in each]


def ids_as_protobuf(value):
    """Convert ids from hex, as in OTLP/JSON, to base64, as in protobuf's own JSON."""
    if isinstance(value, list):
        return [ids_as_protobuf(each) for each in value]
    if not isinstance(value, dict):
        return value
    is_id = {"traceId", "spanId", "parentSpanId"}
    return {
        key: base64.b64encode(bytes.fromhex(each)).decode() if key in is_id else ids_as_protobuf(each)
        for key, each in value.items()
    }  # fmt: skip


def items_in(file, message_type):
    found = collections.Counter()
    with contextlib.suppress(FileNotFoundError):
        for line in file.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                found.update(items(json_format.ParseDict(ids_as_protobuf(json.loads(line)), message_type())))
    return found


def send_everything(endpoint):
    """Send requests of every signal over gRPC with gzip, and return their items by signal."""
    sent = {}
    with grpc.insecure_channel(endpoint) as channel:
        for signal, (_, make, unit, service) in SIGNALS.items():
            export = channel.unary_unary(f"/opentelemetry.proto.collector.{service}/Export", bytes, bytes)
            sent[signal] = collections.Counter()
            for seed in range(REQUESTS):
                request = make(**{unit: ITEMS, "services": 3, "seed": seed})
                export(request.SerializeToString(), timeout=20, compression=grpc.Compression.Gzip, wait_for_ready=True)
                sent[signal].update(items(request))
            assert sent[signal].total() == REQUESTS * ITEMS
    return sent


def arrived(folder, sent, until):
    for signal, (message_type, *_) in SIGNALS.items():
        file = folder / f"{signal}.jsonl"
        assert until(
            lambda file=file, message_type=message_type, signal=signal: (
                items_in(file, message_type).total() >= sent[signal].total()
            )
        )
        found = items_in(file, message_type)
        missing, added = sent[signal] - found, found - sent[signal]
        assert not missing, (signal, next(iter(missing)), next(iter(added), None))
        assert not added, (signal, next(iter(added)))


@pytest.fixture
def otelcol(tmp_path, server):
    """Starts the Go collector with a given configuration."""
    with contextlib.ExitStack() as stack:

        def start(text, health):
            folder = tmp_path / "go"
            folder.mkdir()
            (folder / "otelcol.yaml").write_text(text)
            arguments = [server.binary("otelcol"), f"--config={folder}/otelcol.yaml"]
            stack.enter_context(server.running(arguments, f"http://127.0.0.1:{health}/", folder))

        yield start


TARGETS = {
    "grpc": ("otlp_grpc", 'otlp_grpc: {endpoint: "127.0.0.1:TARGET", tls: {insecure: true}, compression: gzipCLIENT}'),
    "http": ("otlp_http", 'otlp_http: {endpoint: "http://127.0.0.1:TARGET", compression: gzip}'),
}


@pytest.mark.parametrize(
    ("transport", "engine"), [("grpc", "http2"), ("grpc", "grpcio"), ("http", "http2")], indirect=["engine"]
)
def test_the_collector_sends_to_us(transport, engine, gateway, load, otelcol, tmp_path):
    """Its otlp exporters send to Tailrace's otlp receiver, and its file exporter writes the same data."""
    ports = {"grpc": free_port(), "http": free_port()}
    files = FILES.replace("FOLDER", str(tmp_path))
    names = "file/traces", "file/metrics", "file/logs"
    running = gateway(configured(OURS, files, *names, ENGINE=engine.server, GRPC=ports["grpc"], HTTP=ports["http"]))
    name, exporter = TARGETS[transport]
    go, health = free_port(), free_port()
    otelcol(
        configured(
            GO, exporter, name, name, name, GRPC=go, HTTP=free_port(), HEALTH=health, TARGET=ports[transport], CLIENT=""
        ),
        health,
    )
    sent = send_everything(f"127.0.0.1:{go}")
    arrived(tmp_path, sent, load[2])
    received = {row["signal"]: row["received"] for row in running.ledger() if row["node"] == "receivers/otlp"}
    assert received == dict.fromkeys(SIGNALS, REQUESTS * ITEMS)
    assert running.stop() == 0


@pytest.mark.parametrize(
    ("transport", "engine"), [("grpc", "http2"), ("grpc", "grpcio"), ("http", "http2")], indirect=["engine"]
)
def test_we_send_to_the_collector(transport, engine, gateway, load, otelcol, tmp_path):
    """Tailrace's otlp exporters send to its otlp receiver, and its file exporter writes what arrived."""
    ports, health = {"grpc": free_port(), "http": free_port()}, free_port()
    files = FILES.replace("FOLDER", str(tmp_path))
    names = "file/traces", "file/metrics", "file/logs"
    otelcol(configured(GO, files, *names, GRPC=ports["grpc"], HTTP=ports["http"], HEALTH=health), health)
    name, exporter = TARGETS[transport]
    ours = free_port()
    keys = {
        "ENGINE": engine.server,
        "CLIENT": engine.client,
        "GRPC": ours,
        "HTTP": free_port(),
        "TARGET": ports[transport],
    }
    running = gateway(configured(OURS, exporter, name, name, name, **keys))
    sent = send_everything(f"127.0.0.1:{ours}")
    arrived(tmp_path, sent, load[2])
    assert all(row["imbalance"] == 0 for row in running.ledger())
    assert running.stop() == 0
