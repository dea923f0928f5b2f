"""Commit: what the thread of a queue does in one turn, and the batches that become durable by it."""

import asyncio
import contextlib
from collections.abc import Sequence
from dataclasses import dataclass

from collector.api import OnStored
from collector.model import Batch
from collector.storage.records import Entry
from collector.storage.segment import Segment

__all__ = ["Acks", "Append", "Commit", "complete_segment", "report", "save_acks"]

Acks = tuple[Segment, list[int]]
"""Keys of a segment."""


# Neither is frozen, as that doubles the cost of making one, and with one client there is one for each request.


@dataclass(slots=True, eq=False)
class Append:
    """A batch that is to be written."""

    key: int
    batch: Batch
    meta: bytes
    on_stored: OnStored
    size_bytes: int
    """Of its record."""


@dataclass(slots=True, eq=False)
class Commit:
    """One turn of the writing thread: save acknowledgements, complete a segment, begin the next, append to it."""

    appends: Sequence[Append]
    segment: Segment
    is_new: bool
    complete: Segment | None
    complete_entries: Sequence[Entry]
    entries: Sequence[Entry]
    buffers: Sequence[bytes]
    size_bytes: int
    offset: int
    sync: bool
    acks: Sequence[Acks]

    def run(self) -> None:
        """Do it (blocking)."""
        if self.acks:
            save_acks(self.acks)
        if self.complete is not None:
            complete_segment(self.complete, self.complete_entries)
        if self.is_new:
            self.segment.create()
        self.segment.write(self.buffers, self.size_bytes, self.offset, sync=self.sync)


def save_acks(acks: Sequence[Acks]) -> None:
    """Save acknowledgements (blocking). If that fails, some batches may be sent twice after a crash."""
    for segment, keys in acks:
        with contextlib.suppress(OSError):
            segment.save_acks(keys)


def report(appends: Sequence[Append], outcome: OSError | None) -> None:
    """Tell the owners. A fault of one must not leave the others without an answer."""
    for append in appends:
        try:
            append.on_stored(outcome)
        except Exception as error:  # noqa: BLE001 - a fault of the owner
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a callback of a stored batch failed", "exception": error}
            )


def complete_segment(segment: Segment, entries: Sequence[Entry]) -> None:
    """Write the footer of a segment that has something in it (blocking). Without one, the next start reads it all."""
    try:
        if entries:
            segment.seal(entries)
        else:
            segment.close()
    except OSError:
        segment.close()
