"""Creates the sessions of servers and clients, with the windows, frame sizes and header limits that we configure."""

from typing import Final

from collector.transport.http2 import nghttp2
from collector.transport.http2.codes import ErrorCode, Setting
from collector.transport.http2.session import Session

__all__ = ["MAX_FRAME_BYTES", "client_session", "goaway_frame", "require_http2", "server_session"]

MAX_FRAME_BYTES: Final = 1024 * 1024  # fewer, larger frames: 220 KB in one frame cost a third of 16 KiB frames
_STREAM_WINDOW_BYTES: Final = 8 * 1024 * 1024  # the largest usual request, without waiting for WINDOW_UPDATE
_CONNECTION_WINDOW_BYTES: Final = 32 * 1024 * 1024
_RESPONSE_WINDOW_BYTES: Final = 4 * 1024 * 1024  # responses are small
_MAX_HEADER_BYTES: Final = 64 * 1024
_MAX_HEADER_COUNT: Final = 128


def require_http2(key: str) -> None:
    """Check that libnghttp2 is available. ``key``: path of the block that configures the transport.

    Raises:
        MissingLibraryError: it is not available; the message says how to fix that.
    """
    try:
        nghttp2.version()
    except nghttp2.MissingLibraryError as exc:
        raise nghttp2.MissingLibraryError(f"{key}::transport: {exc}, or set transport to grpcio") from exc


def goaway_frame(error_code: ErrorCode, last_stream_id: int) -> bytes:
    """Return a GOAWAY frame, for telling the peer why it is cut off after an ``HTTP2Error`` has ended the session.

    Streams up to ``last_stream_id`` may have been processed (RFC 9113 §6.8).
    """
    payload = last_stream_id.to_bytes(4, "big") + int(error_code).to_bytes(4, "big")
    return b"\x00\x00\x08\x07\x00" + bytes(4) + payload


def server_session(
    *, max_message_bytes: int, max_concurrent_streams: int, max_header_bytes: int, cut_off_bytes: int
) -> Session:
    """Return the server's end of a new connection; its SETTINGS are ready to be sent.

    ``max_header_bytes`` is announced to the peer; a header block above ``cut_off_bytes`` ends the connection.
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


def client_session(*, max_message_bytes: int) -> Session:
    """Return the client's end of a new connection; its preface and SETTINGS are ready to be sent."""
    return Session(
        is_client=True,
        settings={
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: _RESPONSE_WINDOW_BYTES,
            Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES,
            Setting.MAX_HEADER_LIST_SIZE: _MAX_HEADER_BYTES,
        },
        max_message_bytes=max_message_bytes,
        max_header_bytes=_MAX_HEADER_BYTES,
        max_header_count=_MAX_HEADER_COUNT,
        max_sent_header_bytes=_MAX_HEADER_BYTES,
    )
