"""Tests for every way of sending: gRPC, HTTP with protobuf, HTTP with JSON."""

import asyncio
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.api import PermanentError, Receipt, RetryableError
from collector.model import MalformedBatch, Signal
from collector.testing import FakeHost, check_component
from collector.transport.auth import AuthenticationError
from receivers.otlp import factory

BOTH = {"grpc": {"endpoint": "127.0.0.1:0"}, "http": {"endpoint": "127.0.0.1:0"}}


def both(**common: Any) -> dict[str, Any]:
    return {name: {**protocol, **common} for name, protocol in BOTH.items()}


def a_request(signal: Signal, padding: int = 0) -> Any:
    attribute = {"key": "k", "value": {"string_value": "x" * padding}}
    resource = {"attributes": [{"key": "service.name", "value": {"string_value": "api"}}, attribute]}
    if signal is Signal.TRACES:
        span = {"name": "GET /", "trace_id": b"\x01" * 16, "span_id": b"\x02" * 8, "start_time_unix_nano": 5, "kind": 2}
        return ExportTraceServiceRequest(resource_spans=[{"resource": resource, "scope_spans": [{"spans": [span]}]}])
    if signal is Signal.METRICS:
        metric = {"name": "m", "gauge": {"data_points": [{"time_unix_nano": 7, "as_int": -3}]}}
        return ExportMetricsServiceRequest(
            resource_metrics=[{"resource": resource, "scope_metrics": [{"metrics": [metric]}]}]
        )
    record = {"time_unix_nano": 9, "body": {"string_value": "hello"}, "severity_number": 9}
    return ExportLogsServiceRequest(resource_logs=[{"resource": resource, "scope_logs": [{"log_records": [record]}]}])


A_SPAN = a_request(Signal.TRACES)


class Badge:
    """An authenticator that accepts one token."""

    async def authenticate(self, headers):
        if headers.get("authorization") != ("Bearer good",):
            raise AuthenticationError("no valid token")
        return (("sub", "me"),)


async def test_factory_keeps_the_contract():
    """The contract covers the life cycle, the example in the README, and the configuration round trip."""
    await check_component(factory)


@pytest.mark.parametrize("signal", list(Signal))
async def test_request_reaches_the_door_of_its_signal_whole(receive, send, signal):
    """The bytes sent arrive at the output of their signal, and only there; the response is an empty success."""
    running = await receive()
    message = a_request(signal)
    outcome = await send(running, signal, message)
    assert outcome.kind == "ok"
    assert outcome.body in {b"", b"{}"}
    assert {s: len(door.taken) for s, door in running.doors.items()} == {s: int(s is signal) for s in Signal}
    assert type(message).FromString(running.doors[signal].taken[0][0]) == message


async def test_door_is_told_the_transport(receive, send):
    """Each protocol is counted under its own label."""
    running = await receive()
    assert sorted(running.door.transports) == ["grpc", "http"]


@pytest.mark.parametrize("signal", list(Signal))
async def test_empty_request_succeeds_without_entering_a_pipeline(receive, send, signal):
    """The OTLP specification demands success for an empty request."""
    running = await receive()
    outcome = await send(running, signal, type(a_request(signal))())
    assert outcome.kind == "ok"
    assert not running.doors[signal].taken


@pytest.mark.parametrize("signal", list(Signal))
async def test_partial_success_counts_what_was_rejected(receive, send, signal):
    """The response has rejected_spans, rejected_data_points or rejected_log_records, and the message."""
    running = await receive()
    running.doors[signal].receipt = Receipt(5, 300, "trace id of 8 bytes")
    outcome = await send(running, signal, a_request(signal))
    assert (outcome.kind, outcome.rejected_count, outcome.message) == ("ok", 300, "trace id of 8 bytes")


async def test_warning_rejects_nothing(receive, send):
    """A message without a count of rejected items is a warning."""
    running = await receive()
    running.door.receipt = Receipt(5, 0, "names are deprecated")
    outcome = await send(running, Signal.TRACES, A_SPAN)
    assert (outcome.kind, outcome.rejected_count, outcome.message) == ("ok", 0, "names are deprecated")


async def test_malformed_batch_is_a_bad_request_that_names_the_field(receive, send):
    """The status is 400 or INVALID_ARGUMENT, with BadRequest details."""
    running = await receive()
    running.door.error = MalformedBatch(path="resource_spans.scope_spans", offset=7, reason="truncated")
    outcome = await send(running, Signal.TRACES, A_SPAN)
    assert outcome.kind == "bad"
    assert "truncated" in outcome.message
    assert outcome.bad_fields == ["resource_spans.scope_spans"]


@pytest.mark.parametrize("wish", [None, 0.0, 0.25, 3.0, 90.5])
async def test_retryable_error_says_when_to_come_back(receive, send, wish):
    """503 with Retry-After, or UNAVAILABLE with RetryInfo; neither has them if the error does not have a delay."""
    running = await receive()
    running.door.error = RetryableError("over the memory limit", reason="memory_limit", retry_after_s=wish)
    outcome = await send(running, Signal.TRACES, A_SPAN)
    assert (outcome.kind, outcome.message, outcome.retry_after_s) == ("retry", "over the memory limit", wish)


@pytest.mark.parametrize("gzip", [False, True])
async def test_too_little_memory_is_not_an_internal_error(receive, send, monkeypatch, gzip):
    """An allocation fails, in the door or while the body is decompressed: the sender is told when to come back."""
    running = await receive()
    if gzip:

        def fail(*_arguments):
            raise MemoryError

        for module in ("http.request", "grpc.server", "grpc.grpcio_server"):
            monkeypatch.setattr(f"collector.transport.{module}.decompress", fail)
    else:
        running.door.error = MemoryError()
    outcome = await send(running, Signal.TRACES, A_SPAN, gzip=gzip)
    assert (outcome.kind, outcome.message, outcome.retry_after_s) == (
        "retry", "there was not enough memory for the request", 1.0,
    )  # fmt: skip
    assert running.door.unread == (["memory_limit"] if gzip else [])
    assert running.host.admission.used_bytes == 0


async def test_permanent_error_is_internal(receive, send):
    """The status is 500 or INTERNAL, which no client retries."""
    running = await receive()
    running.door.error = PermanentError("the backend refused it", reason="http_400")
    assert (await send(running, Signal.TRACES, A_SPAN)).kind == "internal"


async def test_refusals_are_counted_with_their_reason(receive, send):
    """Each refused request adds one to the counter."""
    running = await receive()
    running.door.error = RetryableError("full", reason="queue_full")
    await send(running, Signal.TRACES, A_SPAN)
    assert (
        running.telemetry.value("tailrace_receiver_refused_requests", transport=send.transport, reason="queue_full")
        == 1
    )


async def test_long_and_odd_messages_are_cut_not_lost(receive, send):
    """In gRPC the message is sent in a header, so it is limited in length, and UTF-8 whatever the request contained."""
    running = await receive()
    running.door.error = PermanentError("ä\udcff\r\n" * 5000)
    outcome = await send(running, Signal.TRACES, A_SPAN)
    assert outcome.kind == "internal"
    assert len(outcome.message) <= 1024


async def test_bug_behind_the_door_ends_the_request_not_the_server(receive, send, send_grpc):
    """An unexpected exception is answered and logged once, and the next request is served."""
    running = await receive()
    running.door.error = ZeroDivisionError("secret")
    for _ in range(3):
        if send.transport == "grpc":
            outcome = await send(running, Signal.TRACES, A_SPAN)
            assert (outcome.kind, outcome.message) == ("internal", "internal error")
        else:
            with pytest.raises(AssertionError):  # plain text: not the handler's own answer
                await send(running, Signal.TRACES, A_SPAN)
    assert len(running.telemetry.log.of_level("error")) == 1
    running.door.error = None
    assert (await send(running, Signal.TRACES, A_SPAN)).kind == "ok"


async def test_signal_without_a_pipeline_is_unknown(receive, send):
    """The status is UNIMPLEMENTED or 404, as in the Collector."""
    running = await receive(signals=[Signal.TRACES])
    assert (await send(running, Signal.LOGS, a_request(Signal.LOGS))).kind == "unknown"


async def test_loopback_peer_is_local_and_headers_are_forgotten(receive, send):
    """Without ``include_metadata`` the context has no headers."""
    running = await receive()
    await send(running, Signal.TRACES, A_SPAN, headers={"x-tenant": "a"})
    context = running.door.taken[0][1]
    assert context.local_peer is True
    assert context.metadata == ()


async def test_include_metadata_keeps_what_tells_senders_apart(receive, send):
    """Only headers that identify the sender are kept, not those of the delivery: equal senders share a context."""
    running = await receive(both(include_metadata=True))
    await send(running, Signal.TRACES, A_SPAN, headers={"x-tenant": "a", "traceparent": "00-1"})
    await send(running, Signal.TRACES, a_request(Signal.TRACES, 50), headers={"x-tenant": "a", "traceparent": "00-2"})
    await send(running, Signal.TRACES, A_SPAN, headers={"x-tenant": "b"})
    first, second, third = (context for _, context in running.door.taken)
    assert dict(first.metadata)["x-tenant"] == ("a",)
    assert "user-agent" in dict(first.metadata)
    assert first is second
    assert not {"traceparent", "content-length", "content-type", "grpc-encoding"} & dict(first.metadata).keys()
    assert dict(third.metadata)["x-tenant"] == ("b",)


async def test_unauthenticated_request_stops_before_the_door(receive, send):
    """``auth.authenticator`` names the extension that authenticates; its claims are passed on with the data."""
    running = await receive(both(auth={"authenticator": "badge"}), host=FakeHost({"badge": Badge()}))
    refused = await send(running, Signal.TRACES, A_SPAN, headers={"authorization": "Bearer bad"})
    assert (refused.kind, refused.message) == ("unauthenticated", "no valid token")
    assert not running.door.taken
    assert (await send(running, Signal.TRACES, A_SPAN, headers={"authorization": "Bearer good"})).kind == "ok"
    context = running.door.taken[0][1]
    assert context.claims == (("sub", "me"),)
    assert context.metadata == ()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("extensions", [{}, {"badge": object()}])
async def test_wrong_authenticator_stops_the_start_and_names_the_key(receive, protocol, extensions):
    """A missing extension, and one that is not an authenticator, fail the start with an error that names the key."""
    with pytest.raises(ValueError, match=f"receivers::otlp::protocols::{protocol}::auth::authenticator"):
        await receive({protocol: {**BOTH[protocol], "auth": {"authenticator": "badge"}}}, host=FakeHost(extensions))


@pytest.mark.parametrize("padding", [10, 30_000, 1_000_000])
async def test_gzip_is_unpacked(receive, send, padding):
    """Small, medium and large bodies are decompressed; large ones are decoded outside the event loop."""
    running = await receive()
    message = a_request(Signal.TRACES, padding)
    assert (await send(running, Signal.TRACES, message, gzip=True)).kind == "ok"
    assert ExportTraceServiceRequest.FromString(running.door.taken[0][0]) == message


async def test_limit_holds_for_what_was_sent(receive, send):
    """A body that is one byte too large is refused."""
    running = await receive(
        {
            "grpc": {**BOTH["grpc"], "max_recv_msg_size_mib": 1},
            "http": {**BOTH["http"], "max_request_body_size": "1MiB"},
        }
    )
    assert (await send(running, Signal.TRACES, a_request(Signal.TRACES, 1_000_000))).kind == "ok"
    assert (await send(running, Signal.TRACES, a_request(Signal.TRACES, 1_100_000))).kind == "too_large"
    assert len(running.door.taken) == 1


async def test_decompression_bomb_is_stopped_at_the_limit(receive, send):
    """A small body that would decompress to more than the limit is refused."""
    running = await receive(
        {
            "grpc": {**BOTH["grpc"], "max_recv_msg_size_mib": 1},
            "http": {**BOTH["http"], "max_request_body_size": "1MiB"},
        }
    )
    outcome = await send(running, Signal.TRACES, a_request(Signal.TRACES, 30_000_000), gzip=True)
    assert outcome.kind == "too_large"
    assert running.door.unread == ["too_large"]
    assert not running.door.taken
    assert running.host.admission.used_bytes == 0


async def test_memory_limit_refuses_before_unpacking(receive, send):
    """The memory budget refuses the request, with a retryable error, and nothing stays reserved."""
    running = await receive()
    running.host.admission.refuse = True
    message = a_request(Signal.TRACES)
    # it compresses badly, so that it is large in gzip as well
    message.resource_spans[0].schema_url = "".join(f"{n * n:x}" for n in range(200_000))
    assert (await send(running, Signal.TRACES, message, gzip=True)).kind == "retry"
    assert running.door.unread == ["memory_limit"]
    running.host.admission.refuse = False
    assert (await send(running, Signal.TRACES, message, gzip=True)).kind == "ok"
    assert running.host.admission.used_bytes == 0


async def test_shutdown_finishes_what_is_in_progress(receive, send):
    """A request in progress is answered during a stop; then the port is closed. Stopping twice is safe."""
    running = await receive()
    running.door.open.clear()
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(send(running, Signal.TRACES, A_SPAN))
        await running.door.entered.wait()
        stopping = group.create_task(running.receiver.shutdown())
        await asyncio.sleep(0)
        running.door.open.set()
    assert sending.result().kind == "ok"
    assert stopping.done()
    for port in (running.grpc_port, running.http_port):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
    await running.receiver.shutdown()


async def test_many_requests_at_once_all_arrive(receive, send):
    """Concurrent senders do not disturb each other."""
    running = await receive()
    outcomes = await asyncio.gather(
        *(send(running, Signal.TRACES, a_request(Signal.TRACES, n), gzip=n % 2 == 0) for n in range(40))
    )
    assert {outcome.kind for outcome in outcomes} == {"ok"}
    sizes = sorted(
        len(ExportTraceServiceRequest.FromString(wire).resource_spans[0].resource.attributes[1].value.string_value)
        for wire, _ in running.door.taken
    )
    assert sizes == list(range(40))


@pytest.mark.parametrize("gzip", [False, True])
async def test_a_request_of_64_mib_is_accepted_and_a_larger_one_is_not(receive, send, gzip):
    """The limit that opentelemetry-proto recommends, by default and for every protocol."""
    if send.name == "http-json":
        pytest.skip("JSON of this size takes seconds; its limit is that of http-protobuf")
    running = await receive()
    largest = ExportTraceServiceRequest()
    largest.resource_spans.add().schema_url = "x" * (64 * 1024 * 1024 - 12)
    assert largest.ByteSize() <= 64 * 1024 * 1024
    assert (await send(running, Signal.TRACES, largest, gzip=gzip)).kind == "ok"
    assert len(running.door.taken[0][0]) == largest.ByteSize()
    largest.resource_spans[0].schema_url += "x" * 12
    assert largest.ByteSize() > 64 * 1024 * 1024
    assert (await send(running, Signal.TRACES, largest, gzip=gzip)).kind == "too_large"
    assert running.host.admission.used_bytes == 0
