"""What is known about the request a batch came in: kept headers, tenant, claims. Not the data itself."""

from dataclasses import dataclass, field
from typing import Final

__all__ = ["EMPTY_CONTEXT", "Context"]


@dataclass(frozen=True, slots=True)
class Context:
    """Frozen and hashable; only batches with equal contexts are merged."""

    metadata: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Lower-case header name → values; only those a receiver is configured to keep."""
    tenant: str | None = None
    claims: tuple[tuple[str, str], ...] = ()
    local_peer: bool | None = None
    """The sender is on this machine (loopback, Unix socket, own address); None = unknown."""
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The hash is kept: requests are grouped by their context."""
        object.__setattr__(self, "_hash", hash((self.metadata, self.tenant, self.claims, self.local_peer)))

    def __hash__(self) -> int:
        return self._hash


EMPTY_CONTEXT: Final = Context()
