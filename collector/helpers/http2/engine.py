"""HTTP/2 without I/O: libnghttp2 through the binding ``ngh2``, behind the few methods we use. No other module imports the binding.

Bytes in, events out, bytes out. Limits against hostile peers that libnghttp2 keeps itself (floods of SETTINGS, PING, RST_STREAM and
CONTINUATION, header blocks, "glitches") are set here; what an event costs its taker is the taker's to bound.

Source: RFC 9113; nghttp2's programmers' guide and ``nghttp2_option``.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Protocol

from ngh2 import (
    Configuration,
    ConnectionClosed,
    DataReceived,
    DenialOfServiceError,
    ErrorCode,
    Event,
    GoAwayReceived,
    NGH2Error,
    PingAcknowledged,
    PingReceived,
    RequestReceived,
    ResponseReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamClosed,
    StreamReset,
    TrailersReceived,
)
from ngh2 import Connection as _Connection

__all__ = [
    "MAX_FRAME_BYTES",
    "Connection",
    "ConnectionClosed",
    "DataReceived",
    "EngineError",
    "ErrorCode",
    "Event",
    "FloodError",
    "GoAwayReceived",
    "PingAcknowledged",
    "PingReceived",
    "RequestReceived",
    "ResponseReceived",
    "Setting",
    "SettingsReceived",
    "StreamClosed",
    "StreamReset",
    "TrailersReceived",
    "client",
    "goaway",
    "server",
]

EngineError = NGH2Error
"""The peer broke the protocol or a limit: the connection is of no further use, close it. Or a stream is gone (on sending)."""

FloodError = DenialOfServiceError
"""An EngineError: a limit against hostile peers was passed."""

MAX_FRAME_BYTES: Final = 1024 * 1024  # fewer, larger frames: 220 KB in one costs a third of 16 KiB frames
_STREAM_WINDOW_BYTES: Final = 8 * 1024 * 1024  # a request of the largest usual size without waiting for WINDOW_UPDATE
_CONNECTION_WINDOW_BYTES: Final = 32 * 1024 * 1024

Headers = Iterable[tuple[bytes, bytes]]


class Connection(Protocol):
    """What we use of the binding. After an :class:`EngineError` from ``receive_data`` nothing may be called any more."""

    def receive_data(self, data: bytes | bytearray | memoryview) -> None:
        """Take what was read. ``data`` is not kept.

        Raises:
            EngineError: a connection error; ``data_to_send`` has no GOAWAY then.
        """
        ...

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        ...

    def data_to_send(self, amount: int | None = None) -> bytes:
        """What is to be written; everything that flow control allows, or at most ``amount`` bytes."""
        ...

    def send_request(self, headers: Headers, *, end_stream: bool = False) -> int:
        """Open a stream; its id. Queued by the engine where the peer's MAX_CONCURRENT_STREAMS is reached."""
        ...

    def send_response(self, stream_id: int, headers: Headers, *, end_stream: bool = False) -> None:
        """The head of the response."""
        ...

    def send_informational_response(self, stream_id: int, headers: Headers) -> None:
        """100 Continue and its like, before the response."""
        ...

    def send_data(self, stream_id: int, data: bytes | bytearray | memoryview, *, end_stream: bool = False) -> None:
        """Queue body bytes; they leave with ``data_to_send`` as the peer's windows allow."""
        ...

    def send_trailers(self, stream_id: int, headers: Headers) -> None:
        """The end of the stream."""
        ...

    def end_stream(self, stream_id: int) -> None:
        """The end of the stream, without trailers."""
        ...

    def reset_stream(self, stream_id: int, error_code: int = 0x08) -> None:
        """RST_STREAM, CANCEL by default."""
        ...

    def ping(self, opaque_data: bytes = ...) -> None:
        """PING with 8 bytes."""
        ...

    def send_goaway(self, error_code: int = 0, *, last_stream_id: int | None = None, debug_data: bytes = b"") -> None:
        """GOAWAY; streams up to ``last_stream_id`` go on."""
        ...

    def send_shutdown_notice(self) -> None:
        """The first, harmless GOAWAY of a graceful shutdown (last stream id 2^31-1)."""
        ...

    def terminate_connection(self, error_code: int = 0, *, last_stream_id: int | None = None) -> None:
        """GOAWAY, and nothing after it."""
        ...

    def queued_body_size(self, stream_id: int | None = None) -> int:
        """Body bytes that wait for the peer's window: of a stream, or of all."""
        ...

    @property
    def want_read(self) -> bool:
        """False with ``want_write`` False: the connection is over."""
        ...

    @property
    def want_write(self) -> bool:
        """Something is to be sent now."""
        ...


def goaway(error_code: ErrorCode) -> bytes:
    """A GOAWAY frame: after an :class:`EngineError` the engine says nothing any more, and the peer should know why it is cut off."""
    return b"\x00\x00\x08\x07\x00" + bytes(8) + int(error_code).to_bytes(4, "big")


def server(
    *, max_concurrent_streams: int = 0, max_header_bytes: int = 64 * 1024, cut_off_bytes: int = 0, max_header_count: int = 128
) -> Connection:
    """The server's end of a new connection; its SETTINGS are ready to be sent.

    ``max_concurrent_streams`` 0: no limit of ours. ``max_header_bytes`` is what the peer is told, ``cut_off_bytes`` (the same with 0)
    and ``max_header_count`` are where the connection ends.
    """
    connection = _Connection(
        Role.SERVER,
        Configuration(
            max_inbound_header_list_size=cut_off_bytes or max_header_bytes,
            max_inbound_header_count=max_header_count,
            max_send_header_block_length=max_header_bytes,
            max_outbound_ack=128,
            stream_reset_rate_limit=(200, 50),  # burst, a second: clients that give up calls stay below, rapid reset does not
            glitch_rate_limit=(1000, 100),
        ),
    )
    settings = {
        Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
        Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: max_header_bytes,
    }
    if max_concurrent_streams:
        settings[Setting.MAX_CONCURRENT_STREAMS] = max_concurrent_streams
    connection.initiate_connection(settings)
    connection.set_local_window_size(_CONNECTION_WINDOW_BYTES)
    return connection


def client(*, max_header_bytes: int = 64 * 1024, max_header_count: int = 128) -> Connection:
    """The client's end of a new connection; preface and SETTINGS are ready to be sent."""
    connection = _Connection(
        Role.CLIENT,
        Configuration(
            max_inbound_header_list_size=max_header_bytes,
            max_inbound_header_count=max_header_count,
            max_send_header_block_length=max_header_bytes,
            max_outbound_ack=128,
            max_reserved_remote_streams=0,
            glitch_rate_limit=(1000, 100),
        ),
    )
    settings: Mapping[Setting, int] = {
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: 4 * 1024 * 1024,  # answers are small; a server that streams more is cut off by its taker
        Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
        Setting.MAX_HEADER_LIST_SIZE: max_header_bytes,
    }
    connection.initiate_connection(settings)
    return connection
