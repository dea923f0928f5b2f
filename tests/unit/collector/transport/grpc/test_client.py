"""The gRPC client, over both transports, against grpcio's server: what it sends, how it reads statuses, its errors."""

import asyncio
import gzip

import grpc
import pytest
import trustme
from google.protobuf.any_pb2 import Any
from google.rpc import error_details_pb2, status_pb2

from collector.api import PermanentError, RetryableError, TooLargeError
from collector.testing import FakeClock, FakeHost, eventually, free_port
from collector.transport.grpc.client import GRPCClient
from collector.transport.grpc.status import retry_delay_s
from config.blocks import GRPCClientConfig

METHOD = "/t.Echo/Echo"
USED = {"transport": "http2"}


@pytest.fixture(autouse=True, params=["http2", "grpcio"])
def transport(request, monkeypatch):
    """Run each test over both transports."""
    monkeypatch.setitem(USED, "transport", request.param)
    return request.param


class Rig:
    """A server that keeps requests and does ``behave``, and a client."""

    def __init__(self, behave=None, tls=None, **config):
        self.behave = behave
        self.tls = tls
        self.config = config
        self.requests = []
        self.clock = FakeClock()

    async def __aenter__(self):
        async def echo(request, context):
            self.requests.append((dict(context.invocation_metadata()), request))
            return (await self.behave(context)) if self.behave else request

        self.server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        handler = grpc.unary_unary_rpc_method_handler(echo)
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Echo", {"Echo": handler}),))
        self.port = (
            self.server.add_secure_port("localhost:0", self.tls)
            if self.tls
            else self.server.add_insecure_port("127.0.0.1:0")
        )
        await self.server.start()
        defaults = {
            "endpoint": f"{'localhost' if self.tls else '127.0.0.1'}:{self.port}",
            "tls": {"insecure": self.tls is None},
        }
        self.client = make(self.clock, **(defaults | self.config))
        await self.client.open(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.client.close()
        await self.server.stop(None)

    async def call(self, body=b"hi", timeout_s=10.0, **more):
        return await self.client.call(METHOD, body, timeout_s=timeout_s, **more)


def make(clock=None, **config):
    return GRPCClient(
        GRPCClientConfig.model_validate(USED | config),
        key="exporters::otlp_grpc",
        clock=clock or FakeClock(),
        user_agent="tailrace/1",
    )


def fails(code, details="no", retry_delay=None, raw=None):
    async def behave(context):
        trailing = ()
        if retry_delay is not None:
            info = error_details_pb2.RetryInfo()
            info.retry_delay.FromNanoseconds(int(retry_delay * 1e9))
            packed = Any()
            packed.Pack(info)
            trailing = (
                (
                    "grpc-status-details-bin",
                    status_pb2.Status(code=code.value[0], details=[packed]).SerializeToString(),
                ),
            )
        elif raw is not None:
            trailing = (("grpc-status-details-bin", raw),)
        await context.abort(code, details, trailing)

    return behave


async def test_bytes_go_and_come():
    body = bytes(range(256)) * 40_000
    async with Rig() as rig:
        assert await rig.call() == b"hi"
        assert (await rig.call(b"")) == b""
        with pytest.raises(PermanentError):  # an answer is bounded
            await rig.call(body)
    assert rig.requests[-1][1] == body


async def test_compression_headers_and_agent_are_sent():
    async with Rig(headers={"Authorization": "Bearer abcdefghi", "x-raw-bin": "abc"}) as rig:
        await rig.call(metadata={"x-scope-orgid": "acme"})
        sent, _ = rig.requests[0]
    assert sent["authorization"] == "Bearer abcdefghi"
    assert sent["x-raw-bin"] == b"abc"
    assert sent["x-scope-orgid"] == "acme"
    assert sent["user-agent"].startswith("tailrace/1 ")


RETRYABLE = {"CANCELLED", "DEADLINE_EXCEEDED", "ABORTED", "OUT_OF_RANGE", "UNAVAILABLE", "DATA_LOSS"}


@pytest.mark.parametrize(
    "code", [code for code in grpc.StatusCode if code is not grpc.StatusCode.OK], ids=lambda code: code.name
)
async def test_each_status_is_retryable_or_not_as_the_specification_says(code):
    async with Rig(fails(code)) as rig:
        with pytest.raises(RetryableError if code.name in RETRYABLE else PermanentError) as caught:
            await rig.call()
    assert caught.value.reason == f"grpc_{code.name.lower()}"
    assert code.name in str(caught.value)


@pytest.mark.parametrize(("delay", "asked"), [(12.5, 12.5), (0, None), (1e6, 86400)])
async def test_retry_info_asks_for_a_wait_and_makes_exhaustion_retryable(delay, asked):
    for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED):
        async with Rig(fails(code, retry_delay=delay)) as rig:
            with pytest.raises(RetryableError) as caught:
                await rig.call()
            assert caught.value.retry_after_s == asked


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (5 vs. 4)"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message after decompression larger than max 4"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "gRPC message exceeds maximum size 4: 5"),
        (grpc.StatusCode.OUT_OF_RANGE, "Error, decoded message length too large: found 5 bytes, the limit is: 4 bytes"),
    ],
)
async def test_refusals_for_size_are_distinguished(code, text):
    """In the words of existing servers, so that the exporter splits the batch."""
    async with Rig(fails(code, text)) as rig:
        with pytest.raises(TooLargeError):
            await rig.call()


async def test_garbage_in_the_details_is_not_a_delay():
    async with Rig(fails(grpc.StatusCode.RESOURCE_EXHAUSTED, raw=b"\xff\xff\xff")) as rig:
        with pytest.raises(PermanentError):
            await rig.call()
    assert retry_delay_s(b"\x1a\x02\x0a") is None
    assert retry_delay_s(bytes(100_000)) is None


async def test_nobody_there_is_worth_another_attempt():
    client = make(endpoint=f"127.0.0.1:{free_port()}", tls={"insecure": True})
    await client.open(FakeHost())
    with pytest.raises(RetryableError) as caught:
        await client.call(METHOD, b"x", timeout_s=5)
    await client.close()
    assert caught.value.reason == "grpc_unavailable"


async def test_no_answer_in_time_is_worth_another_attempt():
    gate = asyncio.Event()

    async def hang(_):
        await gate.wait()
        return b""

    async with Rig(hang) as rig:
        with pytest.raises(RetryableError) as caught:
            await rig.call(timeout_s=0.05)
        gate.set()
    assert caught.value.reason == "grpc_deadline_exceeded"


async def test_errors_hold_no_credentials_and_stay_short():
    async with Rig(
        fails(grpc.StatusCode.UNAUTHENTICATED, "bad token abcdefghi\n" + "x" * 2000),
        headers={"authorization": "Bearer abcdefghi"},
    ) as rig:
        with pytest.raises(PermanentError) as caught:
            await rig.call()
    assert "abcdefghi" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("prefix", ["", "http://", "dns:///"])
async def test_endpoints_may_carry_a_scheme(prefix):
    async with Rig() as rig:
        client = make(endpoint=f"{prefix}127.0.0.1:{rig.port}", tls={"insecure": True})
        await client.open(FakeHost())
        assert await client.call(METHOD, b"x", timeout_s=10) == b"x"
        await client.close()


@pytest.fixture
def pki(tmp_path):
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf = authority.issue_cert("localhost")
    pair = (leaf.private_key_pem.bytes(), leaf.cert_chain_pems[0].bytes())
    return tmp_path / "ca.pem", grpc.ssl_server_credentials([pair])


async def test_tls_verifies_the_server(pki):
    ca, server = pki
    async with Rig(tls=server) as rig:
        with pytest.raises(RetryableError):
            await rig.call()
        for config in (
            {"endpoint": f"localhost:{rig.port}", "tls": {"ca_file": str(ca)}},
            {"endpoint": f"https://localhost:{rig.port}", "tls": {"ca_file": str(ca), "insecure": True}},
            {"endpoint": f"127.0.0.1:{rig.port}", "tls": {"ca_file": str(ca), "server_name_override": "localhost"}},
        ):
            client = make(**config)
            await client.open(FakeHost())
            assert await client.call(METHOD, b"x", timeout_s=10) == b"x"
            await client.close()


async def test_renewed_certificates_are_taken_up(pki, tmp_path):
    ca, server = pki
    other = tmp_path / "configured.pem"
    trustme.CA().cert_pem.write_to_path(other)
    async with Rig(tls=server, endpoint="unused:1") as rig:
        client = make(
            rig.clock, endpoint=f"localhost:{rig.port}", tls={"ca_file": str(other), "reload_interval": "10s"}
        )
        await client.open(FakeHost())
        with pytest.raises(RetryableError):
            await client.call(METHOD, b"x", timeout_s=10)
        other.write_bytes(ca.read_bytes())
        await rig.clock.advance(11)
        assert await client.call(METHOD, b"x", timeout_s=10) == b"x"
        other.write_text("half writ")
        await rig.clock.advance(11)
        assert await client.call(METHOD, b"x", timeout_s=10) == b"x", "what works stays in use"
        other.write_bytes(ca.read_bytes())
        await rig.clock.advance(11)
        outcomes = []
        assert not client.try_call(METHOD, b"x", outcomes.append, timeout_s=10), "what is new has to be connected first"
        assert await client.call(METHOD, b"x", timeout_s=10) == b"x"
        if USED["transport"] == "http2":
            assert client.try_call(METHOD, b"y", outcomes.append, timeout_s=10)
            await eventually(lambda: outcomes == [b"y"])
        await client.close()


class Tokens:
    def client_headers(self):
        return {"Authorization": "Bearer fresh"}


async def test_an_extension_gives_credentials():
    async with Rig() as rig:
        client = make(endpoint=f"127.0.0.1:{rig.port}", tls={"insecure": True}, auth={"authenticator": "tokens"})
        await client.open(FakeHost(extensions={"tokens": Tokens()}))
        await client.call(METHOD, b"x", timeout_s=10)
        outcomes = []
        if client.try_call(METHOD, b"y", outcomes.append, timeout_s=10):
            await eventually(lambda: outcomes == [b"y"])
        await client.close()
    assert len(rig.requests) == (2 if USED["transport"] == "http2" else 1)
    assert {metadata["authorization"] for metadata, _ in rig.requests} == {"Bearer fresh"}


async def test_credentials_that_are_not_to_be_had_are_the_calls_error():
    """A call without credentials is not started."""

    class Missing:
        def client_headers(self):
            raise RetryableError("no token yet", reason="auth")

    async with Rig() as rig:
        await rig.call()
        rig.client._authenticator = Missing()
        outcomes = []
        assert not rig.client.try_call(METHOD, b"x", outcomes.append, timeout_s=10)
        with pytest.raises(RetryableError, match="no token yet"):
            await rig.call()
    assert (len(rig.requests), outcomes) == (1, [])


async def test_a_begun_calls_error_is_translated_as_any():
    """No call is started before the client is open."""
    assert not make(endpoint="h:1").try_call(METHOD, b"x", print, timeout_s=10)
    async with Rig() as rig:
        await rig.call()
        rig.behave = fails(grpc.StatusCode.RESOURCE_EXHAUSTED, "slow down", 0.5)
        outcomes = []
        if rig.client.try_call(METHOD, b"x", outcomes.append, timeout_s=10):
            await eventually(lambda: outcomes)
            error = rig.client.error(outcomes[0])
            assert (type(error), error.reason, error.retry_after_s) == (RetryableError, "grpc_resource_exhausted", 0.5)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"transport": "grpcio", "compression": "zstd"}, "transport grpcio does not support zstd"),
        ({"transport": "grpcio", "compression": "snappy"}, "does not support snappy"),
        ({"transport": "http2", "endpoint": "a b:1"}, "expected host:port"),
        ({"transport": "http2", "headers": {"x": "\n"}}, "not printable ASCII"),
        ({"transport": "http2", "authority": "a\r\nb"}, "^1 validation error for GRPCClientConfig\\nauthority\\n"),
        ({"transport": "http2", "user_agent": "\u00fc"}, "^1 validation error for GRPCClientConfig\\nuser_agent\\n"),
        ({"transport": "http2", "tls": {"min_version": "1.0", "max_version": "1.1"}}, "tls::max_version"),
        ({"headers": {"grpc-timeout": "1"}}, "grpc-timeout"),
        ({"headers": {"connection": "close"}}, "not allowed as the name of gRPC metadata"),
        ({"headers": {"a b": "1"}}, "not allowed as the name of gRPC metadata"),
        ({"headers": {"User-Agent": "1"}}, "User-Agent cannot be configured, .* set user_agent instead"),
        ({"headers": {"te": "1"}}, "te cannot be configured, because gRPC sets it itself; remove it"),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(config, said):
    with pytest.raises(ValueError, match=said):
        make(**({"endpoint": "h:1"} | config))


def test_a_proxy_of_the_environment_that_cannot_work_is_refused(monkeypatch):
    """When the exporter is created, which ``validate`` does, not with the first call."""
    monkeypatch.setenv("https_proxy", "socks5://u:s3cret@h:1")
    with pytest.raises(ValueError, match="HTTPS_PROXY is not a valid HTTP proxy") as caught:
        make(transport="http2", endpoint="backend.example:4317")
    assert "s3cret" not in str(caught.value)
    make(transport="http2", endpoint="localhost:4317")
    make(transport="http2", endpoint="unix:/run/x.sock")


async def test_keepalive_and_authority_are_accepted():
    async with Rig(
        keepalive={"time": "30s", "permit_without_stream": True},
        authority="backend",
        wait_for_ready=True,
        balancer_name="pick_first",
    ) as rig:
        assert await rig.call() == b"hi"


async def test_gzip_is_on_the_wire_by_default():
    received = bytearray()

    async def proxy(reader, writer):
        upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", rig.port)

        async def pump(source, sink, keep):
            while block := await source.read(65536):
                if keep:
                    received.extend(block)
                sink.write(block)
            sink.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(pump(reader, upstream_writer, True))
            group.create_task(pump(upstream_reader, writer, False))

    async with Rig() as rig:
        between = await asyncio.start_server(proxy, "127.0.0.1", 0)
        client = make(endpoint=f"127.0.0.1:{between.sockets[0].getsockname()[1]}", tls={"insecure": True})
        await client.open(FakeHost())
        body = b"0123456789" * 10_000
        assert await client.call(METHOD, body, timeout_s=10) == body
        await client.close()
        between.close()
    assert len(received) < len(gzip.compress(body)) + 5000
