"""The server's end of one connection of HTTP/2: its streams, keepalive, time-outs, bounds, graceful ends.

Source: RFC 9113; grpc-go internal/transport/http2_server.go for idle, age, the enforcement of pings and the two
    GOAWAYs.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from collector.api import RetryableError
from collector.transport.http2 import engine
from collector.transport.http2.engine import ErrorCode
from collector.transport.http2.events import (
    EngineError,
    FloodError,
    GoAwayReceived,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
)
from collector.transport.http2.first_bytes import PREFACE_S
from collector.transport.http2.server_streams import FREE_BYTES, STREAM_BYTES, ServerStreams

if TYPE_CHECKING:
    from collector.transport.http2.server import HTTP2Server

__all__ = ["MAX_HEADER_BYTES", "ServerConnection"]

# of one request, as announced in SETTINGS; gRPC's default of 8 KiB is too small for some tokens
MAX_HEADER_BYTES: Final = 64 * 1024
_CUT_OFF_HEADER_BYTES: Final = 256 * 1024  # what is larger than this ends the connection; between the two, the request
_BOOK_STEP_BYTES: Final = 64 * 1024
# a request of which nothing comes for this long gives up its place; so does who does not take its answers
_STALLED_S: Final = 60.0
_CHECK_S: Final = 30.0
_PROBE_S: Final = 20.0
_PROBE: Final = b"probe\0\0\0"
_DRAIN: Final = b"goaway\0\0"
_DRAIN_ACK_S: Final = 1.0  # how long the last GOAWAY waits for requests sent before the first one was seen
_AGE_JITTER: Final = 0.1  # connections that came together do not leave together; grpc-go's
_MAX_PING_STRIKES: Final = 2  # grpc-go's
_PING_WITHOUT_STREAM_S: Final = 7200.0  # grpc-go's defaultPingTimeout
_MINUTE_S: Final = 60.0
_MAX_SETTINGS_A_MINUTE: Final = 100  # clients change a window now and then
_LINGER_S: Final = 2.0  # for a client to close its side, too
_NEVER: Final = float("inf")


class ServerConnection(ServerStreams, asyncio.BufferedProtocol):
    """One connection of a client."""

    __slots__ = (
        "_age_s",
        "_blocked",
        "_deadline_timer",
        "_drain_timer",
        "_draining",
        "_is_greeted",
        "_opened_s",
        "_ping_at_s",
        "_probed_s",
        "_server",
        "_settings_count",
        "_settings_since_s",
        "_strikes",
        "_timer",
    )

    def __init__(self, server: "HTTP2Server") -> None:
        super().__init__(
            engine.server(
                max_message_bytes=server.max_message_bytes,
                max_concurrent_streams=server.max_streams,
                max_header_bytes=MAX_HEADER_BYTES,
                cut_off_bytes=_CUT_OFF_HEADER_BYTES,
            ),
            server.accept,
        )
        self._server = server
        self._opened_s = self.last_read_s
        self._is_greeted = False
        parameters = server.keepalive.server_parameters
        self._age_s = parameters.max_connection_age * random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER) or _NEVER  # noqa: S311 - no secret
        self._draining = ""
        self._drain_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = (0.0, 0)  # since when, and with how many bytes, the client does not take its answers
        self._probed_s = 0.0
        self._ping_at_s = float("-inf")
        self._strikes = 0
        self._settings_count, self._settings_since_s = 0, self.last_read_s

    # asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        server = self._server
        server.connections.add(self)
        if server.is_closed:
            transport.close()
            return
        self.is_local = server.is_local(transport.get_extra_info("peername"))
        if server.write_buffer_bytes:
            transport.set_write_buffer_limits(server.write_buffer_bytes)  # type: ignore[attr-defined] # of write transports
        super().connection_made(transport)
        parameters = server.keepalive.server_parameters
        self.keep_alive(parameters.time, parameters.timeout, without_streams=True)
        self._timer = self.loop.call_later(PREFACE_S, self._check)

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        for timer in (self._timer, self._deadline_timer, self._drain_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline_timer = self._drain_timer = None
        self._server.lost(self)

    def broken(self, error: EngineError) -> None:
        """The client broke the protocol or a limit: tell it, and close."""
        if not self.is_open:
            return
        is_flood = isinstance(error, FloodError)
        self._server.closed("flood" if is_flood else "protocol")
        assert self.transport is not None
        self.transport.write(engine.goaway(ErrorCode.ENHANCE_YOUR_CALM if is_flood else ErrorCode.PROTOCOL_ERROR))
        self.close()

    def close(self) -> None:
        """See the base.

        Our side first: a byte of the client's that nobody reads would make the kernel reset the connection, and it
        would lose what we said last.
        """
        transport = self.transport
        if transport is None or not transport.can_write_eof():
            super().close()
            return
        self._is_broken = True
        transport.write_eof()
        self.loop.call_later(_LINGER_S, transport.abort)

    def ended(self) -> None:
        """See the base: the end we asked for, or libnghttp2 cut off a client that broke the protocol."""
        if not self._draining:
            self._server.closed("protocol")

    def timed_out(self) -> None:
        """A ping was not answered."""
        self._server.closed("keepalive")
        self.abort()

    # Ends

    def drain(self, reason: str) -> None:
        """Take no more requests, answer those that came, close. Two GOAWAYs: what was under way to us is served, too."""
        if self._draining or not self.is_open:
            return
        self._draining = reason
        self.session.send_shutdown_notice()
        self.session.ping(_DRAIN)
        self._drain_timer = self.loop.call_later(_DRAIN_ACK_S, self._last_goaway)
        self.flush_soon()

    def _last_goaway(self) -> None:
        """After the client has seen the first one: what comes from now on is refused; libnghttp2 is through after the last answer."""
        if self._drain_timer is None or not self.is_open:
            return
        self._drain_timer.cancel()
        self._drain_timer = None
        self.session.send_goaway()
        self.flush()

    # Events

    def _settings(self, _: SettingsReceived) -> None:
        """Each is acknowledged: libnghttp2 bounds only how many of those wait to be sent."""
        self._is_greeted = True
        if self.last_read_s - self._settings_since_s > _MINUTE_S:
            self._settings_count, self._settings_since_s = 0, self.last_read_s
        self._settings_count += 1
        if self._settings_count > _MAX_SETTINGS_A_MINUTE:
            self.broken(FloodError("too many SETTINGS"))

    def _goaway(self, _: GoAwayReceived) -> None:
        self._draining = self._draining or "client"

    def _ping_acknowledged(self, event: PingAcknowledged) -> None:
        if event.opaque_data == _DRAIN:
            self._last_goaway()

    def _pinged(self, _: PingReceived) -> None:
        """Clients that ping too often are sent away. Source: http2_server.go handlePing."""
        now_s, last_s = self.last_read_s, self._ping_at_s
        self._ping_at_s = now_s
        if self._ping_is_free:
            self._ping_is_free, self._strikes = False, 0
            return
        policy = self._server.keepalive.enforcement_policy
        is_idle = not self.streams and not policy.permit_without_stream
        if now_s - last_s < (_PING_WITHOUT_STREAM_S if is_idle else policy.min_time):
            self._strikes += 1
        if self._strikes > _MAX_PING_STRIKES:
            self._server.closed("too_many_pings")
            self._draining = "too_many_pings"
            self.session.send_goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
            self.flush()
            self.close()

    _on: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        SettingsReceived: _settings,
        GoAwayReceived: _goaway,
        PingReceived: _pinged,
        PingAcknowledged: _ping_acknowledged,
    }

    # Time

    def _expire_at(self, deadline_s: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._next_deadline_s = deadline_s
        self._deadline_timer = self.loop.call_at(deadline_s, self._expire)

    def _expire(self) -> None:
        self._deadline_timer = None
        self._next_deadline_s = _NEVER
        now_s = self.loop.time()
        for stream in list(self.streams.values()):
            if stream.deadline_s <= now_s:
                stream.expired()
        left_s = min((stream.deadline_s for stream in self.streams.values()), default=_NEVER)
        if left_s != _NEVER and self.is_open:
            self._expire_at(left_s)

    def _check(self) -> None:
        """The connection's own timer, at the next time anything is due, at most 30 s away."""
        self._timer = None
        if not self.is_open:
            return
        now_s = self.loop.time()
        reason = self._reason_to_close(now_s)
        if reason:
            self._server.closed(reason)
            self.abort()
            return
        for stream in list(self.streams.values()):
            if stream.is_awaited and now_s - self.session.seen_s(stream.id) >= _STALLED_S:
                stream.stalled()
        parameters = self._server.keepalive.server_parameters
        due_s = [now_s + _CHECK_S]
        if not self._draining:
            idle_at_s = self._idle_since_s + (parameters.max_connection_idle or _NEVER)
            age_at_s = self._opened_s + self._age_s
            if not self.streams and now_s >= idle_at_s:
                self._end("idle")
            elif now_s >= age_at_s:
                self._end("age")
            else:
                due_s += [
                    age_at_s,
                    idle_at_s if not self.streams else now_s + (parameters.max_connection_idle or _NEVER),
                ]
        if self._draining == "age" and parameters.max_connection_age_grace:
            due_s.append(self._opened_s + self._age_s + parameters.max_connection_age_grace)
        if self.is_open:
            self._timer = self.loop.call_at(max(min(due_s), now_s + 0.001), self._check)

    def _end(self, reason: str) -> None:
        self._server.closed(reason)
        self.drain(reason)

    def _reason_to_close(self, now_s: float) -> str:
        if not self._is_greeted and now_s - self._opened_s >= PREFACE_S:
            return "no_preface"
        grace_s = self._server.keepalive.server_parameters.max_connection_age_grace
        if self._draining == "age" and grace_s and now_s >= self._opened_s + self._age_s + grace_s:
            return "age_grace"
        # A frame of which the rest does not come holds its memory: the answer to a ping cannot come before the rest.
        if self._probed_s and self.last_event_s < self._probed_s:
            if now_s - self._probed_s >= _PROBE_S:
                return "stalled"
        elif self.last_read_s > self.last_event_s and now_s - self.last_event_s >= _STALLED_S:
            self._probed_s = now_s
            self.session.ping(_PROBE)
            self.flush()
        queued_bytes = self.session.queued_bytes + (1 if self._is_paused else 0)
        since_s, before_bytes = self._blocked
        if not queued_bytes or not before_bytes or queued_bytes < before_bytes:
            self._blocked = (now_s, queued_bytes)
        elif now_s - since_s >= _STALLED_S:
            return "not_reading"
        return ""

    # Memory

    def _book(self) -> None:
        """Charge the budget with what is held, in steps; refuse what is not whole where there is no room for more."""
        held_bytes = self.held_bytes + self.session.held_bytes + len(self.streams) * STREAM_BYTES
        steps = -(-held_bytes // _BOOK_STEP_BYTES) if held_bytes > FREE_BYTES else 0
        more_bytes = steps * _BOOK_STEP_BYTES - self._booked_bytes
        if not more_bytes:
            return
        if more_bytes > 0:
            try:
                with self._server.admission.reserve(more_bytes):
                    pass
            except RetryableError as error:
                for stream in list(self.streams.values()):
                    if stream.is_awaited:
                        stream.refused(error)
                return
        self._server.admission.charge(more_bytes)
        self._booked_bytes += more_bytes
