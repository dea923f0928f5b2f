"""Splitting by a backend's limits."""

import pytest

from collector.delivery.parts import is_within_limits, split_to_limits, whole_part
from collector.testing import traces


@pytest.mark.parametrize(("max_bytes", "max_items"), [(0, 0), (10**9, 0), (0, 64), (10**9, 64)])
def test_a_batch_within_the_limits_is_not_split(max_bytes, max_items):
    """A limit of 0 does not apply."""
    batch = traces(spans=64)
    assert is_within_limits(batch, max_bytes, max_items)
    assert split_to_limits(batch, max_bytes, max_items) == [batch]


@pytest.mark.parametrize(("max_bytes", "max_items"), [(3000, 0), (0, 10), (3000, 10), (1500, 10)])
def test_a_larger_batch_becomes_batches_that_each_keep_the_limits(max_bytes, max_items):
    """Together they have all items of the batch, in order."""
    batch = traces(spans=64, services=1)
    parts = split_to_limits(batch, max_bytes, max_items)
    assert len(parts) > 1
    assert all(is_within_limits(part, max_bytes, max_items) for part in parts)
    assert [row for part in parts for row in part.field("span_id").tolist()] == batch.field("span_id").tolist()


def test_a_whole_part_is_the_batch():
    """With its size, so that it can be cut."""
    batch = traces(spans=3)
    part = whole_part(batch)
    assert (part.payload, part.item_count, part.shard, part.size_bytes) == (batch, 3, 0, batch.size_bytes)
