"""What a gRPC server's methods see, over whichever transport: a message, the call, and whom to tell the answer."""

import base64
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import grpc

__all__ = ["Aborted", "Call", "Method", "OpenStreaming", "Reply", "StreamingMethod", "Writer", "binary_text"]


class Aborted(Exception):  # noqa: N818 - an answer, not a fault
    """The call ends with this status; ``details``: an encoded google.rpc.Status for ``grpc-status-details-bin``."""

    def __init__(self, code: grpc.StatusCode, message: str, *, reason: str, details: bytes = b"") -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        """A constant word for counters."""
        self.details = details


class Call:
    """What is known of a caller. A server may give equal calls one and the same object, so nothing in it is of one call alone."""

    __slots__ = ("_metadata", "_read", "claims", "is_local", "kept")

    def __init__(
        self,
        is_local: bool | None,
        read: Callable[[], Mapping[str, tuple[str, ...]]],
        claims: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.is_local = is_local
        """The caller is on this machine; None: unknown."""
        self.claims = claims
        """What the authenticator says of the caller."""
        self.kept: Any = None
        """For the method: what it derived from this object and wants to find again."""
        self._read = read
        self._metadata: Mapping[str, tuple[str, ...]] | None = None

    @property
    def metadata(self) -> Mapping[str, tuple[str, ...]]:
        """Lower-case name → values; those of binary names (``-bin``) as :func:`binary_text` has them."""
        if self._metadata is None:
            self._metadata = self._read()
        return self._metadata


Reply: TypeAlias = Callable[[bytes | Exception], None]
"""Told once, at any time: the encoded response, an :class:`Aborted`, or an error of our own (INTERNAL, logged)."""

Method: TypeAlias = Callable[[bytes, Call, Reply], None]
"""A unary method: the encoded request, the call, and whom to tell the answer. What it raises is an answer, too."""


class Writer(Protocol):
    """Where a streaming method's answers go."""

    def send(self, message: bytes) -> None:
        """One message; nothing where the client is gone."""
        ...

    def finish(self, failure: Aborted | None = None) -> None:
        """The end of the call: OK or a failure."""
        ...


class StreamingMethod(Protocol):
    """One call of a streaming method. What it raises ends the call."""

    def received(self, message: bytes) -> None:
        """A message of the client."""
        ...

    def ended(self) -> None:
        """The client sends no more."""
        ...

    def closed(self) -> None:
        """The call is over, however it ended."""
        ...


OpenStreaming: TypeAlias = Callable[[Call, Writer], StreamingMethod]
"""Begins a call of a streaming method."""


def binary_text(value: bytes) -> str:
    """The text that a binary metadata value is, in base64 where it is none: contexts hold text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return base64.b64encode(value).decode()
