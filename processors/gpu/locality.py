"""Which machine this is, and whether a resource says that it runs here.

Source: semantic conventions, ``host.id`` (machine-id on Linux) and ``host.name``.
"""

import os
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self
from urllib.parse import unquote

__all__ = ["HostIdentity"]

_MACHINE_ID_FILES: Final = ("/etc/machine-id", "/var/lib/dbus/machine-id")
# Names that every unnamed machine has say nothing about which one it is.
_NAMELESS: Final = frozenset({"", "localhost", "localhost.localdomain"})


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """The ids and names of a machine, lower-case."""

    ids: frozenset[str] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def own(cls) -> Self:
        """This machine's: machine-id and host name, and what OTEL_RESOURCE_ATTRIBUTES says of them."""
        ids, names = set(), {socket.gethostname()}
        for path in map(Path, _MACHINE_ID_FILES):
            try:
                ids.add(path.read_text(encoding="ascii").strip())
            except (OSError, ValueError):
                continue
        for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
            key, _, value = pair.partition("=")
            wanted = {"host.id": ids, "host.name": names}.get(key.strip())
            if wanted is not None:
                wanted.add(unquote(value.strip()))
        return cls.of(ids, names)

    @classmethod
    def of(cls, ids: set[str], names: set[str]) -> Self:
        """The identity with these ids and names."""
        return cls(
            frozenset(text.lower() for text in ids) - {""},
            frozenset(text.rstrip(".").lower() for text in names) - _NAMELESS,
        )

    def has_id(self, host_id: str) -> bool:
        """The id is this machine's."""
        return host_id.strip().lower() in self.ids

    def has_name(self, host_name: str) -> bool:
        """The name is this machine's: case does not matter, nor a domain that only one of the two states."""
        name = host_name.strip().rstrip(".").lower()
        return any(
            name == own or (_is_short(name, own) and name.partition(".")[0] == own.partition(".")[0])
            for own in self.names
        )

    @staticmethod
    def states_name(host_name: str) -> bool:
        """False for names that do not tell machines apart."""
        return host_name.strip().rstrip(".").lower() not in _NAMELESS


def _is_short(name: str, other: str) -> bool:
    return "." not in name or "." not in other
