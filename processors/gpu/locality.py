"""The identity of this machine, and whether a resource states that it runs here (docs/reference/gpu.md, rule 15).

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
# Every unnamed machine has these names, so they do not identify one.
_NAMELESS: Final = frozenset({"", "localhost", "localhost.localdomain"})


@dataclass(frozen=True, slots=True)
class HostIdentity:
    """The ids and names of a machine, in lower case."""

    ids: frozenset[str] = field(default_factory=frozenset)
    names: frozenset[str] = field(default_factory=frozenset)

    @classmethod
    def own(cls) -> Self:
        """This machine: its machine-id and host name, and those in OTEL_RESOURCE_ATTRIBUTES."""
        ids, names = set(), {socket.gethostname()}
        for path in map(Path, _MACHINE_ID_FILES):
            try:
                ids.add(path.read_text(encoding="ascii").strip())
            except (OSError, ValueError):
                continue
        for pair in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "").split(","):
            key, _, value = pair.partition("=")
            values = {"host.id": ids, "host.name": names}.get(key.strip())
            if values is not None:
                values.add(unquote(value.strip()))
        return cls.of(ids, names)

    @classmethod
    def of(cls, ids: set[str], names: set[str]) -> Self:
        """The identity with these ids and names."""
        return cls(
            frozenset(text.lower() for text in ids) - {""},
            frozenset(text.rstrip(".").lower() for text in names) - _NAMELESS,
        )

    def has_id(self, host_id: str) -> bool:
        """Whether the id is that of this machine."""
        return host_id.strip().lower() in self.ids

    def has_name(self, host_name: str) -> bool:
        """Whether the name is that of this machine, without regard to case or to a domain that only one side states."""
        name = host_name.strip().rstrip(".").lower()
        return any(
            name == own or (_is_short(name, own) and name.partition(".")[0] == own.partition(".")[0])
            for own in self.names
        )

    @staticmethod
    def states_name(host_name: str) -> bool:
        """Whether the name identifies a machine, unlike ``localhost``."""
        return host_name.strip().rstrip(".").lower() not in _NAMELESS


def _is_short(name: str, other: str) -> bool:
    return "." not in name or "." not in other
