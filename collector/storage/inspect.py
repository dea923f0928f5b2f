"""Looks into the queues of a directory, whether or not a service uses it. Everything here blocks, and only reads.

While a service runs, files may disappear between two steps; what they held has been delivered then.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collector.api import StoredBatch, StoredTotals
from collector.model import Batch
from collector.storage.damage import CORRUPT_SUFFIX
from collector.storage.directory import QUEUES, file_name, name_of
from collector.storage.records import DamagedRecordError, Entry, UnknownVersionError, stored_batch
from collector.storage.recovery import open_segment, segment_paths
from collector.storage.segment import Segment

__all__ = ["QueueSummary", "StoredRecord", "queue_directory", "queue_names", "records", "summarize"]


@dataclass(frozen=True, slots=True)
class QueueSummary:
    """One queue at one moment."""

    name: str
    totals: StoredTotals
    file_bytes: int
    """Space that its files take on the disk."""
    oldest_unix_nano: int
    """When its oldest batch was stored; 0 if it is empty."""
    corrupt_files: int
    """Parts of damaged files that were kept aside."""
    unusable_files: int
    """Segments that cannot be read, for example because a newer release wrote them."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One batch of a queue."""

    stored: StoredBatch
    batch: Batch | None
    """None: it is damaged."""


def queue_directory(directory: Path, name: str) -> Path:
    """Where the queue of this name is.

    Raises:
        FileNotFoundError: there is no such queue.
    """
    path = directory / QUEUES / file_name(name)
    if not path.is_dir():
        known = ", ".join(queue_names(directory)) or "none"
        raise FileNotFoundError(f"there is no queue {name!r} in {directory}; there are: {known}")
    return path


def queue_names(directory: Path) -> list[str]:
    """The names of all queues.

    Raises:
        FileNotFoundError: this is not the directory of a storage.
    """
    queues = directory / QUEUES
    if not queues.is_dir():
        raise FileNotFoundError(f"{directory} is not the directory of a file_storage: it has no folder {QUEUES!r}")
    return sorted(name_of(path.name) for path in queues.iterdir() if path.is_dir())


def summarize(directory: Path, name: str) -> QueueSummary:
    """What is in the queue."""
    path = queue_directory(directory, name)
    segments, unusable_count = _segments(path)
    file_bytes = corrupt_count = 0
    for file in path.iterdir():
        with contextlib.suppress(FileNotFoundError):
            file_bytes += file.stat().st_blocks * 512
        corrupt_count += file.suffix == CORRUPT_SUFFIX
    oldest_unix_nano = next((entry.stored_unix_nano for segment in segments for entry in _entries(segment)), 0)
    totals = StoredTotals(
        sum(segment.batch_count for segment in segments),
        sum(segment.request_count for segment in segments),
        sum(segment.item_count for segment in segments),
        sum(segment.body_bytes for segment in segments),
    )
    return QueueSummary(name, totals, file_bytes, oldest_unix_nano, corrupt_count, unusable_count)


def records(directory: Path, name: str) -> Iterator[StoredRecord]:
    """The batches of the queue that are not settled, oldest first; one is read at a time."""
    for segment in _segments(queue_directory(directory, name))[0]:
        for entry in _entries(segment):
            batch: Batch | None = None
            try:
                batch = segment.read(entry)
            except FileNotFoundError:
                break  # all of it is settled
            except (DamagedRecordError, OSError):
                pass
            yield StoredRecord(stored_batch(entry), batch)


def _segments(path: Path) -> tuple[list[Segment], int]:
    """The segments that can be read, and how many cannot."""
    segments: list[Segment] = []
    unusable_count = 0
    for file in segment_paths(path):
        try:
            segment = open_segment(file, None)
        except FileNotFoundError:
            continue
        except (UnknownVersionError, OSError):
            unusable_count += 1
            continue
        if segment is not None and segment.batch_count:
            segments.append(segment)
    return segments, unusable_count


def _entries(segment: Segment) -> list[Entry]:
    try:
        return list(segment.loaded().values())
    except OSError:
        return []
