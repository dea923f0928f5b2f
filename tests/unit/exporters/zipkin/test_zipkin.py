"""Batches are posted as JSON; what Zipkin cannot take is counted."""

import json

import pytest
from aiohttp import web

from collector.model import Signal, Traces, TracesBuilder
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings, traces
from exporters.zipkin import factory
from exporters.zipkin.protobuf import spans_protobuf


@pytest.fixture
async def zipkin():
    """A server that keeps the spans it is sent, and answers as ``zipkin.status`` says."""

    class Server:
        status, spans, url, content_types = 202, [], "", set()

    server = Server()
    server.spans, server.content_types = [], set()

    async def take(request):
        server.content_types.add(request.content_type)
        if server.status == 202:
            body = await request.read()
            server.spans += json.loads(body) if request.content_type == "application/json" else [body]
        return web.Response(status=server.status)

    app = web.Application()
    app.router.add_post("/api/v2/spans", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v2/spans"
    yield server
    await runner.cleanup()


async def started(url, telemetry, **options):
    settings = make_settings(factory, signals={Signal.TRACES}, telemetry=telemetry)
    exporter = factory.create(settings, factory.config_type.model_validate({"endpoint": url, **options}))
    await exporter.start(FakeHost())
    return exporter


@pytest.mark.parametrize("compression", ["", "gzip"])
async def test_spans_arrive(zipkin, compression):
    """All of them, also in several requests."""
    telemetry = RecordingTelemetry()
    exporter = await started(zipkin.url, telemetry, compression=compression, max_request_bytes=20_000)
    await exporter.consume(traces(spans=300))
    await eventually(lambda: len(zipkin.spans) == 300)
    await exporter.shutdown()
    assert zipkin.content_types == {"application/json"}
    assert telemetry.ledger.delivered[Signal.TRACES] == 300


async def test_protobuf_is_sent_as_such(zipkin):
    """With the type that Zipkin's servers expect."""
    exporter = await started(zipkin.url, RecordingTelemetry(), format="proto")
    await exporter.consume(traces(spans=3))
    await eventually(lambda: bool(zipkin.spans))
    await exporter.shutdown()
    assert zipkin.content_types == {"application/x-protobuf"}
    (body,) = zipkin.spans
    assert body == spans_protobuf(traces(spans=3), "<missing service name>")


async def test_spans_without_ids_are_dropped_and_counted(zipkin):
    """Zipkin would refuse the whole request because of one of them."""
    builder = TracesBuilder()
    scope = builder.scope(builder.resource())
    builder.spans(
        scope,
        names=["a", "b", "c"],
        trace_ids=[[0, 1], [0, 0], [0, 1]],
        span_ids=[1, 1, 0],
        start_times=[1] * 3,
        end_times=[2] * 3,
    )
    telemetry = RecordingTelemetry()
    exporter = await started(zipkin.url, telemetry)
    await exporter.consume(Traces.from_wire(builder.build().wire))
    await eventually(lambda: len(zipkin.spans) == 1)
    await exporter.shutdown()
    assert zipkin.spans[0]["name"] == "a"
    assert telemetry.ledger.dropped_count(Signal.TRACES, "invalid_id") == 2


async def test_a_refusal_is_counted(zipkin):
    """A status that will not change ends the attempt."""
    zipkin.status = 401
    telemetry = RecordingTelemetry()
    exporter = await started(zipkin.url, telemetry)
    await exporter.consume(traces(spans=5))
    await eventually(lambda: telemetry.ledger.refused_count(Signal.TRACES) == 5)
    await exporter.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "endpoint is required, for example http://localhost:9411/api/v2/spans"),
        ({"endpoint": "http://a", "format": "xml"}, "json"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what to write."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)
