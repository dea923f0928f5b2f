"""The ends of HTTP/2 connections as we configure them: windows, frame sizes, the bounds of headers; and the protocol's numbers.

Source: RFC 9113 §6.5.2, §7.
"""

from enum import IntEnum
from typing import Final

from collector.transport.http2 import nghttp2
from collector.transport.http2.session import Session

__all__ = ["MAX_FRAME_BYTES", "ErrorCode", "Setting", "client", "goaway", "require", "server"]

MAX_FRAME_BYTES: Final = 1024 * 1024  # fewer, larger frames: 220 KB in one costs a third of 16 KiB frames
_STREAM_WINDOW_BYTES: Final = 8 * 1024 * 1024  # a request of the largest usual size without waiting for WINDOW_UPDATE
_CONNECTION_WINDOW_BYTES: Final = 32 * 1024 * 1024
_ANSWER_WINDOW_BYTES: Final = 4 * 1024 * 1024  # answers are small; a server that streams more is cut off by its taker
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADER_COUNT: Final = 128


class ErrorCode(IntEnum):
    """RFC 9113 §7."""

    NO_ERROR = 0x00
    PROTOCOL_ERROR = 0x01
    INTERNAL_ERROR = 0x02
    FLOW_CONTROL_ERROR = 0x03
    SETTINGS_TIMEOUT = 0x04
    STREAM_CLOSED = 0x05
    FRAME_SIZE_ERROR = 0x06
    REFUSED_STREAM = 0x07
    CANCEL = 0x08
    COMPRESSION_ERROR = 0x09
    CONNECT_ERROR = 0x0A
    ENHANCE_YOUR_CALM = 0x0B
    INADEQUATE_SECURITY = 0x0C
    HTTP_1_1_REQUIRED = 0x0D


class Setting(IntEnum):
    """RFC 9113 §6.5.2."""

    HEADER_TABLE_SIZE = 0x01
    ENABLE_PUSH = 0x02
    MAX_CONCURRENT_STREAMS = 0x03
    INITIAL_WINDOW_SIZE = 0x04
    MAX_FRAME_SIZE = 0x05
    MAX_HEADER_LIST_SIZE = 0x06


def require(key: str) -> None:
    """Find out whether HTTP/2 can be spoken here. ``key``: where the transport is configured.

    Raises:
        MissingLibraryError: it cannot; the message says what to do.
    """
    try:
        nghttp2.version()
    except nghttp2.MissingLibraryError as exc:
        raise nghttp2.MissingLibraryError(f"{key}::transport: {exc}; or write grpcio") from exc


def goaway(error_code: ErrorCode) -> bytes:
    """A GOAWAY frame: after an ``EngineError`` the session says nothing any more, and the peer should know why it is cut off."""
    return b"\x00\x00\x08\x07\x00" + bytes(8) + int(error_code).to_bytes(4, "big")


def server(
    *, max_message_bytes: int, max_concurrent_streams: int, max_header_bytes: int, cut_off_bytes: int
) -> Session:
    """The server's end of a new connection; its SETTINGS are ready to be sent.

    ``max_header_bytes`` is what the peer is told, ``cut_off_bytes`` is where the connection ends.
    """
    return Session(
        is_client=False,
        settings={
            Setting.INITIAL_WINDOW_SIZE: _STREAM_WINDOW_BYTES,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: max_header_bytes,
            Setting.MAX_CONCURRENT_STREAMS: max_concurrent_streams,
        },
        max_message_bytes=max_message_bytes,
        max_header_bytes=cut_off_bytes,
        max_header_count=_MAX_HEADER_COUNT,
        max_sent_header_bytes=max_header_bytes,
        connection_window_bytes=_CONNECTION_WINDOW_BYTES,
    )


def client(*, max_message_bytes: int) -> Session:
    """The client's end of a new connection; preface and SETTINGS are ready to be sent."""
    return Session(
        is_client=True,
        settings={
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: _ANSWER_WINDOW_BYTES,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
        },
        max_message_bytes=max_message_bytes,
        max_header_bytes=_MAX_HEADER_BYTES,
        max_header_count=_MAX_HEADER_COUNT,
        max_sent_header_bytes=_MAX_HEADER_BYTES,
    )
