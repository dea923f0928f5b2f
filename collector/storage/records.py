"""The format of a segment file. Pure functions over bytes; nothing here touches a disk.

A queue is a directory of segments, each named after the key of its first record and its marker
(``00000000000000000042-3f9c0a1b2c3d4e5f.seg``)::

    segment  = header record* [footer]        the footer is written when the segment is complete
    header   = magic, version, first key, checksum
    record   = record header, meta, body      body: the batch's wire; meta: its context and labels as JSON, or nothing
    footer   = entry* metas trailer           an entry says where a record is; the trailer has their totals

Beside it, a file with the suffix ``.acks`` has one byte per key: ``ACKED`` where the batch is settled.

Everything is little-endian. Every part has a CRC-32, so that damage is found wherever it is. Every record begins with
the segment's marker, so that the records behind a damaged one can be found again. The marker is random, so that no
sender can write a body that looks like a record; it is in the name, where damage to the file does not reach it. What an
unfinished write left behind is cut off or fails its checksum.
"""

import json
import secrets
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final, NamedTuple

from isal import isal_zlib

from collector.api import StoredBatch, StoredTotals
from collector.model import EMPTY_CONTEXT, Batch, Context, Signal, batch_type

__all__ = [
    "ACKED",
    "HEADER_BYTES",
    "MARKER_BYTES",
    "RECORD_HEADER_BYTES",
    "TRAILER_BYTES",
    "VERSION",
    "DamagedRecordError",
    "Entry",
    "Scan",
    "Trailer",
    "UnknownVersionError",
    "check_version",
    "entries_of",
    "footer_of",
    "header_of",
    "meta_of",
    "new_marker",
    "read_record",
    "read_trailer",
    "record_header_of",
    "scan",
    "stored_batch",
    "totals_of",
]

VERSION: Final = 1
ACKED: Final = 0xA5  # neither 0 nor 1, so that a damaged byte hardly ever means "settled"

_CACHED_META_MAX_BYTES: Final = 4096  # so that the cache is of bounded size
_HEADER: Final = struct.Struct("<8sHHIQ")  # magic, version, size, crc of the rest, first key
_HEADER_MAGIC: Final = b"TRQUEUE\n"
HEADER_BYTES: Final = _HEADER.size

MARKER_BYTES: Final = 8
# Behind the marker and the checksum: crc and size of the body, size of the meta, items, requests, signal, flags,
# nothing, key, time.
_RECORD: Final = struct.Struct("<IIIIIBBHQQ")
RECORD_HEADER_BYTES: Final = MARKER_BYTES + 4 + _RECORD.size
_SIGNAL_PLACE: Final = MARKER_BYTES + 4 + 20
_FLAG_NONE: Final = 0  # no record has a flag in version 1

_ENTRY: Final = struct.Struct("<QIIIIIQ")
_TRAILER: Final = struct.Struct("<IIIQQQQQ")  # crc of entries and metas, their sizes, totals, last key
_TRAILER_MAGIC: Final = b"TRQFOOT\n"
TRAILER_BYTES: Final = 8 + 4 + _TRAILER.size

_SIGNALS: Final = (Signal.TRACES, Signal.METRICS, Signal.LOGS)
_SIGNAL_NUMBERS: Final = {signal: number for number, signal in enumerate(_SIGNALS, 1)}


class UnknownVersionError(ValueError):
    """The segment was written by a newer release."""


class DamagedRecordError(ValueError):
    """The record's bytes are not what was written."""


class Entry(NamedTuple):
    """Where a record is in its segment, and what is known of it without reading it."""

    key: int
    offset: int
    body_size: int
    item_count: int
    request_count: int
    stored_unix_nano: int
    meta: bytes

    @property
    def end(self) -> int:
        """The offset behind the record."""
        return self.offset + RECORD_HEADER_BYTES + len(self.meta) + self.body_size


@dataclass(frozen=True, slots=True)
class Trailer:
    """The last bytes of a complete segment."""

    crc: int
    entries_size: int
    metas_size: int
    last_key: int
    totals: StoredTotals

    @property
    def footer_size(self) -> int:
        """Bytes of the whole footer."""
        return self.entries_size + self.metas_size + TRAILER_BYTES


@dataclass(slots=True)
class Scan:
    """What a segment without a footer consists of."""

    entries: list[Entry]
    damaged: list[tuple[int, int]]
    """Ranges of bytes between records that are no records."""
    hit: list[Entry]
    """Records of which only the header is intact."""
    end: int
    """The offset behind the last record. What follows was not completely written."""


def crc32(data: bytes | bytearray | memoryview, start: int = 0) -> int:
    """The CRC-32 of ``data``, continuing from ``start``."""
    value: int = isal_zlib.crc32(data, start)
    return value


# Segments.


def new_marker() -> bytes:
    """The marker of a new segment."""
    return secrets.token_bytes(MARKER_BYTES)


def header_of(first_key: int) -> bytes:
    """The header of a new segment."""
    crc = crc32(first_key.to_bytes(8, "little"), VERSION)
    return _HEADER.pack(_HEADER_MAGIC, VERSION, HEADER_BYTES, crc, first_key)


def check_version(data: bytes) -> None:
    """Look at the header at the start of ``data``. One that is damaged says nothing; the records can be read anyway.

    Raises:
        UnknownVersionError: a newer release wrote the segment.
    """
    if len(data) < HEADER_BYTES:
        return
    magic, version, _, crc, first_key = _HEADER.unpack_from(data)
    if magic == _HEADER_MAGIC and version > VERSION and crc == crc32(first_key.to_bytes(8, "little"), version):
        raise UnknownVersionError(f"it has version {version} of the format, and this release knows version {VERSION}")


def footer_of(entries: Sequence[Entry]) -> bytes:
    """The footer of a segment with these records."""
    metas: dict[bytes, int] = {}
    rows = b"".join(
        [
            _ENTRY.pack(
                entry.key,
                entry.offset,
                entry.body_size,
                entry.item_count,
                entry.request_count,
                metas.setdefault(entry.meta, len(metas)),
                entry.stored_unix_nano,
            )
            for entry in entries
        ]
    )
    texts = b"".join(len(meta).to_bytes(4, "little") + meta for meta in metas)
    totals = totals_of(entries)
    trailer = _TRAILER.pack(
        crc32(texts, crc32(rows)),
        len(rows),
        len(texts),
        totals.batch_count,
        totals.request_count,
        totals.item_count,
        totals.size_bytes,
        entries[-1].key,
    )
    return b"".join((rows, texts, _TRAILER_MAGIC, crc32(trailer).to_bytes(4, "little"), trailer))


def read_trailer(data: bytes) -> Trailer | None:
    """The trailer, if ``data``, the end of a file, ends with one that is intact."""
    start = len(data) - TRAILER_BYTES
    if start < 0 or data[start : start + 8] != _TRAILER_MAGIC:
        return None
    trailer = data[start + 12 :]
    if crc32(trailer) != int.from_bytes(data[start + 8 : start + 12], "little"):
        return None
    crc, entries_size, metas_size, count, requests, items, size_bytes, last_key = _TRAILER.unpack(trailer)
    return Trailer(crc, entries_size, metas_size, last_key, StoredTotals(count, requests, items, size_bytes))


def entries_of(footer: bytes, trailer: Trailer) -> list[Entry]:
    """The entries of a footer.

    Raises:
        DamagedRecordError: the footer is not intact.
    """
    rows = footer[: trailer.entries_size]
    texts = footer[trailer.entries_size : trailer.entries_size + trailer.metas_size]
    if len(footer) != trailer.footer_size or crc32(texts, crc32(rows)) != trailer.crc:
        raise DamagedRecordError("the checksum of the segment's footer is wrong")
    metas: list[bytes] = []
    place = 0
    while place < len(texts):
        size = int.from_bytes(texts[place : place + 4], "little")
        metas.append(texts[place + 4 : place + 4 + size])
        place += 4 + size
    return [
        Entry(key, offset, body_size, items, requests, stored, metas[meta])
        for key, offset, body_size, items, requests, meta, stored in _ENTRY.iter_unpack(rows)
    ]


def totals_of(entries: Sequence[Entry]) -> StoredTotals:
    """The sums over the entries."""
    return StoredTotals(
        len(entries),
        sum(entry.request_count for entry in entries),
        sum(entry.item_count for entry in entries),
        sum(entry.body_size for entry in entries),
    )


def scan(data: bytes, marker: bytes) -> Scan:
    """Find every intact record of a segment whose footer is missing or damaged. ``data`` is the whole file."""
    found = Scan([], [], [], HEADER_BYTES)
    place = HEADER_BYTES
    last_key = -1
    while (place := data.find(marker, place)) >= 0:
        entry, is_whole = _record_at(data, place, marker)
        if entry is None or entry.key <= last_key:
            place += 1
            continue
        if not is_whole:
            found.hit.append(entry)
            place += RECORD_HEADER_BYTES
            continue
        if place > found.end:
            found.damaged.append((found.end, place))
        found.entries.append(entry)
        last_key = entry.key
        place = found.end = entry.end
    return found


def _record_at(data: bytes, place: int, marker: bytes) -> tuple[Entry | None, bool]:
    """The record at this place, and whether its body is intact as well."""
    try:
        entry, body_crc = _read_record_header(data, place, marker)
    except DamagedRecordError:
        return None, False
    body = memoryview(data)[entry.end - entry.body_size : entry.end]
    return entry, len(body) == entry.body_size and crc32(body) == body_crc


# Records.


def record_header_of(batch: Batch, key: int, stored_unix_nano: int, meta: bytes, marker: bytes) -> bytes:
    """What stands in front of the meta and the body of a record."""
    wire = batch.wire
    rest = _RECORD.pack(
        crc32(wire),
        len(wire),
        len(meta),
        batch.item_count,
        batch.request_count,
        _SIGNAL_NUMBERS[batch.signal],
        _FLAG_NONE,
        0,
        key,
        stored_unix_nano,
    )
    crc = crc32(rest)
    if meta:
        crc = crc32(meta, crc)
    return b"".join((marker, crc.to_bytes(4, "little"), rest))


def read_record(data: bytes, entry: Entry, marker: bytes) -> Batch:
    """The batch of a record; ``data`` begins at its offset.

    Raises:
        DamagedRecordError: the record is not intact.
    """
    found, body_crc = _read_record_header(data, 0, marker)
    body = data[found.end - found.body_size : found.end]
    is_same = (found.key, found.body_size) == (entry.key, entry.body_size)
    if not is_same or len(body) != entry.body_size or crc32(body) != body_crc:
        raise DamagedRecordError("the checksum of the record is wrong")
    signal_number = data[_SIGNAL_PLACE]
    if not 1 <= signal_number <= len(_SIGNALS):
        raise DamagedRecordError(f"the record has the unknown signal {signal_number}")
    signal = _SIGNALS[signal_number - 1]
    batch: Batch = batch_type(signal)(body, _values_of(entry.meta)[0], None, entry.item_count)
    batch.request_count = entry.request_count
    return batch


def _read_record_header(data: bytes, place: int, marker: bytes) -> tuple[Entry, int]:
    """The entry of the record at ``place``, and the checksum of its body."""
    crc_place = place + MARKER_BYTES
    start, end = crc_place + 4, place + RECORD_HEADER_BYTES
    if len(data) < end or data[place:crc_place] != marker:
        raise DamagedRecordError("there is no record")
    body_crc, body_size, meta_size, items, requests, _, flags, _, key, stored = _RECORD.unpack_from(data, start)
    meta = data[end : end + meta_size]
    if crc32(meta, crc32(data[start:end])) != int.from_bytes(data[crc_place:start], "little"):
        raise DamagedRecordError("the checksum of the record's header is wrong")
    if flags != _FLAG_NONE:
        raise DamagedRecordError("the record uses a feature of a newer release")
    return Entry(key, place, body_size, items, requests, stored, meta), body_crc


# What a record says besides its body.


def meta_of(context: Context, labels: Mapping[str, str] | None) -> bytes:
    """Context and labels as JSON; nothing if there are none. Claims are not stored, as in the Collector."""
    values: dict[str, object] = {}
    if context.metadata:
        values["metadata"] = context.metadata
    if context.tenant is not None:
        values["tenant"] = context.tenant
    if context.local_peer is not None:
        values["local_peer"] = context.local_peer
    if labels:
        values["labels"] = dict(labels)
    # The standard library's encoder, because headers may contain what is not valid Unicode.
    return json.dumps(values, separators=(",", ":")).encode() if values else b""


def stored_batch(entry: Entry) -> StoredBatch:
    """What the owner of the queue is told of a record."""
    context, labels = _values_of(entry.meta)
    return StoredBatch(
        entry.key, entry.item_count, entry.body_size, context, entry.request_count, entry.stored_unix_nano, labels
    )


def _values_of(meta: bytes) -> tuple[Context, Mapping[str, str]]:
    """Context and labels. The meta's checksum was right, so this process or an earlier one wrote it."""
    return _cached_values_of(meta) if len(meta) <= _CACHED_META_MAX_BYTES else _read_values(meta)


def _read_values(meta: bytes) -> tuple[Context, Mapping[str, str]]:
    if not meta:
        return EMPTY_CONTEXT, {}
    values: dict[str, Any] = json.loads(meta)
    context = Context(
        metadata=tuple((name, tuple(texts)) for name, texts in values.get("metadata", ())),
        tenant=values.get("tenant"),
        local_peer=values.get("local_peer"),
    )
    return context, values.get("labels", {})


_cached_values_of = lru_cache(maxsize=64)(_read_values)
