"""Real OpenTelemetry SDK exporters, over both protocols, with TLS and mutual TLS."""

import asyncio

import grpc
import pytest
import trustme
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GRPCLogs
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GRPCMetrics
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GRPCSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HTTPLogs
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HTTPMetrics
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HTTPSpans
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult

from collector.api import Receipt, RetryableError
from collector.model import Signal

SPAN_EXPORTERS = {
    "grpc": lambda r: GRPCSpans(endpoint=f"http://127.0.0.1:{r.grpc_port}", insecure=True),
    "grpc-gzip": lambda r: GRPCSpans(
        endpoint=f"http://127.0.0.1:{r.grpc_port}", insecure=True, compression=grpc.Compression.Gzip
    ),
    "http": lambda r: HTTPSpans(endpoint=f"http://127.0.0.1:{r.http_port}/v1/traces"),
    "http-gzip": lambda r: HTTPSpans(
        endpoint=f"http://127.0.0.1:{r.http_port}/v1/traces", compression=Compression.Gzip
    ),
    "http-deflate": lambda r: HTTPSpans(
        endpoint=f"http://127.0.0.1:{r.http_port}/v1/traces", compression=Compression.Deflate
    ),
}


def export_spans(exporter, count=20):
    results = []
    export = exporter.export

    def recording(spans):
        results.append(export(spans))
        return results[-1]

    exporter.export = recording
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    for n in range(count):
        with tracer.start_as_current_span(f"span {n}", attributes={"n": n}):
            pass
    provider.shutdown()
    return results


@pytest.mark.parametrize("name", SPAN_EXPORTERS)
async def test_spans_arrive(receive, name):
    """All spans arrive, and the SDK reports success."""
    running = await receive()
    results = await asyncio.to_thread(export_spans, SPAN_EXPORTERS[name](running))
    assert results == [SpanExportResult.SUCCESS] * 20
    spans = [
        span.name
        for wire, _ in running.door.taken
        for resource in ExportTraceServiceRequest.FromString(wire).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    assert spans == [f"span {n}" for n in range(20)]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_sdk_retries_what_was_refused_for_now(receive, protocol):
    """RetryInfo and Retry-After have the form that the SDK expects: it retries, and the refused data arrives."""
    running = await receive()
    running.door.error = RetryableError("full", retry_after_s=0.001)

    async def relent():
        await running.door.entered.wait()
        running.door.error = None

    async with asyncio.TaskGroup() as group:
        group.create_task(relent())
        exported = group.create_task(asyncio.to_thread(export_spans, SPAN_EXPORTERS[protocol](running), 1))
    assert exported.result() == [SpanExportResult.SUCCESS]
    assert len(running.door.taken) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_partial_success_is_a_success_to_the_sdk(receive, protocol):
    """The SDK must not send the data again."""
    running = await receive()
    running.door.receipt = Receipt(1, 1, "one was bad")
    assert await asyncio.to_thread(export_spans, SPAN_EXPORTERS[protocol](running), 1) == [SpanExportResult.SUCCESS]
    assert len(running.door.taken) == 1


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_metrics_arrive(receive, protocol):
    """A counter and a histogram arrive."""
    running = await receive()
    port = running.grpc_port if protocol == "grpc" else running.http_port

    def export():
        if protocol == "grpc":
            exporter = GRPCMetrics(endpoint=f"http://127.0.0.1:{port}", insecure=True)
        else:
            exporter = HTTPMetrics(endpoint=f"http://127.0.0.1:{port}/v1/metrics")
        provider = MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)])
        meter = provider.get_meter("test")
        meter.create_counter("c").add(3, {"a": "b"})
        meter.create_histogram("h").record(1.5)
        provider.shutdown()

    await asyncio.to_thread(export)
    requests = [ExportMetricsServiceRequest.FromString(wire) for wire, _ in running.doors[Signal.METRICS].taken]
    assert [m.name for r in requests for rm in r.resource_metrics for sm in rm.scope_metrics for m in sm.metrics] == [
        "c",
        "h",
    ]


@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_logs_arrive(receive, protocol):
    """A log record with a body arrives."""
    from opentelemetry._logs import LogRecord
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor

    running = await receive()
    port = running.grpc_port if protocol == "grpc" else running.http_port

    def export():
        if protocol == "grpc":
            exporter = GRPCLogs(endpoint=f"http://127.0.0.1:{port}", insecure=True)
        else:
            exporter = HTTPLogs(endpoint=f"http://127.0.0.1:{port}/v1/logs")
        provider = LoggerProvider()
        provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
        provider.get_logger("test").emit(LogRecord(timestamp=5, body="hello"))
        provider.shutdown()

    await asyncio.to_thread(export)
    requests = [ExportLogsServiceRequest.FromString(wire) for wire, _ in running.doors[Signal.LOGS].taken]
    assert [
        lr.body.string_value
        for r in requests
        for rl in r.resource_logs
        for sl in rl.scope_logs
        for lr in sl.log_records
    ] == ["hello"]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Files with a CA, a server certificate and a client certificate."""
    folder = tmp_path_factory.mktemp("certificates")
    ca = trustme.CA()
    server, client = ca.issue_cert("localhost", "127.0.0.1"), ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(folder / "ca.pem")
    for name, certificate in (("server", server), ("client", client)):
        certificate.private_key_pem.write_to_path(folder / f"{name}.key")
        certificate.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    return folder


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("protocol", ["grpc", "http"])
async def test_spans_arrive_over_tls(receive, certificates, protocol, mutual, monkeypatch):
    """With client certificates as well; without one, mutual TLS refuses the client."""
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # they override the exporter's setting
        monkeypatch.delenv(variable, raising=False)
    folder = certificates
    tls = {"cert_file": str(folder / "server.pem"), "key_file": str(folder / "server.key")}
    if mutual:
        tls["client_ca_file"] = str(folder / "ca.pem")
    running = await receive({protocol: {"endpoint": "127.0.0.1:0", "tls": tls}})

    def exporter(with_certificate):
        if protocol == "http":
            client = (
                {"client_certificate_file": str(folder / "client.pem"), "client_key_file": str(folder / "client.key")}
                if with_certificate
                else {}
            )
            return HTTPSpans(
                endpoint=f"https://localhost:{running.http_port}/v1/traces",
                certificate_file=str(folder / "ca.pem"),
                timeout=2,
                **client,
            )
        root = (folder / "ca.pem").read_bytes()
        pair = (
            ((folder / "client.key").read_bytes(), (folder / "client.pem").read_bytes())
            if with_certificate
            else (None, None)
        )
        credentials = grpc.ssl_channel_credentials(root, *pair)
        return GRPCSpans(endpoint=f"localhost:{running.grpc_port}", credentials=credentials, timeout=2)

    assert await asyncio.to_thread(export_spans, exporter(mutual), 1) == [SpanExportResult.SUCCESS]
    assert len(running.door.taken) == 1
    if mutual:
        assert await asyncio.to_thread(export_spans, exporter(False), 1) == [SpanExportResult.FAILURE]
        assert len(running.door.taken) == 1
