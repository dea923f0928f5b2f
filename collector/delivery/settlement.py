"""Settlement: the books of one signal of one exporter. Every item it takes in ends up in exactly one of them.

An item is delivered, refused by the backend, or dropped with a reason; until then it is in flight. The reasons counted
here: ``queue_full``, ``storage_full``, ``storage_error``, ``storage_damaged``, ``retries_exhausted``,
``retry_disabled``, ``shutdown``, ``cancelled``, ``internal_error``.
"""

import errno
from typing import Final

from collector.api import PermanentError, RetryableError, Telemetry
from collector.delivery.log import RateLimitedLog
from collector.delivery.queue import SendingQueue, SendUnit
from collector.model import Batch

__all__ = ["Settlement"]

_OUT_OF_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Settlement:
    """Counts what becomes of the items of each unit, logs losses, and releases units that are settled."""

    def __init__(self, queue: SendingQueue, telemetry: Telemetry, log: RateLimitedLog) -> None:
        self._queue = queue
        self._signal = queue.signal
        self._telemetry = telemetry
        self._log = log
        self._unqueued_count = 0
        self._settled_count = 0  # of units that are not released yet

    @property
    def in_flight_count(self) -> int:
        """Items that are not settled yet."""
        return self._queue.item_count + self._unqueued_count - self._settled_count

    # Batches that never become part of a unit.

    def drop_on_shutdown(self, item_count: int) -> None:
        """The exporter is shut down and accepts nothing any more."""
        self._drop(item_count, "shutdown")

    def drop_on_full_queue(self, item_count: int) -> None:
        """The queue has no room."""
        self._drop(item_count, "queue_full")
        self._log.error(
            "the queue is full; data is dropped",
            signal=str(self._signal),
            queue_size=self._queue.size,
            queue_bytes=self._queue.size_bytes,
        )

    # What a queue with a storage loses.

    def drop_unstored(self, item_count: int, error: OSError) -> None:
        """See :class:`collector.delivery.units.LossObserver`."""
        self._drop(item_count, "storage_full" if error.errno in _OUT_OF_SPACE else "storage_error")
        self._log.error(
            "data cannot be stored; its senders are told, and new data is refused until there is room",
            signal=str(self._signal),
            items=item_count,
            error=str(error),
        )

    def drop_evicted(self, item_count: int) -> None:
        """See :class:`collector.delivery.units.LossObserver`."""
        self._drop(item_count, "queue_full")
        self._log.error(
            "the storage has no room for new data; the oldest data is dropped",
            signal=str(self._signal),
            items=item_count,
        )

    def drop_lost(self, item_count: int) -> None:
        """The storage lost items of an earlier run, which have not been counted as received here."""
        if item_count:
            self._telemetry.created(self._signal, item_count)
            self._drop(item_count, "storage_damaged")

    def drop_damaged(self, item_count: int, error: Exception) -> None:
        """See :class:`collector.delivery.units.LossObserver`."""
        self._drop(item_count, "storage_damaged")
        self._log.error("stored data is damaged and lost", signal=str(self._signal), items=item_count, error=str(error))

    def note_unreadable(self, error: OSError) -> None:
        """See :class:`collector.delivery.units.LossObserver`."""
        self._log.error(
            "the storage cannot be read; reading is tried again", signal=str(self._signal), error=str(error)
        )

    # Items of a unit. Each method settles `item_count` of them, or all that are not settled yet.

    def leave_out(self, unit: SendUnit, item_count: int) -> None:
        """The exporter's ``encode`` left items out and has counted them itself."""
        self._settle(unit, item_count)

    def deliver(self, unit: SendUnit, item_count: int, rejected_count: int = 0) -> None:
        """The backend accepted the items, except for ``rejected_count`` of them (partial success)."""
        unit.unsettled_count -= item_count
        unit.settled_count += item_count
        self._settled_count += item_count
        if rejected_count > 0:
            rejected_count = min(rejected_count, item_count)
            self._telemetry.refused(self._signal, rejected_count, "partial_success")
            item_count -= rejected_count
        if item_count:
            self._telemetry.delivered(self._signal, item_count)

    def refuse(self, unit: SendUnit, item_count: int, error: PermanentError, names: str = "") -> None:
        """The backend refused the items for good. ``names`` tells some of them in the log."""
        if not item_count:  # what an exporter adds of its own
            self._log.warning(
                "the backend refused a request without data", signal=str(self._signal), names=names, error=str(error)
            )
            return
        self._settle(unit, item_count)
        self._telemetry.refused(self._signal, item_count, error.reason)
        self._log.first_errors(
            "the backend refused data",
            signal=str(self._signal),
            items=item_count,
            reason=error.reason,
            error=str(error),
            names=names,
        )

    def give_up(self, unit: SendUnit, item_count: int, error: RetryableError, reason: str) -> None:
        """The items are not retried any more, for ``reason``; ``error`` is that of the last attempt."""
        if not item_count:
            return
        self._settle(unit, item_count)
        self._drop(item_count, reason)
        self._log.error(
            "the backend did not accept data; it is dropped",
            signal=str(self._signal),
            items=item_count,
            reason=reason,
            error=str(error),
        )

    def fail(self, unit: SendUnit, error: Exception) -> None:
        """The exporter's own code failed: drop what is not settled yet."""
        item_count = unit.unsettled_count
        self._settle(unit, item_count)
        self._drop(item_count, "internal_error")
        self._log.error(
            "the exporter failed with an internal error; data is dropped",
            signal=str(self._signal),
            items=item_count,
            exc_info=error,
        )

    def cancel(self, unit: SendUnit) -> None:
        """The caller that waited for the result was cancelled: drop what is not settled yet."""
        item_count = unit.unsettled_count
        self._settle(unit, item_count)
        self._drop(item_count, "cancelled")

    # Whole units.

    def release(self, unit: SendUnit, error: Exception | None) -> None:
        """Remove the settled unit from the queue and pass the outcome to the callers that wait for it."""
        self._queue.release(unit)
        self._settled_count -= unit.settled_count
        for queued in unit.batches:
            if queued.result is not None and not queued.result.done():
                if error is None:
                    queued.result.set_result(None)
                else:
                    queued.result.set_exception(error)

    def abandon(self, unit: SendUnit) -> None:
        """The exporter ends before the unit is settled: drop it, or leave it in a durable queue for the next start."""
        if self._queue.is_durable:  # in flight until then
            # What was settled of a unit is sent again with the rest of it.
            if repeated_count := sum(queued.item_count for queued in unit.batches) - unit.unsettled_count:
                self._telemetry.created(self._signal, repeated_count)
            self._settled_count -= unit.settled_count
            return
        if unit.unsettled_count:
            self._log.error(
                "the exporter shut down before it could send everything; data is dropped",
                signal=str(self._signal),
                items=unit.unsettled_count,
            )
            self._drop(unit.unsettled_count, "shutdown")
            self._settle(unit, unit.unsettled_count)
        self.release(unit, RetryableError("the exporter is shutting down", reason="shutdown"))

    def begin_unqueued(self, batch: Batch) -> SendUnit:
        """A unit for a batch that does not go through the queue; to be ended with :meth:`end_unqueued`."""
        self._unqueued_count += batch.item_count
        return SendUnit([], batch.item_count)

    def end_unqueued(self, unit: SendUnit, batch: Batch) -> None:
        """The batch is settled."""
        self._unqueued_count -= batch.item_count
        self._settled_count -= unit.settled_count

    def _settle(self, unit: SendUnit, item_count: int) -> None:
        unit.unsettled_count -= item_count
        unit.settled_count += item_count
        self._settled_count += item_count

    def _drop(self, item_count: int, reason: str) -> None:
        if item_count:
            self._telemetry.dropped(self._signal, item_count, reason)
