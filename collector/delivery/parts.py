"""Part: one request to the backend. Also how batches are split to stay within a backend's limits."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from collector.model import Batch
from collector.model.arrays import I32, Indices

__all__ = ["Part", "is_within_limits", "split_to_limits", "whole_part", "with_rows"]

P = TypeVar("P")


@dataclass(slots=True)
class Part(Generic[P]):
    """One request to the backend. It is retried, refused and counted by itself: what succeeded is never sent again.

    Example::

        def encode(self, batch: Batch) -> list[Part[bytes]]:
            body = orjson.dumps(rows_of(batch))
            return [Part(body, batch.item_count, size_bytes=len(body))]
    """

    payload: P
    item_count: int
    shard: int = 0
    """Parts of one batch with the same shard are sent in order; different shards are sent at the same time."""
    size_bytes: int = 0
    """Size as ``max_request_bytes`` counts it. 0: the part is never cut, even if the backend finds it too large."""
    rows: Indices | I32 | None = None
    """(item_count,) the rows of its items in the batch, in order: if the part is lost, only they become a dead letter.
    None: the payload is a batch, or the rows are not known. :meth:`QueuedExporter.cut` need not set it.
    """


def whole_part(batch: Batch) -> Part[Any]:
    """The part whose payload is the batch itself."""
    return Part(batch, batch.item_count, size_bytes=batch.size_bytes)


def with_rows(parts: Sequence[Part[P]], rows: Indices | I32 | None) -> Sequence[Part[P]]:
    """The parts, each with its share of the rows, which are those of all their items, in order.

    >>> import numpy as np
    >>> [part.rows.tolist() for part in with_rows([Part(b"a", 2), Part(b"b", 1)], np.array([4, 0, 7]))]
    [[4, 0], [7]]
    """
    if rows is not None:
        begin = 0
        for part in parts:
            end = begin + part.item_count
            part.rows, begin = rows[begin:end], end
    return parts


def is_within_limits(batch: Batch, max_bytes: int, max_items: int) -> bool:
    """Whether the batch can be sent as it is; a limit of 0 does not apply."""
    return (not max_bytes or batch.size_bytes <= max_bytes) and (not max_items or batch.item_count <= max_items)


def split_to_limits(batch: Batch, max_bytes: int, max_items: int) -> list[Batch]:
    """The batch as batches that are each within both limits, in order; a limit of 0 does not apply."""
    if is_within_limits(batch, max_bytes, max_items):
        return [batch]
    parts = batch.split(max_items=max_items) if max_items and batch.item_count > max_items else [batch]
    if not max_bytes:
        return list(parts)
    return [
        smaller
        for part in parts
        for smaller in (part.split(max_bytes=max_bytes) if part.size_bytes > max_bytes else (part,))
    ]
