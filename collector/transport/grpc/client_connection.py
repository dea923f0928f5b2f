"""One HTTP/2 connection of a gRPC client, which carries calls. It does not choose connections.

Streams that the server says it never processed go back to the owner, who may send them elsewhere.

Source: gRPC's doc/PROTOCOL-HTTP2.md and doc/http-grpc-status-mapping.md; gRFC A6 "Transparent Retries".
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, Protocol

import grpc

from collector.transport.compression import BadEncoding, TooLarge, decompress
from collector.transport.grpc.client_call import ENCODINGS, MAX_RESPONSE_BYTES, ClientCall, UnusableResponse
from collector.transport.grpc.framing import (
    FramingError,
    MessageTooLarge,
    code_from_http_status,
    decode_binary,
    decode_percent,
    invalid_message_error,
    parse_status_code,
)
from collector.transport.grpc.status import CallError, code_from_reset
from collector.transport.http2.codes import ErrorCode, Setting
from collector.transport.http2.events import (
    ConnectionEnded,
    GoAwayReceived,
    HTTP2Error,
    SettingsReceived,
    StreamEvent,
)
from collector.transport.http2.header_fields import decode_header_block
from collector.transport.http2.protocol import HTTP2Protocol
from collector.transport.http2.session import Session

__all__ = ["ClientConnection", "ConnectionOwner"]

_MAX_STREAMS: Final = 2**31 - 1
_MAX_DEBUG_BYTES: Final = 200
_MAX_CACHED_BLOCKS: Final = 64
_MAX_CACHED_BLOCK_BYTES: Final = 1024
_STALLED_S: Final = 60.0  # a server that reads nothing of our output for this long is cut off
_ERROR_CODES: Final = frozenset(int(code) for code in ErrorCode)


class ConnectionOwner(Protocol):
    """The client that distributes calls among connections."""

    def stream_freed(self, connection: "ClientConnection") -> None:
        """A call on the connection has ended, or its limit has changed: another call may start."""
        ...

    def not_processed(self, call: ClientCall, reason: str, *, was_sent: bool) -> None:
        """The server never processed the call: send it again, or fail it."""
        ...


class ClientConnection(HTTP2Protocol, asyncio.BufferedProtocol):
    """One HTTP/2 connection to a gRPC server."""

    def __init__(self, session: Session, owner: ConnectionOwner, *, write_buffer_bytes: int = 512 * 1024) -> None:
        super().__init__(session)
        self._owner = owner
        self._write_buffer_bytes = write_buffer_bytes
        self._calls: dict[int, ClientCall] = {}
        self._ok_heads: set[bytes] = set()
        self._ok_trailers: set[bytes] = set()
        self._max_streams = 0  # until the server's SETTINGS arrive
        self._reason = ""
        self._stall_timer: asyncio.TimerHandle | None = None
        self.ready: asyncio.Future[None] = self.loop.create_future()
        """Done when the server's SETTINGS have arrived; a ConnectionError if they never do."""
        self.ready.add_done_callback(_retrieve_exception)
        self.unusable: asyncio.Future[str] = self.loop.create_future()
        """Done, with the reason, once no new call may start on it."""
        self.closed: asyncio.Future[None] = self.loop.create_future()
        """Done when the socket is closed."""
        self.got_too_many_pings = False

    # What owners use.

    def has_room(self) -> bool:
        """Whether a call may start now."""
        return len(self._calls) < self._max_streams and not self.unusable.done()

    def has_streams(self) -> bool:
        """See the base."""
        return bool(self._calls)

    def calls(self) -> Iterable[ClientCall]:
        """Return the calls in progress."""
        return self._calls.values()

    def start(self, call: ClientCall) -> None:
        """Send the call. Check :meth:`has_room` first."""
        try:
            stream_id = self.session.request(call.fields, call.message_header, call.message)
        except HTTP2Error as error:
            self._make_unusable(f"the connection does not accept any more calls: {error}")
            self._owner.not_processed(call, self._reason, was_sent=False)
            return
        call.connection = self
        call.stream_id = stream_id
        self._calls[stream_id] = call
        self.flush_soon()

    def cancel(self, call: ClientCall) -> None:
        """Send RST_STREAM CANCEL: the response is not wanted any more."""
        if self._calls.pop(call.stream_id, None) is not None:
            self._reset(call.stream_id, ErrorCode.CANCEL)
            self._on_call_ended()

    def drain(self) -> None:
        """Start no new calls; close once those in progress have ended."""
        self._make_unusable("the connection is being replaced")
        if not self._calls:
            self.stop()

    def stop(self) -> None:
        """Send GOAWAY and close; calls in progress fail."""
        self._end_calls("the client is closed", grpc.StatusCode.CANCELLED)
        if self.is_open:
            try:
                self.session.terminate()
            except HTTP2Error:
                pass  # it has ended already
            else:
                self.flush()
            self.close()

    # asyncio and the base.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        transport.set_write_buffer_limits(high=self._write_buffer_bytes)  # type: ignore[attr-defined]
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """See asyncio. Unlike the base, keep reading: two ends that each wait for the other would deadlock."""
        self._is_paused = True
        self._stall_timer = self.loop.call_later(_STALLED_S, self._stalled)

    def resume_writing(self) -> None:
        """See asyncio."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        super().resume_writing()

    def _stalled(self) -> None:
        self._reason = self._reason or f"the server has not read any data for {_STALLED_S:g} s"
        self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        if self._stall_timer is not None:
            self._stall_timer.cancel()
        text = self._reason or (
            f"the connection was lost: {exc}" if exc is not None else "the server closed the connection"
        )
        self._end_calls(text, grpc.StatusCode.UNAVAILABLE)
        if not self.closed.done():
            self.closed.set_result(None)

    def protocol_error(self, error: HTTP2Error) -> None:
        """See the base."""
        self._reason = f"the server violated HTTP/2: {error}"
        super().protocol_error(error)

    def ping_timed_out(self) -> None:
        """See the base."""
        self._reason = "keepalive: the server did not answer a ping in time"
        super().ping_timed_out()

    def flush(self) -> None:
        """See the base. Writing causes events as well: libnghttp2 may reset streams or end the connection."""
        super().flush()
        for event in self.session.take_events():
            self.dispatch(event)

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

    def received(self, event: StreamEvent) -> None:
        """See the base."""
        call = self._calls.get(event.stream_id)
        if call is None:
            return
        message = event.message if event.is_closed and not event.is_compressed else None
        if message is not None and event.head in self._ok_heads and event.trailers in self._ok_trailers:
            del self._calls[event.stream_id]  # the usual case: all at once, and nothing new in it
            call.settle(message)
            self._on_call_ended()
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
            self._stream_closed(event)
        elif event.is_end:
            # Answered before the whole request was received: the rest is not wanted.
            self._reset(event.stream_id, ErrorCode.NO_ERROR)
            self._settle_stream(event.stream_id, 0)
        elif call.status is not None:
            self._fail_early(event.stream_id, call)

    def _head_received(self, call: ClientCall, event: StreamEvent) -> None:
        assert event.head is not None
        if event.head in self._ok_heads:
            return
        headers = dict(decode_header_block(event.head))
        status = headers.get(b":status", b"")
        if b"grpc-status" in headers:
            self._read_status(call, headers)
            call.is_answered = event.is_end
        elif status != b"200":
            number = int(status) if status.isdigit() else 0
            call.status = CallError(
                code_from_http_status(number),
                f"the server answered with HTTP status {number} instead of a gRPC response",
            )
            call.is_answered = event.is_end
        elif not event.is_grpc:
            shown = headers.get(b"content-type", b"none")[:_MAX_DEBUG_BYTES].decode("ascii", "replace")
            call.status = CallError(
                grpc.StatusCode.UNKNOWN, f"the response has content-type {shown}; expected application/grpc"
            )
            call.is_answered = event.is_end
        else:
            call.encoding = headers.get(b"grpc-encoding", b"")
            if not call.encoding:
                _cache_block(event.head, self._ok_heads)

    def _body_received(self, call: ClientCall, event: StreamEvent) -> None:
        if call.problem:
            call.ignored_bytes += len(event.data or b"")
            if call.ignored_bytes > MAX_RESPONSE_BYTES:
                call.status = CallError(grpc.StatusCode.INTERNAL, call.problem)
            return
        try:
            if event.message is not None:
                call.response = self._decompressed(call, event.message) if event.is_compressed else event.message
            elif event.data:
                raise invalid_message_error(event.data, MAX_RESPONSE_BYTES)
        except (MessageTooLarge, TooLarge, FramingError, BadEncoding) as error:
            # The status decides whether the request was accepted, and is still to come.
            call.problem = f"the server's response: {error}"

    def _decompressed(self, call: ClientCall, message: bytes) -> bytes:
        name = ENCODINGS.get(call.encoding.decode("ascii", "replace"))
        if name is None:
            raise FramingError("the response is compressed with an encoding that was not offered")
        return decompress(name, message, MAX_RESPONSE_BYTES)

    def _trailers_received(self, call: ClientCall, block: bytes) -> None:
        if block in self._ok_trailers or call.status is not None:
            return
        self._read_status(call, dict(decode_header_block(block)))
        if call.status is None:
            _cache_block(block, self._ok_trailers)

    def _stream_closed(self, event: StreamEvent) -> None:
        if not event.failure:
            self._settle_stream(event.stream_id, event.error_code)
        elif (call := self._calls.pop(event.stream_id, None)) is not None:
            # libnghttp2 could not send what was queued: nothing was sent.
            self._owner.not_processed(call, self._reason or event.failure, was_sent=False)
            self._on_call_ended()

    def _goaway_received(self, event: GoAwayReceived) -> None:
        debug = event.debug_data[:_MAX_DEBUG_BYTES].decode("utf-8", "replace")
        self.got_too_many_pings = event.error_code == ErrorCode.ENHANCE_YOUR_CALM and debug == "too_many_pings"
        name = ErrorCode(event.error_code).name if event.error_code in _ERROR_CODES else str(event.error_code)
        self._make_unusable(f"the server sent GOAWAY {name}" + (f" ({debug})" if debug else ""))
        # Now, not when libnghttp2 closes them: it closes those not sent yet while writing, and nothing may follow.
        for stream_id in [stream_id for stream_id in self._calls if stream_id > event.last_stream_id]:
            self._owner.not_processed(self._calls.pop(stream_id), self._reason, was_sent=True)
        self._on_call_ended()

    def _connection_ended(self, event: ConnectionEnded) -> None:
        if event.error_code:
            self._make_unusable(
                f"the server violated HTTP/2: {event.debug_data[:_MAX_DEBUG_BYTES].decode('utf-8', 'replace')}"
            )

    # The end of calls and of the connection.

    def _read_status(self, call: ClientCall, headers: dict[bytes, bytes]) -> None:
        """Read the call's status from trailers, or from a header block without a body."""
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
        code = parse_status_code(value)
        if code is not grpc.StatusCode.OK:
            call.status = CallError(code, decode_percent(headers.get(b"grpc-message", b"")), decoded)

    def _settle_stream(self, stream_id: int, error_code: int) -> None:
        """Settle the call of a stream that has ended."""
        call = self._calls.pop(stream_id, None)
        if call is None:
            return
        if call.status is not None:
            call.settle(call.status)
        elif call.is_answered:
            if call.problem or call.response is None:
                call.settle(UnusableResponse(call.problem or "the server reported OK but sent no response message"))
            else:
                call.settle(call.response)
        elif error_code == ErrorCode.REFUSED_STREAM:
            self._owner.not_processed(call, self._reason or "the server refused the stream", was_sent=True)
        else:
            name = ErrorCode(error_code).name if error_code in _ERROR_CODES else str(error_code)
            code = code_from_reset(error_code)
            # A server that enforces the deadline may cancel before our timer fires. Source: grpc-go http2_client.go
            # handleRSTStream.
            if (
                code is grpc.StatusCode.CANCELLED
                and call.deadline_s is not None
                and call.deadline_s <= self.loop.time()
            ):
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            call.fail(code, f"the stream was reset with {name}")
        self._on_call_ended()

    def _fail_early(self, stream_id: int, call: ClientCall) -> None:
        """Fail the call with the status it has; the rest of the response is not wanted."""
        del self._calls[stream_id]
        self._reset(stream_id, ErrorCode.CANCEL)
        if call.status is not None:
            call.settle(call.status)
        self._on_call_ended()

    def _on_call_ended(self) -> None:
        if not self.unusable.done():
            self._owner.stream_freed(self)
        elif not self._calls:
            self.loop.call_soon(self.stop)

    def _reset(self, stream_id: int, error_code: ErrorCode) -> None:
        if self.is_open:
            self.session.reset(stream_id, error_code)
            self.flush_soon()

    def _make_unusable(self, reason: str) -> None:
        self._reason = self._reason or reason
        if not self.ready.done():
            self.ready.set_exception(ConnectionError(reason))
        if not self.unusable.done():
            self.unusable.set_result(reason)

    def _end_calls(self, reason: str, code: grpc.StatusCode) -> None:
        """Fail all calls in progress."""
        self._make_unusable(reason)
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if call.status is not None:
                call.fail(call.status.code, call.status.text, call.status.details)
            else:
                call.fail(code, reason)

    _handlers: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        SettingsReceived: _settings_received,
        GoAwayReceived: _goaway_received,
        ConnectionEnded: _connection_ended,
    }


def _cache_block(block: bytes, blocks: set[bytes]) -> None:
    """Remember a block without an error in it: servers send the same headers with every response."""
    if len(block) <= _MAX_CACHED_BLOCK_BYTES:
        if len(blocks) >= _MAX_CACHED_BLOCKS:
            blocks.clear()
        blocks.add(block)


def _retrieve_exception(future: "asyncio.Future[None]") -> None:
    """Retrieve the exception, so that asyncio does not report one that nobody waits for."""
    if not future.cancelled():
        future.exception()
