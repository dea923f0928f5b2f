"""What components emit through, and the fans that their outputs lead to.

A reload leads an output to another fan, so that the component can stay as it is. While components behind it are
exchanged, batches wait in a :class:`HeldFan`.
"""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

from collector.api import ConsumeError, RetryableError
from collector.delivery.log import RateLimitedLog
from collector.model import Batch
from collector.service.edges import Edge, Segment
from collector.service.ledger import LedgerEntry

__all__ = ["CountedOutput", "Fan", "HeldFan", "StageOutput", "connected", "held"]


class Fan:
    """Everything that one receiver, connector or stage feeds with one signal."""

    __slots__ = ("_entering_count", "_is_idle", "segments", "waits_for_result")

    def __init__(self, segments: Sequence[Segment]) -> None:
        self.segments = tuple(segments)
        self._entering_count = 0  # batches that a component does not take at once
        self._is_idle = asyncio.Event()
        self.waits_for_result = any(edge.waits_for_result for segment in self.segments for edge in segment.awaited)
        """There is an exporter behind it that waits for its backend, whose answer is for one request."""

    async def consume(self, batch: Batch) -> None:
        """Pass the batch to every pipeline.

        Raises:
            ConsumeError: of an exporter that waits; a retryable one if there are several.
        """
        remainder = self.try_consume(batch, batch.item_count)
        if remainder is not None:
            await remainder

    def try_consume(self, batch: Batch, item_count: int) -> Coroutine[Any, Any, None] | None:
        """Do what ``consume`` does as far as it needs no waiting; None: all of it is done.

        Otherwise the caller must await what is returned, which raises what ``consume`` raises.
        """
        nonblocking: list[_Delivery] | None = None
        awaited: list[_Delivery] | None = None
        for segment in self.segments:
            result = segment.transform(batch, item_count)
            if result is None:
                continue
            for edge in segment.nonblocking:
                if not edge.try_consume(*result):
                    nonblocking = [*(nonblocking or ()), (edge, *result)]
            if segment.awaited:
                awaited = [*(awaited or ()), *((edge, *result) for edge in segment.awaited)]
        if nonblocking is None and awaited is None:
            return None
        return self._consume_remainder(nonblocking or (), awaited or ())

    async def wait_idle(self) -> None:
        """Return when no batch is on its way through, because nothing leads here any more."""
        await asyncio.sleep(0)  # a remainder that a caller has just received begins
        while self._entering_count:
            self._is_idle.clear()
            await self._is_idle.wait()

    async def _consume_remainder(self, nonblocking: "Sequence[_Delivery]", awaited: "Sequence[_Delivery]") -> None:
        self._entering_count += 1
        try:
            results = [await edge.consume(batch, item_count) for edge, batch, item_count in nonblocking]
            if len(awaited) == 1:
                ((edge, batch, item_count),) = awaited
                results.append(await edge.consume(batch, item_count))
            elif awaited:
                results += await asyncio.gather(
                    *(edge.consume(batch, item_count) for edge, batch, item_count in awaited)
                )
        finally:
            self._entering_count -= 1
            self._is_idle.set()
        errors = [error for error in results if error is not None]
        if errors:
            raise next((error for error in errors if isinstance(error, RetryableError)), errors[0])


_Delivery = tuple[Edge, Batch, int]


class HeldFan:
    """Takes the place of a :class:`Fan` while a reload exchanges what is behind it: batches wait until it is released.

    It makes no difference to the path of a batch at any other time.
    """

    __slots__ = ("_is_released", "_target", "waits_for_result")

    def __init__(self) -> None:
        self.waits_for_result = False
        self._target: Fan | None = None
        self._is_released = asyncio.Event()

    def release(self, target: Fan | None) -> None:
        """Let all batches through to ``target``; None: refuse them."""
        self._target = target
        self._is_released.set()

    def try_consume(self, batch: Batch, item_count: int) -> Coroutine[Any, Any, None]:
        """See :meth:`Fan.try_consume`."""
        return self._consume(batch, item_count)

    async def _consume(self, batch: Batch, item_count: int) -> None:
        await self._is_released.wait()
        if self._target is None:
            raise RetryableError("a reload could not start this receiver", reason="shutdown")
        remainder = self._target.try_consume(batch, item_count)
        if remainder is not None:
            await remainder


def connected(present: Fan | HeldFan, fan: Fan) -> Fan:
    """``fan``, as the successor of what an output leads to at present; batches that are held go on to it."""
    if isinstance(present, HeldFan):
        present.release(fan)
    return fan


def held(present: Fan | HeldFan) -> HeldFan:
    """What an output leads to while its batches have to wait."""
    return present if isinstance(present, HeldFan) else HeldFan()


class _Output:
    """What a component emits through. A reload leads it elsewhere, so that the component can stay as it is."""

    __slots__ = ("_entry", "_fan")

    def __init__(self, fan: Fan, entry: LedgerEntry) -> None:
        self._fan: Fan | HeldFan = fan
        self._entry = entry

    def connect(self, fan: Fan) -> None:
        """Lead to ``fan`` from now on."""
        self._fan = connected(self._fan, fan)

    def hold(self) -> None:
        """Let batches wait until the next ``connect``."""
        self._fan = held(self._fan)


class CountedOutput(_Output):
    """What a connector emits through: counts, then fans out."""

    __slots__ = ()

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on."""
        item_count = batch.item_count
        self._entry.out += item_count
        remainder = self._fan.try_consume(batch, item_count)
        if remainder is not None:
            await remainder


class StageOutput(_Output):
    """What a stage emits through.

    It is called by timers and flushes, so errors end here; the exporters have counted them.
    """

    __slots__ = ("_log",)

    def __init__(self, fan: Fan, entry: LedgerEntry, log: RateLimitedLog) -> None:
        super().__init__(fan, entry)
        self._log = log

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on."""
        item_count = batch.item_count
        self._entry.out += item_count
        remainder = self._fan.try_consume(batch, item_count)
        if remainder is None:
            return
        try:
            await remainder
        except ConsumeError as error:
            self._log.warning(
                "an exporter behind this processor refused a batch", reason=error.reason, error=str(error)
            )
