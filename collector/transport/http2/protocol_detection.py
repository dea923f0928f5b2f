"""Finds out whether a client speaks HTTP/2 or HTTP/1.1 on a port that serves both, by ALPN or by its first bytes.

Source: RFC 9113 §3.3 (prior knowledge) and §3.4 (the preface); RFC 7301.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from collector.transport.http2.protocol import HTTP2Protocol

__all__ = ["PREFACE_TIMEOUT_S", "HTTP1Protocol", "ProtocolDetector"]

PREFACE_TIMEOUT_S: Final = 20.0
"""How long a client may take to show which protocol it speaks and, over HTTP/2, to send its SETTINGS."""
_PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_BUFFER_BYTES: Final = 1024


class HTTP1Protocol(Protocol):
    """An HTTP/1.1 connection that can take over from another protocol."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        ...

    def feed(self, data: memoryview | bytes) -> None:
        """Process bytes that were read already."""
        ...


class ProtocolDetector(asyncio.BufferedProtocol):
    """The protocol of a connection until it is known what the client speaks; a member of ``undecided`` until then.

    ``on_closed`` is called with the reason when a client does not show its protocol in time and is cut off.
    """

    __slots__ = ("_buffer", "_http1", "_http2", "_length", "_on_closed", "_timer", "_transport", "_undecided")

    def __init__(
        self,
        http2: Callable[[], HTTP2Protocol],
        http1: Callable[[], HTTP1Protocol],
        undecided: "set[ProtocolDetector]",
        on_closed: Callable[[str], None],
    ) -> None:
        self._undecided = undecided
        self._http2 = http2
        self._http1 = http1
        self._on_closed = on_closed
        self._buffer = bytearray(_BUFFER_BYTES)
        self._length = 0
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See asyncio."""
        self._transport = transport  # type: ignore[assignment] # of a stream
        tls = transport.get_extra_info("ssl_object")
        agreed = tls.selected_alpn_protocol() if tls is not None else None
        if agreed is not None:
            self._hand_over(is_http2=agreed == "h2")
        else:
            self._undecided.add(self)
            self._timer = asyncio.get_running_loop().call_later(PREFACE_TIMEOUT_S, self._time_out)

    def get_buffer(self, sizehint: int) -> memoryview:
        """See asyncio."""
        del sizehint
        return memoryview(self._buffer)[self._length :]

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        self._length += nbytes
        first_bytes = bytes(self._buffer[: min(self._length, len(_PREFACE))])
        if not _PREFACE.startswith(first_bytes):
            self._hand_over(is_http2=not _may_be_http1(bytes(self._buffer[: self._length])))
        elif len(first_bytes) == len(_PREFACE):
            self._hand_over(is_http2=True)

    def eof_received(self) -> bool:
        """See asyncio."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        del exc
        self._transport = None
        self._stop_waiting()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _hand_over(self, *, is_http2: bool) -> None:
        transport = self._transport
        assert transport is not None
        self._stop_waiting()
        received = bytes(self._buffer[: self._length])
        if is_http2:
            http2 = self._http2()
            transport.set_protocol(http2)  # type: ignore[arg-type] # the compiled base cannot derive from asyncio's
            http2.connection_made(transport)
            if received:
                http2.receive(received)
        else:
            http1 = self._http1()
            transport.set_protocol(http1)  # type: ignore[arg-type] # it is one of asyncio's
            http1.connection_made(transport)
            if received:
                http1.feed(received)

    def _time_out(self) -> None:
        self._timer = None
        self._on_closed("no_preface")
        self.abort()

    def _stop_waiting(self) -> None:
        self._undecided.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _may_be_http1(received: bytes) -> bool:
    """Whether the bytes may begin a request of HTTP/1. If not, HTTP/2 ends the connection for its wrong preface.

    A client of HTTP/2 cannot read a response of HTTP/1.1. Source: RFC 9113 §3.4; RFC 9112 §3 (request line).
    """
    line, end, _ = received.partition(b"\n")
    return not end or (b" HTTP/" in line and not line.startswith(b"PRI "))
