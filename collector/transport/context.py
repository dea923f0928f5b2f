"""The context of a request: what is known about its sender, and travels with its data.

Headers that describe the message or this one delivery are left out. With them no two requests would have equal
contexts, and only data with equal contexts is batched together.
"""

from collections.abc import Mapping
from typing import Final

from collector.model import Context
from collector.text.cache import TextCache
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.method import Call
from collector.transport.http import Request

__all__ = ["ContextCache", "SenderContexts"]

_MESSAGE_HEADERS: Final = frozenset(
    {
        "accept",
        "accept-encoding",
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "date",
        "expect",
        "grpc-accept-encoding",
        "grpc-encoding",
        "grpc-timeout",
        "keep-alive",
        "te",
        "trailer",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "upgrade",
    }
)


class ContextCache:
    """Returns the same object for equal senders, so that comparing contexts is cheap. Its size is bounded."""

    def __init__(self) -> None:
        self._plain = {local: Context(local_peer=local) for local in (None, False, True)}
        self._contexts = TextCache[Context | None](max_entry_bytes=16 * 1024)

    def plain(self, local_peer: bool | None) -> Context:
        """The context of a sender of which neither headers nor claims are kept."""
        return self._plain[local_peer]

    def context(
        self, local_peer: bool | None, metadata: Mapping[str, tuple[str, ...]], claims: tuple[tuple[str, str], ...]
    ) -> Context:
        """The context of a sender with these headers (lower-case names) and claims."""
        kept = tuple(
            sorted(
                (name, values)
                for name, values in metadata.items()
                if name not in _MESSAGE_HEADERS and not name.startswith(":")
            )
        )
        parts = (kept, claims, local_peer)
        context = self._contexts.get(parts, None)
        if context is None:
            context = Context(metadata=kept, claims=claims, local_peer=local_peer)
            self._contexts.put(parts, context)
        return context


class SenderContexts:
    """The contexts of one server's senders. ``include_metadata`` and ``authenticates`` say what is kept of them."""

    def __init__(
        self, cache: ContextCache, addresses: LocalAddresses, *, include_metadata: bool, authenticates: bool
    ) -> None:
        self._cache, self._addresses = cache, addresses
        self._includes_metadata = include_metadata
        self._keeps_nothing = not include_metadata and not authenticates

    def of_request(self, request: Request) -> Context:
        """The context of the sender of an HTTP request."""
        peer = request.peer
        is_local = self._addresses.is_local(peer) if peer is not None else True if request.is_unix else None
        if self._keeps_nothing:
            return self._cache.plain(is_local)
        return self._cache.context(is_local, request.header_values() if self._includes_metadata else {}, request.claims)

    def of_call(self, call: Call) -> Context:
        """The context of the sender of a gRPC call, which is kept with the call."""
        if self._keeps_nothing:
            context = self._cache.plain(call.is_local)
        else:
            context = self._cache.context(call.is_local, call.metadata if self._includes_metadata else {}, call.claims)
        call.cached = context
        return context

    def of_address(self, address: str) -> Context:
        """The context of a sender of which only the IP address is known."""
        return self._cache.plain(self._addresses.is_local(address))
