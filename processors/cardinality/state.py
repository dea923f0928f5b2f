"""Everything ``cardinality`` knows between batches, in one object: what a reload hands over and what a storage could keep.

Tables are keyed with the secret of the process (``collector.model.keys``), so a stored state would take series keys
made with a key that is stored beside it (``series_key(batch, key)``); nothing else here is bound to the process.
"""

import numpy as np

from collector.model import METRIC_GAUGE
from collector.model.arrays import I32
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.fold import Fold
from processors.cardinality.identity import ContextKeys
from processors.cardinality.limits import Limits, ProcessSeries
from processors.cardinality.report import Report
from processors.cardinality.rewrite import Granted
from processors.cardinality.stores import FOLDS
from processors.cardinality.writer import Writer

__all__ = ["State"]

_MIB = 1024 * 1024


class State:
    """See the module."""

    def __init__(self, config: CardinalityConfig, start_time_unix_nano: int, process: ProcessSeries) -> None:
        self.config, self.process = config, process
        self.limits = Limits(config, process)
        self.fold = Fold(
            start_time_unix_nano=start_time_unix_nano, state_ttl_s=config.state_ttl, initial=config.initial,
            state_max_bytes=config.state_limit_mib * _MIB, exemplars=_exemplars(config),
        )  # fmt: skip
        self.writer = Writer(self.fold)
        self.granted = Granted()
        self.contexts = ContextKeys()
        self.report = Report(config.top)
        self.turned_s = 0.0

    def configure(self, config: CardinalityConfig) -> None:
        """Other limits for the same series."""
        if config is self.config:
            return
        self.config = config
        self.limits.configure(config)
        self.fold.configure(
            state_ttl_s=config.state_ttl, initial=config.initial, state_max_bytes=config.state_limit_mib * _MIB
        )
        self.fold.exemplars.limit, self.fold.exemplars.hidden = config.overflow.exemplars, frozenset(config.top.hash)
        self.report.configure(config.top)
        column = self.fold.accumulators.column("fold")
        for slot, (name, kind) in self.writer.names().items():
            if kind == METRIC_GAUGE:
                column[slot] = FOLDS.index(config.fold_of(name))

    def free(self, slots: I32, now_unix_nano: int, now_s: float) -> None:
        """Rule 8: these named series lose their slots; those we write ourselves end, their sources go to overflow."""
        if not len(slots):
            return
        keys = self.limits.named.keys(slots)
        merged = self.limits.named.column("merged")[slots] > 0
        written = self.fold.accumulators.find(keys)
        written = np.unique(written[written >= 0])
        self.limits.free(slots)
        self.fold.free(keys[~merged], now_unix_nano, now_s)
        self.writer.remove(written)
        self.fold.demote(written, now_s)

    def turn(self, now_s: float) -> None:
        """Counts of distinct things are of this window and the one before."""
        if now_s - self.turned_s >= self.config.window:
            self.turned_s = now_s
            self.limits.turn()
            self.report.turn()


def _exemplars(config: CardinalityConfig) -> ExemplarPool:
    return ExemplarPool(config.overflow.exemplars, frozenset(config.top.hash))
