"""Converters that hash and encode texts, and that make ids. They are called once per distinct text.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import hashlib
import ipaddress
import os
import time
import uuid
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.ottl.text import text_of
from collector.ottl.values import EvaluationError, Scalar, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.ottl.view import View

__all__ = [
    "base64_decode",
    "base64_encode",
    "check_encoding",
    "community_id",
    "decode",
    "digest",
    "fnv",
    "is_luhn",
    "murmur3",
    "murmur3_128",
    "needs",
    "random_ids",
    "uuid7",
    "xxh3",
    "xxh128",
]


def _text(value: Scalar) -> str:
    if type(value) is not str:
        raise EvaluationError
    return value


def needs(module: str) -> Callable[[Mapping[int, Scalar]], None]:
    """A check that an optional package is installed."""

    def check(_: Mapping[int, Scalar]) -> None:
        try:
            import_module(module)
        except ImportError:
            raise ValueError(
                f"this function needs the Python package {module.replace('_', '-')}, which is not installed; "
                "install tailrace[ottl]"
            ) from None

    return check


def digest(name: str) -> Callable[[Scalar], str]:
    """A function from a text to its digest in hexadecimal."""
    return lambda value: hashlib.new(name, _text(value).encode(), usedforsecurity=False).hexdigest()


_FNV_PRIME: Final = 0x100000001B3
_FNV_OFFSET: Final = 0xCBF29CE484222325
_MASK: Final = 2**64 - 1


def fnv(value: Scalar) -> int:
    """FNV-1a with 64 bits, as a signed integer."""
    number = _FNV_OFFSET
    for byte in _text(value).encode():
        number = ((number ^ byte) * _FNV_PRIME) & _MASK
    return number - 2**64 if number >= 2**63 else number


def murmur3(value: Scalar) -> str:
    """MurmurHash3 with 32 bits in hexadecimal, the low byte first."""
    number: int = import_module("mmh3").hash(_text(value).encode(), signed=False)
    return number.to_bytes(4, "little").hex()


def murmur3_128(value: Scalar) -> str:
    """MurmurHash3 with 128 bits (x64) in hexadecimal, the low byte of each half first."""
    made: bytes = import_module("mmh3").hash_bytes(_text(value).encode())
    return made.hex()


def xxh3(value: Scalar) -> str:
    """XXH3 with 64 bits in hexadecimal."""
    made: str = import_module("xxhash").xxh3_64_hexdigest(_text(value).encode())
    return made


def xxh128(value: Scalar) -> str:
    """XXH3 with 128 bits in hexadecimal."""
    made: str = import_module("xxhash").xxh3_128_hexdigest(_text(value).encode())
    return made


# Encodings.

_VARIANTS: Final = {"base64", "base64-raw", "base64-url", "base64-raw-url"}


def _decode64(text: str, variant: str) -> bytes:
    text = text.replace("\r", "").replace("\n", "")
    if "raw" in variant:
        if "=" in text:
            raise EvaluationError
        text += "=" * (-len(text) % 4)
    try:
        return base64.b64decode(text, b"-_" if "url" in variant else None, validate=True)
    except (binascii.Error, ValueError):
        raise EvaluationError from None


def base64_decode(value: Scalar) -> str:
    """The text that a base64 text encodes."""
    return _decode64(_text(value), "base64").decode("utf-8", "replace")


def base64_encode(value: Scalar, variant: Scalar = "base64") -> str:
    """A text in base64, or in one of its variants."""
    if variant not in _VARIANTS:
        raise EvaluationError
    raw = _text(value).encode()
    encoded = (base64.urlsafe_b64encode(raw) if "url" in variant else base64.b64encode(raw)).decode()
    return encoded.rstrip("=") if "raw" in variant else encoded


_UTF8: Final = {"utf-8", "utf8", "utf-8-raw", "utf8-raw", "ascii", "us-ascii", "nop", ""}


def _codec(encoding: str) -> str | None:
    name = encoding.lower()
    if name in _VARIANTS:
        return name
    if name in _UTF8:
        return "utf-8"
    if name in {"utf-16", "utf16"}:
        return "utf-16-le"
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return None
    return found.name if found._is_text_encoding else None  # noqa: SLF001 - excludes zip, hex and rot13


def decode(value: Scalar, encoding: Scalar) -> str:
    """A text or bytes in an encoding as text; what is not valid becomes U+FFFD."""
    codec = _codec(_text(encoding))
    if codec is None:
        raise EvaluationError
    if codec in _VARIANTS:
        text = value.decode("ascii", "replace") if type(value) is bytes else _text(value)
        return _decode64(text, codec).decode("utf-8", "replace")
    raw = value if type(value) is bytes else _text(value).encode()
    return raw.decode(codec, "replace")


def check_encoding(literals: Mapping[int, Scalar]) -> None:
    """Check the encoding of ``Decode``."""
    if isinstance(literals.get(1), str) and _codec(literals[1]) is None:
        raise ValueError(f"{literals[1]!r} is not a supported encoding (examples: utf-8, base64, iso-8859-1)")


# Ids.


def random_ids(make: Callable[[], str]) -> Callable[[View, Sequence[Any]], Values]:
    """A converter that makes a new id for each row."""

    def evaluate(view: View, _: Sequence[Any]) -> Values:
        return Values.of([make() for _ in range(view.row_count)]) if view is not None else Values.of([make()])

    return evaluate


def uuid7() -> str:
    """A UUID of version 7: a time in milliseconds, then random bits. Source: RFC 9562, 5.7."""
    number = (time.time_ns() // 10**6) << 80 | int.from_bytes(os.urandom(10), "big")
    number = number & ~(0xF << 76) | 7 << 76
    number = number & ~(0b11 << 62) | 0b10 << 62
    return str(uuid.UUID(int=number))


_PROTOCOLS: Final = {"ICMP": 1, "TCP": 6, "UDP": 17, "RSVP": 46, "ICMP6": 58, "SCTP": 132}
_PORTS: Final = range(2**16)


def community_id(
    source: Scalar,
    source_port: Scalar,
    destination: Scalar,
    destination_port: Scalar,
    protocol: Scalar = "TCP",
    seed: Scalar = 0,
) -> str:
    """The Community ID of a flow. Source: github.com/corelight/community-id-spec, version 1."""
    for number in (source_port, destination_port, seed):
        if type(number) is not int or number not in _PORTS:
            raise EvaluationError
    if protocol not in _PROTOCOLS:
        raise EvaluationError
    ends = [(_address(source), source_port), (_address(destination), destination_port)]
    if (len(ends[0][0]), *ends[0]) > (len(ends[1][0]), *ends[1]):
        ends.reverse()
    (first, first_port), (second, second_port) = ends
    flow = seed.to_bytes(2, "big") + first + second + bytes([_PROTOCOLS[protocol], 0])
    flow += first_port.to_bytes(2, "big") + second_port.to_bytes(2, "big")
    return "1:" + base64.b64encode(hashlib.sha1(flow, usedforsecurity=False).digest()).decode()


def _address(text: Scalar) -> bytes:
    try:
        address = ipaddress.ip_address(_text(text))
    except ValueError:
        raise EvaluationError from None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id:
            raise EvaluationError
        if address.ipv4_mapped:
            return address.ipv4_mapped.packed
    return address.packed


def is_luhn(value: Scalar) -> bool:
    """Whether the digits of a text pass the Luhn check; spaces do not count."""
    text = text_of(value)
    if text is None:
        raise EvaluationError
    digits = text.replace(" ", "")
    if not digits:
        return False
    if not (digits.isascii() and digits.isdigit()):
        raise EvaluationError
    numbers = np.frombuffer(digits.encode(), np.uint8)[::-1].astype(np.int64) - ord("0")
    doubled = numbers[1::2] * 2
    total = int(numbers[2::2].sum() + np.where(doubled > 9, doubled - 9, doubled).sum())
    return (10 - total % 10) % 10 == int(numbers[0])
