"""The server's end of one HTTP/2 connection: keepalive, time-outs, limits, memory accounting, graceful shutdown.

Source: RFC 9113; grpc-go internal/transport/http2_server.go for idle, age, the enforcement of pings and the two
    GOAWAYs.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol

from collector.api import Admission, RetryableError
from collector.transport.http2 import sessions
from collector.transport.http2.codes import ErrorCode
from collector.transport.http2.events import (
    FloodError,
    GoAwayReceived,
    HTTP2Error,
    PingAcknowledged,
    PingReceived,
    SettingsReceived,
    StreamEvent,
)
from collector.transport.http2.protocol_detection import PREFACE_TIMEOUT_S
from collector.transport.http2.server_streams import FREE_BYTES, STREAM_BYTES, BaseServerConnection, ServerStream
from config.blocks import KeepaliveServerConfig

__all__ = ["MAX_HEADER_BYTES", "ConnectionServer", "ServerConnection"]

# Of one request, as announced in SETTINGS; gRPC's default of 8 KiB is too small for some tokens.
MAX_HEADER_BYTES: Final = 64 * 1024
_CUT_OFF_HEADER_BYTES: Final = 256 * 1024  # more than this ends the connection; between the two, only the request
_CHARGE_STEP_BYTES: Final = 64 * 1024
# A request that receives no bytes for this long is given up, and so is a client that does not read its responses.
_STALLED_S: Final = 60.0
_CHECK_INTERVAL_S: Final = 30.0
_PROBE_TIMEOUT_S: Final = 20.0
_PROBE: Final = b"probe\0\0\0"
_DRAIN: Final = b"goaway\0\0"
_DRAIN_ACK_TIMEOUT_S: Final = 1.0  # how long the last GOAWAY waits for requests sent before the first one was seen
_AGE_JITTER: Final = 0.1  # connections opened together are not closed together; grpc-go's
_MAX_PING_STRIKES: Final = 2  # grpc-go's
_PING_WITHOUT_STREAM_S: Final = 7200.0  # grpc-go's defaultPingTimeout
_MINUTE_S: Final = 60.0
_MAX_SETTINGS_PER_MINUTE: Final = 100  # clients change a window now and then
_YOUNG_S: Final = 1.0
_LINGER_S: Final = 2.0  # for the client to close its side as well
_NEVER: Final = float("inf")


class ConnectionServer(Protocol):
    """The server of a connection: the limits its connections share, and the callbacks for their ends."""

    admission: Admission
    keepalive: KeepaliveServerConfig
    max_message_bytes: int
    max_streams: int
    write_buffer_bytes: int
    is_closed: bool
    """It is shutting down: new connections are closed at once, unless it ``is_continued``."""

    @property
    def is_continued(self) -> bool:
        """Another server listens at the same address; connections that this one has accepted are served."""
        ...

    @property
    def accept(self) -> Callable[[BaseServerConnection, StreamEvent], ServerStream | None]:
        """Makes a stream of a request; see :data:`collector.transport.http2.server.Accept`."""
        ...

    @property
    def on_closed(self) -> Callable[[str], None]:
        """Called with the reason when we close a connection."""
        ...

    def add_connection(self, connection: "ServerConnection") -> None:
        """Remember a new connection."""
        ...

    def remove_connection(self, connection: "ServerConnection") -> None:
        """Forget a connection that is closed."""
        ...

    def is_local(self, peer_name: object) -> bool | None:
        """Whether the peer with this ``peername`` is on this machine; None: unknown."""
        ...


class ServerConnection(BaseServerConnection, asyncio.BufferedProtocol):
    """One accepted connection."""

    __slots__ = (
        "_age_s",
        "_blocked",
        "_deadline_timer",
        "_drain_timer",
        "_draining",
        "_is_greeted",
        "_last_ping_s",
        "_opened_s",
        "_probe_sent_s",
        "_server",
        "_settings_count",
        "_settings_since_s",
        "_strikes",
        "_timer",
    )

    def __init__(self, server: ConnectionServer) -> None:
        super().__init__(
            sessions.server_session(
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
        jitter = random.uniform(1 - _AGE_JITTER, 1 + _AGE_JITTER)  # noqa: S311 - no secret
        self._age_s = parameters.max_connection_age * jitter or _NEVER
        self._draining = ""
        self._drain_timer: asyncio.TimerHandle | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._blocked = (0.0, 0)  # since when, and with how many bytes queued, the client has not read
        self._probe_sent_s = 0.0
        self._last_ping_s = float("-inf")
        self._strikes = 0
        self._settings_count, self._settings_since_s = 0, self.last_read_s

    # asyncio.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        server = self._server
        server.add_connection(self)
        if server.is_closed and not server.is_continued:
            transport.close()
            return
        self.is_local = server.is_local(transport.get_extra_info("peername"))
        if server.write_buffer_bytes:
            transport.set_write_buffer_limits(server.write_buffer_bytes)  # type: ignore[attr-defined]
        super().connection_made(transport)
        parameters = server.keepalive.server_parameters
        self.keep_alive(parameters.time, parameters.timeout, without_streams=True)
        self._timer = self.loop.call_later(PREFACE_TIMEOUT_S, self._check)
        if server.is_closed:
            self.drain_when_old()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        super().connection_lost(exc)
        for timer in (self._timer, self._deadline_timer, self._drain_timer):
            if timer is not None:
                timer.cancel()
        self._timer = self._deadline_timer = self._drain_timer = None
        self._server.remove_connection(self)

    def protocol_error(self, error: HTTP2Error) -> None:
        """See the base: the client broke the protocol or a limit. Send GOAWAY and close."""
        if not self.is_open:
            return
        is_flood = isinstance(error, FloodError)
        self._server.on_closed("flood" if is_flood else "protocol")
        assert self.transport is not None
        error_code = ErrorCode.ENHANCE_YOUR_CALM if is_flood else ErrorCode.PROTOCOL_ERROR
        self.transport.write(sessions.goaway_frame(error_code, self.session.last_stream_id))
        self.close()

    def close(self) -> None:
        """See the base.

        Closes our side first: a byte from the client that nobody reads would make the kernel reset the connection, and
        the client would lose what we sent last.
        """
        transport = self.transport
        if transport is None or not transport.can_write_eof():
            super().close()
            return
        self._is_broken = True
        transport.write_eof()
        self.loop.call_later(_LINGER_S, transport.abort)

    def session_ended(self) -> None:
        """See the base: we asked for the end, or libnghttp2 cut off a client that broke the protocol."""
        if not self._draining:
            self._server.on_closed("protocol")

    def ping_timed_out(self) -> None:
        """See the base."""
        self._server.on_closed("keepalive")
        self.abort()

    # Shutdown.

    def drain(self, reason: str) -> None:
        """Refuse new requests, finish those received, close. Two GOAWAYs: requests on their way are still served."""
        if self._draining or not self.is_open:
            return
        self._draining = reason
        self.session.send_shutdown_notice()
        self.session.ping(_DRAIN)
        self._drain_timer = self.loop.call_later(_DRAIN_ACK_TIMEOUT_S, self._send_last_goaway)
        self.flush_soon()

    def drain_when_old(self) -> None:
        """Drain the connection, but not in its first second.

        gRPC's clients can lose the request that they open a connection for if that goes away before they send it.
        """
        wait_s = self._opened_s + _YOUNG_S - self.loop.time()
        if wait_s <= 0:
            self.drain("shutdown")
        elif self._drain_timer is None:
            self._drain_timer = self.loop.call_later(wait_s, self._drain_now)

    def _drain_now(self) -> None:
        self._drain_timer = None
        self.drain("shutdown")

    def _send_last_goaway(self) -> None:
        """Refuse requests from now on: the client has seen the first GOAWAY. Ends after the last response."""
        if self._drain_timer is None or not self.is_open:
            return
        self._drain_timer.cancel()
        self._drain_timer = None
        self.session.send_goaway()
        self.flush()

    # Events.

    def _on_settings(self, _: SettingsReceived) -> None:
        """Bound how often SETTINGS arrive: libnghttp2 acknowledges each and bounds only the ACKs waiting to be sent."""
        self._is_greeted = True
        if self.last_read_s - self._settings_since_s > _MINUTE_S:
            self._settings_count, self._settings_since_s = 0, self.last_read_s
        self._settings_count += 1
        if self._settings_count > _MAX_SETTINGS_PER_MINUTE:
            self.protocol_error(FloodError(f"more than {_MAX_SETTINGS_PER_MINUTE} SETTINGS frames in a minute"))

    def _on_goaway(self, _: GoAwayReceived) -> None:
        self._draining = self._draining or "client"

    def _on_ping_acknowledged(self, event: PingAcknowledged) -> None:
        if event.opaque_data == _DRAIN:
            self._send_last_goaway()

    def _on_ping(self, _: PingReceived) -> None:
        """Close the connections of clients that ping too often. Source: grpc-go http2_server.go handlePing."""
        now_s, last_s = self.last_read_s, self._last_ping_s
        self._last_ping_s = now_s
        if self._ping_is_free:
            self._ping_is_free, self._strikes = False, 0
            return
        policy = self._server.keepalive.enforcement_policy
        is_idle = not self.streams and not policy.permit_without_stream
        if now_s - last_s < (_PING_WITHOUT_STREAM_S if is_idle else policy.min_time):
            self._strikes += 1
        if self._strikes > _MAX_PING_STRIKES:
            self._server.on_closed("too_many_pings")
            self._draining = "too_many_pings"
            self.session.send_goaway(ErrorCode.ENHANCE_YOUR_CALM, b"too_many_pings")
            self.flush()
            self.close()

    _handlers: ClassVar[Mapping[type[Any], Callable[[Any, Any], None]]] = {
        SettingsReceived: _on_settings,
        GoAwayReceived: _on_goaway,
        PingReceived: _on_ping,
        PingAcknowledged: _on_ping_acknowledged,
    }

    # Time.

    def _schedule_deadline(self, deadline_s: float) -> None:
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        self._next_deadline_s = deadline_s
        self._deadline_timer = self.loop.call_at(deadline_s, self._expire_streams)

    def _expire_streams(self) -> None:
        self._deadline_timer = None
        self._next_deadline_s = _NEVER
        now_s = self.loop.time()
        for stream in list(self.streams.values()):
            if stream.deadline_s <= now_s:
                stream.expired()
        next_deadline_s = min((stream.deadline_s for stream in self.streams.values()), default=_NEVER)
        if next_deadline_s != _NEVER and self.is_open:
            self._schedule_deadline(next_deadline_s)

    def _check(self) -> None:
        """Check the time-outs of the connection, and schedule the next check: when one is due, at most 30 s away."""
        self._timer = None
        if not self.is_open:
            return
        now_s = self.loop.time()
        reason = self._reason_to_abort(now_s)
        if reason:
            self._server.on_closed(reason)
            self.abort()
            return
        for stream in list(self.streams.values()):
            if stream.is_awaited and now_s - self.session.last_received_s(stream.id) >= _STALLED_S:
                stream.stalled()
        parameters = self._server.keepalive.server_parameters
        due_s = [now_s + _CHECK_INTERVAL_S]
        if not self._draining:
            idle_at_s = self._idle_since_s + (parameters.max_connection_idle or _NEVER)
            age_at_s = self._opened_s + self._age_s
            if not self.streams and now_s >= idle_at_s:
                self._close_gracefully("idle")
            elif now_s >= age_at_s:
                self._close_gracefully("age")
            else:
                due_s += [
                    age_at_s,
                    idle_at_s if not self.streams else now_s + (parameters.max_connection_idle or _NEVER),
                ]
        if self._draining == "age" and parameters.max_connection_age_grace:
            due_s.append(self._opened_s + self._age_s + parameters.max_connection_age_grace)
        if self.is_open:
            self._timer = self.loop.call_at(max(min(due_s), now_s + 0.001), self._check)

    def _close_gracefully(self, reason: str) -> None:
        self._server.on_closed(reason)
        self.drain(reason)

    def _reason_to_abort(self, now_s: float) -> str:
        if not self._is_greeted and now_s - self._opened_s >= PREFACE_TIMEOUT_S:
            return "no_preface"
        grace_s = self._server.keepalive.server_parameters.max_connection_age_grace
        if self._draining == "age" and grace_s and now_s >= self._opened_s + self._age_s + grace_s:
            return "age_grace"
        # An incomplete frame holds its memory. Probe with a ping: its acknowledgement can only follow the whole frame.
        if self._probe_sent_s and self.last_event_s < self._probe_sent_s:
            if now_s - self._probe_sent_s >= _PROBE_TIMEOUT_S:
                return "stalled"
        elif self.last_read_s > self.last_event_s and now_s - self.last_event_s >= _STALLED_S:
            self._probe_sent_s = now_s
            self.session.ping(_PROBE)
            self.flush()
        queued_bytes = self.session.queued_bytes + (1 if self._is_paused else 0)
        since_s, before_bytes = self._blocked
        if not queued_bytes or not before_bytes or queued_bytes < before_bytes:
            self._blocked = (now_s, queued_bytes)
        elif now_s - since_s >= _STALLED_S:
            return "not_reading"
        return ""

    # Memory.

    def _update_charge(self) -> None:
        """Charge the memory budget for what is held, in steps; if there is no room, refuse incomplete requests."""
        held_bytes = self.held_bytes + self.session.held_bytes + len(self.streams) * STREAM_BYTES
        step_count = -(-held_bytes // _CHARGE_STEP_BYTES) if held_bytes > FREE_BYTES else 0
        more_bytes = step_count * _CHARGE_STEP_BYTES - self._charged_bytes
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
        self._charged_bytes += more_bytes
