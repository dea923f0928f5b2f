"""What is known about the request a batch came in: kept headers, tenant, claims. Not the data itself."""

from dataclasses import dataclass
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


EMPTY_CONTEXT: Final = Context()
