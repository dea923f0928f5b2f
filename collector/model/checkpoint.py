"""The format of checkpoints: the state of a component as bytes that a later process can read.

A checkpoint has a kind, a version and named parts::

    checkpoint = magic, size of the header, header as JSON, parts, each beginning at a multiple of 8 bytes
    part       = an array of numbers, bytes, a list of bytes, or a value as JSON

Nothing in it is executed, and everything is checked against the size of the whole before it is read. It has no
checksum; whatever stores it has (``collector.api.StateStore``). The shapes of arrays and the meaning of their contents
are checked by the component that reads them.
"""

import json
import struct
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

import numpy as np

from collector.model.arrays import Array

__all__ = ["CheckpointError", "Part", "Parts", "decode_checkpoint", "encode_checkpoint", "nested", "part_of", "within"]

Part: TypeAlias = Any
"""An array of numbers or bools, ``bytes``, a list of ``bytes``, or anything that JSON can express."""
Parts: TypeAlias = Mapping[str, Part]

_HEAD: Final = struct.Struct("<8sI")
_MAGIC: Final = b"TRCHKPT\n"
_ALIGNMENT: Final = 8
_HEADER_MAX_BYTES: Final = 16 * 1024 * 1024
_NUMBERS: Final = "biuf"  # the kinds of numpy's numbers and bools


class CheckpointError(ValueError):
    """The bytes are not a checkpoint that this release can read.

    >>> raise CheckpointError("version 2 of the state of span_metrics is not known")
    Traceback (most recent call last):
    collector.model.checkpoint.CheckpointError: version 2 of the state of span_metrics is not known
    """


def encode_checkpoint(kind: str, version: int, parts: Parts) -> bytes:
    """The checkpoint with copies of the parts.

    >>> value = encode_checkpoint("example", 1, {"counts": np.array([1, 2]), "names": [b"a", b"bc"], "since": 5})
    >>> decode_checkpoint(value, "example", 1)["names"]
    [b'a', b'bc']

    Args:
        kind: What the state is of; a reader of another kind refuses it.
        version: Of the parts; raise it when they change their meaning.
        parts: By name.

    Raises:
        TypeError: A part is not of a type that can be kept.
    """
    entries: list[tuple[Any, ...]] = []
    bodies: list[bytes] = []
    for name, part in parts.items():
        if isinstance(part, np.ndarray):
            if part.dtype.kind not in _NUMBERS:
                raise TypeError(f"the part {name!r} is an array of {part.dtype}; only numbers and bools can be kept")
            dtype = part.dtype.newbyteorder("<")
            bodies.append(np.ascontiguousarray(part, dtype).tobytes())
            entries.append((name, "array", len(bodies[-1]), dtype.str, part.shape))
        elif isinstance(part, bytes):
            bodies.append(part)
            entries.append((name, "bytes", len(part)))
        elif isinstance(part, list) and part and all(isinstance(item, bytes) for item in part):
            lengths = np.fromiter(map(len, part), "<u4", len(part))
            bodies.append(lengths.tobytes() + b"".join(part))
            entries.append((name, "list", len(bodies[-1]), len(part)))
        else:
            bodies.append(json.dumps(part).encode())
            entries.append((name, "json", len(bodies[-1])))
    header = json.dumps({"kind": kind, "version": version, "parts": entries}).encode()
    pieces: list[bytes] = []
    for piece in (_HEAD.pack(_MAGIC, len(header)) + header, *bodies):
        pieces += (piece, bytes(-len(piece) % _ALIGNMENT))
    return b"".join(pieces)


def decode_checkpoint(value: bytes, kind: str, version: int) -> dict[str, Part]:
    """The parts, by name. Arrays are read-only views of ``value``.

    Raises:
        CheckpointError: It is of another kind or version, or is not a checkpoint.
    """
    try:
        return _decode(value, kind, version)
    except CheckpointError:
        raise
    # Whatever is wrong with the bytes shows in one of these ways; RecursionError: JSON that is nested too deeply.
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RecursionError, struct.error) as error:
        raise CheckpointError(f"this is not a checkpoint: {error}") from error


def _decode(value: bytes, kind: str, version: int) -> dict[str, Part]:
    magic, header_size = _HEAD.unpack_from(value)
    if magic != _MAGIC or header_size > min(_HEADER_MAX_BYTES, len(value) - _HEAD.size):
        raise CheckpointError("this is not a checkpoint: it does not begin like one")
    header = json.loads(value[_HEAD.size : _HEAD.size + header_size])
    if (header["kind"], header["version"]) != (kind, version):
        found = f"version {header['version']} of the state of {header['kind']}"
        raise CheckpointError(f"expected version {version} of the state of {kind}, got {found}")
    parts: dict[str, Part] = {}
    place = _aligned(_HEAD.size + header_size)
    for name, form, size, *details in header["parts"]:
        if not isinstance(name, str) or not isinstance(size, int) or not 0 <= size <= len(value) - place:
            raise CheckpointError("this is not a checkpoint: a part is not within it")
        parts[name] = _part(memoryview(value)[place : place + size], form, details)
        place = _aligned(place + size)
    return parts


def _part(body: memoryview, form: str, details: list[Any]) -> Part:
    match form:
        case "array":
            dtype, shape = np.dtype(details[0]), tuple(details[1])
            if dtype.kind not in _NUMBERS:
                raise CheckpointError(f"this is not a checkpoint: it has an array of {dtype}")
            return np.frombuffer(body, dtype).reshape(shape)
        case "bytes":
            return bytes(body)
        case "list":
            lengths = np.frombuffer(body, "<u4", details[0])
            ends = lengths.nbytes + np.cumsum(lengths, dtype=np.int64)
            if int(ends[-1]) != len(body):
                raise CheckpointError("this is not a checkpoint: the lengths of a list do not add up")
            starts = (ends - lengths).tolist()
            return [bytes(body[start:end]) for start, end in zip(starts, ends.tolist(), strict=True)]
        case "json":
            return json.loads(bytes(body))
        case _:
            raise CheckpointError(f"this is not a checkpoint: a part has the form {form!r}")


def _aligned(place: int) -> int:
    return place + -place % _ALIGNMENT


def nested(name: str, parts: Parts) -> dict[str, Part]:
    """The parts of something as parts of something larger.

    >>> nested("table", {"slots": 1})
    {'table/slots': 1}
    """
    return {f"{name}/{key}": part for key, part in parts.items()}


def within(name: str, parts: Parts) -> dict[str, Part]:
    """What :func:`nested` was given under this name.

    >>> within("table", {"table/slots": 1, "other": 2})
    {'slots': 1}
    """
    prefix = f"{name}/"
    return {key[len(prefix) :]: part for key, part in parts.items() if key.startswith(prefix)}


def part_of(parts: Parts, name: str, dtype: Any, length: int | None = None) -> Array:
    """The array ``name`` with this dtype, and of this length.

    Raises:
        CheckpointError: There is none, or it is another one.
    """
    found = parts.get(name)
    if not isinstance(found, np.ndarray) or found.dtype != np.dtype(dtype) or not found.ndim:
        raise CheckpointError(f"the part {name!r} is missing or has another type")
    if length is not None and len(found) != length:
        raise CheckpointError(f"the part {name!r} has {len(found)} rows, expected {length}")
    return found
