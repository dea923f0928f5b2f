"""A batch of the signal ``traces``."""

from typing import ClassVar

from collector.model.batch import Batch
from collector.model.signal import Signal

__all__ = ["Traces"]


class Traces(Batch):
    """Spans with their events and links.

    >>> traces.select(traces.field("kind") == 2).field("name").to_list()
    ['GET /users', 'GET /health']
    >>> traces.field("name", "events").to_list()
    ['exception']
    """

    __slots__ = ()
    signal: ClassVar[Signal] = Signal.TRACES
