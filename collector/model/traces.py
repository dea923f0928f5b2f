"""A batch of the signal ``traces``."""

from typing import ClassVar

from collector.model.batch import Batch
from collector.model.signal import Signal

__all__ = ["Traces"]


class Traces(Batch):
    """Spans with their events and links."""

    __slots__ = ()
    signal: ClassVar[Signal] = Signal.TRACES
