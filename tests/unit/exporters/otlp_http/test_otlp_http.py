"""OTLP over HTTP against a real server on the loopback: bodies, URLs, answers, faults, and the ledger."""

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from google.rpc import status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.model import Signal, batch_type, from_json
from collector.testing import FakeHost, RecordingTelemetry, batch, eventually, make_settings, traces
from collector.transport.compression import decompress
from exporters.otlp_http import factory

PROTOBUF = "application/x-protobuf"
JSON = "application/json"


class Rig:
    """An exporter, and a server that answers from ``script`` and then with 200."""

    def __init__(self, *script, signals=frozenset(Signal), **config):
        self.script = list(script)
        self.signals = signals
        self.config = config
        self.requests = []

    async def __aenter__(self):
        async def handle(request):
            body = decompress(request.headers.get("Content-Encoding", ""), await request.read(), 100_000_000)
            self.requests.append((request.path, request.headers, body))
            return self.script.pop(0) if self.script else web.Response(content_type=PROTOBUF)

        app = web.Application(client_max_size=100_000_000, handler_args={"auto_decompress": False})
        app.router.add_post("/{tail:.*}", handle)
        self.server = TestServer(app)
        await self.server.start_server()
        base = str(self.server.make_url("")).rstrip("/")
        self.telemetry = RecordingTelemetry()
        self.settings = make_settings(factory, telemetry=self.telemetry, signals=self.signals)
        config = {"endpoint": base} | {
            name: value.replace("BASE", base) if isinstance(value, str) else value
            for name, value in self.config.items()
        }
        self.exporter = factory.create(self.settings, factory.config_type.model_validate(config))
        self.clock = self.settings.clock
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
            await asyncio.wait({stopping}, timeout=0.01)
        await stopping
        await self.server.close()

    async def take(self, *batches):
        for one in batches:
            await self.exporter.consume(one)
        await self.settled()

    async def settled(self):
        await eventually(lambda: not any(self.exporter.in_flight_items().values()), timeout_s=20)

    def outcome(self, signal=Signal.TRACES):
        ledger = self.telemetry.ledger
        return ledger.delivered[signal], ledger.dropped_count(signal), ledger.refused_count(signal)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
async def test_each_signal_arrives_as_protobuf(signal, compression):
    sent = batch(signal, items=50)
    async with Rig(compression=compression) as rig:
        await rig.take(sent)
        ((path, headers, body),) = rig.requests
        assert (path, headers["Content-Type"], body) == (f"/v1/{signal}", PROTOBUF, sent.wire)
        assert headers["User-Agent"].startswith("tailrace/")
        assert rig.outcome(signal) == (50, 0, 0)


@pytest.mark.parametrize("signal", list(Signal))
@pytest.mark.parametrize("items", [10, 3000])
async def test_each_signal_arrives_as_json(signal, items):
    sent = batch(signal, items=items)
    async with Rig(encoding="json", timeout="30s") as rig:
        await rig.take(sent)
        ((path, headers, body),) = rig.requests
        assert (path, headers["Content-Type"]) == (f"/v1/{signal}", JSON)
        assert batch_type(signal).from_wire(from_json(signal, body)).item_count == items


@pytest.mark.parametrize("slash", ["", "/"])
async def test_a_signal_may_have_a_url_of_its_own(slash):
    async with Rig(endpoint=f"BASE/otlp{slash}", traces_endpoint="BASE/elsewhere") as rig:
        await rig.take(batch(Signal.TRACES), batch(Signal.LOGS))
        assert sorted(path for path, _, _ in rig.requests) == ["/elsewhere", "/otlp/v1/logs"]


def partial(rejected, message=""):
    answer = ExportTraceServiceResponse()
    answer.partial_success.rejected_spans = rejected
    answer.partial_success.error_message = message
    return answer.SerializeToString()


@pytest.mark.parametrize(
    ("body", "content_type", "outcome", "warnings"),
    [
        (b"", PROTOBUF, (10, 0, 0), 0),
        (b"\n\x00", PROTOBUF, (10, 0, 0), 0),
        (partial(3, "too old"), PROTOBUF, (7, 0, 3), 1),
        (partial(0, "a warning"), PROTOBUF, (10, 0, 0), 1),
        (b"\xff\xff", PROTOBUF, (10, 0, 0), 1),
        (b"{}", JSON, (10, 0, 0), 0),
        (b'{"partialSuccess":{}}', JSON, (10, 0, 0), 0),
        (b'{"partialSuccess":{"rejectedSpans":"3","errorMessage":"x"}}', JSON, (7, 0, 3), 1),
        (b'{"partial_success":{"rejected_spans":3}}', JSON, (7, 0, 3), 1),
        (b"{", JSON, (10, 0, 0), 1),
        (b"[]", JSON, (10, 0, 0), 1),
        (b'{"partialSuccess":{"rejectedSpans":[]}}', JSON, (10, 0, 0), 0),
        (b'{"partialSuccess":{"rejectedSpans":[1]}}', JSON, (10, 0, 0), 1),
        (b"<html>welcome</html>", "text/html", (10, 0, 0), 0),
        (bytes(200_000), PROTOBUF, (10, 0, 0), 1),
    ],
)
async def test_the_body_of_a_success_is_read(body, content_type, outcome, warnings):
    """A body that is not a response is a warning: the backend has accepted the data."""
    async with Rig(web.Response(body=body, content_type=content_type)) as rig:
        await rig.take(traces(spans=10))
        assert rig.outcome() == outcome
        assert len(rig.telemetry.log.of_level("warning")) == warnings


@pytest.mark.parametrize("ends", ["closes", "waits"])
async def test_a_200_whose_body_is_cut_off_or_late_is_delivered_once(ends):
    """Never sent again: the backend has it."""
    request_count = 0

    async def serve(reader, writer):
        nonlocal request_count
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        request_count += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100\r\n\r\n\x0a")
        if ends == "waits":
            await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, Rig(web.Response(), timeout="300ms") as rig:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/traces"
        rig.exporter._urls = dict.fromkeys(rig.exporter._urls, url)
        await rig.take(traces(spans=10))
        assert rig.outcome() == (10, 0, 0)
        (event,) = rig.telemetry.log.of_level("warning")
        assert event.fields["problem"] == "the body of the response is cut off, too large or not decodable"
        await rig.clock.advance(60)
    assert request_count == 1


async def test_204_is_success():
    async with Rig(web.Response(status=204)) as rig:
        await rig.take(traces(spans=10))
        assert rig.outcome() == (10, 0, 0)


async def test_retry_after_of_a_429_is_respected():
    async with Rig(web.Response(status=429, headers={"Retry-After": "42"})) as rig:
        await rig.exporter.consume(traces(spans=10))
        await eventually(lambda: rig.exporter.health.last_error != "")
        await rig.clock.advance(41)
        assert len(rig.requests) == 1
        await rig.clock.advance(2)
        await rig.settled()
        assert rig.outcome() == (10, 0, 0)


async def test_what_a_400_is_about_is_found_by_halving_the_request():
    """The rest of the request is delivered."""
    async with Rig(*(web.Response(status=status) for status in (400, 400, 400, 200, 200))) as rig:
        await rig.take(traces(spans=4))
        assert rig.telemetry.ledger.refused == {(Signal.TRACES, "http_400"): 1}
        assert rig.telemetry.ledger.delivered == {Signal.TRACES: 3}


async def test_a_refusal_shows_what_the_server_answered():
    said = status_pb2.Status(code=3, message="no such tenant").SerializeToString()
    async with Rig(web.Response(status=400, body=said, content_type=PROTOBUF)) as rig:
        await rig.take(traces(spans=1))
        assert rig.telemetry.ledger.refused == {(Signal.TRACES, "http_400"): 1}
        assert rig.telemetry.log.of_level("error")[0].fields["error"].endswith("400 Bad Request: no such tenant")


@pytest.mark.parametrize("encoding", ["proto", "json"])
async def test_requests_stay_below_the_limit(encoding):
    sent = traces(spans=400)
    limit = sent.size_bytes // 2
    async with Rig(encoding=encoding, max_request_bytes=limit) as rig:
        await rig.take(sent)
        assert len(rig.requests) >= 2
        assert all(len(body) <= limit for _, _, body in rig.requests)
        assert rig.outcome() == (400, 0, 0)


async def test_credentials_stay_out_of_the_log():
    async with Rig(
        web.Response(status=401, text="bad: Bearer sesame-open-1"), headers={"authorization": "Bearer sesame-open-1"}
    ) as rig:
        await rig.take(traces(spans=10))
        assert rig.requests[0][1]["Authorization"] == "Bearer sesame-open-1"
        assert "sesame" not in str(rig.telemetry.log.events)
        assert "sesame" not in repr(rig.exporter.__dict__)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "endpoint is required"),
        ({"endpoint": "localhost:4318"}, "http:// or https://"),
        ({"endpoint": "http://"}, "http:// or https://"),
        ({"traces_endpoint": "http://u:hunter2@h:99999999/"}, "traces_endpoint"),
        ({"endpoint": "http://h", "encoding": "xml"}, "encoding"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


def test_a_signal_without_a_url_is_refused():
    config = factory.config_type.model_validate({"traces_endpoint": "http://h/"})
    factory.create(make_settings(factory, signals={Signal.TRACES}), config)
    with pytest.raises(ValueError, match="logs_endpoint: this key or endpoint is required, because a logs pipeline"):
        factory.create(make_settings(factory, signals={Signal.LOGS}), config)


def test_profiles_endpoint_is_accepted_with_a_warning():
    """The Collector's configurations contain it; profiles themselves are not supported."""
    config = {"endpoint": "http://localhost:1", "profiles_endpoint": "http://localhost:2/v1development/profiles"}
    found = factory.config_type.model_validate(config).warnings()
    assert list(found) == [("profiles_endpoint", "this setting has no effect: Tailrace does not process profiles")]
