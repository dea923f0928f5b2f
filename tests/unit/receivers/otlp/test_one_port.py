"""gRPC, HTTP/1.1 and HTTP/2 on one port: the first bytes decide, or what TLS agreed on."""

import asyncio
import ssl

import aiohttp
import grpc
import pytest
import trustme
from pydantic import ValidationError

import http2_peer
from collector.model import Signal
from collector.otlp.names import GRPC_METHODS
from collector.testing import FakeHost, free_port
from collector.transport.auth import AuthenticationError
from receivers.otlp.config import OTLPConfig

WIRE = b"\x0a\x00" * 50
PROTOBUF = {"content-type": "application/x-protobuf"}


def one_port(grpc_options=None, **http_options):
    endpoint = f"127.0.0.1:{free_port()}"
    return {"grpc": {"endpoint": endpoint, **(grpc_options or {})}, "http": {"endpoint": endpoint, **http_options}}


async def over_http2(running, body=WIRE, *, method="POST", path="/v1/traces", tls=None, **headers):
    """Return (status, headers, body, error of the reset) of a request with ``body`` in frames of 10 000 bytes."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", running.http_port, ssl=tls, server_hostname="localhost" if tls else None
    )
    client = http2_peer.client()
    fields = {":method": method, ":scheme": "http", ":path": path, ":authority": "x", **PROTOBUF, **headers}
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()]
    stream_id = client.send_request(pairs, end_stream=not body)
    if body:
        client.send_data(stream_id, body, end_stream=True)
    found, answer, ended, reset = {}, b"", False, None
    try:
        async with asyncio.timeout(5):
            while not ended:
                writer.write(client.data_to_send())
                part = await reader.read(65536)
                assert part
                client.receive_data(part)
                for event in client.events():
                    if isinstance(event, http2_peer.ResponseReceived):
                        found.update(event.headers)
                        ended = ended or event.end_stream
                    elif isinstance(event, http2_peer.DataReceived):
                        answer += event.data
                        ended = ended or event.end_stream
                    elif isinstance(event, http2_peer.StreamReset):
                        reset, ended = event.error_code, True
    finally:
        writer.close()
    return int(found[b":status"]), {name.decode(): value.decode() for name, value in found.items()}, answer, reset


async def test_each_protocol_on_the_same_port(receive):
    """Requests of gRPC, HTTP/1.1 and HTTP/2 are counted under their transports; the port is closed after the stop."""
    running = await receive(one_port())
    assert running.grpc_port == running.http_port > 0
    async with grpc.aio.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
        assert await channel.unary_unary(GRPC_METHODS[Signal.TRACES])(WIRE) == b""
    url = f"http://127.0.0.1:{running.http_port}/v1/traces"
    async with aiohttp.ClientSession() as session, session.post(url, data=WIRE, headers=PROTOBUF) as answer:
        assert (answer.status, await answer.read()) == (200, b"")
    status, headers, body, _ = await over_http2(running)
    assert (status, headers["content-type"], body) == (200, "application/x-protobuf", b"")
    assert "date" in headers
    assert [wire for wire, _ in running.door.taken] == [WIRE] * 3
    assert [context.local_peer for _, context in running.door.taken] == [True] * 3
    await running.receiver.shutdown()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", int(url.split(":")[2].split("/", maxsplit=1)[0]))


async def test_first_bytes_one_by_one(receive):
    """The preface and a request line are recognised wherever they are split."""
    running = await receive(one_port())
    for said, expected in (
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0", b"\0\0"),
        (b"PUT /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 405"),
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
        for octet in said:
            writer.write(bytes([octet]))
            await writer.drain()
        async with asyncio.timeout(5):
            assert (await reader.readexactly(len(expected))) == expected
        writer.close()


@pytest.mark.parametrize(
    "sent",
    [
        b"INVALID CONNECTION PREFACE\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/1.1\r\n\r\nSM\r\n\r\n",
    ],
)
async def test_a_wrong_preface_is_not_answered_in_http1(receive, sent):
    """A client of HTTP/2 could not read it: the connection ends with GOAWAY PROTOCOL_ERROR, or without a word."""
    running = await receive(one_port())
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    writer.write(sent)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    assert not answer.startswith(b"HTTP/")
    frame_types = []
    while answer:
        length, frame_type = int.from_bytes(answer[:3], "big"), answer[3]
        frame_types.append(frame_type)
        if frame_type == 7:
            assert answer[13:17] == (1).to_bytes(4, "big")
        answer = answer[9 + length :]
    assert set(frame_types) <= {4, 7, 8}, "SETTINGS, GOAWAY and WINDOW_UPDATE"
    assert 7 in frame_types


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", b"400"),
        (b"BREW /pot HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"PRIVET /v1/traces HTTP/1.1\r\n\r\n", b"400"),
    ],
)
async def test_bad_requests_of_http1_are_still_answered_in_http1(receive, sent, status):
    running = await receive(one_port())
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    writer.write(sent)
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 " + status)
    writer.close()


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"path": "/nope"}, 404),
        ({"method": "GET", "body": b""}, 405),
        ({"content-type": "text/plain"}, 415),
        ({"content-encoding": "br"}, 400),
        ({"body": bytes(3_000_000)}, 413),
        ({"body": b""}, 200),
        ({"body": b"\xff", "content-type": "application/json"}, 400),
        ({"expect": "100-continue"}, 200),
        ({"path": "/v1/traces?x=1"}, 200),
    ],
)
async def test_http2_requests_keep_the_rules_of_http(receive, options, status):
    """Routes, limits and encodings are the same as over HTTP/1.1."""
    running = await receive(one_port(max_request_body_size="1MiB"))
    found, _, _, _ = await over_http2(running, **options)
    assert found == status


async def test_http2_request_waits_for_its_authenticator(receive):
    """Data that arrives meanwhile is kept, and the claims go with it; without a token the answer is 401."""

    class Badge:
        async def authenticate(self, headers):
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            if headers.get("authorization") != ("Bearer good",):
                raise AuthenticationError("no valid token")
            return (("sub", "me"),)

    running = await receive(one_port(auth={"authenticator": "badge"}), host=FakeHost({"badge": Badge()}))
    assert (await over_http2(running))[0] == 401
    body = WIRE * 1000
    assert (await over_http2(running, body, authorization="Bearer good"))[0] == 200
    assert running.door.taken[0][0] == body
    assert running.door.taken[0][1].claims == (("sub", "me"),)
    assert running.host.admission.used_bytes == 0


@pytest.mark.parametrize("alpn", [["h2"], ["http/1.1"], ["h2", "http/1.1"], None])
async def test_tls_agrees_on_the_protocol(receive, tmp_path, alpn):
    """ALPN decides; without it the first bytes do."""
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "key.pem")
    tls = {"cert_file": str(tmp_path / "cert.pem"), "key_file": str(tmp_path / "key.pem")}
    running = await receive(one_port({"tls": tls}, tls=tls))
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if alpn:
        context.set_alpn_protocols(alpn)
    if alpn != ["http/1.1"]:
        assert (await over_http2(running, tls=context))[0] == 200
    if alpn in (["http/1.1"], None):
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", running.http_port, ssl=context, server_hostname="localhost"
        )
        writer.write(b"GET /nope HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(5):
            assert (await reader.readline()) == b"HTTP/1.1 404 Not Found\r\n"
        writer.close()


@pytest.mark.parametrize(
    ("grpc_options", "http_options", "message"),
    [
        ({"transport": "grpcio"}, {}, "grpcio cannot share"),
        ({"tls": {"cert_file": "a", "key_file": "b"}}, {}, "must be the same"),
    ],
)
def test_what_cannot_share_is_refused_by_name(grpc_options, http_options, message):
    """A port can only have one certificate and one server."""
    with pytest.raises(ValidationError, match=message):
        OTLPConfig.model_validate({"protocols": one_port(grpc_options, **http_options)})
