"""Everything that ``cardinality`` knows between batches: what a reload hands over, and what a storage keeps.

The keys of the tables are made with the secret of the process (``collector.model.keys``), which ``SavedState`` keeps
with them. Rules are those of docs/reference/cardinality.md.
"""

from typing import Final

import numpy as np

from collector.model import METRIC_GAUGE
from collector.model.arrays import I32
from collector.model.checkpoint import Part, Parts, nested, within
from processors.cardinality.allowed_values import AllowedValues
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.exemplars import ExemplarPool
from processors.cardinality.fold import Fold
from processors.cardinality.identity import ContextKeys
from processors.cardinality.limits import Limits, ProcessSeries
from processors.cardinality.records import FOLDS
from processors.cardinality.report import Report
from processors.cardinality.writer import AccumulatorWriter

__all__ = ["VERSION", "State"]

VERSION: Final = 1  # of the parts of a checkpoint
_MIB: Final = 1024 * 1024


class State:
    """The state of one processor."""

    def __init__(
        self, config: CardinalityConfig, start_time_unix_nano: int, process: ProcessSeries, writer_id: str
    ) -> None:
        self.config, self.process = config, process
        self.writer_id = writer_id
        """``service.instance.id`` of overflow series; the same after a restart with a storage."""
        self.limits = Limits(config, process)
        self.fold = Fold(
            start_time_unix_nano=start_time_unix_nano,
            initial=config.initial,
            state_max_bytes=config.state_limit_mib * _MIB,
            exemplars=ExemplarPool(config.overflow.exemplars, frozenset(config.top.hash)),
        )
        self.writer = AccumulatorWriter(self.fold)
        self.allowed = AllowedValues()
        self.contexts = ContextKeys()
        self.report = Report(config.top)
        self._rotated_s = 0.0

    def configure(self, config: CardinalityConfig) -> None:
        """Apply other limits to the same series."""
        if config is self.config:
            return
        self.config = config
        self.limits.configure(config)
        self.fold.configure(initial=config.initial, state_max_bytes=config.state_limit_mib * _MIB)
        self.fold.exemplars.configure(config.overflow.exemplars, frozenset(config.top.hash))
        self.report.configure(config.top)
        column = self.fold.accumulators.column("fold")
        for slot, (name, kind) in self.writer.names().items():
            if kind == METRIC_GAUGE:
                column[slot] = FOLDS.index(config.fold_of(name))

    def parts(self) -> dict[str, Part]:
        """Copies of everything that is kept over a restart: the parts of a checkpoint.

        The report, estimates of rejected series, exemplars and results of attribute rules begin anew.
        """
        return {
            "writer_id": self.writer_id,
            "written": self.writer.parts(),
            "allowed": self.allowed.parts(),
            **nested("limits", self.limits.parts()),
            **nested("fold", self.fold.parts()),
        }

    def restore(self, parts: Parts, elapsed_s: float) -> None:
        """Continue from ``parts``; ``elapsed_s`` is added to monotonic times.

        Raises:
            CheckpointError, KeyError, TypeError, ValueError: They are not those of such a state, which is useless then.
        """
        self.writer_id = str(parts["writer_id"])
        self.fold.restore(within("fold", parts), elapsed_s)
        self.limits.restore(within("limits", parts), elapsed_s)
        self.writer.restore(parts["written"])
        self.allowed.restore(parts["allowed"], elapsed_s)

    def free(self, slots: I32, now_unix_nano: int, now_s: float) -> None:
        """Rule 8: named series lose their slots. Those that the processor writes end; their sources go to overflow."""
        if not len(slots):
            return
        keys = self.limits.named.keys(slots)
        is_merged = self.limits.named.column("merged")[slots] > 0
        written = self.fold.accumulators.find(keys)
        written = np.unique(written[written >= 0])
        self.limits.free(slots)
        self.fold.free(keys[~is_merged], now_unix_nano, now_s)
        self.writer.remove(written)
        self.fold.move_to_overflow(written, now_s)

    def rotate(self, now_s: float) -> None:
        """Begin a new window of the estimates, if the current one is over."""
        if now_s - self._rotated_s >= self.config.window:
            self._rotated_s = now_s
            self.limits.rotate()
            self.report.rotate()
