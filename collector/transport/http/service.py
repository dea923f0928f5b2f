"""What every request keeps to, whatever version of HTTP carries it: route, CORS, authentication, the bounds of its body, one answer.

A version's protocol makes a :class:`Request` of each head it has read, tells it what arrives, and writes the answer it
is given. No task is made for a request unless it waits for an authenticator or is large and compressed.

Source: open-telemetry/opentelemetry-collector config/confighttp.
"""

import asyncio
import email.utils
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final, Protocol

from collector.api import Admission, Clock, ConsumeError, Host
from collector.transport.auth import Authenticate, AuthenticationError, Claims, find_authenticator
from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.error_log import ErrorLog
from collector.transport.http.answer import Answer, Refused
from collector.transport.http.cors import CORS
from collector.transport.http.headers import HeaderList, checked, header_bytes
from config.blocks import HTTPServerConfig

__all__ = ["Carrier", "Request", "Route", "Service"]

# smaller bodies are charged by whoever takes them: two bookings would cost more than they guard
_RESERVE_FROM_BYTES: Final = 64 * 1024
_EXPANSION_GUESS: Final = 8  # telemetry compresses about this well; a body that unpacks further is still bounded
_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024

_NOT_FOUND: Final = Answer(
    404, b"404 page not found\n", "text/plain; charset=utf-8", [("X-Content-Type-Options", "nosniff")]
)
_SERVER_ERROR: Final = Answer.text(500, "500 internal server error")

_AUTHENTICATING, _READING, _SERVING, _ANSWERED = range(4)


class Route:
    """What a path means. One object serves all requests of its path."""

    def check(self, request: "Request") -> Answer | None:  # noqa: ARG002 - most routes look at it
        """The answer that the head alone decides; None: the body is wanted, :meth:`serve` follows."""
        return None

    def serve(self, request: "Request") -> None:
        """Answer with ``request.reply``, now or later. ``request.body`` is whole and unpacked; what this raises is answered 500.

        Never called where ``check`` always has an answer.
        """
        request.reply(_NOT_FOUND)

    def refusal(self, request: "Request", error: Refused | ConsumeError) -> Answer:  # noqa: ARG002 - most routes look at it
        """How the sender is told that its body is not taken: too large, unknown encoding, no memory (a ConsumeError)."""
        return Answer.text(error.status if isinstance(error, Refused) else 503, str(error))


class Carrier(Protocol):
    """A request's way back: a connection of HTTP/1.1, a stream of HTTP/2."""

    peer: str | None
    """The sender's IP address; None on a Unix socket."""
    is_unix: bool

    def respond(self, request: "Request", answer: Answer) -> None:
        """Send it, after the answers of earlier requests. Called once, and not after :meth:`Request.abandon`."""
        ...

    def hold(self) -> None:
        """Take no more from the sender until :meth:`release`."""
        ...

    def release(self) -> None:
        """The end of :meth:`hold`."""
        ...

    def go_on(self, request: "Request") -> None:
        """The sender waits to be asked for its body (``Expect: 100-continue``): ask it."""
        ...


class Request:
    """One request from its head to its answer.

    For the protocol: ``begin`` once, then ``feed`` and ``complete``; ``abandon`` when the sender is gone. For the
    route: the rest.
    """

    __slots__ = (
        "_carrier", "_encoding", "_held", "_held_bytes", "_is_complete", "_parts", "_repeated", "_route", "_service", "_state",
        "body", "claims", "cors", "headers", "length", "media_type", "method", "path", "size_bytes",
    )  # fmt: skip

    def __init__(
        self,
        service: "Service",
        carrier: Carrier,
        method: str,
        path: str,
        headers: dict[bytes, bytes],
        length: int | None,
        repeated: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """``headers`` have lower-case names; further values of a name are ``repeated``. ``length`` of the body: None is unknown."""
        self._service = service
        self._carrier = carrier
        self.method = method
        self.path = path
        """Without its query."""
        self.headers = headers
        self._repeated = repeated
        self.length = length
        self.size_bytes = 0
        """Of the body, as far as it came."""
        self.body = b""
        self.claims: Claims = ()
        """What the authenticator found out about the caller."""
        self.cors: HeaderList = ()
        self.media_type = b""
        """The route's own: what it made of Content-Type."""
        self._parts: list[bytes] = []
        self._held: ExitStack | None = None
        self._held_bytes = 0
        self._encoding = ""
        self._is_complete = False
        self._state = _READING
        self._route: Route | None = None

    # For the route.

    @property
    def peer(self) -> str | None:
        """The sender's IP address; None on a Unix socket."""
        return self._carrier.peer

    @property
    def is_unix(self) -> bool:
        """Whether it came over a Unix socket."""
        return self._carrier.is_unix

    def header_values(self) -> dict[str, tuple[str, ...]]:
        """All headers: lower-case name → values."""
        found: dict[str, tuple[str, ...]] = {_text(name): (_text(value),) for name, value in self.headers.items()}
        for name, value in self._repeated:
            found[_text(name)] += (_text(value),)
        return found

    def reply(self, outcome: Answer | Exception) -> None:
        """Answer. An exception that is no refusal is logged and answered 500. All but the first call are ignored."""
        if self._state == _ANSWERED:
            return
        self._state = _ANSWERED
        self._parts = []
        self._give_back()
        if not isinstance(outcome, Answer):
            if isinstance(outcome, Refused | ConsumeError) and self._route is not None:
                outcome = self._route.refusal(self, outcome)
            else:
                self._service.log_error(outcome)
                outcome = _SERVER_ERROR
        self._carrier.respond(self, outcome)

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` as a task; what it raises is replied."""
        self._service.run(self._guarded(work))

    async def _guarded(self, work: Awaitable[None]) -> None:
        try:
            await work
        except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self.reply(exc)

    # For the protocol.

    @property
    def is_answered(self) -> bool:
        """What still comes of its body is of no use."""
        return self._state == _ANSWERED

    def begin(self) -> None:
        """The head is there: answer what it alone decides, or get ready for the body."""
        service = self._service
        try:
            answer = service.apply_cors(self) if service.cors is not None else None
            if answer is None:
                self._route = route = service.routes.get(self.path, service.default_route)
                answer = _NOT_FOUND if route is None else route.check(self)
        except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self.reply(exc)
            return
        if answer is not None:
            self.reply(answer)
        elif service.authenticate is None:
            self._admit()
        else:
            self._state = _AUTHENTICATING
            self._carrier.hold()
            self.run(self._authenticate(service.authenticate))

    def feed(self, part: bytes) -> None:
        """Bytes of the body."""
        self.size_bytes = size_bytes = self.size_bytes + len(part)
        if self._state == _ANSWERED:
            return
        self._parts.append(part)
        if size_bytes > self._held_bytes and self._state == _READING:
            self._grow()

    def complete(self) -> None:
        """The body is whole: unpack it and hand it to the route."""
        self._is_complete = True
        if self._state != _READING:
            return
        self._state = _SERVING
        parts = self._parts
        body = parts[0] if len(parts) == 1 else b"".join(parts)
        self._parts = []
        try:
            if self._encoding:
                self._hold(min(len(body) * _EXPANSION_GUESS, self._service.max_bytes))
                if len(body) >= _LEAVE_LOOP_FROM_BYTES:
                    self.run(self._unpack_off_loop(body))
                    return
                body = self._unpack(body)
            self._serve(body)
        except Exception as exc:  # noqa: BLE001 - nothing may end the process, and the sender must hear of it
            self.reply(exc)

    def abandon(self) -> None:
        """The sender is gone: nobody waits for the answer."""
        is_unpacking = self._state == _SERVING  # the booking stands until the thread is done with the bytes
        self._state = _ANSWERED
        self._parts = []
        if not is_unpacking:
            self._give_back()

    # The body.

    def _admit(self) -> None:
        self._state = _READING
        try:
            self._expect_body()
        except (Refused, ConsumeError) as exc:
            self.reply(exc)

    def _expect_body(self) -> None:
        """Raises Refused or RetryableError where a body of this encoding and length may not come in."""
        service, headers, length = self._service, self.headers, self.length
        encoding = (
            headers[b"content-encoding"].decode("latin-1").strip().lower() if b"content-encoding" in headers else ""
        )
        if encoding == "identity":
            encoding = ""
        if encoding not in service.encodings:
            shown = encoding[:64].encode("utf-8", "replace").decode()  # it goes back in a text
            raise Refused(400, f"unsupported Content-Encoding: {shown}", reason="encoding")
        self._encoding = encoding
        if length is not None and length > service.max_bytes:
            raise service.too_large()
        if length is not None and length < _RESERVE_FROM_BYTES and not encoding:
            self._held_bytes = length
        else:
            if length:
                # is there room for the whole? What is only announced occupies none
                with service.admission.reserve(length):
                    pass
            self._held_bytes = min(_RESERVE_FROM_BYTES, service.max_bytes if length is None else length)
            self._hold(self._held_bytes)
        if b"expect" in headers and length != 0:
            if headers[b"expect"].strip().lower() != b"100-continue":
                raise Refused(417, "unsupported Expect", reason="expect")
            self._carrier.go_on(self)

    async def _authenticate(self, authenticate: Authenticate) -> None:
        try:
            self.claims = await authenticate(self.header_values())
        except AuthenticationError as exc:
            raise Refused(401, str(exc) or "authentication failed", reason="unauthenticated") from exc
        finally:
            self._carrier.release()
        if self._state != _AUTHENTICATING:  # the sender went away
            return
        self._admit()
        if self._state == _READING and self.size_bytes > self._held_bytes:  # what came with the head
            self._grow()
        if self._is_complete:
            self.complete()

    def _grow(self) -> None:
        """Book what arrived: twice as much each time, so that a body is asked for a few times only."""
        service = self._service
        limit = service.max_bytes if self.length is None else self.length
        if self.size_bytes > service.max_bytes:
            self.reply(service.too_large())
            return
        more = min(max(self.size_bytes * 2, _RESERVE_FROM_BYTES), limit) - self._held_bytes
        try:
            self._hold(more)
        except ConsumeError as exc:
            self.reply(exc)
            return
        self._held_bytes += more

    def _unpack(self, body: bytes) -> bytes:
        try:
            return decompress(self._encoding, body, self._service.max_bytes)
        except TooLarge as exc:
            raise self._service.too_large() from exc
        except BadEncoding as exc:
            raise Refused(400, str(exc), reason="encoding") from exc

    async def _unpack_off_loop(self, body: bytes) -> None:
        try:
            unpacked = await asyncio.to_thread(self._unpack, body)
        finally:
            self._give_back()
        if self._state == _SERVING:
            self._serve(unpacked)

    def _serve(self, body: bytes) -> None:
        self._give_back()  # whoever takes the body books it
        self.body = body
        assert self._route is not None  # begin() found it
        self._route.serve(self)

    def _hold(self, size_bytes: int) -> None:
        if self._held is None:
            self._held = ExitStack()
        self._held.enter_context(self._service.admission.reserve(size_bytes))

    def _give_back(self) -> None:
        if self._held is not None:
            self._held.close()
            self._held = None


class Service:
    """The rules of one server, from its configuration. ``key`` is the path of that, for messages."""

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
        self.config = config
        self.routes = routes
        self.default_route = default_route
        self.cors = CORS(config.cors, key) if config.cors is not None and config.cors.allowed_origins else None
        self.encodings = frozenset(config.compression_algorithms) | (
            {"x-snappy-framed"} if "snappy" in config.compression_algorithms else frozenset()
        )
        self.max_bytes = config.max_request_body_size or HTTPServerConfig().max_request_body_size
        given = [(name, value.get_secret_value()) for name, value in config.response_headers.items()]
        self.response_headers = checked(given, f"{key}::response_headers")
        self.authenticate: Authenticate | None = None
        self.admission: Admission
        self._key = key
        self._clock = clock
        self._stamp_s = -1
        self._stamp = b""
        self._date = ""
        self.log_error = ErrorLog(log, clock, "request failed inside the server, answered 500", config=key)
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self, host: Host) -> None:
        """Find the authenticator and the memory budget.

        Raises:
            ValueError: there is no such authenticator.
        """
        self.admission = host.admission
        self.authenticate = find_authenticator(host, self.config.auth, self._key)

    def apply_cors(self, request: Request) -> Answer | None:
        """The answer to a preflight; the headers of CORS go into ``request.cors``."""
        assert self.cors is not None
        get = request.headers.get
        names = (b"origin", b"access-control-request-method", b"access-control-request-headers")
        answer, request.cors = self.cors.apply(request.method, *(_text(get(name, b"")) for name in names))
        return answer

    def too_large(self) -> Refused:
        """413."""
        return Refused(
            413, f"request body too large: at most {self.max_bytes} bytes, also after decompression", reason="too_large"
        )

    def date(self) -> str:
        """For the Date header."""
        self.stamp()
        return self._date

    def stamp(self) -> bytes:
        """The lines that every answer of HTTP/1.1 has: response_headers and Date. Made once a second."""
        now_s = self._clock.time_unix_nano() // 1_000_000_000
        if now_s != self._stamp_s:
            self._stamp_s = now_s
            self._date = email.utils.formatdate(now_s, usegmt=True)
            self._stamp = header_bytes([*self.response_headers, ("Date", self._date)])
        return self._stamp

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """A task that the service owns."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def cancel_tasks(self) -> None:
        """At the end: nobody waits for them any more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")
