"""The context of a request: what of the caller stays known beside its data.

Headers that describe the message or this one delivery are never kept: with them no two requests would have equal
contexts, and only equal contexts are batched together.
"""

from collections.abc import Mapping
from typing import Final

from collector.model import Context

__all__ = ["ContextMaker"]

_OF_THE_MESSAGE: Final = frozenset(
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
_MAX_INTERNED: Final = 4096


class ContextMaker:
    """Gives equal callers one and the same object, so that comparing contexts is cheap. Bounded."""

    def __init__(self) -> None:
        self._plain = {local: Context(local_peer=local) for local in (None, False, True)}
        self._interned: dict[Context, Context] = {}

    def plain(self, local_peer: bool | None) -> Context:
        """The context of a caller of whom nothing else is kept."""
        return self._plain[local_peer]

    def of(
        self, local_peer: bool | None, metadata: Mapping[str, tuple[str, ...]], claims: tuple[tuple[str, str], ...]
    ) -> Context:
        """The context with these headers (lower-case names) and claims."""
        kept = tuple(
            sorted(
                (name, values)
                for name, values in metadata.items()
                if name not in _OF_THE_MESSAGE and not name.startswith(":")
            )
        )
        context = Context(metadata=kept, claims=claims, local_peer=local_peer)
        known = self._interned.get(context)
        if known is not None:
            return known
        if len(self._interned) >= _MAX_INTERNED:
            self._interned.clear()
        self._interned[context] = context
        return context
