"""Call metadata as header fields."""

from collections.abc import Mapping
from typing import Final, TypeAlias

from collector.transport.grpc.framing import encode_binary

__all__ = ["Headers", "encode_metadata"]

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

# gRPC writes these itself and never takes them from metadata.
_RESERVED: Final = frozenset({"content-type", "te", "user-agent"})


def encode_metadata(metadata: Mapping[str, str]) -> Headers:
    """Return metadata as header fields.

    Raises:
        ValueError: a value cannot be sent in a header; the message does not show it.
    """
    fields = []
    for given, value in metadata.items():
        name = given.lower()
        if name in _RESERVED:
            continue
        if name.endswith("-bin"):
            fields.append((name.encode("ascii"), encode_binary(value.encode())))
            continue
        if not (value.isascii() and value.isprintable()):
            raise ValueError(
                f"headers: the value of {name} is not printable ASCII; only names ending in -bin may have other values"
            )
        fields.append((name.encode("ascii"), value.strip().encode("ascii")))
    return tuple(fields)
