"""What an encoder of Prometheus series gets to know of a batch."""

from dataclasses import dataclass, field

import numpy as np

from collector.model.arrays import I32, U8, U64, Indices, Records

__all__ = ["Encodable", "Family"]


@dataclass(slots=True)
class Family:
    """A metric with its Prometheus name."""

    name: str
    kind: str
    """counter, gauge, histogram, summary"""
    description: str = ""
    unit: str = ""


@dataclass(slots=True)
class Encodable:
    """What an encoder needs of one batch. ``order`` and ``run_of`` cover only the points that can be sent."""

    wire: bytes
    points: Records
    types: I32
    order: I32
    run_of: I32
    """(len(order),) run of each position."""
    slot: I32
    """(points,) source slot, -1 where the point cannot be sent."""
    extra_set: I32
    """(points,) number of the set of bounds or quantiles, negative for other types."""
    shard_key: U64
    """(points,) part of the hash of the series."""
    exemplars: Records
    exemplar_first: I32
    exemplar_arena: U8
    exemplar_slices: I32
    quantiles: Records
    quantile_first: I32
    dropped: dict[str, Indices] = field(default_factory=dict)
    """Point rows that cannot be sent, by reason."""
    folded_count: int = 0
    """Points whose values were added to others of their series."""
    sharing: Indices = field(default_factory=lambda: np.empty(0, np.intp))
    """Point rows of new sources whose series other sources have as well."""
