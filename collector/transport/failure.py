"""Why a request of any protocol was not accepted: as a gRPC status, as an HTTP status, and as google.rpc.Status.

Source: google/rpc/{status,code,error_details}.proto; the Collector's receiver/otlpreceiver/internal/errors/errors.go
for the code of each error.
"""

import math
from dataclasses import dataclass
from typing import Any, Final

import grpc
import orjson

from collector.api import ConsumeError, PermanentError, RetryableError
from collector.model import MalformedBatch
from collector.wire.protobuf import bytes_field, field, number_field, text_field

__all__ = ["UNREAD_REASONS", "WHOLE_REQUEST", "Failure", "failure_of", "printable"]

UNREAD_REASONS: Final = frozenset({"memory_limit", "too_large"})
"""Why a request is refused although its content is valid: unlike an invalid one, it counts in the ledger."""

WHOLE_REQUEST: Final = "request"
"""The field of a BadRequest whose error is not in one field, such as a syntax error."""

_MAX_MESSAGE_CHARS: Final = 1024  # gRPC sends the message as a header; longer ones are cut
_RETRY_INFO: Final = "type.googleapis.com/google.rpc.RetryInfo"
_BAD_REQUEST: Final = "type.googleapis.com/google.rpc.BadRequest"
# Source: errors.go GetHTTPStatusCodeFromStatus.
_HTTP_STATUS: Final = {
    grpc.StatusCode.CANCELLED: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 503,
    grpc.StatusCode.ABORTED: 503,
    grpc.StatusCode.OUT_OF_RANGE: 503,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 503,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNIMPLEMENTED: 404,
}


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a request was not accepted, in the terms of both protocols."""

    code: grpc.StatusCode
    message: str
    reason: str
    """A constant word for metrics."""
    retry_after_s: float | None = None
    field: str = ""
    """Path of the invalid field; ``request`` for the request as a whole."""

    @property
    def http_status(self) -> int:
        """The HTTP status that corresponds to the code."""
        return _HTTP_STATUS.get(self.code, 500)

    @property
    def retry_after_header(self) -> str:
        """The value of ``Retry-After`` in whole seconds; empty if there is no delay to announce."""
        return "" if self.retry_after_s is None else str(max(math.ceil(self.retry_after_s), 0))

    @staticmethod
    def _delay(seconds: float) -> tuple[int, int]:
        """(seconds, nanoseconds), the fields of google.protobuf.Duration."""
        return divmod(round(max(seconds, 0.0) * 1e9), 1_000_000_000)

    def status_proto(self) -> bytes:
        """google.rpc.Status with RetryInfo or BadRequest, as protobuf."""
        out = number_field(1, self.code.value[0]) + text_field(2, self.message)
        if self.retry_after_s is not None:
            seconds, nanos = self._delay(self.retry_after_s)
            duration = number_field(1, seconds) + number_field(2, nanos)
            out += bytes_field(3, text_field(1, _RETRY_INFO) + bytes_field(2, field(b"\x0a", duration)))
        if self.field:
            violation = text_field(1, self.field) + text_field(2, self.message)
            out += bytes_field(3, text_field(1, _BAD_REQUEST) + bytes_field(2, bytes_field(1, violation)))
        return out

    def status_json(self) -> bytes:
        """google.rpc.Status with RetryInfo or BadRequest, in protobuf's JSON mapping."""
        status: dict[str, Any] = {"code": self.code.value[0], "message": self.message}
        if self.retry_after_s is not None:
            status["details"] = [
                {"@type": _RETRY_INFO, "retryDelay": "{}.{:09}s".format(*self._delay(self.retry_after_s))}
            ]
        if self.field:
            status["details"] = [
                {"@type": _BAD_REQUEST, "fieldViolations": [{"field": self.field, "description": self.message}]}
            ]
        return orjson.dumps(status)


def failure_of(error: MalformedBatch | ConsumeError) -> Failure:
    """The response to a request that failed with ``error``."""
    message = printable(str(error))
    if isinstance(error, MalformedBatch):
        path = printable(error.path) or WHOLE_REQUEST
        return Failure(grpc.StatusCode.INVALID_ARGUMENT, message, "malformed", field=path)
    if isinstance(error, RetryableError):
        return Failure(grpc.StatusCode.UNAVAILABLE, message, error.reason, retry_after_s=error.retry_after_s)
    if isinstance(error, PermanentError):
        return Failure(grpc.StatusCode.INTERNAL, message, error.reason)
    # The Collector's rule: a request may be sent again unless the error is permanent.
    return Failure(grpc.StatusCode.UNAVAILABLE, message, error.reason)


def printable(text: str) -> str:
    """``text`` cut to a bounded length and valid in UTF-8, whatever the request contained."""
    return text[:_MAX_MESSAGE_CHARS].encode("utf-8", "replace").decode()
