"""What both gRPC servers share: endpoint and port, message limit, authenticator, memory budget, answers to errors."""

from collections.abc import Callable
from typing import Any, Final

import grpc
from google.rpc import error_details_pb2, status_pb2  # type: ignore[import-untyped] # no py.typed

from collector.api import Admission, Clock, Host, RetryableError, out_of_memory
from collector.transport.auth import Authenticate, find_authenticator
from collector.transport.compression import BadEncoding, TooLarge
from collector.transport.endpoint import Endpoint, LocalAddresses
from collector.transport.error_log import ErrorLog
from collector.transport.grpc.method import Aborted, Method
from collector.transport.listener import bound_address
from config.blocks import GRPCServerConfig

__all__ = ["LEAVE_LOOP_FROM_BYTES", "ON_LOOP_MAX_BYTES", "RESERVE_FROM_BYTES", "BaseGRPCServer", "max_message_bytes"]

RESERVE_FROM_BYTES: Final = 8 * 1024
"""Compressed messages below this size are decompressed without a reservation in the memory budget."""
LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024
"""Compressed messages from this size on are decompressed in a thread."""
ON_LOOP_MAX_BYTES: Final = 4 * 1024 * 1024
"""Messages that are larger once decompressed are decompressed in a thread as well."""
_DEFAULT_MAX_MESSAGE_MIB: Final = 64  # opentelemetry-proto docs/specification.md, "Message Size Limits"
_MIB: Final = 1024 * 1024
_EXPANSION_GUESS: Final = 8


class BaseGRPCServer:
    """A gRPC server that ``config`` describes. ``key``: path of the configuration block, for messages.

    ``on_refused`` is called with the reason of every call that ends with an error, and ``on_unread`` with method and
    reason of a call whose message could not be read.
    """

    def __init__(
        self,
        config: GRPCServerConfig,
        *,
        key: str,
        addresses: LocalAddresses,
        clock: Clock,
        log: Any,
        on_refused: Callable[[str], None],
        on_unread: Callable[[Method, str], None] | None = None,
    ) -> None:
        self.max_bytes = max_message_bytes(config)
        """The limit of a message, compressed as well as decompressed."""
        self.port = 0
        """The port it listens on; 0 before ``start`` and for a Unix socket."""
        self._config = config
        self._key = key
        self._addresses = addresses
        self._on_refused = on_refused
        self._on_unread = on_unread
        self._endpoint = Endpoint.parse(config.endpoint, unix=config.transport == "unix")
        self._authenticate: Authenticate | None = None
        self._admission: Admission | None = None
        self._log_error = ErrorLog(
            log, clock, "a call failed inside the server and was answered with INTERNAL", config=key
        )

    @property
    def address(self) -> str:
        """Where it listens, with the port that was bound."""
        return bound_address(self._endpoint, self.port)

    def over_budget(self, error: RetryableError) -> Aborted:
        """Return the answer to a request for which there is no memory."""
        return Aborted(grpc.StatusCode.UNAVAILABLE, str(error), reason=error.reason, details=_retry_details(error))

    def note_unread(self, method: Method, error: Exception) -> None:
        """Report that the message for ``method`` was refused with ``error`` before it was read."""
        if self._on_unread is not None and isinstance(error, Aborted):
            self._on_unread(method, error.reason)

    def _open(self, host: Host) -> None:
        """Find the memory budget and the authenticator.

        Raises:
            ValueError: there is no such authenticator.
        """
        self._admission = host.admission
        self._authenticate = find_authenticator(host, self._config.auth, self._key)

    def _counted(self, error: Exception) -> Aborted:
        """Return the answer to ``error``, counted. Other errors are our fault: INTERNAL, and logged."""
        if isinstance(error, MemoryError):
            error = self.over_budget(out_of_memory())
        elif not isinstance(error, Aborted):
            self._log_error(error)
            error = Aborted(grpc.StatusCode.INTERNAL, "internal error", reason="internal")
        self._on_refused(error.reason)
        return error

    def _decompressed_bytes_guess(self, message: bytes) -> int:
        """How much to reserve while ``message`` is decompressed."""
        return min(len(message) * _EXPANSION_GUESS, self.max_bytes)

    def _decompression_failure(self, error: BaseException) -> Exception:
        """Return the answer to a message that could not be decompressed."""
        if isinstance(error, TooLarge):
            text = f"grpc: received message after decompression larger than max {self.max_bytes}"
            return Aborted(grpc.StatusCode.RESOURCE_EXHAUSTED, text, reason="too_large")
        if isinstance(error, BadEncoding):
            return Aborted(grpc.StatusCode.INVALID_ARGUMENT, str(error), reason="encoding")
        if isinstance(error, MemoryError):
            error = out_of_memory()
        if isinstance(error, RetryableError):
            return self.over_budget(error)
        return RuntimeError(f"decompressing failed: {error!r}")


def max_message_bytes(config: GRPCServerConfig) -> int:
    """Return ``max_recv_msg_size_mib`` in bytes, or the 64 MiB that OTLP recommends."""
    return (config.max_recv_msg_size_mib or _DEFAULT_MAX_MESSAGE_MIB) * _MIB


def _retry_details(error: RetryableError) -> bytes:
    """Return a google.rpc.Status with RetryInfo; empty if ``error`` does not say when to retry."""
    if error.retry_after_s is None:
        return b""
    retry = error_details_pb2.RetryInfo()
    retry.retry_delay.FromNanoseconds(round(error.retry_after_s * 1e9))
    status = status_pb2.Status(code=grpc.StatusCode.UNAVAILABLE.value[0], message=str(error))
    status.details.add().Pack(retry)
    return bytes(status.SerializeToString())
