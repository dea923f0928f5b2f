"""OTLP/gRPC: what only this transport has."""

import asyncio
import struct
import tempfile
from pathlib import Path

import grpc
import pytest

from collector.model import Signal
from receivers.otlp.over_grpc import METHODS

GRPC = {"endpoint": "127.0.0.1:0"}
WIRE = b"\x0a\x00" * 50


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: str, value: str) -> bytes:
    return b"\x00" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


async def raw_call(running, encoding: str, message: bytes) -> bytes:
    """The server's frames in answer to a call in an encoding that no gRPC library for Python can send."""
    names = [(":method", "POST"), (":scheme", "http"), (":path", METHODS[Signal.TRACES]), (":authority", "x"), ("te", "trailers")]
    names += [("content-type", "application/grpc"), ("grpc-encoding", encoding)]
    reader, writer = await asyncio.open_connection("127.0.0.1", running.receiver.grpc_port)
    head = frame(1, 4, 1, b"".join(header(*pair) for pair in names))
    body = frame(0, 1, 1, b"\x01" + struct.pack(">I", len(message)) + message)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"") + head + body)
    answer = b""
    async with asyncio.timeout(5):
        while b"grpc-status" not in answer:
            part = await reader.read(65536)
            assert part, answer
            answer += part
    writer.close()
    return answer


@pytest.mark.parametrize("encoding", ["zstd", "snappy", "br"])
async def test_other_encodings_are_refused_by_name(receive, encoding):
    """The message names the header; nothing reaches the door."""
    running = await receive({"grpc": GRPC})
    assert b"grpc-encoding" in (await raw_call(running, encoding, b"\x28\xb5\x2f\xfd" + bytes(20))).partition(b"grpc-status")[2]
    assert not running.door.taken


async def test_deflate_is_refused_as_unimplemented(receive):
    """The Collector has no deflate either."""
    running = await receive({"grpc": GRPC})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.receiver.grpc_port}", compression=grpc.Compression.Deflate) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="deflate") as failure:
            await channel.unary_unary(METHODS[Signal.TRACES])(WIRE)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_corrupt_gzip_is_a_bad_request(receive):
    """The compressed flag is set, the bytes are no gzip stream; and the same without the flag."""
    running = await receive({"grpc": GRPC})
    answer = await raw_call(running, "gzip", b"\x1f\x8b" + bytes(20))
    assert b"\x0bgrpc-status\x013" in answer
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.receiver.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(METHODS[Signal.TRACES])(b"\x1f\x8b" + bytes(20))
    assert failure.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert not running.door.taken


@pytest.mark.parametrize("method", ["/opentelemetry.proto.collector.trace.v1.TraceService/Nope", "/x.Y/Z", "/"])
async def test_unknown_method_is_unimplemented(receive, method):
    """As any gRPC server."""
    running = await receive({"grpc": GRPC})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.receiver.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(method)(WIRE)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("options", [{"endpoint": "unix://{path}"}, {"endpoint": "{path}", "transport": "unix"}])
async def test_unix_socket(receive, options):
    """Both ways of writing it; the sender is on this machine; the socket is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/otlp.sock"
        running = await receive({"grpc": {**options, "endpoint": options["endpoint"].format(path=path)}})
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            assert await channel.unary_unary(METHODS[Signal.TRACES])(WIRE) == b""
        assert running.door.taken[0][1].local_peer is True
        assert running.receiver.grpc_port == 0
        await running.receiver.shutdown()
        assert not Path(path).exists()


async def test_busy_port_is_named_with_its_key(receive):
    """No SO_REUSEPORT: a second process would take half of the traffic unseen."""
    running = await receive({"grpc": GRPC})
    port = running.receiver.grpc_port
    with pytest.raises(OSError, match=rf"receivers::otlp::protocols::grpc::endpoint.*{port}"):
        await receive({"grpc": {"endpoint": f"127.0.0.1:{port}"}})


async def test_failed_start_leaves_nothing_listening(receive):
    """gRPC came up, HTTP did not: the whole receiver is down again."""
    taken = await receive({"http": {"endpoint": "127.0.0.1:0"}})
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/otlp.sock"
        with pytest.raises(OSError, match="protocols::http::endpoint"):
            await receive({"grpc": {"endpoint": f"unix://{path}"}, "http": {"endpoint": f"127.0.0.1:{taken.receiver.http_port}"}})
        assert not Path(path).exists()


async def test_all_addresses_are_served(receive):
    """``:port``."""
    running = await receive({"grpc": {"endpoint": ":0"}})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.receiver.grpc_port}") as channel:
        assert await channel.unary_unary(METHODS[Signal.TRACES])(WIRE) == b""
    assert running.door.taken[0][1].local_peer is True


async def test_cancelled_call_does_not_disturb_the_next(receive, send_grpc):
    """The sender's deadline passes while the request is at the door."""
    running = await receive({"grpc": GRPC})
    running.door.open.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.receiver.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(METHODS[Signal.TRACES])(WIRE, timeout=0.1)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    running.door.open.set()
    assert (await send_grpc(running, Signal.TRACES, WIRE)).kind == "ok"
    assert not running.telemetry.log.of_level("error")
