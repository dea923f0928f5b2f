"""The context of a request: what is known about its sender, and travels with its data.

Headers that describe the message or this one delivery are left out. With them no two requests would have equal
contexts, and only data with equal contexts is batched together.
"""

from collections.abc import Mapping
from typing import Final

from collector.model import Context
from collector.text.cache import TextCache

__all__ = ["ContextCache"]

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
