"""The server on real sockets, on both event loops, plain and with TLS; and connections accepted by another server."""

import asyncio
import contextlib
import functools
import ssl

import pytest
import trustme
import uvloop

from collector.service.sockets import ListeningSockets
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, free_port
from collector.transport.http import HTTPServer, Response, Route
from config.blocks import HTTPServerConfig

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


class Echo(Route):
    """Answers with the size of the body, the sender, and the body itself."""

    def serve(self, request):
        request.reply(Response(200, f"{len(request.body)} {request.peer} {request.is_unix} ".encode() + request.body))


class Never(Route):
    """Never answers."""

    def __init__(self):
        self.requests = []

    def serve(self, request):
        self.requests.append(request)


def make(routes=None, **config):
    values = HTTPServerConfig.model_validate({"endpoint": "127.0.0.1:0", **config})
    return HTTPServer(values, routes or {"/": Echo()}, key="k", clock=FakeClock(), log=RecordingTelemetry().log)


def post(body, *headers):
    lines = ["POST / HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def read_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.partition(b"Content-Length: ")[2].partition(b"\r\n")[0])
    return head, await reader.readexactly(length)


@pytest.fixture(params=LOOPS)
def run(request):
    """Run a coroutine function on each kind of loop."""

    def go(function):
        async def bounded():
            async with asyncio.timeout(20):
                await function()

        with asyncio.Runner(loop_factory=LOOPS[request.param]) as runner:
            runner.run(bounded())

    return go


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.mark.parametrize("is_tls", [False, True])
def test_bodies_of_all_sizes_over_one_connection(run, authority, tmp_path, is_tls):
    """Below and far above what is read at once, with and without TLS."""
    client = None
    config = {}
    if is_tls:
        certificate = authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
        certificate.private_key_pem.write_to_path(tmp_path / "key")
        config["tls"] = {"cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key")}
        client = ssl.create_default_context()
        authority.configure_trust(client)

    async def go():
        server = make(**config)
        await server.start(FakeHost())
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client, server_hostname="localhost" if client else None
        )
        for size in (0, 1, 5000, 70_000, 3_000_000, 10):
            body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
            writer.write(post(body))
            _, answer = await read_answer(reader)
            assert answer == f"{size} 127.0.0.1 False ".encode() + body
        await server.shutdown(5)
        assert await reader.read() == b""
        writer.close()

    run(go)


@pytest.mark.parametrize("is_tls", [False, True])
def test_sender_of_a_refused_body_sees_the_answer(run, authority, tmp_path, is_tls):
    """Not a reset, although it continues to send for a while."""
    config = {"max_request_body_size": 1000}
    client = None
    if is_tls:
        certificate = authority.issue_cert("localhost")
        certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert")
        certificate.private_key_pem.write_to_path(tmp_path / "key")
        config["tls"] = {"cert_file": str(tmp_path / "cert"), "key_file": str(tmp_path / "key")}
        client = ssl.create_default_context()
        authority.configure_trust(client)

    async def go():
        server = make(**config)
        await server.start(FakeHost())
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=client, server_hostname="localhost" if client else None
        )
        writer.write(post(bytes(2_000_000)))
        await writer.drain()
        head, _ = await read_answer(reader)
        assert head.startswith(b"HTTP/1.1 413 ")
        assert b"Connection: close\r\n" in head
        writer.close()
        await server.shutdown(5)

    run(go)


def test_half_closed_sender_is_answered(run):
    """A client may close its sending side after its requests, as ``nc -N`` does."""

    async def go():
        server = make()
        await server.start(FakeHost())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"body") + post(b"more"))
        writer.write_eof()
        assert (await reader.read()).count(b"HTTP/1.1 200 ") == 2
        writer.close()
        await server.shutdown(5)

    run(go)


def test_shutdown_cuts_off_what_is_not_finished_in_time(run):
    """A route that never answers does not delay the shutdown beyond its limit."""

    async def go():
        never = Never()
        server = make({"/": never})
        await server.start(FakeHost())
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(post(b"body"))
        while not never.requests:
            await asyncio.sleep(0.001)
        await server.shutdown(0.05)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        never.requests[0].reply(Response(200))  # too late, and harmless
        writer.close()

    run(go)


def test_connection_that_another_server_accepted_is_taken_over(run):
    """The first bytes were read to detect the protocol."""

    async def go():
        server = make()
        server.open(FakeHost())

        class Sniffer(asyncio.Protocol):
            def connection_made(self, transport):
                self.transport = transport

            def data_received(self, data):
                protocol = server.protocol()
                self.transport.set_protocol(protocol)
                protocol.connection_made(self.transport)
                protocol.feed(data)

        listener = await asyncio.get_running_loop().create_server(Sniffer, "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        for body in (b"first", b"x" * 300_000, b"last"):
            writer.write(post(body))
            _, answer = await read_answer(reader)
            assert answer.endswith(body)
        listener.close()
        await server.shutdown(5)
        assert await reader.read() == b""
        writer.close()

    run(go)


def test_sender_that_takes_no_answers_is_cut_off(run):
    """write_timeout, when the buffers of both sides are full."""

    async def go():
        server = make(write_timeout="50ms")
        await server.start(FakeHost())
        _reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=1024)

        async def send_for_ever():
            while True:
                writer.write(post(bytes(1_000_000)))
                await writer.drain()

        with pytest.raises(ConnectionError):
            await send_for_ever()
        writer.close()
        await server.shutdown(5)

    run(go)


class Host(FakeHost):
    """Passes on sockets as the service does during a reload."""

    def __init__(self, sockets):
        super().__init__()
        self.sockets, self.is_leaving = sockets, False

    def listen(self, address, bind):
        return self.sockets.listen(self, address, bind)


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_successor_on_the_same_address_costs_no_request(run, authority, tmp_path, is_tls):
    """An idle connection to the old server is served once more, and one that waits for it goes to either."""
    client, config = None, {"endpoint": f"127.0.0.1:{free_port()}"}
    if is_tls:
        client = ssl.create_default_context()
        authority.configure_trust(client)
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pem"))
        config["tls"] = {"cert_file": str(tmp_path / "pem"), "key_file": str(tmp_path / "pem")}

    async def check():
        sockets = ListeningSockets()
        hosts, servers = (Host(sockets), Host(sockets)), (make(**config), make(**config))
        await servers[0].start(hosts[0])
        connect = functools.partial(asyncio.open_connection, "127.0.0.1", servers[0].port, ssl=client)
        reader, writer = await connect()
        writer.write(post(b"first"))
        head, _ = await read_answer(reader)
        assert b"Connection: close" not in head
        hosts[0].is_leaving = True
        await servers[1].start(hosts[1])
        waiting = [asyncio.ensure_future(connect()) for _ in range(5)]
        ending = asyncio.ensure_future(servers[0].shutdown(5.0))
        for new_reader, new_writer in [*(await asyncio.gather(*waiting)), (reader, writer)]:
            new_writer.write(post(b"second"))
            head, body = await read_answer(new_reader)
            assert body.endswith(b"second")
        assert b"Connection: close" in head
        assert await reader.read() == b""
        for _, new_writer in await asyncio.gather(*waiting):
            new_writer.close()
        writer.close()
        await ending
        await servers[1].shutdown(5.0)

    run(check)
