"""The client's connections against raw servers: reuse, limits, tunnels, and what a bad server can do to them."""

import asyncio
import itertools
import ssl
from contextlib import asynccontextmanager

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.transport.http.client_connection import BadResponseError, DisconnectedError, HTTP1ClientConnection
from collector.transport.http.pool import Origin, Pool, basic_credentials

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEAD = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n"


class Backend:
    """Answers the n-th request with ``answers[n]``, later ones with the last; None in a list closes."""

    def __init__(self, *answers, tls=None):
        self.answers = list(answers) or [OK]
        self.tls = tls
        self.requests = []
        self.connection_count = self.open_count = 0

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]
        self.origin = Origin("https" if self.tls else "http", "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_):
        self.server.close()
        await self.server.wait_closed()

    async def serve(self, reader, writer):
        self.connection_count += 1
        self.open_count += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                self.requests.append((head, await reader.readexactly(length)))
                answer = self.answers[min(len(self.requests), len(self.answers)) - 1]
                if callable(answer):
                    answer = await answer(reader, writer)
                if answer is None:
                    break
                writer.write(answer)
                if b"Connection: close" in answer or (b"Content-Length" not in answer and b"chunked" not in answer):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open_count -= 1
            writer.close()


@asynccontextmanager
async def pooled(context=ssl.create_default_context, **options):
    pool = Pool(context, **{"server_name": "", "max_per_origin": 0, "idle_s": 0.0, "keeps_alive": True, **options})
    try:
        yield pool
    finally:
        await pool.close()


async def until(condition):
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.001)


async def test_connections_are_kept_and_used_again():
    """Consecutive requests use one connection."""
    async with Backend() as backend, pooled() as pool:
        for _ in range(3):
            answer = await pool.exchange(backend.origin, HEAD, b"x")
            assert (answer.status, answer.reason, answer.body, answer.headers) == (
                200,
                "OK",
                b"ok",
                {b"content-length": b"2"},
            )
        assert (backend.connection_count, len(backend.requests)) == (1, 3)


async def test_connections_are_closed_where_nothing_is_kept():
    """With ``disable_keep_alives`` every request has a connection of its own."""
    async with Backend() as backend, pooled(keeps_alive=False) as pool:
        for _ in range(2):
            await pool.exchange(backend.origin, HEAD, b"x")
        assert backend.connection_count == 2
        await until(lambda: backend.open_count == 0)


async def test_a_server_that_closes_is_believed():
    """Connection: close, and a response that ends with its connection."""
    async with (
        Backend(
            OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), b"HTTP/1.0 200 OK\r\n\r\nall of it", OK
        ) as backend,
        pooled() as pool,
    ):
        bodies = [(await pool.exchange(backend.origin, HEAD, b"x")).body for _ in range(3)]
        assert bodies == [b"ok", b"all of it", b"ok"]
        assert backend.connection_count == 3


async def test_no_more_connections_than_allowed_and_nobody_waits_for_ever():
    """With max_conns_per_host, waiting requests continue as others end, are cancelled, or fail."""
    gate = asyncio.Event()

    async def slow(reader, writer):
        await gate.wait()
        return OK

    async with Backend(slow) as backend, pooled(max_per_origin=2) as pool:
        tasks = [asyncio.ensure_future(pool.exchange(backend.origin, HEAD, b"x")) for _ in range(6)]
        await until(lambda: len(backend.requests) == 2)
        tasks[2].cancel()
        tasks[0].cancel()
        await until(lambda: len(backend.requests) == 3)
        gate.set()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert [isinstance(outcome, asyncio.CancelledError) for outcome in done] == [
            True,
            False,
            True,
            False,
            False,
            False,
        ]
        assert backend.connection_count == 3


async def test_failed_connects_do_not_use_up_the_limit():
    """With a limit of one connection, every attempt fails at once because no server listens."""
    async with Backend() as backend:
        pass
    async with pooled(max_per_origin=1) as pool:
        for _ in range(3):
            with pytest.raises(OSError):
                await pool.exchange(backend.origin, HEAD, b"x")


async def test_idle_connections_are_closed_in_time():
    """A timer closes them after ``idle_conn_timeout``."""
    async with Backend() as backend, pooled(idle_s=0.02) as pool:
        await pool.exchange(backend.origin, HEAD, b"x")
        await until(lambda: backend.open_count == 0)
        await pool.exchange(backend.origin, HEAD, b"x")
        assert backend.connection_count == 2


async def test_cancelled_request_closes_its_connection():
    """Its response would be taken for that of the next request."""

    async def never(reader, writer):
        await reader.read()

    async with Backend(never) as backend, pooled() as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.exchange(backend.origin, HEAD, b"x")
        await until(lambda: backend.open_count == 0)


async def test_stale_connections_are_distinguished_from_a_server_that_hangs_up():
    """Only a reused connection without a byte of a response justifies sending the request again at once."""
    async with (
        Backend(OK, None, None, b"HTTP/1.1 500 No\r\nContent-Length: 9\r\nConnection: close\r\n\r\nhalf") as backend,
        pooled() as pool,
    ):
        await pool.exchange(backend.origin, HEAD, b"x")
        for is_stale in (True, False, False):
            with pytest.raises(DisconnectedError) as caught:
                await pool.exchange(backend.origin, HEAD, b"x")
            assert caught.value.is_stale is is_stale


@pytest.mark.parametrize(
    ("sent", "status", "body"),
    [
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;e=1\r\nok\r\n0\r\nT: v\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 429 \r\nContent-Length: 0\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\n", 429, b""),
        (OK + OK, 200, b"ok"),
        (b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n", 999, b""),
    ],
)
@settings(max_examples=40)
@given(splits=st.lists(st.integers(0, 200), max_size=5))
def test_no_split_of_an_answer_changes_it(sent, status, body, splits):
    """Interim responses, chunks, trailers, no body, and bytes after the end."""

    async def go():
        connection = HTTP1ClientConnection(lambda _: None)

        class Wire(asyncio.Transport):
            closed = False

            def write(self, data):
                pass

            def abort(self):
                self.closed = True

            def is_closing(self):
                return self.closed

            def get_write_buffer_size(self):
                return 0

        connection.connection_made(Wire())
        asking = asyncio.ensure_future(connection.exchange(HEAD, b"x"))
        await asyncio.sleep(0)
        at = [0, *sorted({split % len(sent) for split in splits}), len(sent)]
        for start, end in itertools.pairwise(at):
            connection.data_received(sent[start:end])
        answer = await asking
        assert (answer.status, answer.body) == (status, body)
        assert connection.is_usable is (sent != OK + OK)

    asyncio.run(go())


@pytest.mark.parametrize(
    "sent",
    [
        b"SSH-2.0-OpenSSH_9\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000,
        b"HTTP/1.1 100 Continue\r\n\r\n" * 5000,
        b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 2000,
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ],
)
async def test_an_invalid_response_is_an_error_within_bounds(sent):
    """Another protocol, and heads and framing without end."""

    async def send(reader, writer):
        writer.write(sent)
        await reader.read()

    async with Backend(send) as backend, pooled() as pool:
        async with asyncio.timeout(5):
            with pytest.raises(BadResponseError):
                await pool.exchange(backend.origin, HEAD, b"x")
        await until(lambda: backend.open_count == 0)


@pytest.mark.parametrize(
    ("sent", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\npart", b"part"),
        (b"HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", b""),
        (b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\nnonsense", b"part"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npa", b"pa"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + (b"1;" + b"e" * 1000 + b"\r\nx\r\n") * 2000,
            None,
        ),
    ],
)
async def test_a_2xx_status_is_final_whatever_becomes_of_its_body(sent, body):
    """The server has accepted the request: the response is truncated, not an error that would send it again."""

    async def send(reader, writer):
        writer.write(sent)

    async with Backend(send) as backend, pooled() as pool:
        async with asyncio.timeout(5):
            response = await pool.exchange(backend.origin, HEAD, b"x")
        assert (response.status // 100, response.is_truncated) == (2, response.status != 204)
        assert body is None or response.body == body
        await until(lambda: backend.open_count == 0)


@pytest.mark.parametrize(("status", "count"), [(b"200", 1), (b"500", 0)])
async def test_what_arrived_of_a_2xx_response_is_known_when_its_body_is_late(status, count):
    async def send(reader, writer):
        writer.write(b"HTTP/1.1 " + status + b" X\r\nContent-Length: 100\r\n\r\npart")
        await reader.read()

    async with Backend(send) as backend, pooled() as pool:
        accepted = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await pool.exchange(backend.origin, HEAD, b"x", accepted)
        assert [(answer.body, answer.is_truncated) for answer in accepted] == [(b"part", True)] * count
        await until(lambda: backend.open_count == 0)


async def test_an_endless_body_is_cut_and_its_connection_closed():
    """The body is truncated at 64 KiB."""

    async def send(reader, writer):
        writer.write(b"HTTP/1.1 400 Bad\r\nTransfer-Encoding: chunked\r\n\r\n")
        while not writer.is_closing():
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with Backend(send) as backend, pooled() as pool:
        answer = await pool.exchange(backend.origin, HEAD, b"x")
        assert (answer.status, len(answer.body), answer.is_truncated) == (400, 64 * 1024, True)
        await until(lambda: backend.open_count == 0)


async def test_an_answer_before_the_request_was_sent_ends_the_connection():
    """A large body is refused: the response is read, and the rest is not sent into the next request."""

    async def refuse(reader, writer):
        writer.write(OK.replace(b"200 OK", b"413 No"))
        await reader.read()

    async with Backend(refuse) as backend, pooled() as pool:
        head = HEAD.replace(b"Content-Length: 1\r\n", b"X: 1\r\n")
        answer = await pool.exchange(backend.origin, head, bytes(50_000_000))
        assert answer.status == 413
        await until(lambda: backend.open_count == 0)


class Certified:
    """The contexts of a server and a client."""

    def __init__(self, name="backend.internal"):
        authority = trustme.CA()
        self.server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert(name, "127.0.0.1").configure_cert(self.server)
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)


async def test_new_certificates_mean_new_connections():
    """A kept connection was opened with the old ones."""
    certified = Certified()
    other = ssl.create_default_context()
    contexts = [certified.client, certified.client, other]
    async with Backend(tls=certified.server) as backend, pooled(lambda: contexts.pop(0)) as pool:
        for _ in range(2):
            await pool.exchange(backend.origin, HEAD, b"x")
        assert backend.connection_count == 1
        with pytest.raises(ssl.SSLCertVerificationError):
            await pool.exchange(backend.origin, HEAD, b"x")


def tunnel_to(port, seen):
    """A proxy's CONNECT: connects the client with a server."""

    async def connect(reader, writer):
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        seen.append(port)
        writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")

        async def pipe(source, sink):
            while data := await source.read(65536):
                sink.write(data)
            sink.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(pipe(reader, far_writer))
            group.create_task(pipe(far_reader, writer))

    return connect


@pytest.mark.parametrize("is_secure_proxy", [False, True])
@pytest.mark.parametrize("server_name", ["", "backend.internal"])
async def test_https_goes_through_a_tunnel(is_secure_proxy, server_name):
    """CONNECT with credentials, TLS inside, kept for the next request; with and without TLS to the proxy."""
    certified, seen = Certified(), []
    async with (
        Backend(tls=certified.server) as backend,
        Backend(tunnel_to(backend.port, seen), tls=certified.server if is_secure_proxy else None) as proxy,
        pooled(lambda: certified.client, server_name=server_name) as pool,
    ):
        url = f"{'https' if is_secure_proxy else 'http'}://me:p%40ss@127.0.0.1:{proxy.port}"
        origin = Origin("https", "127.0.0.1", backend.port, url)
        for _ in range(2):
            assert (await pool.exchange(origin, HEAD, b"x")).body == b"ok"
        assert len(seen) == 1
        head = proxy.requests[0][0]
        assert head.startswith(f"CONNECT 127.0.0.1:{backend.port} HTTP/1.1\r\n".encode())
        assert f"Proxy-Authorization: {basic_credentials('http://me:p%40ss@h')}\r\n".encode() in head
        assert [body for _, body in backend.requests] == [b"x", b"x"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n", None])
async def test_refused_tunnel_is_an_error_and_frees_its_place(answer):
    """The proxy refuses, or closes the connection."""
    async with Backend(answer) as proxy, pooled(max_per_origin=1) as pool:
        origin = Origin("https", "h", 1, f"http://127.0.0.1:{proxy.port}")
        for _ in range(2):
            with pytest.raises(ConnectionError, match="407" if answer else "closed"):
                await pool.exchange(origin, HEAD, b"x")


async def test_an_unsupported_proxy_is_a_value_error():
    """The pool does not support SOCKS proxies."""
    async with pooled() as pool:
        with pytest.raises(ValueError, match="proxy"):
            await pool.exchange(Origin("http", "h", 1, "socks5://127.0.0.1:1"), HEAD, b"x")


async def test_closing_fails_what_is_under_way_and_what_waits():
    """No request hangs when the pool is closed."""

    async def never(reader, writer):
        await reader.read()

    async with Backend(never) as backend, pooled(max_per_origin=1) as pool:
        tasks = [asyncio.ensure_future(pool.exchange(backend.origin, HEAD, b"x")) for _ in range(3)]
        await until(lambda: backend.requests)
        await pool.close()
        async with asyncio.timeout(5):
            outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, ConnectionError) for outcome in outcomes)
