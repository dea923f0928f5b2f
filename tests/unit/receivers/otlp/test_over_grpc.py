"""OTLP/gRPC: what is specific to this transport."""

import asyncio
import random
import tempfile
from pathlib import Path

import grpc
import pytest

import http2_peer
from collector.model import Signal
from collector.otlp.names import GRPC_METHODS
from collector.transport.compression import compress

GRPC = {"endpoint": "127.0.0.1:0"}
WIRE = b"\x0a\x00" * 50


@pytest.fixture(params=["tcp", "grpcio"])
def protocol(request):
    """``protocols.grpc`` on a free port, for each transport."""
    return {"endpoint": "127.0.0.1:0", "transport": request.param}


async def raw_call(running, message, **headers):
    """Return the fields of the answer to a call with any headers and any message (including its flag)."""
    client = http2_peer.client()
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": GRPC_METHODS[Signal.TRACES],
        ":authority": "x",
        "te": "trailers",
    }
    fields |= {"content-type": "application/grpc"} | {name.replace("_", "-"): value for name, value in headers.items()}
    stream_id = client.send_request([(name.encode(), value.encode()) for name, value in fields.items()])
    client.send_data(stream_id, message[:1] + (len(message) - 1).to_bytes(4, "big") + message[1:], end_stream=True)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.grpc_port)
    answer = {}
    async with asyncio.timeout(5):
        while b"grpc-status" not in answer:
            writer.write(client.data_to_send())
            part = await reader.read(65536)
            assert part, answer
            client.receive_data(part)
            for event in client.events():
                if isinstance(event, http2_peer.ResponseReceived | http2_peer.TrailersReceived):
                    answer.update(event.headers)
    writer.close()
    await writer.wait_closed()
    return answer


@pytest.mark.parametrize("encoding", ["deflate", "br", "lz4"])
async def test_other_encodings_are_refused_by_name(receive, encoding):
    """The answer is UNIMPLEMENTED and lists the supported encodings; no data reaches the door."""
    running = await receive({"grpc": GRPC})
    answer = await raw_call(running, b"\x01" + bytes(20), grpc_encoding=encoding)
    assert answer[b"grpc-status"] == b"12"
    assert encoding.encode() in answer[b"grpc-message"]
    assert answer[b"grpc-accept-encoding"] == b"gzip,zstd,snappy"
    assert not running.door.taken


@pytest.mark.parametrize(("encoding", "name"), [("zstd", "zstd"), ("snappy", "x-snappy-framed"), ("gzip", "gzip")])
@pytest.mark.parametrize("size", [10, 20_000, 2_000_000])
async def test_the_encodings_of_the_collector_are_unpacked(receive, encoding, name, size):
    """snappy means the framed format, as in the Collector."""
    running = await receive({"grpc": GRPC})
    wire = random.Random(size).randbytes(size)
    answer = await raw_call(running, b"\x01" + compress(name, wire), grpc_encoding=encoding)
    assert answer[b"grpc-status"] == b"0"
    assert running.door.taken[0][0] == wire
    assert running.host.admission.used_bytes == 0


async def test_deflate_is_refused_as_unimplemented(receive, protocol):
    """The Collector does not support deflate either."""
    running = await receive({"grpc": protocol})
    async with grpc.aio.insecure_channel(
        f"127.0.0.1:{running.grpc_port}", compression=grpc.Compression.Deflate
    ) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="deflate") as failure:
            await channel.unary_unary(GRPC_METHODS[Signal.TRACES])(WIRE)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_corrupt_gzip_is_a_bad_request(receive, protocol):
    """The compressed flag is set, but the bytes are not a gzip stream."""
    running = await receive({"grpc": protocol})
    answer = await raw_call(running, b"\x01\x1f\x8b" + bytes(20), grpc_encoding="gzip")
    assert answer[b"grpc-status"] == b"3"
    assert not running.door.taken


@pytest.mark.parametrize("method", ["/opentelemetry.proto.collector.trace.v1.TraceService/Nope", "/x.Y/Z", "/"])
async def test_unknown_method_is_unimplemented(receive, method, protocol):
    """The answer is the same as that of any gRPC server."""
    running = await receive({"grpc": protocol})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(method)(WIRE)
    assert failure.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize(
    "options",
    [
        {"endpoint": "unix://{path}"},
        {"endpoint": "{path}", "transport": "unix"},
        {"endpoint": "unix://{path}", "transport": "grpcio"},
    ],
)
async def test_unix_socket(receive, options):
    """Both spellings work; the sender counts as local; the socket is removed at the end."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/otlp.sock"
        running = await receive({"grpc": {**options, "endpoint": options["endpoint"].format(path=path)}})
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            assert await channel.unary_unary(GRPC_METHODS[Signal.TRACES])(WIRE) == b""
        assert running.door.taken[0][1].local_peer is True
        assert running.grpc_port == 0
        await running.receiver.shutdown()
        assert not Path(path).exists()


async def test_busy_port_is_named_with_its_key(receive, protocol):
    """SO_REUSEPORT is not set: otherwise a second process would take half of the traffic unnoticed."""
    running = await receive({"grpc": protocol})
    port = running.grpc_port
    with pytest.raises(OSError, match=rf"receivers::otlp::protocols::grpc::endpoint.*{port}"):
        await receive({"grpc": {**protocol, "endpoint": f"127.0.0.1:{port}"}})


async def test_failed_start_leaves_nothing_listening(receive):
    """If gRPC has started and HTTP cannot start, the whole receiver is shut down again."""
    taken = await receive({"http": {"endpoint": "127.0.0.1:0"}})
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/otlp.sock"
        with pytest.raises(OSError, match="protocols::http::endpoint"):
            await receive(
                {"grpc": {"endpoint": f"unix://{path}"}, "http": {"endpoint": f"127.0.0.1:{taken.http_port}"}}
            )
        assert not Path(path).exists()


async def test_all_addresses_are_served(receive, protocol):
    """``:port`` listens on all addresses."""
    running = await receive({"grpc": {**protocol, "endpoint": ":0"}})
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        assert await channel.unary_unary(GRPC_METHODS[Signal.TRACES])(WIRE) == b""
    assert running.door.taken[0][1].local_peer is True


async def test_cancelled_call_does_not_disturb_the_next(receive, send_grpc, protocol):
    """The sender's deadline passes while the request is at the door."""
    running = await receive({"grpc": protocol})
    running.door.open.clear()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await channel.unary_unary(GRPC_METHODS[Signal.TRACES])(WIRE, timeout=0.1)
    assert failure.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    running.door.open.set()
    assert (await send_grpc(running, Signal.TRACES, WIRE)).kind == "ok"
    assert not running.telemetry.log.of_level("error")
