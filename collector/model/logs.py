"""A batch of the signal ``logs``."""

from typing import ClassVar

from collector.model.batch import Batch
from collector.model.signal import Signal

__all__ = ["Logs"]


class Logs(Batch):
    """Log records."""

    __slots__ = ()
    signal: ClassVar[Signal] = Signal.LOGS
