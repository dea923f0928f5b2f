"""The HTTP client against real servers: what it sends, how it reads responses, and its errors."""

import asyncio
import gzip
import ssl

import pytest
import trustme
from aiohttp import web
from aiohttp.test_utils import TestServer, unused_port
from google.rpc import status_pb2

from collector.api import PermanentError, RetryableError, TooLargeError
from collector.testing import FakeClock, FakeHost
from collector.transport.compression import decompress
from collector.transport.http.client import HTTPClient, parse_retry_after
from config.blocks import HTTPClientConfig

SECRET = "Bearer s3cr3t-t0ken-value"


class Rig:
    """A server that answers with ``answer`` and keeps the requests, and a client."""

    def __init__(self, answer=None, tls=None, **config):
        self.answer = answer or (lambda _: web.Response())
        self.requests = []
        self.tls = tls
        self.config = config

    async def __aenter__(self):
        async def handle(request):
            self.requests.append((dict(request.headers), await request.read()))
            answer = self.answer(request)
            return await answer if asyncio.iscoroutine(answer) else answer

        app = web.Application(client_max_size=100_000_000, handler_args={"auto_decompress": False})
        app.router.add_route("*", "/{tail:.*}", handle)
        self.server = TestServer(app, scheme="https" if self.tls else "http")
        await self.server.start_server(ssl=self.tls)
        self.url = str(self.server.make_url("/v1/x"))
        self.client = make(**self.config)
        await self.client.open(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        await self.server.close()

    async def post(self, body=b"body", **more):
        return await self.client.post(self.url, body, content_type="application/x-protobuf", **more)


def make(*, fixed_headers=None, **config):
    return HTTPClient(
        HTTPClientConfig.model_validate(config),
        key="exporters::otlp_http",
        clock=FakeClock(),
        user_agent="tailrace/1",
        fixed_headers=fixed_headers,
    )


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "snappy", "deflate", "zlib", "lz4", "none", ""])
async def test_bodies_are_sent_in_the_configured_encoding(encoding):
    body = b"0123456789" * 40_000
    async with Rig(compression=encoding) as rig:
        await rig.post(body)
        headers, sent = rig.requests[0]
    assert headers.get("Content-Encoding", "") == ("" if encoding == "none" else encoding)
    assert decompress(headers.get("Content-Encoding", ""), sent, len(body)) == body
    assert headers["Content-Type"] == "application/x-protobuf"
    assert headers["User-Agent"] == "tailrace/1"


async def test_a_body_that_is_encoded_already_is_left_alone():
    async with Rig() as rig:
        await rig.post(b"\x05abcde", encoding="snappy")
        headers, sent = rig.requests[0]
    assert (headers["Content-Encoding"], sent) == ("snappy", b"\x05abcde")


async def test_the_users_headers_are_sent_beside_the_protocols_own():
    """As in the Collector, User-Agent and Host can be configured, unless the protocol forbids it."""
    async with Rig(
        headers={"authorization": SECRET, "user-agent": "mine", "Host": "other"}, fixed_headers={"X-Version": "1"}
    ) as rig:
        await rig.post(headers={"X-Scope-OrgID": "acme"})
        headers, _ = rig.requests[0]
    lower = {name.lower(): value for name, value in headers.items()}
    names = ("authorization", "user-agent", "host", "x-version", "x-scope-orgid")
    assert [lower[name] for name in names] == [SECRET, "mine", "other", "1", "acme"]


@pytest.mark.parametrize("status", [200, 202, 204, 260])
async def test_every_2xx_is_an_answer(status):
    async with Rig(
        lambda _: web.Response(
            status=status, body=b"" if status == 204 else b"ok", content_type="text/plain", charset="utf-8"
        )
    ) as rig:
        answer = await rig.post()
    assert (answer.status, answer.is_truncated) == (status, False)
    assert status == 204 or (answer.body, answer.content_type) == (b"ok", "text/plain")


@pytest.mark.parametrize("status", [429, 502, 503, 504])
async def test_these_are_worth_another_attempt(status):
    async with Rig(lambda _: web.Response(status=status, headers={"Retry-After": "7"})) as rig:
        with pytest.raises(RetryableError) as caught:
            await rig.post()
    assert (caught.value.reason, caught.value.retry_after_s) == (f"http_{status}", 7)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 415, 500, 501, 505])
async def test_all_others_are_refusals(status):
    async with Rig(lambda _: web.Response(status=status, text="it is\n wrong")) as rig:
        with pytest.raises(PermanentError, match="it is wrong") as caught:
            await rig.post()
    assert caught.value.reason == f"http_{status}"
    assert isinstance(caught.value, TooLargeError) == (status == 413)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (413, "whatever"),
        (400, "http: request body too large\n"),
        (400, "received message larger than max (5229930 vs 4194304)"),
        (400, "decompressed message size too large than max (1118911 vs 200000)\n"),
        (400, "decoded size exceeds the 33554432 bytes limit\n"),
        (
            500,
            "rpc error: code = ResourceExhausted desc = grpc: received message larger than max (5229930 vs. 4194304)",
        ),
        (
            503,
            "rpc error: code = ResourceExhausted desc = trying to send message larger than max (5229930 vs. 4194304)",
        ),
        (
            400,
            "the incoming push request has been rejected because its message size of 9 bytes (uncompressed) is larger than the allowed limit",
        ),
        (
            400,
            'error in "/api/v1/write": too big unpacked request; mustn\'t exceed `-maxInsertRequestSize=9` bytes; got 10 bytes',
        ),
        (400, 'error in "/insert/loki/api/v1/push": too big data size exceeding -loki.maxRequestSize=9 bytes'),
    ],
)
async def test_responses_that_say_too_large_are_distinguished(status, said):
    """Also with retryable statuses: the same bytes would never be accepted."""
    async with Rig(lambda _: web.Response(status=status, text=said)) as rig:
        with pytest.raises(TooLargeError) as caught:
            await rig.post()
    assert caught.value.reason == f"http_{status}"


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (429, "received message larger than max (5229930 vs 4194304)"),
        (400, "entry for stream '{app=\"request body too large\"}' has timestamp too old"),
        (400, "received a series whose label value is too long, value: 'message larger than max (1 vs 1)'"),
        (400, "x" * 150 + " request body too large"),
        (500, "too many outstanding requests"),
    ],
)
async def test_what_merely_looks_like_it_is_not(status, said):
    """Error messages quote text chosen by senders; if quoted or late in the message, it says nothing about the size."""
    async with Rig(lambda _: web.Response(status=status, text=said)) as rig:
        with pytest.raises((PermanentError, RetryableError)) as caught:
            await rig.post()
    assert not isinstance(caught.value, TooLargeError)


@pytest.mark.parametrize("content_type", ["application/x-protobuf", "application/octet-stream"])
async def test_the_message_of_an_encoded_status_is_shown(content_type):
    body = status_pb2.Status(code=3, message="stream limit reached").SerializeToString()
    async with Rig(lambda _: web.Response(status=400, body=body, content_type=content_type)) as rig:
        with pytest.raises(PermanentError, match=r"400 Bad Request: stream limit reached$"):
            await rig.post()


async def test_redirects_are_not_followed():
    async with Rig(
        lambda _: web.Response(status=307, headers={"Location": "http://user:pass@elsewhere/x?key=abcdef"})
    ) as rig:
        with pytest.raises(PermanentError, match="http://elsewhere/x") as caught:
            await rig.post()
        assert len(rig.requests) == 1
    assert "pass" not in str(caught.value)
    assert "abcdef" not in str(caught.value)


async def test_an_answer_is_read_within_a_bound():
    async with Rig(lambda _: web.Response(body=bytes(10_000_000))) as rig:
        answer = await rig.post()
        assert (len(answer.body), answer.is_truncated) == (64 * 1024, True)
        assert not (await rig.post(b"next")).body.strip(b"\0")


async def test_a_compressed_answer_is_unpacked_within_the_bound():
    def answer(request):
        return web.Response(
            body=gzip.compress(b"fine" if len(rig.requests) == 1 else bytes(10_000_000)),
            headers={"Content-Encoding": "gzip"},
        )

    async with Rig(answer) as rig:
        assert (await rig.post()).body == b"fine"
        assert (await rig.post()).is_truncated


async def test_nobody_there_is_worth_another_attempt():
    client = make()
    await client.open(FakeHost())
    with pytest.raises(RetryableError) as caught:
        await client.post(f"http://127.0.0.1:{unused_port()}/", b"x", content_type="a/b")
    await client.close()
    assert caught.value.reason == "connect"


async def test_no_answer_in_time_is_worth_another_attempt():
    waiting = asyncio.Event()

    async def hang():
        await waiting.wait()
        return web.Response()

    async with Rig(lambda _: hang(), timeout="20ms") as rig:
        with pytest.raises(RetryableError) as caught:
            await rig.post()
        waiting.set()
    assert caught.value.reason == "timeout"


async def test_an_idle_connection_the_server_closed_costs_no_backoff():
    async def serve(reader, writer):
        nonlocal served
        served += 1
        mine = served
        while await reader.readuntil(b"\r\n\r\n"):
            await reader.readexactly(1)
            if mine == 1 and len(answers) == 1:
                break  # the second request on the first connection finds it closing
            answers.append(mine)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            if mine == 2:
                break
        writer.close()

    served, answers = 0, []
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    client = make(compression="none")
    await client.open(FakeHost())
    await client.post(url, b"x", content_type="a/b")
    await client.post(url, b"x", content_type="a/b")
    await client.close()
    server.close()
    await server.wait_closed()
    assert answers == [1, 2]


async def test_tls_verifies_and_the_name_can_be_another():
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("backend.internal").configure_cert(context)
    ca = authority.cert_pem.bytes().decode()
    async with Rig(tls=context) as rig:
        with pytest.raises(RetryableError, match="certificate verify failed"):
            await rig.post()
        for tls in ({"ca_pem": ca, "server_name_override": "backend.internal"}, {"insecure_skip_verify": True}):
            client = make(tls=tls)
            await client.open(FakeHost())
            assert (await client.post(rig.url, b"x", content_type="a/b")).status == 200
            await client.close()


async def test_a_proxy_is_used(monkeypatch):
    async with Rig() as proxy:
        for config, url in (({"proxy_url": str(proxy.server.make_url("/"))}, "http://backend.example/v1/x"),):
            client = make(**config)
            await client.open(FakeHost())
            assert (await client.post(url, b"x", content_type="a/b")).status == 200
            await client.close()
        monkeypatch.setenv("http_proxy", str(proxy.server.make_url("/")))
        monkeypatch.setenv("no_proxy", "direct.example")
        client = make()
        assert client._proxy("http://backend.example/") == str(proxy.server.make_url("/"))
        assert client._proxy("http://direct.example/") is None
        assert client._proxy("http://localhost/") is None
        assert client._proxy("http://127.0.0.2/") is None
        monkeypatch.setenv("no_proxy", "10.0.0.0/8")
        assert make()._proxy("http://10.1.2.3:4318/") is None
        assert len(proxy.requests) == 1
        assert proxy.requests[0][0]["Host"] == "backend.example"


async def test_credentials_of_urls_go_into_headers():
    async with Rig() as rig:
        url = rig.url.replace("://", "://me:p%40ss@")
        await rig.client.post(url, b"x", content_type="a/b")
        await rig.client.post(url, b"x", content_type="a/b", headers={"authorization": "Bearer t"})
        proxied = make(proxy_url=str(rig.server.make_url("/")).replace("://", "://you:word@"))
        await proxied.open(FakeHost())
        await proxied.post("http://backend.example:81/v1/x?a=b", b"x", content_type="a/b")
        await proxied.close()
    first, second, third = (headers for headers, _ in rig.requests)
    assert (first["Authorization"], second["Authorization"]) == ("Basic bWU6cEBzcw==", "Bearer t")
    assert (third["Proxy-Authorization"], third["Host"]) == ("Basic eW91OndvcmQ=", "backend.example:81")
    assert "Authorization" not in third


async def test_no_header_can_end_its_line_or_frame_the_body_anew():
    async with Rig(headers={"host": "other"}) as rig:
        with pytest.raises(PermanentError, match="X-Scope-OrgID") as caught:
            await rig.post(headers={"X-Scope-OrgID": "a\r\nX-Evil: 1"})
        assert caught.value.reason == "bad_url"
        await rig.post(b"whole")
        headers, body = rig.requests[0]
    assert (headers["Content-Length"], headers["Host"], gzip.decompress(body)) == (str(len(body)), "other", b"whole")
    assert "Transfer-Encoding" not in headers


@pytest.mark.parametrize(
    ("path", "sent"), [("", "/"), ("/ä b?x=ü&y=%20", "/%C3%A4%20b?x=%C3%BC&y=%20"), ("/a%2Fb;c", "/a%2Fb;c")]
)
async def test_urls_are_sent_as_they_are_but_for_what_must_be_escaped(path, sent):
    targets = []

    def answer(request):
        targets.append(request.raw_path)
        return web.Response()

    async with Rig(answer) as rig:
        await rig.client.post(str(rig.server.make_url("")).rstrip("/") + path, b"x", content_type="a/b")
    assert targets == [sent]


async def test_a_connection_is_for_one_request_where_keep_alives_are_disabled():
    async with Rig(disable_keep_alives=True) as rig:
        await rig.post()
        assert rig.requests[0][0]["Connection"] == "close"


async def test_errors_hold_no_credentials():
    async def echo(request):
        return web.Response(status=400, text=f"got {request.headers['authorization']} and {request.headers['x-key']}")

    config = {"headers": {"authorization": SECRET, "x-key": "hunter22"}, "endpoint": "http://u:p4ssw0rd@h/"}
    async with Rig(echo, **config) as rig:
        with pytest.raises(PermanentError) as caught:
            await rig.post()
        assert "s3cr3t" not in str(caught.value)
        assert "hunter22" not in str(caught.value)
        assert "[REDACTED]" in str(caught.value)
        for bad in (
            f"http://u:p4ssw0rd@127.0.0.1:{unused_port()}/?key=sesame1",
            "http://u:p4ssw0rd@:99999/",
            "ftp://u:p4ssw0rd@h/",
        ):
            with pytest.raises((PermanentError, RetryableError)) as caught:
                await rig.client.post(bad, b"x", content_type="a/b")
            assert "p4ssw0rd" not in str(caught.value)
            assert "sesame1" not in str(caught.value)


class Tokens:
    def __init__(self):
        self.count = 0

    def client_headers(self):
        self.count += 1
        return {"Authorization": f"Bearer {self.count}"}


async def test_an_extension_gives_credentials_for_each_request():
    async with Rig() as rig:
        client = make(auth={"authenticator": "tokens"})
        await client.open(FakeHost(extensions={"tokens": Tokens()}))
        await client.post(rig.url, b"x", content_type="a/b")
        await client.post(rig.url, b"x", content_type="a/b")
        await client.close()
    assert [headers["Authorization"] for headers, _ in rig.requests] == ["Bearer 1", "Bearer 2"]


@pytest.mark.parametrize("extensions", [{}, {"tokens": object()}])
async def test_start_fails_if_the_extension_is_not_an_authenticator(extensions):
    client = make(auth={"authenticator": "tokens"})
    with pytest.raises(ValueError, match="exporters::otlp_http::auth::authenticator"):
        await client.open(FakeHost(extensions=extensions))


async def test_unusable_certificates_refuse_the_start():
    client = make(tls={"ca_file": "/nowhere"})
    with pytest.raises(ValueError, match="exporters::otlp_http::tls::ca_file"):
        await client.open(FakeHost())


def test_a_proxy_of_the_environment_that_cannot_work_is_refused(monkeypatch):
    """If it would be used."""
    monkeypatch.setenv("https_proxy", "socks5://u:s3cret@h:1")
    with pytest.raises(ValueError, match="the environment variable HTTPS_PROXY is not a valid HTTP proxy") as caught:
        make(endpoint="https://backend.example")
    assert "s3cret" not in str(caught.value)
    make(endpoint="http://backend.example")
    make(endpoint="https://localhost:4318")
    make(endpoint="https://backend.example", proxy_url="proxy.example:3128")


@pytest.mark.parametrize("form", ["PROXY", "http://PROXY", "http://PROXY/", "u:p@PROXY"])
@pytest.mark.parametrize("source", ["environment", "configuration"])
async def test_a_proxy_may_be_written_without_a_scheme(monkeypatch, form, source):
    """HTTP_PROXY=host:port, as curl and Go accept it."""
    async with Rig() as proxy:
        address = form.replace("PROXY", f"127.0.0.1:{proxy.server.port}")
        if source == "environment":
            monkeypatch.setenv("http_proxy", address)
        client = make(**({"proxy_url": address} if source == "configuration" else {}))
        await client.open(FakeHost())
        assert (await client.post("http://backend.example/v1/x", b"x", content_type="a/b")).status == 200
        await client.close()
        assert proxy.requests[0][0]["Host"] == "backend.example"


NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("", None),
        ("0", 0),
        (" 12 ", 12),
        ("9" * 5000, 86400),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30),
        ("Tue, 14 Nov 2023 22:13:10 GMT", 0),
        ("Tue, 14 Nov 9999 22:13:10 GMT", 86400),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value, seconds):
    assert parse_retry_after(value, NOW) == seconds
