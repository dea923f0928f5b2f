"""The interface of a gRPC server's methods, for both servers: a message, the call, and a callback for the answer."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import grpc

__all__ = ["Aborted", "Call", "Method", "OpenStreaming", "Reply", "StreamingMethod", "Writer", "binary_text"]


class Aborted(Exception):  # noqa: N818 - an answer, not a bug
    """Ends the call with this status. ``details``: an encoded google.rpc.Status for ``grpc-status-details-bin``."""

    def __init__(self, code: grpc.StatusCode, message: str, *, reason: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """A constant word for counters."""
        self.details = details


class Call:
    """What is known of a caller. Equal calls may share one object, so it holds nothing that concerns a single call."""

    __slots__ = ("_metadata", "_read_metadata", "cached", "claims", "is_local")

    def __init__(
        self,
        is_local: bool | None,
        read_metadata: Callable[[], Mapping[str, tuple[str, ...]]],
        claims: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.is_local = is_local
        """Whether the caller is on this machine; None: unknown."""
        self.claims = claims
        """What the authenticator found out about the caller."""
        self.cached: Any = None
        """For the method: something derived from this object that it wants to find again."""
        self._read_metadata = read_metadata
        self._metadata: Mapping[str, tuple[str, ...]] | None = None

    @property
    def metadata(self) -> Mapping[str, tuple[str, ...]]:
        """Lower-case name → values; values of binary names (``-bin``) are converted by :func:`binary_text`."""
        if self._metadata is None:
            self._metadata = self._read_metadata()
        return self._metadata


Reply: TypeAlias = Callable[[bytes | Exception], None]
"""Called once, at any time, with the encoded response, an :class:`Aborted`, or an error of ours (INTERNAL, logged)."""

Method: TypeAlias = Callable[[bytes, Call, Reply], None]
"""A unary method, called with the encoded request, the call, and the callback for the answer. May raise the answer."""


class Writer(Protocol):
    """Sends the responses of a streaming method."""

    def send(self, message: bytes) -> None:
        """Send one message; does nothing if the client is gone."""
        ...

    def finish(self, failure: Aborted | None = None) -> None:
        """End the call, with OK or a failure."""
        ...


class StreamingMethod(Protocol):
    """One call of a streaming method. An :class:`Aborted` raised by it ends the call."""

    def received(self, message: bytes) -> None:
        """Handle a message from the client."""
        ...

    def ended(self) -> None:
        """The client sends no more messages."""
        ...

    def closed(self) -> None:
        """The call is over, however it ended."""
        ...


OpenStreaming: TypeAlias = Callable[[Call, Writer], StreamingMethod]
"""Starts a call of a streaming method."""


def binary_text(value: bytes) -> str:
    """Return a binary metadata value as text, in base64 if it is not UTF-8: contexts hold text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
