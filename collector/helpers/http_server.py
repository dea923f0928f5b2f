"""An HTTP/1.1 server for receivers, over aiohttp's low-level server: no router, no middleware, no log line a request.

It does what the Collector's ``confighttp.ServerConfig`` configures: endpoint, TLS, CORS, authentication, response headers, the
bounded reading and decompressing of bodies, time-outs. What a path means and how an error is told belongs to its user.
Answers are bytes computed once where they never change (:class:`Answer`).

Source: open-telemetry/opentelemetry-collector config/confighttp; the rules of CORS from the Fetch standard as rs/cors has them.
"""

import asyncio
import email.utils
import logging
import re
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from http import HTTPStatus
from typing import Any, Final, cast

from aiohttp import web
from aiohttp.web_protocol import RequestPayloadError

from collector.api import Admission, Clock, Host
from collector.helpers.auth import Authenticate, AuthenticationError, find_authenticator
from collector.helpers.compression import BadEncoding, TooLarge, decompress
from collector.helpers.peer import Endpoint
from collector.helpers.ports import describe_port_conflict
from collector.helpers.tls import server_context
from config.blocks import CORSConfig, HTTPServerConfig

__all__ = ["Answer", "HTTPServer", "Handler", "Refused"]

_RESERVE_FROM_BYTES: Final = 64 * 1024  # smaller bodies are charged by whoever takes them: two bookings would cost more than they guard
_RESERVE_STEP_BYTES: Final = 1024 * 1024
_EXPANSION_GUESS: Final = 8  # telemetry compresses about this well; a body that unpacks further is still bounded
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_STALLED_BODY_S: Final = 60.0  # a body that sends nothing for this long gives up its place, also with read_timeout: 0
_LINGER_S: Final = 2.0  # how long the rest of a refused body is read, so that the sender sees the answer and not a reset
_HANDSHAKE_S: Final = 10.0
_MAX_FIELD_BYTES: Final = 16 * 1024  # one header; tokens fit
_MAX_HEADERS: Final = 128
_IDLE_S: Final = 3630.0  # with idle_timeout: 0; longer than proxies keep theirs, so that they close first

_HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

# aiohttp logs every request it cannot parse, with a traceback: whoever knocks would write our log. They are answered 400.
_silent = logging.getLogger("tailrace.http")
_silent.setLevel(logging.CRITICAL + 1)


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request gets this status; ``str()`` is for the sender."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """A constant word for counters."""


class Answer:
    """A whole response but for the headers that change from one to the next (Date, Connection, CORS)."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: str = "", headers: Sequence[tuple[str, str]] = ()) -> None:
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        if content_type:
            lines.append(f"Content-Type: {content_type}")
        if status != HTTPStatus.NO_CONTENT:
            lines.append(f"Content-Length: {len(body)}")
        lines += [f"{name}: {value}" for name, value in headers]
        self.status = status
        self.head = "".join(line + "\r\n" for line in lines).encode("latin-1")
        self.body = body

    @classmethod
    def text(cls, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> "Answer":
        """A plain text answer."""
        return cls(status, message.encode(), "text/plain", headers)


Handler = Callable[[web.BaseRequest], Awaitable[Answer]]

_NOT_FOUND: Final = Answer(404, b"404 page not found\n", "text/plain; charset=utf-8", [("X-Content-Type-Options", "nosniff")])
_SERVER_ERROR: Final = Answer.text(500, "500 internal server error")
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class _Reply:
    """One answer on its way: the three names aiohttp uses of a response."""

    __slots__ = ("_bytes", "_server", "keep_alive")

    def __init__(self, server: "HTTPServer", data: bytes, keep_alive: bool) -> None:
        self._server = server
        self._bytes = data
        self.keep_alive = keep_alive

    async def prepare(self, request: web.BaseRequest) -> None:
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client went away before it was answered")
        transport.write(self._bytes)
        if self._server.write_timeout_s:
            async with asyncio.timeout(self._server.write_timeout_s):
                await request.writer.drain()
        else:
            await request.writer.drain()

    async def write_eof(self) -> None:
        """All was written by ``prepare``."""


class HTTPServer:
    """Serves ``routes`` (exact path → handler) on ``config.endpoint``; ``key`` is the path of its configuration, for messages."""

    def __init__(self, config: HTTPServerConfig, routes: Mapping[str, Handler], *, key: str, clock: Clock, log: Any) -> None:
        self._config = config
        self._routes = routes
        self._key = key
        self._clock = clock
        self._log = log
        self._endpoint = Endpoint.parse(config.endpoint)
        self._cors = _CORS(config.cors) if config.cors is not None and config.cors.allowed_origins else None
        self._encodings = _encodings(config.compression_algorithms)
        self._max_bytes = config.max_request_body_size or HTTPServerConfig().max_request_body_size
        self._common = _header_bytes([(name, value.get_secret_value()) for name, value in config.response_headers.items()])
        self._body_s = config.read_timeout
        self.write_timeout_s = config.write_timeout
        self._authenticate: Authenticate | None = None
        self._admission: Admission | None = None
        self._listener: asyncio.Server | None = None
        self._server: web.Server | None = None
        self._date_s = 0
        self._date = b""
        self._next_error_log_s = float("-inf")
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""

    @property
    def is_unix(self) -> bool:
        """Whether it listens on a Unix socket."""
        return bool(self._endpoint.path)

    @property
    def address(self) -> str:
        """Where it listens, with the port it got."""
        return str(self._endpoint if self.is_unix else Endpoint(self._endpoint.host, self.port))

    async def start(self, host: Host) -> None:
        """Listen and serve.

        Raises:
            OSError: the endpoint cannot be listened on; the message names the key and who has the port.
            ValueError: a certificate or the authenticator is wrong.
        """
        config = self._config
        self._admission = host.admission
        self._authenticate = find_authenticator(host, config.auth, self._key)
        context = server_context(config.tls) if config.tls is not None else None
        try:
            sock = self._endpoint.listen()
        except OSError as exc:
            raise _listen_error(self._endpoint, f"{self._key}::endpoint", exc) from exc
        loop = asyncio.get_running_loop()
        connection_options: dict[str, Any] = {
            "access_log": None,
            "logger": _silent,
            "auto_decompress": False,
            "keepalive_timeout": config.idle_timeout or config.read_timeout or _IDLE_S,
            "lingering_time": _LINGER_S,
            "max_field_size": _MAX_FIELD_BYTES,
            "max_headers": _MAX_HEADERS,
        }
        if config.read_header_timeout:
            self._server = _TimedServer(cast("Any", self._serve), header_timeout_s=config.read_header_timeout, **connection_options)
        else:
            self._server = web.Server(cast("Any", self._serve), **connection_options)
        handshake_s = _HANDSHAKE_S if context else None
        if self._endpoint.path:
            self._listener = await loop.create_unix_server(self._server, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s)
        else:
            self.port = int(sock.getsockname()[1])
            self._listener = await loop.create_server(self._server, sock=sock, ssl=context, ssl_handshake_timeout=handshake_s)

    async def shutdown(self, grace_s: float) -> None:
        """Stop listening, let requests in progress finish for at most ``grace_s``, close every connection."""
        listener, self._listener = self._listener, None
        server, self._server = self._server, None
        if listener is not None:
            listener.close()
            self._endpoint.remove_socket()
        if server is not None:
            server.pre_shutdown()
            await server.shutdown(grace_s)

    async def authenticate(self, request: web.BaseRequest) -> tuple[tuple[str, str], ...]:
        """The caller's claims; none without ``auth``.

        Raises:
            Refused: 401.
        """
        if self._authenticate is None:
            return ()
        try:
            return await self._authenticate(header_values(request))
        except AuthenticationError as exc:
            raise Refused(401, str(exc) or "authentication failed", reason="unauthenticated") from exc

    async def read_body(self, request: web.BaseRequest) -> bytes:
        """The body, decompressed; never more than ``max_request_body_size`` of it, read or unpacked.

        Raises:
            Refused: 400 (encoding unknown or corrupt), 408 (stalled), 413 (too large).
            RetryableError: no memory for it now.
        """
        headers = request.headers
        encoding = headers.get("Content-Encoding", "").strip().lower() if "Content-Encoding" in headers else ""
        if encoding == "identity":
            encoding = ""
        if encoding not in self._encodings:
            raise Refused(400, f"unsupported Content-Encoding: {encoding[:64]}", reason="encoding")
        length = request.content_length
        if length is not None and length > self._max_bytes:
            raise self._too_large()
        admission = self._admission
        if admission is None:  # not started: aiohttp cannot have called us
            raise Refused(503, "not started", reason="not_started")
        if length is not None and length < _RESERVE_FROM_BYTES and not encoding:
            return await self._receive(request, None, length)
        with ExitStack() as held:

            def reserve(size_bytes: int) -> None:
                held.enter_context(admission.reserve(size_bytes))

            reserve(length if length is not None else min(_RESERVE_STEP_BYTES, self._max_bytes))
            body = await self._receive(request, reserve, length)
            if not encoding:
                return body
            reserve(min(len(body) * _EXPANSION_GUESS, self._max_bytes))
            try:
                if len(body) >= _LEAVE_LOOP_FROM_BYTES:
                    return await asyncio.to_thread(decompress, encoding, body, self._max_bytes)
                return decompress(encoding, body, self._max_bytes)
            except TooLarge as exc:
                raise self._too_large() from exc
            except BadEncoding as exc:
                raise Refused(400, str(exc), reason="encoding") from exc

    async def _receive(self, request: web.BaseRequest, reserve: Callable[[int], None] | None, length: int | None) -> bytes:
        """The body as it was sent. ``reserve`` books what a body of unknown length grows to."""
        content = request.content
        if "Expect" in request.headers and not content.is_eof():
            await self._go_on(request)
        if content.is_eof():
            whole = content.read_nowait()
            if len(whole) > self._max_bytes:
                raise self._too_large()
            return whole
        chunks: list[bytes] = []
        size = 0
        held = _RESERVE_STEP_BYTES if length is None else length
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._body_s if self._body_s else float("inf")
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + _STALLED_BODY_S)) as timer:
                while chunk := await content.readany():
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise self._too_large()
                    if reserve is not None and size > held:
                        reserve(_RESERVE_STEP_BYTES)
                        held += _RESERVE_STEP_BYTES
                    chunks.append(chunk)
                    timer.reschedule(min(deadline, loop.time() + _STALLED_BODY_S))
        except TimeoutError as exc:
            raise Refused(408, "the body did not arrive in time", reason="timeout") from exc
        except RequestPayloadError as exc:
            raise Refused(400, "the body is not framed as its headers say", reason="framing") from exc
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    async def _go_on(self, request: web.BaseRequest) -> None:
        """Ask for the body where the sender waits to be asked."""
        if request.headers["Expect"].strip().lower() != "100-continue":
            raise Refused(417, "unsupported Expect", reason="expect")
        if request.transport is not None:
            request.transport.write(_CONTINUE)

    def _too_large(self) -> Refused:
        return Refused(413, f"request body too large: at most {self._max_bytes} bytes, also after decompression", reason="too_large")

    async def _serve(self, request: web.BaseRequest) -> _Reply:
        """The edge: whatever happens in a handler, the connection gets an answer."""
        cors = b""
        answer: Answer | None = None
        try:
            if self._cors is not None:
                answer, cors = self._cors.apply(request)
            if answer is None:
                handler = self._handler(request)
                answer = _NOT_FOUND if handler is None else await handler(request)
        except ConnectionError:
            raise
        except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self._log_error(exc)
            answer = _SERVER_ERROR
        keep_alive = request.keep_alive and self._config.keep_alives_enabled and answer.status not in {408, 413}
        return _Reply(self, self._compose(request, answer, cors, keep_alive), keep_alive)

    def _handler(self, request: web.BaseRequest) -> Handler | None:
        path = request.raw_path.partition("?")[0]
        if not path.startswith("/"):  # absolute form, as to a proxy
            path = request.rel_url.path
        return self._routes.get(path)

    def _compose(self, request: web.BaseRequest, answer: Answer, cors: bytes, keep_alive: bool) -> bytes:
        now_s = self._clock.time_unix_nano() // 1_000_000_000
        if now_s != self._date_s:
            self._date_s = now_s
            self._date = f"Date: {email.utils.formatdate(now_s, usegmt=True)}\r\n".encode()
        if not keep_alive:
            end = b"Connection: close\r\n\r\n"
        elif request.version < (1, 1):
            end = b"Connection: keep-alive\r\n\r\n"
        else:
            end = b"\r\n"
        body = b"" if request.method == "HEAD" else answer.body
        return b"".join((answer.head, self._common, self._date, cors, end, body))

    def _log_error(self, exc: Exception) -> None:
        """At most one line a second: the faults of one request must not scale into the log."""
        now_s = self._clock.monotonic_s()
        if now_s >= self._next_error_log_s:
            self._next_error_log_s = now_s + 1.0
            self._log.error("request failed inside the server, answered 500", exc_info=exc, config=self._key)


def header_values(request: web.BaseRequest) -> dict[str, tuple[str, ...]]:
    """All headers: lower-case name → values."""
    headers = request.headers
    return {name.lower(): tuple(headers.getall(name)) for name in headers}


def _header_bytes(headers: Sequence[tuple[str, str]]) -> bytes:
    for name, value in headers:
        if not _HEADER_NAME.fullmatch(name) or any(character in value for character in "\r\n\0"):
            raise ValueError(f"response_headers: {name!r} or its value is no HTTP header")
    return "".join(f"{name}: {value}\r\n" for name, value in headers).encode("latin-1", "replace")


def _encodings(names: Sequence[str]) -> frozenset[str]:
    known = set(names)
    if "snappy" in known:
        known.add("x-snappy-framed")
    return frozenset(known)


def _listen_error(endpoint: Endpoint, key: str, exc: OSError) -> OSError:
    if exc.errno is not None and not endpoint.path and not isinstance(exc, socket.gaierror) and "in use" in str(exc).lower():
        return OSError(exc.errno, describe_port_conflict(endpoint.host, endpoint.port, key))
    return OSError(exc.errno or 0, f"{key}: cannot listen on {endpoint}: {exc.strerror or exc}")


class _TimedConnection(web.RequestHandler):
    """A connection that closes when the head of a request does not arrive within ``header_timeout_s`` of its first byte.

    Of the first request: of the connection's start. Between requests ``idle_timeout`` rules.
    """

    __slots__ = ("_head_deadline", "header_timeout_s")

    def __init__(self, *args: Any, header_timeout_s: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.header_timeout_s = header_timeout_s
        self._head_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        heads_before = self._request_count
        super().data_received(data)
        if self._request_count != heads_before:
            self._forget_head()
        elif self._head_deadline is None and not self._request_in_progress and not self._messages:
            self._expect_head()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_deadline = asyncio.get_running_loop().call_later(self.header_timeout_s, self.force_close)

    def _forget_head(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None


class _TimedServer(web.Server):
    """A server of :class:`_TimedConnection`."""

    def __call__(self) -> web.RequestHandler:
        return _TimedConnection(self, loop=asyncio.get_running_loop(), **self._kwargs)


class _CORS:
    """Which origins' scripts may read the answers. Source: rs/cors as the Collector sets it up (credentials allowed)."""

    _METHODS: Final = frozenset({"GET", "POST", "HEAD"})
    _ALWAYS: Final = frozenset({"accept", "accept-language", "content-language", "content-type", "origin", "x-requested-with"})

    def __init__(self, config: CORSConfig) -> None:
        patterns = [origin.lower() for origin in config.allowed_origins]
        self._any_origin = "*" in patterns
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._wild = tuple(pattern.split("*", 1) for pattern in patterns if "*" in pattern)
        self._any_header = "*" in config.allowed_headers
        self._headers = self._ALWAYS | {name.lower() for name in config.allowed_headers}
        exposed = ", ".join(config.exposed_headers)
        self._actual = _header_bytes(
            [("Access-Control-Allow-Credentials", "true")] + ([("Access-Control-Expose-Headers", exposed)] if exposed else [])
        )
        self._max_age = config.max_age
        self._preflight_refused = Answer(204)

    def apply(self, request: web.BaseRequest) -> tuple[Answer | None, bytes]:
        """The answer to a preflight, or None and the headers to add to the actual answer."""
        headers = request.headers
        origin = headers.get("Origin", "")
        if request.method == "OPTIONS" and headers.get("Access-Control-Request-Method"):
            vary = b"Vary: Origin, Access-Control-Request-Method, Access-Control-Request-Headers\r\n"
            return self._preflight_refused, vary + self._preflight(
                origin, headers.get("Access-Control-Request-Method", ""), headers.get("Access-Control-Request-Headers", "")
            )
        if not origin or not self._allows(origin) or request.method not in self._METHODS:
            return None, b"Vary: Origin\r\n"
        return None, b"Vary: Origin\r\n" + self._allow_origin(origin) + self._actual

    def _preflight(self, origin: str, method: str, requested: str) -> bytes:
        names = [name.strip().lower() for name in requested.split(",") if name.strip()]
        if not all(_HEADER_NAME.fullmatch(name) for name in names):
            return b""
        if not origin or not self._allows(origin) or method.upper() not in self._METHODS:
            return b""
        if not self._any_header and any(name not in self._headers for name in names):
            return b""
        allowed = [("Access-Control-Allow-Methods", method.upper()), ("Access-Control-Allow-Credentials", "true")]
        if names:
            allowed.append(("Access-Control-Allow-Headers", ", ".join(names)))
        if self._max_age:
            allowed.append(("Access-Control-Max-Age", str(self._max_age)))
        return self._allow_origin(origin) + _header_bytes(allowed)

    def _allow_origin(self, origin: str) -> bytes:
        return _header_bytes([("Access-Control-Allow-Origin", "*" if self._any_origin else origin)])

    def _allows(self, origin: str) -> bool:
        origin = origin.lower()
        return (
            self._any_origin
            or origin in self._exact
            or any(len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end) for start, end in self._wild)
        )
