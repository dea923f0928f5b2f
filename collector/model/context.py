"""What is known about the request that a batch arrived in: the headers to keep, the tenant and the claims."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["EMPTY_CONTEXT", "Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """Immutable and hashable; only batches with equal contexts are merged.

    >>> context = Context(metadata=(("x-tenant", ("a",)),), tenant="a")
    >>> dict(context.metadata)["x-tenant"]
    ('a',)
    >>> context == Context(metadata=(("x-tenant", ("a",)),), tenant="a")
    True
    """

    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Lower-case header names and their values; only the headers that the receiver is configured to keep."""
    tenant: str | None = None
    claims: tuple[tuple[str, str], ...] = ()
    local_peer: bool | None = None
    """Whether the sender is on this machine (loopback, Unix socket, own address); None = unknown."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Computes the hash once, because requests are grouped by their context."""
        object.__setattr__(self, "_hash", hash((self.metadata, self.tenant, self.claims, self.local_peer)))

    def __hash__(self) -> int:
        return self._hash


EMPTY_CONTEXT: Final = Context()
