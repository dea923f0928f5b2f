"""The peer of the HTTP/2 connections under test: libnghttp2 through the binding ``ngh2``, without any code of ours.

Bytes in, events out, bytes out: ``receive_data``, ``events``, ``data_to_send``. Windows, frame size and limits are
those of a careful peer, large enough that no test waits for WINDOW_UPDATE unintentionally.
"""

from typing import Final

from ngh2 import (
    Configuration,
    Connection,
    DataReceived,
    ErrorCode,
    GoAwayReceived,
    PingReceived,
    RequestReceived,
    ResponseReceived,
    Role,
    Setting,
    SettingsReceived,
    StreamReset,
    TrailersReceived,
)

__all__ = [
    "Connection",
    "DataReceived",
    "ErrorCode",
    "GoAwayReceived",
    "PingReceived",
    "RequestReceived",
    "ResponseReceived",
    "Setting",
    "SettingsReceived",
    "StreamReset",
    "TrailersReceived",
    "client",
    "seconds_of",
    "server",
]

_UNITS_S: Final = {b"n": 1e-9, b"u": 1e-6, b"m": 1e-3, b"S": 1.0, b"M": 60.0, b"H": 3600.0}
MAX_HEADER_BYTES: Final = 64 * 1024
MAX_FRAME_BYTES: Final = 1024 * 1024
COMMON_SETTINGS: Final = {Setting.MAX_FRAME_SIZE: MAX_FRAME_BYTES, Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_BYTES}


def client(*, max_sent_header_bytes: int = MAX_HEADER_BYTES, max_frame_bytes: int = MAX_FRAME_BYTES) -> Connection:
    """Return the client's end of a new connection; its preface and SETTINGS are ready to be sent.

    Larger header blocks than ``max_sent_header_bytes`` are refused locally. ``max_frame_bytes``: the largest frame it
    accepts.
    """
    limits = Configuration(
        max_inbound_header_list_size=MAX_HEADER_BYTES,
        max_inbound_header_count=128,
        max_send_header_block_length=max_sent_header_bytes,
        max_outbound_ack=128,
        max_reserved_remote_streams=0,
        glitch_rate_limit=(1000, 100),  # burst, per second
    )
    connection = Connection(Role.CLIENT, limits)
    connection.initiate_connection(
        {
            Setting.ENABLE_PUSH: 0,
            Setting.INITIAL_WINDOW_SIZE: 4 * 1024 * 1024,
            **COMMON_SETTINGS,
            Setting.MAX_FRAME_SIZE: max_frame_bytes,
        }
    )
    return connection


def server(*, max_concurrent_streams: int | None = None) -> Connection:
    """Return the server's end of a new connection; its SETTINGS are ready to be sent."""
    limits = Configuration(
        max_inbound_header_list_size=MAX_HEADER_BYTES,
        max_inbound_header_count=128,
        max_send_header_block_length=MAX_HEADER_BYTES,
        max_outbound_ack=128,
        stream_reset_rate_limit=(200, 50),
        glitch_rate_limit=(1000, 100),
    )
    connection = Connection(Role.SERVER, limits)
    settings = {Setting.INITIAL_WINDOW_SIZE: 8 * 1024 * 1024, **COMMON_SETTINGS}
    if max_concurrent_streams is not None:
        settings[Setting.MAX_CONCURRENT_STREAMS] = max_concurrent_streams
    connection.initiate_connection(settings)
    connection.set_local_window_size(32 * 1024 * 1024)
    return connection


def seconds_of(timeout: bytes) -> float:
    """Return the seconds of a well-formed ``grpc-timeout``."""
    return int(timeout[:-1]) * _UNITS_S[timeout[-1:]]
