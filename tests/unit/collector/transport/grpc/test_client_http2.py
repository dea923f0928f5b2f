"""Calls over real sockets: which connection carries them, what happens when one is lost, how long they wait."""

import asyncio
import ssl
import tempfile
from pathlib import Path

import pytest
import trustme
import uvloop

import http2_peer
from collector.testing import eventually, free_port
from collector.transport.compression import decompress
from collector.transport.grpc import client_http2, subchannel
from collector.transport.grpc.client_http2 import HTTP2Channel
from collector.transport.grpc.framing import encode_message
from collector.transport.grpc.status import CallError
from collector.transport.grpc.target import parse_target
from config.blocks import GRPCClientConfig

METHOD = "/t.Echo/Echo"
HEAD = ((b":status", b"200"), (b"content-type", b"application/grpc"))
OK = ((b"grpc-status", b"0"),)


class Peer(asyncio.Protocol):
    """The server's end of a connection: ``behave(peer, stream_id)`` per request; by default an empty response."""

    def __init__(self, backend):
        self.connection = http2_peer.server(max_concurrent_streams=backend.max_streams)
        self.backend = backend
        self.bodies = {}

    def connection_made(self, transport):
        self.transport = transport
        self.backend.peers.append(self)
        self.flush()

    def data_received(self, data):
        if not self.is_open:
            return
        self.connection.receive_data(data)
        for event in self.connection.events():
            if isinstance(event, http2_peer.RequestReceived):
                self.bodies[event.stream_id] = b""
                self.backend.requests.append(dict(event.headers))
            elif isinstance(event, http2_peer.DataReceived):
                self.bodies[event.stream_id] += event.data
                if event.end_stream:
                    self.backend.behave(self, event.stream_id)
            elif isinstance(event, http2_peer.StreamReset):
                self.backend.resets.append(event.error_code)
        self.flush()

    def flush(self):
        """Write pending output; close when both ends are done."""
        if self.is_open:
            self.transport.write(self.connection.data_to_send())
            if not self.connection.want_read and not self.connection.want_write:
                self.transport.close()

    @property
    def is_open(self):
        return not self.transport.is_closing()

    def answer(self, stream_id, body=b""):
        self.connection.send_response(stream_id, HEAD)
        self.connection.send_data(stream_id, encode_message(body))
        self.connection.send_trailers(stream_id, OK)
        asyncio.get_running_loop().call_soon(self.flush)  # answers of one turn leave together


class Backend:
    """A server whose behaviour each test defines."""

    def __init__(self, behave=Peer.answer, *, max_streams=100, tls=None, host="127.0.0.1", port=0, path=None):
        self.behave = behave
        self.max_streams = max_streams
        self.tls = tls
        self.where = (host, port)
        self.path = path
        self.peers, self.requests, self.resets = [], [], []

    async def __aenter__(self):
        loop = asyncio.get_running_loop()
        if self.path:
            self.server = await loop.create_unix_server(lambda: Peer(self), self.path, ssl=self.tls)
        else:
            self.server = await loop.create_server(lambda: Peer(self), *self.where, ssl=self.tls)
            self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()
        for peer in self.peers:
            peer.transport.abort()


def channel(endpoint, *, tls=None, metadata=None, connect_timeout_s=5.0, **config):
    block = GRPCClientConfig.model_validate({"compression": "none"} | config)
    return HTTP2Channel(
        block,
        parse_target(endpoint),
        tls=tls,
        user_agent="test/1",
        metadata=metadata or {},
        connect_timeout_s=connect_timeout_s,
    )


async def code_of(call):
    with pytest.raises(CallError) as caught:
        await call
    return caught.value.code.name, caught.value.text


@pytest.fixture(autouse=True)
def quick_backoff(monkeypatch):
    """Shorten waits of seconds to hundredths."""
    monkeypatch.setattr(subchannel, "_BACKOFF_S", 0.02)
    monkeypatch.setattr(subchannel, "MAX_BACKOFF_S", 0.05)


async def test_a_call_sends_the_headers_of_grpc():
    """The headers of PROTOCOL-HTTP2, and the remaining time."""
    async with Backend() as backend:
        client = channel(
            f"dns:///localhost:{backend.port}", metadata={"X-A": "b", "k-bin": "\x01"}, balancer_name="pick_first"
        )
        assert await client.call(METHOD, b"x", timeout_s=5.0, metadata={"y": "z"}) == b""
        assert await client.call(METHOD, b"x", timeout_s=None) == b""
        first, second = backend.requests
        assert http2_peer.seconds_of(first.pop(b"grpc-timeout")) == pytest.approx(5, rel=0.1)
        assert first == {
            b":method": b"POST",
            b":scheme": b"http",
            b":path": METHOD.encode(),
            b":authority": b"localhost:%d" % backend.port,
            b"te": b"trailers",
            b"content-type": b"application/grpc",
            b"user-agent": b"test/1",
            b"grpc-accept-encoding": b"identity,gzip,zstd,snappy",
            b"x-a": b"b",
            b"k-bin": b"AQ",
            b"y": b"z",
        }
        assert second == {name: value for name, value in first.items() if name != b"y"}
        await client.close()


async def test_calls_are_spread_over_all_addresses_in_turn():
    """round_robin uses all addresses; pick_first stays with one."""
    async with Backend(host="127.0.0.1") as one, Backend(host="127.0.0.2", port=one.port) as two:
        target = f"ipv4:127.0.0.1:{one.port},127.0.0.2:{two.port}"
        client = channel(target)
        await client.call(METHOD, b"x", timeout_s=5)
        await eventually(lambda: len(client._ready) == 2)
        seen = len(one.requests), len(two.requests)
        for _ in range(10):
            await client.call(METHOD, b"x", timeout_s=5)
        assert (len(one.requests) - seen[0], len(two.requests) - seen[1]) == (5, 5)
        await client.close()
        client = channel(target, balancer_name="pick_first")
        before = len(two.requests)
        for _ in range(4):
            await client.call(METHOD, b"x", timeout_s=5)
        assert len(two.requests) == before
        await client.close()


async def test_pick_first_tries_the_next_address():
    """It uses the first address that works."""
    async with Backend() as backend:
        client = channel(f"ipv4:127.0.0.1:{free_port()},127.0.0.1:{backend.port}", balancer_name="pick_first")
        assert await client.call(METHOD, b"x", timeout_s=5) == b""
        await client.close()


async def test_one_dead_address_harms_nobody():
    """round_robin uses the connections that are ready."""
    async with Backend() as backend:
        client = channel(f"ipv4:127.0.0.1:{free_port()},127.0.0.1:{backend.port}")
        for _ in range(5):
            assert await client.call(METHOD, b"x", timeout_s=5) == b""
        await client.close()


async def test_an_unreachable_server_fails_fast_unless_wait_for_ready():
    """It fails with the reason; with wait_for_ready, it waits until the deadline or until a server is there."""
    port = free_port()
    client, patient = channel(f"127.0.0.1:{port}"), channel(f"127.0.0.1:{port}", wait_for_ready=True)
    code, text = await code_of(client.call(METHOD, b"x", timeout_s=30))
    assert code == "UNAVAILABLE"
    assert f"connect to 127.0.0.1:{port}" in text
    assert (await code_of(client.call(METHOD, b"x", timeout_s=30)))[0] == "UNAVAILABLE"
    code, text = await code_of(patient.call(METHOD, b"x", timeout_s=0.1))
    assert (code, f"connect to 127.0.0.1:{port}" in text) == ("DEADLINE_EXCEEDED", True)
    waiting = asyncio.ensure_future(patient.call(METHOD, b"x", timeout_s=30))
    async with Backend(port=port) as backend:
        assert await waiting == b""
        assert http2_peer.seconds_of(backend.requests[0][b"grpc-timeout"]) < 30
        await eventually(lambda: client._ready)
        assert await client.call(METHOD, b"x", timeout_s=5) == b"", "it came back by itself"
    await client.close()
    await patient.close()


async def test_a_port_without_http2_is_reported():
    """A connection that never becomes ready fails with its reason, in time."""

    async def serve(reader, writer):
        await reader.read(100)
        writer.write(answer)
        if not answer:
            await reader.read()
        writer.close()
        ended.append(writer)

    ended = []
    answer = b"HTTP/1.1 400 Bad Request\r\n\r\n"
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = channel(f"127.0.0.1:{port}")
    code, text = await code_of(client.call(METHOD, b"x", timeout_s=10))
    assert (code, "violated HTTP/2" in text) == ("UNAVAILABLE", True)
    await client.close()
    answer = b""
    client = channel(f"127.0.0.1:{port}", connect_timeout_s=0.05)
    code, text = await code_of(client.call(METHOD, b"x", timeout_s=10))
    assert (code, "no HTTP/2 connection within" in text) == ("UNAVAILABLE", True)
    count = len(ended)
    await client.close()
    await eventually(lambda: len(ended) > count)
    server.close()


async def test_a_deadline_ends_the_call_at_the_server_too():
    """RST_STREAM CANCEL; the connection stays. The same if the caller is cancelled."""
    async with Backend(lambda *_: None) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        code, text = await code_of(client.call(METHOD, b"x", timeout_s=0.2))
        assert (code, "no response within 0.2 s" in text) == ("DEADLINE_EXCEEDED", True)
        await eventually(lambda: backend.resets == [http2_peer.ErrorCode.CANCEL])
        gone = asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=50))
        await eventually(lambda: len(backend.requests) == 2)
        gone.cancel()
        await eventually(lambda: len(backend.resets) == 2)
        assert gone.cancelled()
        backend.behave = Peer.answer
        assert await client.call(METHOD, b"x", timeout_s=5) == b""
        assert len(backend.peers) == 1
        await client.close()


async def test_the_earliest_deadline_counts():
    """It counts in whichever order the calls were made."""
    async with Backend(lambda *_: None) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        ended = []

        async def call(timeout_s):
            await code_of(client.call(METHOD, b"x", timeout_s=timeout_s))
            ended.append(timeout_s)

        await asyncio.gather(*map(call, (0.3, 0.1, 0.2, 0.4)))
        assert ended == [0.1, 0.2, 0.3, 0.4]
        await client.close()


async def test_the_servers_limit_of_streams_is_kept():
    """The others wait in the client and start as streams end; a call cancelled while waiting is never sent."""
    held = []
    async with Backend(lambda peer, stream_id: held.append((peer, stream_id)), max_streams=2) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        calls = [asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=20)) for _ in range(6)]
        await eventually(lambda: len(held) == 2)
        calls.pop().cancel()
        while held:
            assert len(held) <= 2
            peer, stream_id = held.pop(0)
            peer.answer(stream_id)
            await eventually(lambda: held or all(call.done() for call in calls))
        assert await asyncio.gather(*calls) == [b""] * 5
        assert len(backend.requests) == 5
        await client.close()


async def test_refused_streams_are_sent_again_once():
    """On another or the same connection; a call refused twice is UNAVAILABLE."""

    def refuse(peer, stream_id):
        peer.connection.reset_stream(stream_id, http2_peer.ErrorCode.REFUSED_STREAM)

    def once(peer, stream_id):
        (refuse if len(peer.backend.requests) == 1 else Peer.answer)(peer, stream_id)

    async with Backend(once) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        assert await client.call(METHOD, b"x" * 40_000, timeout_s=5) == b""
        assert len(backend.requests) == 2
        backend.behave = refuse
        assert (await code_of(client.call(METHOD, b"x", timeout_s=5)))[0] == "UNAVAILABLE"
        assert len(backend.requests) == 4
        await client.close()


async def test_a_call_between_two_connections_keeps_its_deadline():
    """For one turn it is on no connection, and the deadlines may be checked in that turn."""

    def not_processed(call, reason, *, was_sent):
        HTTP2Channel.not_processed(client, call, reason, was_sent=was_sent)
        client._timer.cancel()
        client._check_deadlines()

    def refuse_second(peer, stream_id):
        if len(peer.backend.requests) == 2:
            peer.connection.reset_stream(stream_id, http2_peer.ErrorCode.REFUSED_STREAM)

    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        await client.call(METHOD, b"x", timeout_s=5)
        client.not_processed = not_processed
        backend.behave = refuse_second
        async with asyncio.timeout(5):
            assert (await code_of(client.call(METHOD, b"x", timeout_s=0.2)))[0] == "DEADLINE_EXCEEDED"
        await client.close()


async def test_goaway_moves_calls_to_a_new_connection():
    """The server answers what it had accepted, the rest is sent again; no call fails."""

    def leave(peer, stream_id):
        if stream_id == 1:
            peer.answer(stream_id)
        elif peer is peer.backend.peers[0]:
            if stream_id == 3:
                asyncio.get_running_loop().call_later(0.05, peer.answer, stream_id)
                peer.connection.send_goaway(http2_peer.ErrorCode.NO_ERROR, last_stream_id=3, debug_data=b"max_age")
        else:
            peer.answer(stream_id)

    async with Backend(leave) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        await client.call(METHOD, b"x", timeout_s=5)
        assert await asyncio.gather(*(client.call(METHOD, b"x", timeout_s=5) for _ in range(5))) == [b""] * 5
        assert len(backend.peers) == 2
        await eventually(lambda: not backend.peers[0].is_open)
        await client.close()


async def test_a_lost_connection_is_made_again():
    """Calls in progress fail as UNAVAILABLE, for the queue to decide; the next waits for the new connection."""
    async with Backend(lambda *_: None) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        lost = asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=20))
        await eventually(lambda: backend.requests)
        backend.peers[0].transport.abort()
        assert (await code_of(lost))[0] == "UNAVAILABLE"
        backend.behave = Peer.answer
        assert await client.call(METHOD, b"x", timeout_s=5) == b""
        await client.close()


async def test_addresses_are_looked_up_again(monkeypatch):
    """New addresses are used, removed ones finish their calls; a failed lookup changes nothing."""
    answers = []

    async def resolve(_):
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(client_http2, "resolve", resolve)
    monkeypatch.setattr(client_http2, "_LOOKUP_EVERY_S", 0.01)
    async with Backend(host="127.0.0.1") as one, Backend(host="127.0.0.2", port=one.port) as two:
        here = [client_http2.Address(host, one.port) for host in ("127.0.0.1", "127.0.0.2")]
        for balancer in ("round_robin", "pick_first"):
            answers[:] = [OSError(-2, "Name or service not known")]
            client = channel(f"backend.test:{one.port}", balancer_name=balancer)
            code, text = await code_of(client.call(METHOD, b"x", timeout_s=5))
            assert (code, "cannot look up backend.test" in text) == ("UNAVAILABLE", True)
            answers[:] = [tuple(here[:1])]
            await eventually(lambda client=client: client._ready)
            assert await client.call(METHOD, b"x", timeout_s=5) == b""
            answers[:] = [OSError(-3, "Temporary failure"), tuple(here[1:])]
            before = len(two.requests)
            async with asyncio.timeout(10):
                while len(two.requests) == before:
                    assert await client.call(METHOD, b"x", timeout_s=5) == b""
                    await asyncio.sleep(0.005)
            await eventually(lambda: not any(peer.is_open for peer in one.peers))
            await client.close()


async def test_unix_sockets_are_connected_to():
    """The client connects to the path and sends the authority localhost."""
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "s")
        async with Backend(path=path) as backend:
            for endpoint in (f"unix:{path}", f"unix://{path}"):
                client = channel(endpoint)
                assert await client.call(METHOD, b"x", timeout_s=5) == b""
                await client.close()
            assert backend.requests[0][b":authority"] == b"localhost"


async def test_close_lets_calls_finish_within_the_grace():
    """Within the grace; without one, they are cancelled, and so is every later call. A second close does nothing."""
    async with Backend(lambda *_: None) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        call = asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=20))
        await eventually(lambda: backend.requests)
        asyncio.get_running_loop().call_later(0.05, backend.peers[0].answer, 1)
        await client.close(10)
        assert await call == b""
        client = channel(f"127.0.0.1:{backend.port}")
        call = asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=20))
        await eventually(lambda: len(backend.requests) == 2)
        await client.close()
        assert (await code_of(call))[0] == "CANCELLED"
        assert (await code_of(client.call(METHOD, b"x", timeout_s=20)))[0] == "CANCELLED"
        await client.close()
        await eventually(lambda: not any(peer.is_open for peer in backend.peers))


@pytest.fixture
def pki(tmp_path):
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    trusting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority.configure_trust(trusting)
    trusting.set_alpn_protocols(["h2"])
    return context, trusting


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1"], None])
async def test_tls_needs_alpn_h2(pki, alpn):
    """A server that does not choose it is refused, with that reason."""
    server, trusting = pki
    if alpn:
        server.set_alpn_protocols(alpn)
    async with Backend(tls=server) as backend:
        client = channel(f"localhost:{backend.port}", tls=trusting, balancer_name="pick_first")
        if alpn == ["h2"]:
            assert await client.call(METHOD, bytes(3_000_000), timeout_s=5) == b""
            assert backend.requests[0][b":scheme"] == b"https"
        else:
            code, text = await code_of(client.call(METHOD, b"x", timeout_s=5))
            assert (code, "does not offer HTTP/2 on this port" in text) == ("UNAVAILABLE", True)
        await client.close()


async def test_the_certificate_is_checked_against_the_name(pki):
    """``server_name_override``, or the endpoint's host."""
    server, trusting = pki
    server.set_alpn_protocols(["h2"])
    async with Backend(tls=server) as backend:
        good = channel(f"127.0.0.1:{backend.port}", tls=trusting)
        assert await good.call(METHOD, b"x", timeout_s=5) == b""
        await good.close()
        bad = channel(f"127.0.0.1:{backend.port}", tls=trusting, authority="elsewhere.test")
        code, text = await code_of(bad.call(METHOD, b"x", timeout_s=5))
        assert (code, "certificate was rejected" in text) == ("UNAVAILABLE", True)
        await bad.close()


async def test_a_proxy_receives_connect(monkeypatch):
    """CONNECT with the proxy's credentials, which no message shows; if it refuses, the call fails with its reason."""
    asked = []
    refuse = False

    async def proxy(reader, writer):
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        if refuse:
            writer.write(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            writer.close()
            return
        writer.write(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", backend.port)

        async def pump(source, sink):
            while block := await source.read(65536):
                sink.write(block)
            sink.close()

        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer), return_exceptions=True)

    server = await asyncio.start_server(proxy, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("HTTPS_PROXY", f"http://user:secretsecret@127.0.0.1:{port}")
    async with Backend() as backend:
        client = channel("backend.test:4317")
        assert await client.call(METHOD, b"x" * 100_000, timeout_s=5) == b""
        await client.close()
        assert asked[0].startswith(
            b"CONNECT backend.test:4317 HTTP/1.1\r\nHost: backend.test:4317\r\nProxy-Authorization: Basic dXNlcjpz"
        )
        refuse = True
        client = channel("backend.test:4317")
        code, text = await code_of(client.call(METHOD, b"x", timeout_s=5))
        assert (code, "refuses to connect to backend.test:4317: 403" in text, "secret" in text) == (
            "UNAVAILABLE",
            True,
            False,
        )
        await client.close()
        client = channel(f"127.0.0.1:{backend.port}")
        assert await client.call(METHOD, b"x", timeout_s=5) == b"", "never for loopback"
        await client.close()
        assert len(asked) >= 2
    server.close()


async def test_large_bodies_are_compressed_beside_the_loop():
    """Bodies that compression would not shorten are sent as they are."""
    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}", compression="zstd")
        assert await client.call(METHOD, bytes(1_000_000), timeout_s=5) == b""
        assert await client.call(METHOD, b"ab", timeout_s=5) == b""
        assert backend.requests[0][b"grpc-encoding"] == b"zstd"
        first, second = backend.peers[0].bodies.values()
        assert first[:1] == b"\x01"
        assert decompress("zstd", first[5:], 1_000_000) == bytes(1_000_000)
        assert second == encode_message(b"ab")
        await client.close()


async def test_under_load_every_call_gets_its_own_answer():
    """Hundreds at once over two connections, one of which is closed gracefully again and again."""

    def echo(peer, stream_id):
        is_last = stream_id == 2 * peer.backend.limit - 1

        def later():
            if peer.is_open and (not peer.backend.limit or stream_id < 2 * peer.backend.limit):
                peer.answer(stream_id, peer.bodies[stream_id][5:])

        asyncio.get_running_loop().call_later(0.001, later)
        if is_last:
            peer.connection.send_goaway(http2_peer.ErrorCode.NO_ERROR, last_stream_id=stream_id)

    async with Backend(echo, max_streams=20) as one, Backend(echo, host="127.0.0.2", port=one.port) as two:
        one.limit, two.limit = 30, 0
        client = channel(f"ipv4:127.0.0.1:{one.port},127.0.0.2:{two.port}", wait_for_ready=True)
        bodies = [b"%d" % n * 10 for n in range(400)]
        assert await asyncio.gather(*(client.call(METHOD, body, timeout_s=20) for body in bodies)) == bodies
        await eventually(lambda: len(one.peers) > 1)
        await client.close()


def try_call(client, outcomes, body=b"x", timeout_s=5.0, **more):
    return client.try_call(METHOD, body, outcomes.append, timeout_s=timeout_s, **more)


async def test_try_call_sends_only_what_can_be_sent_at_once():
    """Nothing is sent before a connection is ready; afterwards ``on_done`` is called once, later, without a task."""
    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        outcomes = []
        assert not try_call(client, outcomes)
        assert await client.call(METHOD, b"x", timeout_s=5) == b""
        tasks = asyncio.all_tasks()
        assert try_call(client, outcomes, metadata={"y": "z"})
        assert outcomes == []
        await eventually(lambda: outcomes)
        assert (outcomes, backend.requests[1][b"y"], asyncio.all_tasks()) == ([b""], b"z", tasks)
        with pytest.raises(ValueError, match="printable"):
            try_call(client, outcomes, metadata={"y": "\n"})
        await client.close()
        assert not try_call(client, outcomes)
        assert outcomes == [b""]


async def test_what_takes_long_to_compress_is_not_begun():
    """It would block the loop; small bodies are compressed at once."""
    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}", compression="gzip")
        assert await client.call(METHOD, b"x", timeout_s=5) == b""
        outcomes = []
        assert not try_call(client, outcomes, bytes(1_000_000))
        assert try_call(client, outcomes, bytes(1000))
        await eventually(lambda: outcomes == [b""])
        sent = backend.peers[0].bodies[3]
        assert (sent[:1], decompress("gzip", sent[5:], 1000)) == (b"\x01", bytes(1000))
        await client.close()


async def test_tried_calls_end_like_others():
    """By deadline, a stream refused twice, the end of the connection or the client; ``on_done`` is called once."""
    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        await client.call(METHOD, b"x", timeout_s=5)
        outcomes, late = [], []
        backend.behave = lambda *_: None
        assert try_call(client, outcomes, timeout_s=0.05)
        await eventually(lambda: outcomes)
        assert (outcomes[0].code.name, outcomes[0].text) == ("DEADLINE_EXCEEDED", "no response within 0.05 s")
        await eventually(lambda: backend.resets == [http2_peer.ErrorCode.CANCEL])
        backend.behave = lambda peer, stream_id: peer.connection.reset_stream(
            stream_id, http2_peer.ErrorCode.REFUSED_STREAM
        )
        assert try_call(client, outcomes)
        await eventually(lambda: len(outcomes) == 2)
        assert (outcomes[1].code.name, len(backend.requests)) == ("UNAVAILABLE", 4)
        backend.behave = lambda peer, _: peer.transport.abort()
        assert try_call(client, outcomes)
        assert try_call(client, outcomes)
        await eventually(lambda: len(outcomes) == 4)
        assert {error.code.name for error in outcomes[2:]} == {"UNAVAILABLE"}
        backend.behave = Peer.answer
        await client.call(METHOD, b"x", timeout_s=5)
        backend.behave = lambda *_: None
        assert try_call(client, late)
        await client.close()
        assert [error.code.name for error in late] == ["CANCELLED"]
        assert len(outcomes) == 4


async def test_calls_that_wait_for_a_stream_go_first():
    """A call is not started before them even if a stream is free, as callbacks often start the next call at once."""
    held = []
    async with Backend(lambda peer, stream_id: held.append((peer, stream_id)), max_streams=1) as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        outcomes, begun = [], []

        def next_one(answer):
            outcomes.append(answer)
            begun.append(try_call(client, outcomes))

        first = asyncio.ensure_future(client.call(METHOD, b"x", timeout_s=5))
        await eventually(lambda: held)
        Peer.answer(*held.pop())
        await first
        assert client.try_call(METHOD, b"x", next_one, timeout_s=5)
        waiting = asyncio.ensure_future(client.call(METHOD, b"y", timeout_s=5))
        await eventually(lambda: held)
        Peer.answer(*held.pop())
        await eventually(lambda: held)
        assert (outcomes, begun) == ([b""], [False])
        assert held[0][0].bodies[held[0][1]][5:] == b"y"
        Peer.answer(*held.pop())
        assert await waiting == b""
        await client.close()


async def test_a_fault_of_who_hears_an_answer_is_its_own():
    """The connection and the other calls continue; the loop's exception handler is called."""
    async with Backend() as backend:
        client = channel(f"127.0.0.1:{backend.port}")
        await client.call(METHOD, b"x", timeout_s=5)
        faults, outcomes = [], []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        assert client.try_call(METHOD, b"x", lambda _: 1 / 0, timeout_s=5)
        assert try_call(client, outcomes)
        await eventually(lambda: outcomes == [b""])
        assert [type(fault) for fault in faults] == [ZeroDivisionError]
        assert len(backend.peers) == 1
        await client.close()


@pytest.mark.parametrize(
    "scenario",
    [
        test_a_call_sends_the_headers_of_grpc,
        test_an_unreachable_server_fails_fast_unless_wait_for_ready,
        test_a_port_without_http2_is_reported,
        test_a_deadline_ends_the_call_at_the_server_too,
        test_the_servers_limit_of_streams_is_kept,
        test_goaway_moves_calls_to_a_new_connection,
        test_a_lost_connection_is_made_again,
        test_unix_sockets_are_connected_to,
        test_close_lets_calls_finish_within_the_grace,
        test_under_load_every_call_gets_its_own_answer,
        test_try_call_sends_only_what_can_be_sent_at_once,
        test_tried_calls_end_like_others,
    ],
)
def test_on_the_loop_of_the_service(scenario):
    """uvloop; the other tests run on asyncio's own loop."""
    uvloop.run(scenario())


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1"]])
def test_tls_on_the_loop_of_the_service(pki, alpn):
    """uvloop's TLS differs from asyncio's as well."""
    uvloop.run(test_tls_needs_alpn_h2(pki, alpn))


def test_a_proxy_on_the_loop_of_the_service(monkeypatch):
    """A socket that was read from before it is handed over."""
    uvloop.run(test_a_proxy_receives_connect(monkeypatch))
