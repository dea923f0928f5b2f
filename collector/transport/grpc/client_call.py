"""One unary call of a client: what it sends, and the response or status it ends with. It knows no sockets.

A call is settled once: by its response, by the end of its stream or connection, by its deadline, or by its caller.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol, Self

import grpc

from collector.transport.grpc.status import CallError
from collector.transport.http2.header_fields import HeaderFields

__all__ = ["ENCODINGS", "MAX_RESPONSE_BYTES", "CallConnection", "ClientCall", "UnusableResponse"]

ENCODINGS: Final = {"gzip": "gzip", "zstd": "zstd", "snappy": "x-snappy-framed"}
"""``grpc-encoding`` → the name in ``collector.transport.compression``.

gRPC's snappy is the framed format (mostynb/go-grpc-compression).
"""
MAX_RESPONSE_BYTES: Final = 4 * 1024 * 1024


class UnusableResponse(bytes):
    """An empty message in place of the response to a call that ended with OK but without exactly one valid message."""

    problem: str

    def __new__(cls, problem: str) -> Self:
        """``problem``: what is wrong with the response."""
        response = super().__new__(cls)
        response.problem = problem
        return response


class CallConnection(Protocol):
    """The connection that a call was started on."""

    def cancel(self, call: "ClientCall") -> None:
        """Reset the call's stream: its response is not wanted any more."""
        ...


class ClientCall:
    """What one call sends and has received. ``on_done`` is called once, with the response or a :class:`CallError`."""

    __slots__ = (
        "_on_done",
        "connection",
        "deadline_s",
        "encoding",
        "fields",
        "ignored_bytes",
        "is_answered",
        "is_retried",
        "is_settled",
        "message",
        "message_header",
        "problem",
        "response",
        "status",
        "stream_id",
        "timeout_s",
    )

    def __init__(
        self, on_done: Callable[[bytes | CallError], None], fields: HeaderFields, message_header: bytes, message: bytes
    ) -> None:
        self._on_done = on_done
        self.is_settled = False
        """``on_done`` was called, or the caller has cancelled."""
        self.fields = fields
        self.message_header = message_header
        """The five bytes before the message."""
        self.message = message
        self.timeout_s: float | None = None
        self.deadline_s: float | None = None
        """On the loop's clock."""
        self.is_retried = False
        self.connection: CallConnection | None = None
        self.stream_id = 0
        self.reset_response()

    def reset_response(self) -> None:
        """Forget what was received."""
        self.response: bytes | None = None
        self.problem = ""
        """What is wrong with the response message; even if its status is OK."""
        self.ignored_bytes = 0
        """Received after the problem was found."""
        self.encoding = b""
        self.is_answered = False
        self.status: CallError | None = None

    def settle(self, outcome: bytes | CallError) -> None:
        """Call ``on_done``, unless the call is settled. An error in it does not affect other calls."""
        if self.is_settled:
            return
        self.is_settled = True
        try:
            self._on_done(outcome)
        except Exception as error:  # noqa: BLE001 - as with asyncio's callbacks
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the callback of a gRPC call failed", "exception": error}
            )

    def fail(self, code: grpc.StatusCode, text: str, details: bytes = b"") -> None:
        """Settle with a status."""
        self.settle(CallError(code, text, details))
