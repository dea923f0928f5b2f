"""OTLP/HTTP in detail: statuses, media types, encodings, CORS, limits, and hostile clients."""

import asyncio
import gzip
import io
import json
import tempfile
import zlib
from pathlib import Path
from typing import ClassVar

import aiohttp
import cramjam
import pytest
from google.rpc.status_pb2 import Status

from collector.api import PermanentError, RetryableError
from collector.model import Signal
from collector.text.printable import printable

PROTOBUF = {"Content-Type": "application/x-protobuf"}
JSON = {"Content-Type": "application/json"}
WIRE = b"\x0a\x00" * 50
HTTP = {"endpoint": "127.0.0.1:0"}


@pytest.fixture
async def http(receive):
    """``await http(method, path, body, headers)`` against a receiver started with ``http.start(**options)``."""
    async with aiohttp.ClientSession(auto_decompress=False) as session:

        class Client:
            running = None

            async def start(self, **options):
                self.running = await receive({"http": {**HTTP, **options}})
                return self.running

            async def __call__(self, method="POST", path="/v1/traces", body=b"", headers=PROTOBUF):
                url = f"http://127.0.0.1:{self.running.http_port}{path}"
                skip = {"Content-Type", "User-Agent", "Accept", "Accept-Encoding"} - headers.keys()
                async with session.request(
                    method, url, data=body or None, headers=headers, skip_auto_headers=skip
                ) as response:
                    response.content_bytes = await response.read()
                    return response

        yield Client()


@pytest.fixture(autouse=True)
def _short_linger(monkeypatch):
    """Shortens how long the rest of a refused body is awaited, because the tests never send it."""
    monkeypatch.setattr("collector.transport.http.http1._LINGER_S", 0.05)


async def raw(running, data: bytes) -> bytes:
    """Returns everything that the server sends in answer to these bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    writer.write(data)
    try:
        async with asyncio.timeout(5):
            return await reader.read(-1)
    finally:
        writer.close()


def post(body: bytes, *headers: str, path: str = "/v1/traces", close: bool = True) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        "Content-Type: application/x-protobuf",
        *headers,
        *(["Connection: close"] if close else []),
    ]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_other_methods_are_405_in_the_collectors_words(http, method):
    """The answer is a Status in the encoding of the request, with an Allow header."""
    running = await http.start()
    response = await http(method)
    status = Status.FromString(response.content_bytes)
    assert (response.status, status.message) == (405, "405 method not allowed, supported: [POST]")
    assert (response.headers["Content-Type"], response.headers["Allow"]) == ("application/x-protobuf", "POST")
    response = await http(method, headers={})
    assert json.loads(response.content_bytes) == {"code": 12, "message": "405 method not allowed, supported: [POST]"}
    assert response.headers["Content-Type"] == "application/json"
    assert running.telemetry.value("tailrace_receiver_refused_requests", transport="http", reason="method") == 2


async def test_head_is_answered_without_a_body(http):
    """The next request on the connection is answered as well."""
    running = await http.start()
    answer = await raw(running, b"HEAD /v1/traces HTTP/1.1\r\nHost: x\r\n\r\n" + post(b"", "Content-Length: 0"))
    assert answer.count(b"HTTP/1.1 ") == 2
    assert b"method not allowed" not in answer.partition(b"\r\n")[2]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/protobuf", "", "application/x-protobufx"])
async def test_other_media_types_are_415(http, content_type):
    """A wrong or missing Content-Type is answered with a Status in JSON."""
    await http.start()
    response = await http(body=WIRE, headers={} if content_type is None else {"Content-Type": content_type})
    assert (response.status, response.headers["Content-Type"]) == (415, "application/json")
    assert json.loads(response.content_bytes) == {
        "code": 3,
        "message": "415 unsupported media type, supported: [application/json, application/x-protobuf]",
    }


@pytest.mark.parametrize(
    "content_type",
    [
        "application/x-protobuf; charset=utf-8",
        "Application/X-Protobuf",
        "application/x-protobuf ;a=b",
        " application/x-protobuf",
    ],
)
async def test_media_type_parameters_and_case_are_ignored(http, content_type):
    """According to the OTLP specification Content-Type decides; parameters and case do not matter."""
    running = await http.start()
    response = await http(body=WIRE, headers={"Content-Type": content_type})
    assert (response.status, response.headers["Content-Type"]) == (200, "application/x-protobuf")
    assert running.door.taken[0][0] == WIRE


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/traces/", "/v1/profiles", "/v2/traces", "//v1/traces", "/v1/traces%20"]
)
async def test_unknown_path_is_404(http, path):
    """The text is that of Go's server, in a Status."""
    await http.start()
    response = await http(path=path, body=WIRE)
    assert (response.status, response.headers["Content-Type"]) == (404, "application/x-protobuf")
    status = Status.FromString(response.content_bytes)
    assert (status.code, status.message) == (12, "404 page not found")
    response = await http("GET", path=path, headers={})
    assert (response.status, response.headers["Content-Type"]) == (404, "application/json")
    assert json.loads(response.content_bytes) == {"code": 12, "message": "404 page not found"}


async def test_query_is_ignored_and_absolute_form_understood(http):
    """Some proxies send the whole URL as the target."""
    running = await http.start()
    assert (await http(path="/v1/traces?x=1", body=WIRE)).status == 200
    answer = await raw(running, post(WIRE, f"Content-Length: {len(WIRE)}", path="http://x/v1/traces"))
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert len(running.door.taken) == 2


async def test_paths_can_be_moved(receive):
    """traces_url_path and the other two set the paths; a missing leading slash is added."""
    running = await receive({"http": {**HTTP, "traces_url_path": "in/traces"}})
    assert (await raw(running, post(WIRE, f"Content-Length: {len(WIRE)}", path="/in/traces"))).startswith(
        b"HTTP/1.1 200 "
    )
    assert (await raw(running, post(WIRE, f"Content-Length: {len(WIRE)}"))).startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize(("body", "status"), [(b"{}", 200), (b"", 400)])
async def test_empty_json(http, body, status):
    """An empty object is an empty request, but an empty body is not valid JSON."""
    running = await http.start()
    response = await http(body=body, headers=JSON)
    assert response.status == status
    assert response.headers["Content-Type"] == "application/json"
    assert not running.door.taken
    if status == 400:
        assert json.loads(response.content_bytes)["code"] == 3


async def test_large_json_is_parsed_within_the_memory_budget(http):
    """Its objects take several times the memory of the body; they are reserved while it is parsed."""
    running = await http.start()
    body = b'{"x":"' + b"a" * 2_000_000 + b'","resourceSpans":[{"schemaUrl":"u"}]}'
    sizes = []
    reserve = running.host.admission.reserve
    running.host.admission.reserve = lambda size_bytes: sizes.append(size_bytes) or reserve(size_bytes)
    assert (await http(body=io.BytesIO(body), headers=JSON)).status == 200
    assert 8 * len(body) in sizes
    running.host.admission.refuse = True
    response = await http(body=io.BytesIO(body), headers=JSON)
    assert (response.status, json.loads(response.content_bytes)["code"]) == (503, 14)
    assert running.host.admission.used_bytes == 0


async def test_empty_protobuf_answers_no_bytes(http):
    """partial_success is not set on full success, so the response is empty."""
    await http.start()
    response = await http()
    assert (response.status, response.content_bytes, response.headers["Content-Length"]) == (200, b"", "0")


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"1",
        b'"x"',
        b"\xff\xfe",
        b"{}{",
        b'{"resourceSpans":' * 5,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"not json",
    ],
)
async def test_junk_and_deep_json_is_400(http, body):
    """Whatever is wrong, the response is an error in JSON and no data enters a pipeline."""
    running = await http.start()
    response = await http(body=body, headers=JSON)
    assert response.status == 400
    status = json.loads(response.content_bytes)
    assert status["code"] == 3
    assert status["details"] == [
        {
            "@type": "type.googleapis.com/google.rpc.BadRequest",
            "fieldViolations": [{"field": "request", "description": status["message"]}],
        }
    ]
    assert not running.door.taken


ENCODERS = {
    "gzip": gzip.compress,
    "x-gzip": gzip.compress,
    "zlib": zlib.compress,
    "deflate": zlib.compress,
    "zstd": lambda data: bytes(cramjam.zstd.compress(data)),
    "snappy": lambda data: bytes(cramjam.snappy.compress_raw(data)),
    "x-snappy-framed": lambda data: bytes(cramjam.snappy.compress(data)),
    "lz4": lambda data: bytes(cramjam.lz4.compress(data)),
    "identity": lambda data: data,
    "GZIP": gzip.compress,
}


@pytest.mark.parametrize("encoding", ENCODERS)
@pytest.mark.parametrize("size", [100, 3_000_000])
async def test_every_encoding_is_unpacked(http, encoding, size):
    """All encodings of ``compression_algorithms`` are supported."""
    running = await http.start()
    data = b"\x0a\x00" * (size // 2)
    response = await http(
        body=ENCODERS[encoding](data) if size < 1000 or encoding != "identity" else data[:1000],
        headers={**PROTOBUF, "Content-Encoding": encoding},
    )
    assert response.status == 200
    assert running.door.taken[0][0] == (data if size < 1000 or encoding != "identity" else data[:1000])
    assert running.host.admission.used_bytes == 0


@pytest.mark.parametrize("encoding", sorted(ENCODERS.keys() - {"identity"}))
async def test_bomb_in_every_encoding_is_413(http, encoding):
    """A body that decompresses to more than max_request_body_size is refused."""
    running = await http.start(max_request_body_size="64KiB")
    response = await http(
        body=ENCODERS[encoding](b"\0" * 1_000_000), headers={**PROTOBUF, "Content-Encoding": encoding}
    )
    assert response.status == 413
    assert Status.FromString(response.content_bytes).message.startswith("request body too large")
    assert not running.door.taken


@pytest.mark.parametrize("encoding", sorted(ENCODERS.keys() - {"identity"}))
@pytest.mark.parametrize("damage", ["cut", "junk"])
async def test_corrupt_body_in_every_encoding_is_400(http, encoding, damage):
    """Truncated bodies and bodies of another encoding are refused."""
    running = await http.start()
    packed = ENCODERS[encoding](bytes(range(256)) * 20)
    response = await http(
        body=packed[:-7] if damage == "cut" else b"\xff" * 40, headers={**PROTOBUF, "Content-Encoding": encoding}
    )
    assert response.status == 400
    assert Status.FromString(response.content_bytes).code == 3
    assert not running.door.taken


async def test_multi_member_gzip_decodes(http):
    """The members of a gzip stream are concatenated."""
    running = await http.start()
    assert (
        await http(body=gzip.compress(WIRE) + gzip.compress(WIRE), headers={**PROTOBUF, "Content-Encoding": "gzip"})
    ).status == 200
    assert running.door.taken[0][0] == WIRE * 2


@pytest.mark.parametrize("encoding", ["br", "gzip, gzip", "x" * 500])
async def test_unknown_encoding_is_400_by_name(http, encoding):
    """The text is the Collector's, with a limit on the length of the quoted name."""
    await http.start()
    response = await http(body=WIRE, headers={**PROTOBUF, "Content-Encoding": encoding})
    assert response.status == 400
    assert Status.FromString(response.content_bytes).message == (
        f"unsupported Content-Encoding: {printable(encoding[:40])}, "
        "supported: [deflate, gzip, lz4, snappy, x-gzip, x-snappy-framed, zlib, zstd]"
    )


async def test_encoding_that_is_no_text_is_400(http):
    """The invalid name is quoted to its sender."""
    running = await http.start()
    answer = await raw(running, post(WIRE, "Content-Length: 100", "Content-Encoding: \xe8\xe9"))
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert not running.telemetry.log.of_level("error")


async def test_compression_algorithms_limits_what_is_accepted(http):
    """The setting also decides whether uncompressed bodies are accepted."""
    await http.start(compression_algorithms=["gzip"])
    assert (await http(body=gzip.compress(WIRE), headers={**PROTOBUF, "Content-Encoding": "gzip"})).status == 200
    assert (await http(body=zlib.compress(WIRE), headers={**PROTOBUF, "Content-Encoding": "zlib"})).status == 400
    assert (await http(body=WIRE)).status == 400


async def test_announced_oversize_is_413_before_the_body_comes(http):
    """Content-Length alone suffices to refuse the request; the connection is closed."""
    running = await http.start(max_request_body_size=1000)
    answer = await raw(running, post(b"", "Content-Length: 1001", close=False))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in answer


async def test_chunked_oversize_is_413(http):
    """A chunked body does not announce its length, so its bytes are counted."""
    running = await http.start(max_request_body_size=1000)
    body = b"".join(b"64\r\n" + b"\0" * 100 + b"\r\n" for _ in range(11)) + b"0\r\n\r\n"
    assert (await raw(running, post(body, "Transfer-Encoding: chunked"))).startswith(b"HTTP/1.1 413 ")
    assert not running.door.taken


@pytest.mark.parametrize("chunk_count", [3, 400])
async def test_chunked_body_arrives_whole(http, chunk_count):
    """This includes a body that is larger than the first reservation."""
    running = await http.start()
    body = b"".join(b"2000\r\n" + b"\x0a\x00" * 4096 + b"\r\n" for _ in range(chunk_count)) + b"0\r\n\r\n"
    assert (await raw(running, post(body, "Transfer-Encoding: chunked"))).startswith(b"HTTP/1.1 200 ")
    assert running.door.taken[0][0] == b"\x0a\x00" * 4096 * chunk_count
    assert running.host.admission.used_bytes == 0


async def test_chunked_body_is_booked_as_it_grows(http):
    """A budget of 2 MiB refuses a body of unknown length while it arrives, with a retryable error."""
    running = await http.start()
    running.host.admission.limit_bytes = 2 * 1024 * 1024
    body = b"".join(b"8000\r\n" + bytes(0x8000) + b"\r\n" for _ in range(100)) + b"0\r\n\r\n"
    assert (await raw(running, post(body, "Transfer-Encoding: chunked"))).startswith(b"HTTP/1.1 503 ")
    assert running.host.admission.used_bytes == 0


async def test_bad_chunk_framing_is_400(http):
    """The size of a chunk inside the body is not a number."""
    running = await http.start()
    assert b" 400 Bad Request\r\n" in await raw(running, post(b"5\r\nabcde\r\nzz\r\n", "Transfer-Encoding: chunked"))
    assert not running.door.taken


async def test_memory_limit_is_asked_before_a_large_body_is_read(http):
    """The answer to the request's head alone is 503."""
    running = await http.start()
    running.host.admission.refuse = True
    assert (await raw(running, post(b"", "Content-Length: 1000000", close=False))).startswith(b"HTTP/1.1 503 ")


async def test_expect_continue_asks_for_the_body_or_refuses_it(http):
    """curl sends large bodies only after 100 Continue."""
    running = await http.start(max_request_body_size=2000)
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    writer.write(post(b"", "Content-Length: 100", "Expect: 100-continue", close=False))
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(WIRE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()
    refused = await raw(running, post(b"", "Content-Length: 3000", "Expect: 100-continue", close=False))
    assert refused.startswith(b"HTTP/1.1 413 ")
    assert (await raw(running, post(b"", "Content-Length: 5", "Expect: something", close=False))).startswith(
        b"HTTP/1.1 417 "
    )


async def test_slow_body_is_408(http):
    """read_timeout limits the time for the body; afterwards its memory is released."""
    running = await http.start(read_timeout="50ms")
    answer = await raw(running, post(b"\x0a", "Content-Length: 100"))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"Connection: close" in answer
    assert running.host.admission.used_bytes == 0
    assert running.telemetry.value("tailrace_receiver_refused_requests", transport="http", reason="timeout") == 1


async def test_stalled_body_is_408_without_any_configured_timeout(http, monkeypatch):
    """A body of which nothing more arrives is cut off even without ``read_timeout``."""
    monkeypatch.setattr("collector.transport.http.http1._STALLED_S", 0.05)
    running = await http.start()
    assert (await raw(running, post(b"\x0a", "Content-Length: 100"))).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("sent", [b"", b"POST /v1/traces HTTP/1.1\r\nHo", b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n"])
async def test_slow_head_is_cut_off(http, sent):
    """read_header_timeout applies from the first byte on, and before it."""
    running = await http.start(read_header_timeout="50ms")
    assert await raw(running, sent) == b""


async def test_head_timeout_does_not_touch_bodies_or_idle_connections(http):
    """It applies to heads only: a body and a second request may arrive later than that."""
    running = await http.start(read_header_timeout="50ms")
    reader, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    for _ in range(2):
        writer.write(post(b"", "Content-Length: 100", close=False))
        assert await raw(running, b"POST /v1") == b""  # sent later, and its time has expired
        writer.write(WIRE)
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
        assert await raw(running, b"POST /v1") == b""
    writer.write(b"POST /v1")
    async with asyncio.timeout(5):
        assert await reader.read() == b""
    writer.close()


async def test_idle_connection_is_closed(http):
    """The server closes the connection after ``idle_timeout``."""
    running = await http.start(idle_timeout="50ms")
    answer = await raw(running, post(WIRE, "Content-Length: 100", close=False))
    assert answer.startswith(b"HTTP/1.1 200 ")


async def test_keep_alives_can_be_switched_off(http):
    """Each connection serves one request, and the response says so."""
    running = await http.start(keep_alives_enabled=False)
    assert b"Connection: close\r\n" in await raw(running, post(WIRE, "Content-Length: 100", close=False))


async def test_http_1_0_is_told_what_becomes_of_its_connection(http):
    """The default of HTTP/1.0 is to close the connection."""
    running = await http.start()
    head = b"POST /v1/traces HTTP/1.0\r\nContent-Type: application/x-protobuf\r\nContent-Length: 100\r\n"
    assert b"Connection: close" in await raw(running, head + b"\r\n" + WIRE)
    both = await raw(running, head + b"Connection: keep-alive\r\n\r\n" + WIRE + head + b"\r\n" + WIRE)
    assert both.count(b"HTTP/1.1 200 ") == 2
    assert both.count(b"Connection: keep-alive") == 1


async def test_pipelined_requests_are_answered_in_order(http):
    """All requests are answered in order, and none is lost."""
    running = await http.start()
    wires = [b"\x0a\x00" * (n + 1) for n in range(60)]
    stream = b"".join(post(wire, f"Content-Length: {len(wire)}", close=False) for wire in wires[:-1]) + post(
        wires[-1], f"Content-Length: {len(wires[-1])}"
    )
    assert (await raw(running, stream)).count(b"HTTP/1.1 200 ") == 60
    assert [wire for wire, _ in running.door.taken] == wires


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00" * 100,
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
)
async def test_what_is_no_http_is_refused_without_a_log_line(http, data):
    """TLS, HTTP/2 and smuggling: answered with 400 and counted, but not logged, so clients cannot fill the log."""
    running = await http.start()
    assert (await raw(running, data)).startswith(b"HTTP/1.1 400 ")
    assert running.telemetry.value("tailrace_receiver_refused_requests", transport="http", reason="bad_request") == 1
    assert not running.door.taken
    assert not running.telemetry.log.of_level("error")
    assert (await http(body=WIRE)).status == 200


@pytest.mark.parametrize(
    "data",
    [
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 200_000,
        b"POST /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(1000)) + b"\r\n",
        b"POST /v1/traces HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X%d: a\r\n" % n for n in range(200)) + b"\r\n",
    ],
)
async def test_head_that_is_too_large_is_431(http, data):
    """The limits apply to a single header, to the target, and to the number of headers."""
    running = await http.start()
    assert (await raw(running, data)).startswith(b"HTTP/1.1 431 ")
    assert running.telemetry.value("tailrace_receiver_refused_requests", transport="http", reason="head_too_large") == 1


async def test_client_that_goes_away_leaves_nothing_behind(http):
    """A client that disconnects in the middle of a large body: its memory is released and the server continues."""
    running = await http.start()
    _, writer = await asyncio.open_connection("127.0.0.1", running.http_port)
    writer.write(post(b"\0" * 1000, "Content-Length: 1000000", close=False))
    async with asyncio.timeout(5):
        while not running.host.admission.used_bytes:
            await asyncio.sleep(0.001)
    writer.close()
    async with asyncio.timeout(5):
        while running.host.admission.used_bytes:
            await asyncio.sleep(0.001)
    assert (await http(body=WIRE)).status == 200


async def test_response_headers_go_with_every_answer(http):
    """Error responses have them as well."""
    await http.start(response_headers={"X-Served-By": "gw"})
    for path in ("/v1/traces", "/nowhere"):
        assert (await http(path=path)).headers["X-Served-By"] == "gw"


async def test_bad_response_header_is_a_configuration_error(receive):
    """A line break in a header would allow response splitting."""
    with pytest.raises(ValueError, match="response_headers"):
        await receive({"http": {**HTTP, "response_headers": {"X": "a\r\nSet-Cookie: b"}}})


async def test_answers_carry_the_date(http):
    """RFC 9110, section 6.6.1 requires the Date header."""
    await http.start()
    assert (await http(body=WIRE)).headers["Date"] == "Tue, 14 Nov 2023 22:13:20 GMT"


@pytest.mark.parametrize(
    ("error", "status", "code"), [(RetryableError("full"), 503, 14), (PermanentError("no"), 500, 13)]
)
async def test_errors_are_a_status_in_the_encoding_of_the_request(http, error, status, code):
    """Errors are google.rpc.Status messages with the Content-Type of the request."""
    running = await http.start()
    running.door.error = error
    response = await http(body=WIRE)
    assert (response.status, response.headers["Content-Type"]) == (status, "application/x-protobuf")
    assert Status.FromString(response.content_bytes) == Status(code=code, message=str(error))


@pytest.mark.parametrize("options", [{"endpoint": "unix://{path}"}, {"endpoint": "{path}", "transport": "unix"}])
async def test_unix_socket(receive, options):
    """Both spellings work; the sender counts as local; the socket is removed at the end, a stale one at the start."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/otlp.sock"
        for _ in range(2):
            http = {**options, "endpoint": options["endpoint"].format(path=path)}
            running = await receive({"http": http})
            async with (
                aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as session,
                session.post("http://x/v1/traces", data=WIRE, headers=PROTOBUF) as response,
            ):
                assert response.status == 200
            assert running.door.taken[0][1].local_peer is True
            with pytest.raises(OSError, match=r"protocols::http::endpoint.*another process listens"):
                await receive({"http": http})
            await running.receiver.shutdown()
            assert not Path(path).exists()


async def test_busy_port_is_named_with_its_key(receive):
    """The error says which port is in use, and what to change."""
    running = await receive({"http": HTTP})
    port = running.http_port
    with pytest.raises(OSError, match=rf"receivers::otlp::protocols::http::endpoint.*{port}"):
        await receive({"http": {"endpoint": f"127.0.0.1:{port}"}})


async def test_all_addresses_are_served(receive):
    """``:port`` accepts IPv4 and IPv6."""
    running = await receive({"http": {"endpoint": ":0"}})
    for host in ("127.0.0.1", "::1"):
        try:
            reader, writer = await asyncio.open_connection(host, running.http_port)
        except OSError:
            if host == "::1":
                pytest.skip("no IPv6 on this machine")
            raise
        writer.write(post(WIRE, "Content-Length: 100"))
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    assert {context.local_peer for _, context in running.door.taken} == {True}


class TestCORS:
    """Cross-origin requests, according to the Fetch standard and as rs/cors answers them."""

    PREFLIGHT: ClassVar = {"Origin": "https://a.example.com", "Access-Control-Request-Method": "POST"}

    async def test_off_means_405(self, http):
        """Without origins OPTIONS is treated like any other method."""
        await http.start(cors={})
        assert (await http("OPTIONS", headers=self.PREFLIGHT)).status == 405

    @pytest.mark.parametrize(
        ("pattern", "origin", "allowed"),
        [
            ("https://a.example.com", "https://a.example.com", True),
            ("https://A.example.com", "https://a.EXAMPLE.com", True),
            ("https://a.example.com", "https://b.example.com", False),
            ("https://a.example.com", "http://a.example.com", False),
            ("https://*.example.com", "https://x.y.example.com", True),
            ("https://*.example.com", "https://.example.com", True),
            ("https://*.example.com", "https://example.com", False),
            ("https://*.example.com", "https://x.example.com.evil.org", False),
            ("*", "https://anyone.org", True),
        ],
    )
    async def test_origins(self, http, pattern, origin, allowed):
        """Origins can be given exactly, with one wildcard, or as all."""
        running = await http.start(cors={"allowed_origins": [pattern], "exposed_headers": ["X-A", "X-B"]})
        preflight = await http("OPTIONS", headers={**self.PREFLIGHT, "Origin": origin})
        actual = await http(body=WIRE, headers={**PROTOBUF, "Origin": origin})
        assert (preflight.status, actual.status) == (204, 200)
        for response in (preflight, actual):
            assert response.headers.get("Access-Control-Allow-Origin") == (
                ("*" if pattern == "*" else origin) if allowed else None
            )
            # Browsers refuse a response that allows credentials to the origin "*".
            assert response.headers.get("Access-Control-Allow-Credentials") == (
                "true" if allowed and pattern != "*" else None
            )
            assert "Origin" in response.headers["Vary"]
        assert preflight.headers.get("Access-Control-Allow-Methods") == ("POST" if allowed else None)
        assert actual.headers.get("Access-Control-Expose-Headers") == ("X-A, X-B" if allowed else None)
        assert len(running.door.taken) == 1, "CORS is the browser's to enforce"

    @pytest.mark.parametrize(
        ("configured", "asked", "allowed"),
        [
            ([], "content-type", True),
            ([], "x-tenant", False),
            (["X-Tenant"], "x-tenant, Content-Type", True),
            (["X-Tenant"], "x-tenant,x-other", False),
            (["*"], "x-anything", True),
            (["*"], "bad header\u00e9", False),
        ],
    )
    async def test_headers(self, http, configured, asked, allowed):
        """allowed_headers are allowed in addition to those that are always allowed."""
        await http.start(cors={"allowed_origins": ["*"], "allowed_headers": configured, "max_age": 7200})
        response = await http("OPTIONS", headers={**self.PREFLIGHT, "Access-Control-Request-Headers": asked})
        assert ("Access-Control-Allow-Headers" in response.headers) == allowed
        assert response.headers.get("Access-Control-Max-Age") == ("7200" if allowed else None)

    async def test_method_that_is_not_served_is_not_allowed(self, http):
        """DELETE is not in the list of allowed methods."""
        await http.start(cors={"allowed_origins": ["*"]})
        response = await http("OPTIONS", headers={**self.PREFLIGHT, "Access-Control-Request-Method": "DELETE"})
        assert "Access-Control-Allow-Origin" not in response.headers

    async def test_no_origin_no_headers(self, http):
        """Without an Origin header OPTIONS is answered with 405, and POST is served."""
        await http.start(cors={"allowed_origins": ["*"]})
        assert (await http("OPTIONS", headers={})).status == 405
        response = await http(body=WIRE)
        assert response.status == 200
        assert "Access-Control-Allow-Origin" not in response.headers


@pytest.mark.parametrize("signal", list(Signal))
async def test_default_paths(receive, signal):
    """The default paths are /v1/traces, /v1/metrics and /v1/logs."""
    running = await receive({"http": HTTP})
    await raw(running, post(WIRE, "Content-Length: 100", path=f"/v1/{signal}"))
    assert [wire for wire, _ in running.doors[signal].taken] == [WIRE]
