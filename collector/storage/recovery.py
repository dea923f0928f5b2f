"""How a queue is opened after any kind of end: a crash, a power failure, a full disk, damage, a newer release.

It must succeed quickly, whatever is found. Complete segments cost one small read each; only those that were being
written when the process ended are read as a whole.
"""

import contextlib
import errno
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collector.api import StoredTotals
from collector.storage.damage import Damage
from collector.storage.records import HEADER_BYTES, Entry, Scan, UnknownVersionError, check_version, scan
from collector.storage.segment import ACKS_SUFFIX, SEGMENT_SUFFIX, Segment, parse_segment_name

__all__ = ["Recovered", "open_segments", "segment_paths"]

# Kept free for the keys of a segment that cannot be read, because a newer release wrote it.
_KEYS_OF_UNKNOWN: int = 1 << 32
_KEYS_IN_A_GAP_MAX: int = 1 << 16  # more than a segment has


@dataclass(frozen=True, slots=True)
class Recovered:
    """What a directory contains."""

    segments: list[Segment]
    """Those with something to deliver, oldest first."""
    next_key: int


def segment_paths(directory: Path) -> list[Path]:
    """The segments in the directory, oldest first."""
    return sorted(path for path in directory.iterdir() if parse_segment_name(path) is not None)


def open_segments(directory: Path, damage: Damage) -> Recovered:
    """Open what is stored in the directory (blocking).

    Raises:
        OSError: the directory cannot be listed.
    """
    segments: list[Segment] = []
    next_key = 0
    paths = segment_paths(directory)
    for path in paths:
        first_key = int(path.name[:20])
        next_key = max(next_key, first_key + 1)
        try:
            segment = open_segment(path, damage)
        except UnknownVersionError as error:
            damage.not_usable(path, str(error))
            next_key = max(next_key, first_key + _KEYS_OF_UNKNOWN)
            continue
        except OSError as error:
            damage.not_usable(path, str(error))
            next_key = max(next_key, first_key + _KEYS_OF_UNKNOWN)
            continue
        if segment is None:
            continue
        next_key = max(next_key, segment.last_key + 1)
        if segment.batch_count:
            segments.append(segment)
        else:
            with contextlib.suppress(OSError):
                segment.delete()
    _remove_orphans(directory)
    return Recovered(segments, next_key)


def open_segment(path: Path, damage: Damage | None) -> Segment | None:
    """The segment in this file; None if there is nothing in it. Without ``damage`` nothing is changed on the disk.

    Raises:
        UnknownVersionError: a newer release wrote it.
        OSError: it cannot be read.
    """
    name = parse_segment_name(path)
    if name is None:
        raise OSError(errno.EINVAL, "the file is not named like a segment")
    first_key, marker = name
    segment = Segment(path, first_key, marker, first_key)
    check_version(segment.read_bytes(0, HEADER_BYTES))
    found = segment.read_trailer()
    if found is not None:
        trailer, size_bytes = found
        segment.last_key, segment.has_footer = trailer.last_key, True
        segment.size_bytes = size_bytes - trailer.footer_size
        segment.load_acks()
        if not any(segment.acked):
            segment.entries = None
            _set_totals(segment, trailer.totals)
            return segment
        footer = segment.read_footer()
        if footer is not None:
            _fill(segment, footer[1])
            segment.size_bytes = size_bytes - trailer.footer_size
            return segment
        segment.has_footer = False
    return _scan(segment, damage, None if found is None else found[0].totals)


def _scan(segment: Segment, damage: Damage | None, totals: StoredTotals | None) -> Segment | None:
    """Read a segment without a usable footer as a whole, and complete it. ``totals``: what it had, if that is known."""
    path = segment.path
    data = path.read_bytes()
    found = scan(data, segment.marker)
    if not found.entries:
        if damage is not None:
            if any(data[HEADER_BYTES:]):
                if totals is None:
                    problem = "no intact record was found in it; how many items it had is not known"
                else:
                    problem = f"no intact record was found in it; it had {totals.item_count} items"
                    segment.load_acks()
                    damage.lose_items(_unsettled_items(segment, totals))
                damage.whole_file(path, problem)
            else:  # the process ended before the first write
                path.unlink()
        return None
    segment.last_key = found.entries[-1].key
    segment.load_acks()
    _fill(segment, found.entries)
    segment.size_bytes = found.end
    if damage is None:
        return segment
    for start, end in found.damaged:
        damage.record(path, start, end, "there is no intact record in this part of the file")
    if found.damaged:
        damage.lose_items(_lost_items(found, segment, totals))
    if tail := len(data[found.end :].rstrip(b"\0")):
        damage.unfinished(path, tail)
    with contextlib.suppress(OSError):  # on a full or read-only disk it is scanned again next time
        if segment.entries:
            segment.seal(list(segment.entries.values()))
    return segment


def _lost_items(found: Scan, segment: Segment, totals: StoredTotals | None) -> int:
    """How many items that are not settled were in the damaged parts.

    The headers of records say it exactly. Of records without a header, the keys between their neighbours tell how many
    there were; they are taken to have as many items as the others have on average.
    """
    hit = [entry for entry in found.hit if totals is not None or entry.offset < found.end]
    count = sum(entry.item_count for entry in hit if not segment.is_acked(entry.key))
    known = {entry.key for entry in (*found.entries, *hit)}
    known_items = sum(entry.item_count for entry in (*found.entries, *hit))
    starts = {entry.offset: entry.key for entry in found.entries}
    ends = {entry.end: entry.key for entry in found.entries}
    nameless: set[int] = set()
    for start, end in found.damaged:  # between two records, or in front of the first one
        first = ends.get(start, segment.first_key - 1) + 1
        nameless |= {*range(first, min(starts[end], first + _KEYS_IN_A_GAP_MAX))} - known
    if not nameless:
        return count
    lost_count = sum(not segment.is_acked(key) for key in nameless)
    return count + round(lost_count * known_items / len(known))


def _unsettled_items(segment: Segment, totals: StoredTotals) -> int:
    """About how many items of a segment are not settled that had ``totals`` when it was complete."""
    keys = range(segment.first_key, segment.last_key + 1)
    batch_count = min(totals.batch_count, sum(not segment.is_acked(key) for key in keys))
    return round(totals.item_count * batch_count / totals.batch_count) if totals.batch_count else 0


def _fill(segment: Segment, entries: list[Entry]) -> None:
    """Set the entries that are not acknowledged."""
    live = [entry for entry in entries if not segment.is_acked(entry.key)]
    last_key = max(segment.last_key, entries[-1].key if entries else 0)
    segment.add(live)
    segment.last_key = last_key


def _set_totals(segment: Segment, totals: StoredTotals) -> None:
    segment.batch_count, segment.request_count = totals.batch_count, totals.request_count
    segment.item_count, segment.body_bytes = totals.item_count, totals.size_bytes


def _remove_orphans(directory: Path) -> None:
    """Delete acknowledgements whose segment is gone: they would settle the records of a new one with its name."""
    for path in _acks_paths(directory):
        if not path.with_suffix(SEGMENT_SUFFIX).exists():
            with contextlib.suppress(OSError):
                path.unlink()


def _acks_paths(directory: Path) -> Iterator[Path]:
    return (path for path in directory.iterdir() if path.suffix == ACKS_SUFFIX)
