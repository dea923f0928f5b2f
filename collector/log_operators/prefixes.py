r"""Patterns that only look at the first bytes of a text, such as ``^\d{4}-\d{2}`` or ``^\S``, as masks of bytes.

Such patterns tell where the entries of a stack trace begin, so they are tested for each line of a log.
"""

import re
from typing import Final

__all__ = ["prefix_masks"]

_BYTES_MAX: Final = 32
_CLASSES: Final = {
    "d": frozenset(range(48, 58)),
    "s": frozenset(b"\t\n\f\r "),
    "w": frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz_"),
}
_ASCII: Final = frozenset(range(128))
_PLAIN: Final = re.compile(r"[A-Za-z0-9 _\-:,/=<>\"'#@!%&;~`]")
_COUNT: Final = re.compile(r"\{(\d{1,2})\}")
_RANGE: Final = re.compile(r"([A-Za-z0-9])-([A-Za-z0-9])")


def prefix_masks(pattern: str) -> bytes:
    """32 bytes for each of the first bytes of a text; none if the pattern is not so simple.

    A text of ASCII matches the pattern if each of its first bytes is in the mask for it.
    """
    if not pattern.startswith("^"):
        return b""
    masks: list[frozenset[int]] = []
    at = 1
    while at < len(pattern):
        found = _atom(pattern, at)
        if found is None:
            return b""
        mask, at = found
        count = _COUNT.match(pattern, at)
        if count is not None:
            at = count.end()
            masks += [mask] * int(count.group(1))
        else:
            masks.append(mask)
        if len(masks) > _BYTES_MAX:
            return b""
    return b"".join(_bits(mask) for mask in masks)


def _atom(pattern: str, at: int) -> tuple[frozenset[int], int] | None:
    character = pattern[at]
    if character == "\\":
        return _escaped(pattern[at + 1 : at + 2], at + 2)
    if character == "[":
        end = pattern.find("]", at + 1)
        mask = None if end < 0 else _class(pattern[at + 1 : end])
        return None if mask is None else (mask, end + 1)
    if _PLAIN.fullmatch(character):
        return frozenset([ord(character)]), at + 1
    return None


def _escaped(character: str, at: int) -> tuple[frozenset[int], int] | None:
    if character in _CLASSES:
        return _CLASSES[character], at
    if character.lower() in _CLASSES:
        return _ASCII - _CLASSES[character.lower()], at
    if character and character in ".[](){}*+?^$|\\/-":
        return frozenset([ord(character)]), at
    return None


def _class(content: str) -> frozenset[int] | None:
    is_negated = content.startswith("^")
    rest = content[1:] if is_negated else content
    made: set[int] = set()
    while rest:
        found = _RANGE.match(rest)
        if found is not None and found.group(1) <= found.group(2):
            made.update(range(ord(found.group(1)), ord(found.group(2)) + 1))
            rest = rest[3:]
        elif rest[0] == "\\":
            escaped = _escaped(rest[1:2], 0)
            if escaped is None:
                return None
            made |= escaped[0]
            rest = rest[2:]
        elif _PLAIN.fullmatch(rest[0]) and rest[0] not in "-:":
            made.add(ord(rest[0]))
            rest = rest[1:]
        else:
            return None
    if not made:
        return None
    return _ASCII - made if is_negated else frozenset(made)


def _bits(mask: frozenset[int]) -> bytes:
    bits = bytearray(32)
    for byte in mask:
        bits[byte >> 3] |= 1 << (byte & 7)
    return bytes(bits)
