"""Requests and routes, for any version of HTTP: CORS, authentication, bounded reading and decompressing, one response.

A protocol creates a :class:`Request` for each head it has read, passes it what arrives, and sends the response. A
request has no task unless it waits for an authenticator or is large and compressed.

Source: open-telemetry/opentelemetry-collector config/confighttp.
"""

import asyncio
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Final, Protocol

from collector.api import Clock, ConsumeError, out_of_memory
from collector.transport.auth import Authenticate, AuthenticationError, Claims
from collector.transport.compression import BadEncoding, TooLarge, decompress, unsupported_encoding
from collector.transport.http.headers import HeaderList
from collector.transport.http.policy import RequestPolicy
from collector.transport.http.response import Refused, Response
from config.blocks import HTTPServerConfig

__all__ = ["HTTPRoutes", "Request", "RequestTransport", "Route"]

# Smaller bodies are reserved by the route's consumer alone: a second reservation would cost more than it protects.
_RESERVE_FROM_BYTES: Final = 64 * 1024
_EXPANSION_GUESS: Final = 8  # about what telemetry compresses to; a body that expands further is still bounded
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
_ON_LOOP_MAX_BYTES: Final = 4 * 1024 * 1024  # of a decompressed body; larger ones leave the loop as well

_NOT_FOUND: Final = Response(
    404, b"404 page not found\n", "text/plain; charset=utf-8", [("X-Content-Type-Options", "nosniff")]
)
_SERVER_ERROR: Final = Response.text(500, "500 internal server error")

_AUTHENTICATING, _READING, _SERVING, _ANSWERED = range(4)


class Route:
    """Handles the requests to one path. One object serves all of them."""

    def check(self, request: "Request") -> Response | None:  # noqa: ARG002 - most routes use it
        """Return the response that the head alone decides; None to read the body and call :meth:`serve`."""
        return None

    def serve(self, request: "Request") -> None:
        """Answer with ``request.reply``, now or later. ``request.body`` is complete and decompressed.

        An exception is answered 500. Not called if ``check`` always returns a response.
        """
        request.reply(_NOT_FOUND)

    def refusal(self, request: "Request", error: Refused | ConsumeError) -> Response:  # noqa: ARG002 - as in check
        """Return the response to a body that is refused: too large, unknown encoding, no memory (a ConsumeError)."""
        return Response.text(error.status if isinstance(error, Refused) else 503, str(error))


class HTTPRoutes(RequestPolicy):
    """The routes of one server (exact path → route), and the rules for their requests."""

    def __init__(
        self,
        config: HTTPServerConfig,
        routes: Mapping[str, Route],
        *,
        default_route: Route | None,
        key: str,
        clock: Clock,
        log: Any,
    ) -> None:
        """``default_route`` serves all other paths; without it they are answered 404."""
        super().__init__(config, key=key, clock=clock, log=log)
        self.routes = routes
        self.default_route = default_route


class RequestTransport(Protocol):
    """What a request arrived on: an HTTP/1.1 connection, or an HTTP/2 stream."""

    peer: str | None
    """The client's IP address; None on a Unix socket."""
    is_unix: bool

    def respond(self, request: "Request", response: Response) -> None:
        """Send it, after the responses to earlier requests. Called once, and not after :meth:`Request.abandon`."""
        ...

    def pause_body(self) -> None:
        """Read no more from the client until :meth:`resume_body`."""
        ...

    def resume_body(self) -> None:
        """Continue to read from the client."""
        ...

    def send_continue(self, request: "Request") -> None:
        """Ask the client for the body, for which it waits (``Expect: 100-continue``)."""
        ...


class Request:
    """One request, from its head to its response.

    The protocol calls ``start`` once, then ``feed`` and ``complete``, or ``abandon`` if the client is gone. The rest is
    for the route.
    """

    __slots__ = (
        "_encoding", "_is_complete", "_parts", "_repeated", "_reservations", "_reserved_bytes", "_route", "_routes",
        "_state", "_transport", "body", "claims", "cors", "headers", "length", "media_type", "method", "path", "query",
        "size_bytes",
    )  # fmt: skip
    cors: HeaderList
    """The CORS headers of the response."""

    def __init__(
        self,
        routes: HTTPRoutes,
        transport: RequestTransport,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        length: int | None,
        repeated: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """``headers`` have lower-case names; ``repeated`` holds further values. ``length``: None if unknown."""
        self._routes = routes
        self._transport = transport
        self.method = method
        self.path = path
        """Without the query."""
        self.query = ""
        """What follows the question mark, still encoded. Set by the protocol."""
        self.headers = headers
        self._repeated = repeated
        self.length = length
        self.size_bytes = 0
        """Bytes of the body that have arrived."""
        self.body = b""
        self.claims: Claims = ()
        """What the authenticator found out about the caller."""
        self.cors = ()
        self.media_type = b""
        """For the route: what it made of Content-Type."""
        self._parts: list[bytes] = []
        self._reservations: ExitStack | None = None
        self._reserved_bytes = 0
        self._encoding = ""
        self._is_complete = False
        self._state = _READING
        self._route: Route | None = None

    # For the route.

    @property
    def peer(self) -> str | None:
        """The client's IP address; None on a Unix socket."""
        return self._transport.peer

    @property
    def is_unix(self) -> bool:
        """Whether it arrived over a Unix socket."""
        return self._transport.is_unix

    def header_values(self) -> dict[str, tuple[str, ...]]:
        """Return all headers: lower-case name → values."""
        values: dict[str, tuple[str, ...]] = {_text(name): (_text(value),) for name, value in self.headers.items()}
        for name, value in self._repeated:
            values[_text(name)] += (_text(value),)
        return values

    def reply(self, outcome: Response | Exception) -> None:
        """Answer the request; only the first call counts.

        A refusal is answered by the route, and so is a MemoryError (503); any other exception is logged: 500.
        """
        if self._state == _ANSWERED:
            return
        self._state = _ANSWERED
        self._parts = []
        self._release()
        if not isinstance(outcome, Response):
            if isinstance(outcome, MemoryError):
                outcome = out_of_memory()
            if isinstance(outcome, Refused | ConsumeError) and self._route is not None:
                outcome = self._route.refusal(self, outcome)
            else:
                self._routes.log_error(outcome)
                outcome = _SERVER_ERROR
        self._transport.respond(self, outcome)

    def reserve(self, size_bytes: int) -> AbstractContextManager[None]:
        """Hold memory for what the route makes of the body, while the context is open.

        Raises:
            RetryableError: there is no room for it; as an exception of the route it is answered 503.
        """
        return self._routes.admission.reserve(size_bytes)

    def spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run ``coroutine`` as a task; an exception from it becomes the reply."""
        self._routes.spawn(self._guarded(coroutine))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - no bug may end the process, and the client must get an answer
            self.reply(exc)

    # For the protocol.

    @property
    def is_answered(self) -> bool:
        """Whether the rest of the body is not needed any more."""
        return self._state == _ANSWERED

    def start(self) -> None:
        """Process the head: answer what it alone decides, or prepare for the body."""
        routes = self._routes
        try:
            response = self._apply_cors() if routes.cors is not None else None
            if response is None:
                self._route = route = routes.routes.get(self.path, routes.default_route)
                response = _NOT_FOUND if route is None else route.check(self)
        except Exception as exc:  # noqa: BLE001 - no bug may end the process, and the client must get an answer
            self.reply(exc)
            return
        if response is not None:
            self.reply(response)
        elif routes.authenticate is None:
            self._admit()
        else:
            self._state = _AUTHENTICATING
            self._transport.pause_body()
            self.spawn(self._authenticate(routes.authenticate))

    def feed(self, part: bytes) -> None:
        """Add bytes of the body."""
        self.size_bytes = size_bytes = self.size_bytes + len(part)
        if self._state == _ANSWERED:
            return
        self._parts.append(part)
        if size_bytes > self._reserved_bytes and self._state == _READING:
            self._reserve_more()

    def complete(self) -> None:
        """The body has arrived: decompress it and pass it to the route."""
        self._is_complete = True
        if self._state != _READING:
            return
        self._state = _SERVING
        parts, self._parts = self._parts, []
        try:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            if self._encoding:
                max_bytes = self._routes.max_bytes
                expected_bytes = min(len(body) * _EXPANSION_GUESS, max_bytes)
                self._reserve(expected_bytes)
                if len(body) >= _LEAVE_LOOP_FROM_BYTES:
                    self.spawn(self._decompress_off_loop(body))
                    return
                try:
                    decompressed = self._decompress(body, min(_ON_LOOP_MAX_BYTES, max_bytes))
                except TooLarge as exc:
                    if max_bytes <= _ON_LOOP_MAX_BYTES:
                        raise self._routes.too_large() from exc
                    self._reserve(max_bytes - expected_bytes)
                    self.spawn(self._decompress_off_loop(body))
                    return
                body = decompressed
            self._serve(body)
        except Exception as exc:  # noqa: BLE001 - no bug may end the process, and the client must get an answer
            self.reply(exc)

    def abandon(self) -> None:
        """The client is gone: drop the request."""
        is_decompressing = self._state == _SERVING  # then the reservation remains until the thread is done
        self._state = _ANSWERED
        self._parts = []
        if not is_decompressing:
            self._release()

    # From the head to the complete body.

    def _apply_cors(self) -> Response | None:
        """Return the response to a preflight; set the CORS headers for all other responses."""
        cors, get = self._routes.cors, self.headers.get
        assert cors is not None
        names = (b"origin", b"access-control-request-method", b"access-control-request-headers")
        response, self.cors = cors.apply(self.method, *(_text(get(name, b"")) for name in names))
        return response

    async def _authenticate(self, authenticate: Authenticate) -> None:
        try:
            self.claims = await authenticate(self.header_values())
        except AuthenticationError as exc:
            raise Refused(401, str(exc) or "authentication failed", reason="unauthenticated") from exc
        finally:
            self._transport.resume_body()
        if self._state != _AUTHENTICATING:  # the client has gone away
            return
        self._admit()
        if self._state == _READING and self.size_bytes > self._reserved_bytes:  # body bytes that arrived with the head
            self._reserve_more()
        if self._is_complete:
            self.complete()

    def _admit(self) -> None:
        self._state = _READING
        try:
            self._prepare_for_body()
        except (Refused, ConsumeError) as exc:
            self.reply(exc)

    def _prepare_for_body(self) -> None:
        """Raise Refused or RetryableError if a body of this encoding and length is not acceptable."""
        routes, headers, length = self._routes, self.headers, self.length
        encoding = (
            headers[b"content-encoding"].decode("latin-1").strip().lower() if b"content-encoding" in headers else ""
        )
        if encoding == "identity":
            encoding = ""
        if encoding not in routes.encodings:
            raise Refused(400, unsupported_encoding(encoding, routes.encodings), reason="encoding")
        self._encoding = encoding
        if length is not None and length > routes.max_bytes:
            raise routes.too_large()
        if length is not None and length < _RESERVE_FROM_BYTES and not encoding:
            self._reserved_bytes = length
        else:
            if length:
                # Check that there is room for all of it; bytes that are only announced are not reserved.
                with routes.admission.reserve(length):
                    pass
            self._reserved_bytes = min(_RESERVE_FROM_BYTES, routes.max_bytes if length is None else length)
            self._reserve(self._reserved_bytes)
        if b"expect" in headers and length != 0:
            if headers[b"expect"].strip().lower() != b"100-continue":
                raise Refused(417, "unsupported Expect", reason="expect")
            self._transport.send_continue(self)

    def _decompress(self, body: bytes, max_bytes: int) -> bytes:
        """Raises TooLarge above ``max_bytes``; Refused if the body is not valid in its encoding."""
        try:
            return decompress(self._encoding, body, max_bytes)
        except BadEncoding as exc:
            raise Refused(400, str(exc), reason="encoding") from exc

    async def _decompress_off_loop(self, body: bytes) -> None:
        try:
            decompressed = await asyncio.to_thread(self._decompress, body, self._routes.max_bytes)
        except TooLarge as exc:
            raise self._routes.too_large() from exc
        finally:
            self._release()
        if self._state == _SERVING:
            self._serve(decompressed)

    def _serve(self, body: bytes) -> None:
        self._release()  # the route's consumer reserves the body
        self.body = body
        assert self._route is not None  # start() found it
        self._route.serve(self)

    # The memory budget.

    def _reserve_more(self) -> None:
        """Reserve for what has arrived, doubling each time, so that a body needs few reservations."""
        routes = self._routes
        limit = routes.max_bytes if self.length is None else self.length
        if self.size_bytes > routes.max_bytes:
            self.reply(routes.too_large())
            return
        more_bytes = min(max(self.size_bytes * 2, _RESERVE_FROM_BYTES), limit) - self._reserved_bytes
        try:
            self._reserve(more_bytes)
        except ConsumeError as exc:
            self.reply(exc)
            return
        self._reserved_bytes += more_bytes

    def _reserve(self, size_bytes: int) -> None:
        if self._reservations is None:
            self._reservations = ExitStack()
        self._reservations.enter_context(self._routes.admission.reserve(size_bytes))

    def _release(self) -> None:
        if self._reservations is not None:
            self._reservations.close()
            self._reservations = None


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
