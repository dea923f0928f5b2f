"""The status of a failed call, and what it means to a queue. The same for both transports.

Source: OTLP specification "Failures" and "OTLP/gRPC Throttling"; gRPC's doc/statuscodes.md and doc/PROTOCOL-HTTP2.md
    "Errors".
"""

from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed

from collector.transport.http2.codes import ErrorCode

__all__ = ["RETRYABLE_CODES", "CallError", "code_from_reset", "retry_delay_s"]

RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""OTLP specification. RESOURCE_EXHAUSTED is retryable as well, if the server sends RetryInfo."""

_MAX_DETAILS_BYTES: Final = 64 * 1024
_MAX_RETRY_AFTER_S: Final = 24 * 3600.0
_RESETS: Final = {
    ErrorCode.REFUSED_STREAM: grpc.StatusCode.UNAVAILABLE,
    ErrorCode.CANCEL: grpc.StatusCode.CANCELLED,
    ErrorCode.ENHANCE_YOUR_CALM: grpc.StatusCode.RESOURCE_EXHAUSTED,
    ErrorCode.INADEQUATE_SECURITY: grpc.StatusCode.PERMISSION_DENIED,
}


class CallError(Exception):
    """A call ended with a status other than OK. :meth:`GRPCClient.error` converts it for a queue."""

    def __init__(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        super().__init__(f"{code.name}: {text}")
        self.code = code
        self.text = text
        self.details = details
        """``grpc-status-details-bin``: an encoded google.rpc.Status."""


def code_from_reset(error_code: int) -> grpc.StatusCode:
    """Return the status of a stream that was reset without one."""
    try:
        return _RESETS.get(ErrorCode(error_code), grpc.StatusCode.INTERNAL)
    except ValueError:
        return grpc.StatusCode.UNKNOWN


def retry_delay_s(details: bytes) -> float | None:
    """Return the ``retry_delay`` of the RetryInfo in an encoded google.rpc.Status, a day at most; None without one."""
    if not details or len(details) > _MAX_DETAILS_BYTES:
        return None
    try:
        status = status_pb2.Status.FromString(details)
        for detail in status.details:
            if detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
                info = error_details_pb2.RetryInfo.FromString(detail.value)
                delay_s = float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
                return min(max(delay_s, 0.0), _MAX_RETRY_AFTER_S)
    except DecodeError:
        pass
    return None
