"""Adds metrics of one batch to the scopes of another: ``insert_metrics``."""

import numpy as np

from collector.model.arrays import I32, Mask
from collector.model.metrics import Metrics
from collector.model.patches import Patches

__all__ = ["insert_metrics"]


def insert_metrics(batch: Metrics, source: Metrics, scopes: I32) -> tuple[Metrics, Mask]:
    """The batch with all metrics of ``source`` in front of those of its scopes.

    Args:
        batch: Is not changed.
        source: The metrics to add; its resources and scopes do not matter.
        scopes: I32[m]: for each metric of ``source``, the scope of ``batch`` that it is added to. Metrics of one scope
            keep their order.

    Returns:
        The new batch, and bool[k]: which of its metrics were added.

    >>> from collector.model import MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> builder.gauge(builder.scope(builder.resource()), "load", times=[10], values=[0.5])
    >>> metrics = builder.build()
    >>> both, is_new = insert_metrics(metrics, metrics, np.zeros(1, np.int32))
    >>> both.field("name", "metrics").to_list(), is_new.tolist()
    (['load', 'load'], [True, False])
    """
    rows = source.table("metrics").rows
    holders = batch.table("scopes").rows
    counts = np.bincount(scopes, minlength=len(holders))
    patches = Patches(batch)
    places = holders["body"][scopes]
    # Right after the length of the scope's message, where it is certain which messages enclose what is inserted.
    lengths = rows["end"].astype(np.int64) - rows["start"]
    patches.add("scopes", places, places, source.wire, rows["start"].astype(np.int64), lengths)
    patches.add_frames_around("scopes", counts > 0)
    result = type(batch)(patches.apply().wire, batch.context)
    parents = result.table("metrics").parent
    first = np.searchsorted(parents, parents)
    is_new: Mask = np.arange(len(parents)) - first < counts[parents]
    return result, is_new
