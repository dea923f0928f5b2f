"""A running receiver with a door that records, and clients for each way of sending."""

import asyncio
import base64
import gzip as gzip_module
import io
import json
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import grpc
import pytest
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2

from collector.api import Receipt
from collector.model import Context, Signal
from collector.otlp.names import GRPC_METHODS
from collector.testing import FakeHost, RecordingTelemetry, make_settings
from receivers.otlp import factory
from receivers.otlp.otlp import OTLPReceiver

RESPONSES = {
    Signal.TRACES: trace_service_pb2.ExportTraceServiceResponse,
    Signal.METRICS: metrics_service_pb2.ExportMetricsServiceResponse,
    Signal.LOGS: logs_service_pb2.ExportLogsServiceResponse,
}
REJECTED = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}


class Door:
    """A ReceiverOutput that records what it receives, and answers as ordered."""

    def __init__(self) -> None:
        self.taken: list[tuple[bytes, Context]] = []
        self.transports: list[str] = []
        self.error: Exception | None = None
        self.receipt = Receipt(1)
        self.answers: set[asyncio.Task[None]] = set()
        self.entered = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.unread: list[str] = []

    def refuse_unread(self, reason: str) -> None:
        self.unread.append(reason)

    def for_transport(self, transport: str) -> "Door":
        self.transports.append(transport)
        return self

    def try_consume_request(self, wire: bytes, context: Context, answered: Any) -> None:
        async def answer() -> None:
            try:
                outcome = await self.consume_request(wire, context)
            except Exception as error:
                outcome = error
            answered(outcome)

        task = asyncio.ensure_future(answer())
        self.answers.add(task)
        task.add_done_callback(self.answers.discard)

    async def consume_request(self, wire: bytes, context: Context) -> Receipt:
        self.entered.set()
        await self.open.wait()
        if self.error is not None:
            raise self.error
        self.taken.append((wire, context))
        return self.receipt


@dataclass
class Running:
    receiver: OTLPReceiver
    doors: dict[Signal, Door]
    telemetry: RecordingTelemetry
    host: FakeHost

    @property
    def door(self) -> Door:
        return self.doors[Signal.TRACES]

    @property
    def grpc_port(self) -> int:
        return self._port("serving OTLP over gRPC")

    @property
    def http_port(self) -> int:
        return self._port("serving OTLP over HTTP") or self.grpc_port

    def _port(self, event: str) -> int:
        """The port that the receiver logged when it started to listen; 0 if there is none."""
        endpoints = (logged.fields["endpoint"] for logged in self.telemetry.log.events if logged.event == event)
        port = next(endpoints, "").rpartition(":")[2]
        return int(port) if port.isdecimal() else 0


@dataclass
class Outcome:
    """The outcome of a request for its sender, in terms common to all protocols."""

    kind: str
    message: str = ""
    rejected_count: int = 0
    retry_after_s: float | None = None
    bad_fields: list[str] = field(default_factory=list)
    body: bytes = b""


@asynccontextmanager
async def receiving(
    protocols: dict[str, Any], signals: Iterable[Signal] = tuple(Signal), host: FakeHost | None = None
) -> AsyncIterator[Running]:
    doors = {signal: Door() for signal in signals}
    telemetry = RecordingTelemetry()
    host = host or FakeHost()
    config = factory.config_type.model_validate({"protocols": protocols})
    receiver = factory.create(
        make_settings(factory, signals=frozenset(doors), outputs=doors, telemetry=telemetry), config
    )
    await receiver.start(host)
    try:
        yield Running(receiver, doors, telemetry, host)
    finally:
        for door in doors.values():
            door.open.set()
        await receiver.shutdown()


@pytest.fixture
async def receive(request: pytest.FixtureRequest) -> AsyncIterator[Callable[..., Any]]:
    """Starts receivers, with the gRPC server that ``send`` requires; all are stopped after the test."""
    over_grpcio = "send" in request.fixturenames and request.getfixturevalue("send").name == "grpc-grpcio"
    async with AsyncExitStack() as stack:

        async def start(protocols: dict[str, Any] | None = None, **kwargs: Any) -> Running:
            both = {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "127.0.0.1:0"}}
            protocols = dict(both if protocols is None else protocols)
            if over_grpcio and "grpc" in protocols:
                protocols["grpc"] = {**protocols["grpc"], "transport": "grpcio"}
            return await stack.enter_async_context(receiving(protocols, **kwargs))

        yield start


def outcome_of_status(status: status_pb2.Status, kind: str, retry_after: str | None = None) -> Outcome:
    outcome = Outcome(kind, status.message)
    for detail in status.details:
        retry, bad = error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
        if detail.Unpack(retry):
            outcome.retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
        elif detail.Unpack(bad):
            outcome.bad_fields = [violation.field for violation in bad.field_violations]
    return outcome


def outcome_of_success(signal: Signal, response: Any) -> Outcome:
    partial = response.partial_success
    outcome = Outcome("ok", partial.error_message, getattr(partial, REJECTED[signal]))
    if not response.HasField("partial_success"):
        assert outcome.message == ""
    return outcome


KIND_BY_HTTP_STATUS = {
    400: "bad",
    401: "unauthenticated",
    404: "unknown",
    413: "too_large",
    500: "internal",
    503: "retry",
}
KIND_BY_GRPC_CODE = {
    grpc.StatusCode.INVALID_ARGUMENT: "bad",
    grpc.StatusCode.UNAUTHENTICATED: "unauthenticated",
    grpc.StatusCode.UNIMPLEMENTED: "unknown",
    grpc.StatusCode.RESOURCE_EXHAUSTED: "too_large",
    grpc.StatusCode.INTERNAL: "internal",
    grpc.StatusCode.UNAVAILABLE: "retry",
}


async def _send_http(
    running: Running,
    signal: Signal,
    body: bytes,
    *,
    json_encoded: bool,
    encoding: str = "",
    headers: dict[str, str] | None = None,
) -> Outcome:
    content_type = "application/json" if json_encoded else "application/x-protobuf"
    all_headers = {"Content-Type": content_type, **(headers or {})}
    if encoding:
        all_headers["Content-Encoding"] = encoding
    url = f"http://127.0.0.1:{running.http_port}/v1/{signal}"
    async with (
        aiohttp.ClientSession(auto_decompress=False) as session,
        session.post(url, data=io.BytesIO(body), headers=all_headers) as response,
    ):
        answer = await response.read()
        if response.status == 404:
            return Outcome("unknown")
        assert response.headers["Content-Type"] == content_type
        if response.status == 200:
            message = RESPONSES[signal]()
            if json_encoded:
                json_format.Parse(answer, message)
            else:
                message.ParseFromString(answer)
            outcome = outcome_of_success(signal, message)
            outcome.body = answer
            return outcome
        status = status_pb2.Status()
        if json_encoded:
            written = json.loads(answer)
            assert written["code"] > 0
            json_format.Parse(answer, status)
        else:
            status.ParseFromString(answer)
        outcome = outcome_of_status(status, KIND_BY_HTTP_STATUS[response.status])
        retry_after = response.headers.get("Retry-After")
        assert (retry_after is not None) == (outcome.retry_after_s is not None)
        if retry_after is not None:
            assert int(retry_after) >= outcome.retry_after_s > int(retry_after) - 1
        return outcome


async def _send_grpc(
    running: Running, signal: Signal, body: bytes, *, gzip: bool = False, headers: dict[str, str] | None = None
) -> Outcome:
    options = [("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}", options=options) as channel:
        call = channel.unary_unary(GRPC_METHODS[signal])(
            body,
            metadata=tuple((headers or {}).items()),
            compression=grpc.Compression.Gzip if gzip else None,
            timeout=20,
        )
        code, text = await call.code(), await call.details()
        if code is not grpc.StatusCode.OK:
            kind = KIND_BY_GRPC_CODE[code]
            details = dict(await call.trailing_metadata() or ()).get("grpc-status-details-bin")
            if details is None:
                return Outcome(kind, text or "")
            status = status_pb2.Status.FromString(details)
            assert (status.code, status.message) == (code.value[0], text)
            return outcome_of_status(status, kind)
        answer = await call
        outcome = outcome_of_success(signal, RESPONSES[signal].FromString(answer))
        outcome.body = answer
        return outcome


@pytest.fixture
def send_http() -> Callable[..., Any]:
    """``await send_http(running, signal, body, json_encoded=False, encoding="", headers=None)`` → Outcome."""
    return _send_http


@pytest.fixture
def send_grpc() -> Callable[..., Any]:
    """``await send_grpc(running, signal, body, gzip=False, headers=None)`` → Outcome."""
    return _send_grpc


@pytest.fixture(params=["grpc", "grpc-grpcio", "http-protobuf", "http-json"])
def send(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """``await send(running, signal, message, gzip=…, headers=…)`` returns an Outcome; ``send.transport`` is its name."""
    name = request.param

    async def over_any(
        running: Running, signal: Signal, message: Any, *, gzip: bool = False, headers: dict[str, str] | None = None
    ) -> Outcome:
        body = _otlp_json(message) if name == "http-json" else message.SerializeToString()
        if name.startswith("grpc"):
            return await _send_grpc(running, signal, body, gzip=gzip, headers=headers)
        if gzip:
            body = gzip_module.compress(body)
        return await _send_http(
            running, signal, body, json_encoded=name == "http-json", encoding="gzip" if gzip else "", headers=headers
        )

    over_any.name = name
    over_any.transport = name.partition("-")[0]
    return over_any


def _otlp_json(message: Any) -> bytes:
    """protobuf's JSON with ids in hexadecimal, as OTLP has them."""
    tree = json_format.MessageToDict(message)

    def walk(node: Any) -> Any:
        if isinstance(node, dict):
            return {
                key: base64.b64decode(value).hex() if key in {"traceId", "spanId", "parentSpanId"} else walk(value)
                for key, value in node.items()
            }
        return [walk(item) for item in node] if isinstance(node, list) else node

    return json.dumps(walk(tree)).encode()
