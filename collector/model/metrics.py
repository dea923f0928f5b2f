"""A batch of the signal ``metrics``. Its items are points."""

from typing import ClassVar

import numpy as np

from collector.model.arrays import U64
from collector.model.batch import Batch
from collector.model.columns import read_only
from collector.model.series import series_key
from collector.model.signal import Signal

__all__ = ["Metrics"]


class Metrics(Batch):
    """Metrics with their points, exemplars and quantiles.

    >>> from collector.model import MetricsBuilder
    >>> builder = MetricsBuilder()
    >>> builder.gauge(builder.scope(builder.resource()), "load", times=[10, 20], values=[0.5, 0.7])
    >>> metrics = builder.build()
    >>> metrics.item_count, metrics.field("name", "metrics").to_list(), metrics.field("value").tolist()
    (2, ['load'], [0.5, 0.7])
    """

    __slots__ = ()
    signal: ClassVar[Signal] = Signal.METRICS

    def series_key(self) -> U64:
        """The identity of each point's series, U64[n,2], keyed with a secret of this process and computed once."""
        key = self.index.columns.get(("points", "series_key"))
        if not isinstance(key, np.ndarray):
            key = self.index.columns["points", "series_key"] = read_only(series_key(self))
        return key
