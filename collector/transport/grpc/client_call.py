"""One unary call and one connection that carries calls: what HTTP/2 heard in, an answer or a status out. No sockets, no choosing.

A call is settled once: by its answer, by what the stream or connection came to, by its deadline or its caller. Streams
that the server says it never processed go back to the owner, who may send them elsewhere.

Source: gRPC's doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md; gRFC A6 "Transparent Retries".
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol

import grpc

from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.grpc.framing import (
    FramingError,
    MessageTooLarge,
    code_of_http_status,
    code_of_text,
    decode_binary,
    decode_text,
    no_message,
)
from collector.transport.grpc.status import CallError, code_of_reset
from collector.transport.http2.engine import ErrorCode, Setting
from collector.transport.http2.events import EngineError, GoAwayReceived, Over, Received, SettingsReceived
from collector.transport.http2.fields import Fields, headers_of
from collector.transport.http2.protocol import HTTP2Protocol
from collector.transport.http2.session import Session

__all__ = ["ENCODINGS", "MAX_ANSWER_BYTES", "Call", "CallConnection", "Owner"]

ENCODINGS: Final = {"gzip": "gzip", "zstd": "zstd", "snappy": "x-snappy-framed"}
"""``grpc-encoding`` → the name in ``collector.transport.compression``. gRPC's snappy is the framed format (mostynb/go-grpc-compression)."""
MAX_ANSWER_BYTES: Final = 4 * 1024 * 1024
_MAX_STREAMS: Final = 2**31 - 1
_MAX_DEBUG_BYTES: Final = 200
_MAX_KNOWN: Final = 64
_MAX_KNOWN_BYTES: Final = 1024


class Call:
    """What one call sends, and what came back so far. ``done`` hears once what came of it: the answer's bytes, or a :class:`CallError`."""

    __slots__ = (
        "_done", "answer", "connection", "deadline_s", "encoding", "fields", "header", "is_answered", "is_settled", "message", "retried",
        "status", "stream_id", "timeout_s",
    )  # fmt: skip

    def __init__(
        self, done: Callable[[bytes | CallError], None], fields: Fields, header: bytes, message: bytes
    ) -> None:
        self._done = done
        self.is_settled = False
        """``done`` was told, or nobody wants to hear it any more."""
        self.fields = fields
        self.header = header
        """The five bytes before the message."""
        self.message = message
        self.timeout_s: float | None = None
        self.deadline_s: float | None = None
        """On the loop's clock."""
        self.retried = False
        self.connection: CallConnection | None = None
        self.stream_id = 0
        self.reset_answer()

    def reset_answer(self) -> None:
        """Nothing came yet."""
        self.answer: bytes | None = None
        self.encoding = b""
        self.is_answered = False
        self.status: CallError | None = None

    def settle(self, outcome: bytes | CallError) -> None:
        """Tell ``done``, if nothing settled it before. Whatever fails there is nothing to the connection and its other calls."""
        if self.is_settled:
            return
        self.is_settled = True
        try:
            self._done(outcome)
        except Exception as error:  # noqa: BLE001 - as of asyncio's callbacks
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the answer of a call was not taken", "exception": error}
            )

    def fail(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        """Settle with a status."""
        self.settle(CallError(code, text, details))


class Owner(Protocol):
    """Who chooses connections."""

    def stream_freed(self, connection: "CallConnection") -> None:
        """A call of the connection is over, or its limit moved: another may start."""
        ...

    def not_processed(self, call: Call, reason: str, *, was_sent: bool) -> None:
        """The server never looked at the call: send it again, or fail it."""
        ...


class CallConnection(HTTP2Protocol, asyncio.BufferedProtocol):
    """One HTTP/2 connection to a gRPC server."""

    def __init__(self, session: Session, owner: Owner, *, write_buffer_bytes: int = 512 * 1024) -> None:
        super().__init__(session)
        self._owner = owner
        self._write_buffer_bytes = write_buffer_bytes
        self._calls: dict[int, Call] = {}
        self._good_heads: set[bytes] = set()
        self._good_trailers: set[bytes] = set()
        self._max_streams = 0  # none before the server's SETTINGS
        self._reason = ""
        self._stall_timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = self.loop.create_future()
        """Done with the server's SETTINGS; holds a ConnectionError where they never came."""
        self.ready.add_done_callback(_retrieve)
        self.unusable: asyncio.Future[str] = self.loop.create_future()
        """Done, with the reason, once no new call may start."""
        self.closed: asyncio.Future[None] = self.loop.create_future()
        """Done with the socket."""
        self.is_told_too_many_pings = False

    # What owners use.

    def has_room(self) -> bool:
        """Whether a call may start now."""
        return len(self._calls) < self._max_streams and not self.unusable.done()

    def has_streams(self) -> bool:
        """See :class:`HTTP2Protocol`."""
        return bool(self._calls)

    def calls(self) -> Iterable[Call]:
        """Those under way."""
        return self._calls.values()

    def start(self, call: Call) -> None:
        """Send the call. Ask :meth:`has_room` first."""
        try:
            stream_id = self.session.request(call.fields, call.header, call.message)
        except EngineError as error:
            self._lose(f"the connection takes no more calls: {error}")
            self._owner.not_processed(call, self._reason, was_sent=False)
            return
        call.connection = self
        call.stream_id = stream_id
        self._calls[stream_id] = call
        self.flush_soon()

    def cancel(self, call: Call) -> None:
        """RST_STREAM CANCEL: nobody waits for the answer any more."""
        if self._calls.pop(call.stream_id, None) is not None:
            self._reset(call.stream_id, ErrorCode.CANCEL)
            self._freed()

    def drain(self) -> None:
        """No new calls; close once those under way are over."""
        self._lose("the connection is being replaced")
        if not self._calls:
            self.stop()

    def stop(self) -> None:
        """Say goodbye and close; calls under way fail."""
        self._end("the client is closed", grpc.StatusCode.CANCELLED)
        if self.is_open:
            try:
                self.session.terminate()
            except EngineError:
                pass  # over already
            else:
                self.flush()
            self.close()

    # asyncio and the protocol below.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        transport.set_write_buffer_limits(high=self._write_buffer_bytes)  # type: ignore[attr-defined] # of write transports
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """See asyncio. Answers are read on: two ends that each wait for the other to read would wait for ever; ours are bounded."""
        self._is_paused = True
        self._stall_timer = self.loop.call_later(_STALL_S, self._stalled)

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _stalled(self) -> None:
        self._reason = self._reason or f"the server read nothing for {_STALL_S:g} s"
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        text = self._reason or (
            f"the connection was lost: {exc}" if exc is not None else "the server closed the connection"
        )
        self._end(text, grpc.StatusCode.UNAVAILABLE)
        if not self.closed.done():
            self.closed.set_result(None)

    def broken(self, error: EngineError) -> None:
        """See :class:`HTTP2Protocol`."""
        self._reason = f"the server broke HTTP/2: {error}"
        super().broken(error)

    def timed_out(self) -> None:
        """See :class:`HTTP2Protocol`."""
        self._reason = "keepalive: the server did not answer a ping in time"
        super().timed_out()

    def flush(self) -> None:
        """See :class:`HTTP2Protocol`. Writing ends streams too, those that libnghttp2 itself resets, and says why it gives up."""
        super().flush()
        for event in self.session.take_events():
            self.tell(event)

    # Events.

    def _settings_received(self, event: SettingsReceived) -> None:
        limit = event.values.get(Setting.MAX_CONCURRENT_STREAMS)
        if limit is not None:
            self._max_streams = limit
        elif not self.ready.done():
            self._max_streams = _MAX_STREAMS
        if not self.ready.done():
            self.ready.set_result(None)
        self._owner.stream_freed(self)

    def received(self, event: Received) -> None:
        """See the base."""
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        message = event.message if event.is_closed and not event.is_compressed else None
        if message is not None and event.head in self._good_heads and event.trailers in self._good_trailers:
            del self._calls[event.stream_id]  # the usual case: all at once, and nothing new in it
            call.settle(message)
            self._freed()
            return
        if event.head is not None:
            self._head_received(call, event)
        if call.status is None:
            self._body_received(call, event)
        if event.is_end and not call.is_answered:
            call.is_answered = True
            if event.trailers is not None:
                self._trailers_received(call, event.trailers)
            elif call.status is None:
                call.status = CallError(grpc.StatusCode.UNKNOWN, "the server ended the stream without a status")
        if event.is_closed:
            self._closed(event)
        elif event.is_end:
            # Answered before all of the request was taken: the rest is of no use to anybody.
            self._reset(event.stream_id, ErrorCode.NO_ERROR)
            self._settle(event.stream_id, 0)
        elif call.status is not None:
            self._give_up(event.stream_id, call)

    def _head_received(self, call: Call, event: Received) -> None:
        assert event.head is not None
        if event.head in self._good_heads:
            return
        headers = dict(headers_of(event.head))
        status = headers.get(b":status", b"")
        if b"grpc-status" in headers:
            self._status(call, headers)
            call.is_answered = event.is_end
        elif status != b"200":
            number = int(status) if status.isdigit() else 0
            call.status = CallError(
                code_of_http_status(number), f"the server answered HTTP {number} and is no gRPC server on this path"
            )
            call.is_answered = event.is_end
        elif not event.is_grpc:
            shown = headers.get(b"content-type", b"none")[:_MAX_DEBUG_BYTES].decode("ascii", "replace")
            call.status = CallError(
                grpc.StatusCode.UNKNOWN, f"the answer's content-type is no application/grpc but {shown}"
            )
            call.is_answered = event.is_end
        else:
            call.encoding = headers.get(b"grpc-encoding", b"")
            if not call.encoding:
                _remember(event.head, self._good_heads)

    def _body_received(self, call: Call, event: Received) -> None:
        try:
            if event.message is not None:
                call.answer = self._unpacked(call, event.message) if event.is_compressed else event.message
            elif event.data:
                raise no_message(event.data, MAX_ANSWER_BYTES)
        except (MessageTooLarge, TooLarge) as error:
            call.status = CallError(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error))
        except (FramingError, BadEncoding) as error:
            call.status = CallError(grpc.StatusCode.INTERNAL, f"the server's answer: {error}")

    def _unpacked(self, call: Call, message: bytes) -> bytes:
        name = ENCODINGS.get(call.encoding.decode("ascii", "replace"))
        if name is None:
            raise FramingError("the answer is compressed with an encoding that was not offered")
        return decompress(name, message, MAX_ANSWER_BYTES)

    def _trailers_received(self, call: Call, block: bytes) -> None:
        if block in self._good_trailers or call.status is not None:
            return
        self._status(call, dict(headers_of(block)))
        if call.status is None:
            _remember(block, self._good_trailers)

    def _closed(self, event: Received) -> None:
        if not event.failure:
            self._settle(event.stream_id, event.error_code)
        elif (call := self._calls.pop(event.stream_id, None)) is not None:
            # libnghttp2 could not send what it had queued: none of it left.
            self._owner.not_processed(call, self._reason or event.failure, was_sent=False)
            self._freed()

    def _goaway_received(self, event: GoAwayReceived) -> None:
        debug = event.debug_data[:_MAX_DEBUG_BYTES].decode("utf-8", "replace")
        self.is_told_too_many_pings = event.error_code == ErrorCode.ENHANCE_YOUR_CALM and debug == "too_many_pings"
        name = ErrorCode(event.error_code).name if event.error_code in _ERROR_CODES else str(event.error_code)
        self._lose(f"the server sent GOAWAY {name}" + (f" ({debug})" if debug else ""))
        # At once, not when libnghttp2 closes them: those it had not sent yet it closes as it writes, and nothing may
        # come after.
        for stream_id in [stream_id for stream_id in self._calls if stream_id > event.last_stream_id]:
            self._owner.not_processed(self._calls.pop(stream_id), self._reason, was_sent=True)
        self._freed()

    def _over(self, event: Over) -> None:
        if event.error_code:
            self._lose(f"the server broke HTTP/2: {event.debug_data[:_MAX_DEBUG_BYTES].decode('utf-8', 'replace')}")

    # Ends.

    def _status(self, call: Call, headers: dict[bytes, bytes]) -> None:
        """Take the call's status from where it stands: trailers, or a head without a body."""
        value = headers.get(b"grpc-status")
        if value == b"0":
            return
        if value is None:
            call.status = CallError(grpc.StatusCode.UNKNOWN, "the server ended the stream without a status")
            return
        details = headers.get(b"grpc-status-details-bin", b"")
        try:
            decoded = decode_binary(details)[0] if details else b""
        except FramingError:
            decoded = b""
        code = code_of_text(value)
        if code is not grpc.StatusCode.OK:
            call.status = CallError(code, decode_text(headers.get(b"grpc-message", b"")), decoded)

    def _settle(self, stream_id: int, error_code: int) -> None:
        """The stream is over."""
        call = self._calls.pop(stream_id, None)
        if call is None:
            return
        if call.status is not None:
            call.settle(call.status)
        elif call.is_answered:
            if call.answer is None:
                call.fail(grpc.StatusCode.INTERNAL, "the server said OK and sent no answer")
            else:
                call.settle(call.answer)
        elif error_code == ErrorCode.REFUSED_STREAM:
            self._owner.not_processed(call, self._reason or "the server refused the stream", was_sent=True)
        else:
            name = ErrorCode(error_code).name if error_code in _ERROR_CODES else str(error_code)
            code = code_of_reset(error_code)
            # A server that keeps the deadline, too, may cancel before our timer does. Source: grpc-go http2_client.go
            # handleRSTStream.
            if (
                code is grpc.StatusCode.CANCELLED
                and call.deadline_s is not None
                and call.deadline_s <= self.loop.time()
            ):
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            call.fail(code, f"the stream was reset with {name}")
        self._freed()

    def _give_up(self, stream_id: int, call: Call) -> None:
        """Fail the call with the status it has; the rest of the answer is of no interest."""
        del self._calls[stream_id]
        self._reset(stream_id, ErrorCode.CANCEL)
        if call.status is not None:
            call.settle(call.status)
        self._freed()

    def _freed(self) -> None:
        if not self.unusable.done():
            self._owner.stream_freed(self)
        elif not self._calls:
            self.loop.call_soon(self.stop)

    def _reset(self, stream_id: int, error_code: ErrorCode) -> None:
        if self.is_open:
            self.session.reset(stream_id, error_code)
            self.flush_soon()

    def _lose(self, reason: str) -> None:
        self._reason = self._reason or reason
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
        if not self.unusable.done():
            self.unusable.set_result(reason)

    def _end(self, reason: str, code: grpc.StatusCode) -> None:
        """Nothing comes any more."""
        self._lose(reason)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.status is not None:
                call.fail(call.status.code, call.status.text, call.status.details)
            else:
                call.fail(code, reason)

    _on: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        SettingsReceived: _settings_received,
        GoAwayReceived: _goaway_received,
        Over: _over,
    }


_STALL_S: Final = 60.0  # a server that takes no byte of what waits for so long
_ERROR_CODES: Final = frozenset(int(code) for code in ErrorCode)


def _remember(block: bytes, blocks: set[bytes]) -> None:
    """Servers send the same headers with every answer."""
    if len(block) <= _MAX_KNOWN_BYTES:
        if len(blocks) >= _MAX_KNOWN:
            blocks.clear()
        blocks.add(block)


def _retrieve(future: "asyncio.Future[None]") -> None:
    """An error nobody waits for is no "exception was never retrieved"."""
    if not future.cancelled():
        future.exception()
