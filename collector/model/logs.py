"""A batch of the signal ``logs``."""

from typing import ClassVar

from collector.model.batch import Batch
from collector.model.signal import Signal

__all__ = ["Logs"]


class Logs(Batch):
    """Log records.

    >>> from collector.model import LogsBuilder
    >>> builder = LogsBuilder()
    >>> builder.records(builder.scope(builder.resource()), times=[1, 2], bodies=["a", "b"], severity_numbers=[9, 17])
    >>> logs = builder.build()
    >>> logs.select(logs.field("severity_number") >= 17).field("body").text.to_list()
    ['b']
    """

    __slots__ = ()
    signal: ClassVar[Signal] = Signal.LOGS
