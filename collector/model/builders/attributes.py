"""Attribute sets, encoded once however many rows have them."""

from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeAlias

from collector.model.arrays import I32
from collector.wire import encode

__all__ = ["NO_ATTRIBUTES", "AttributeRows", "AttributeSet", "Attributes", "attribute_set"]


class Attributes:
    """An immutable attribute set, encoded once.

    >>> from collector.model import Attributes, LogsBuilder
    >>> tenant = Attributes({"tenant": "a", "plan": "free"})
    >>> builder = LogsBuilder()
    >>> builder.records(builder.scope(builder.resource()), times=[1, 2], bodies=["x", "y"], attributes=tenant)
    >>> builder.build().attribute("plan").text.to_list()
    ['free', 'free']
    """

    __slots__ = ("_encoded", "_starts", "_tagged")

    def __init__(self, values: Mapping[str, Any]) -> None:
        """Encodes ``values``.

        Raises:
            TypeError: A key is not text, or an attribute cannot have a value of this type.
            ValueError: An integer does not fit into 64 bits, or a value nests deeper than 30.
        """
        self._encoded, self._starts = encode.encode_attributes(values)
        self._tagged: dict[int, bytes] = {1: self._encoded}

    @classmethod
    def from_encoded(cls, encoded: bytes) -> Self:
        """The set of which ``encoded`` is the :attr:`encoded` form.

        Raises:
            ValueError: It is not such a form.
        """
        starts: list[int] = []
        place = 0
        while place < len(encoded):
            starts.append(place)
            size, place = _length(encoded, place)
            place += size
            if place > len(encoded):
                raise ValueError("these are not encoded attributes")
        attributes = cls.__new__(cls)
        attributes._encoded, attributes._starts = encoded, starts  # noqa: SLF001 - of this class
        attributes._tagged = {1: encoded}  # noqa: SLF001
        return attributes

    @property
    def encoded(self) -> bytes:
        """The set in the encoding of OTLP, as the repeated field 1, for checkpoints."""
        return self._encoded

    def tagged(self, number: int) -> bytes:
        """The set as the repeated field ``number``, which differs between points, spans and records."""
        if number not in self._tagged:
            fields = bytearray(self._encoded)
            for start in self._starts:
                fields[start] = number << 3 | 2
            self._tagged[number] = bytes(fields)
        return self._tagged[number]

    @property
    def size_bytes(self) -> int:
        """The size of the set in the encoding of OTLP."""
        return len(self._encoded)

    def __len__(self) -> int:
        return len(self._starts)

    def __eq__(self, other: object) -> bool:
        return self._encoded == other._encoded if isinstance(other, Attributes) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._encoded)


AttributeSet: TypeAlias = Attributes | Mapping[str, Any]
AttributeRows: TypeAlias = AttributeSet | Sequence[AttributeSet | None] | tuple[I32, Sequence[AttributeSet]] | None
"""The attributes of rows, in the forms described in the package."""
NO_ATTRIBUTES = Attributes({})


def attribute_set(attributes: AttributeSet) -> Attributes:
    """The encoded set of a mapping, or the set itself."""
    return attributes if isinstance(attributes, Attributes) else Attributes(attributes)


def _length(encoded: bytes, place: int) -> tuple[int, int]:
    """The length of the field 1 that begins at ``place``, and where its content begins."""
    size = shift = 0
    if encoded[place] != 1 << 3 | 2:
        raise ValueError("these are not encoded attributes")
    for i in range(place + 1, min(place + 6, len(encoded))):
        size |= (encoded[i] & 0x7F) << shift
        if encoded[i] < 0x80:
            return size, i + 1
        shift += 7
    raise ValueError("these are not encoded attributes")
