"""The server over real sockets, on both event loops, called by gRPC's own library."""

import asyncio
import contextlib
from collections import Counter

import grpc
import pytest
import trustme
import uvloop

from collector.testing import FakeClock, FakeHost
from collector.testing.doubles import RecordingLog
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.server import GRPCServer
from config.blocks import GRPCServerConfig

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("server", "client"):
        leaf = authority.issue_cert("localhost")
        leaf.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
        leaf.private_key_pem.write_to_path(folder / f"{name}.key")
    return folder


@contextlib.asynccontextmanager
async def serving(method=lambda message, _, reply: reply(message), **config):
    closed = Counter()
    server = GRPCServer(
        GRPCServerConfig.model_validate({"endpoint": "127.0.0.1:0", **config}),
        {"/a.B/C": method},
        key="k",
        addresses=LocalAddresses(),
        clock=FakeClock(),
        log=RecordingLog(),
        on_refused=lambda _: None,
        on_closed=lambda reason: closed.update([reason]),
        files={},
    )
    await server.start(FakeHost())
    try:
        yield server, closed
    finally:
        await server.shutdown(1)


def call(target, message=b"hi", credentials=None, **options):
    """Make one call of gRPC's synchronous client, for a thread."""
    channel = (
        grpc.secure_channel(target, credentials, UNLIMITED) if credentials else grpc.insecure_channel(target, UNLIMITED)
    )
    with channel:
        return channel.unary_unary("/a.B/C")(message, timeout=20, **options)


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine on each loop."""

    def run(main):
        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            return runner.run(main)

    return run


def test_messages_of_all_sizes_over_tcp_and_unix(run, tmp_path):
    """Small ones, and one of many frames and windows, in both directions."""

    async def main():
        for config in ({}, {"endpoint": str(tmp_path / "s"), "transport": "unix"}):
            async with serving(**config, max_recv_msg_size_mib=32) as (server, _):
                target = server.address if config else f"localhost:{server.port}"
                for size in (0, 1, 70_000, 20_000_000):
                    assert await asyncio.to_thread(call, target, b"x" * size) == b"x" * size

    run(main())


def test_tls(run, certificates):
    """Only TLS 1.3, chosen suites of 1.2, a required client certificate."""
    tls = {"cert_file": str(certificates / "server.pem"), "key_file": str(certificates / "server.key")}
    read = {name: (certificates / name).read_bytes() for name in ("ca.pem", "client.pem", "client.key")}
    plain = grpc.ssl_channel_credentials(read["ca.pem"])
    mutual = grpc.ssl_channel_credentials(read["ca.pem"], read["client.key"], read["client.pem"])
    suite = {
        "max_version": "1.2",
        "cipher_suites": ["TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"],
    }

    async def main():
        for more, credentials in (
            ({"min_version": "1.3"}, plain),
            (suite, plain),
            ({"client_ca_file": str(certificates / "ca.pem")}, mutual),
        ):
            async with serving(tls={**tls, **more}) as (server, _):
                target = f"localhost:{server.port}"
                assert await asyncio.to_thread(call, target, b"x" * 300_000, credentials) == b"x" * 300_000
                if credentials is mutual:
                    with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                        await asyncio.to_thread(call, target, b"", plain)

    run(main())


def test_renewed_certificates_are_taken_up(run, tmp_path):
    """A connection made after the files changed uses the new ones, and HTTP/2 as before."""

    def write() -> grpc.ChannelCredentials:
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")
        leaf.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
        leaf.private_key_pem.write_to_path(tmp_path / "server.key")
        return grpc.ssl_channel_credentials(authority.cert_pem.bytes())

    async def main():
        old = write()
        tls = {
            "cert_file": str(tmp_path / "server.pem"),
            "key_file": str(tmp_path / "server.key"),
            "reload_interval": "1ms",
        }
        async with serving(tls=tls) as (server, _):
            target = f"localhost:{server.port}"
            assert await asyncio.to_thread(call, target, b"1", old) == b"1"
            new = write()
            assert await asyncio.to_thread(call, target, b"2", new, wait_for_ready=True) == b"2"
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                await asyncio.to_thread(call, target, b"3", old)

    run(main())


def test_calls_in_progress_are_finished_at_shutdown(run):
    """GOAWAY, the response, then the connection closes; a call that takes too long is cut off."""
    replies = []

    async def main():
        started = asyncio.Event()

        def method(message, _, reply):
            replies.append((reply, message))
            started.set()

        async with serving(method) as (server, _):
            calling = asyncio.create_task(asyncio.to_thread(call, f"localhost:{server.port}"))
            await started.wait()
            stopping = asyncio.create_task(server.shutdown(5))
            await asyncio.sleep(0)
            [(reply, message)] = replies
            reply(message[::-1])
            assert await calling == b"ih"
            await stopping
        replies.clear()
        started.clear()
        async with serving(method) as (server, _):
            calling = asyncio.create_task(asyncio.to_thread(call, f"localhost:{server.port}", wait_for_ready=False))
            await started.wait()
            await server.shutdown(0.05)
            with pytest.raises(grpc.RpcError, match="UNAVAILABLE"):
                await calling

    run(main())


def test_many_calls_at_once_on_one_connection(run):
    """More than the client initially assumes as our limit."""

    async def main():
        async with serving(max_concurrent_streams=20) as (server, closed):

            def calls():
                with grpc.insecure_channel(f"localhost:{server.port}") as channel:
                    futures = [channel.unary_unary("/a.B/C").future(str(i).encode(), timeout=20) for i in range(200)]
                    return [future.result() for future in futures]

            assert await asyncio.to_thread(calls) == [str(i).encode() for i in range(200)]
            assert not closed

    run(main())


def test_health_is_understood_by_a_stock_client(run):
    """Watch streams what Check returns once."""

    async def main():
        async with serving() as (server, _):

            def ask():
                with grpc.insecure_channel(f"localhost:{server.port}") as channel:
                    once = channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=20)
                    stream = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"", timeout=20)
                    first = next(stream)
                    stream.cancel()
                    return once, first

            once, first = await asyncio.to_thread(ask)
            assert once == first != b""

    run(main())


def test_write_buffer_size_bounds_what_waits_in_the_transport(run):
    """The bound holds for the transports of both event loops."""

    async def main():
        limits = []

        def method(message, _, reply):
            (connection,) = server._http2.connections
            limits.append(connection.transport.get_write_buffer_limits()[1])
            reply(message)

        async with serving(method, write_buffer_size=4096) as (server, _):
            await asyncio.to_thread(call, server.address)
        assert limits == [4096]

    run(main())
