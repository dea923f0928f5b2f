"""Collects metrics of the machine every ``collection_interval``. Source: the Collector's hostmetricsreceiver.

Reading blocks, on a file system that does not answer even for ever, so each collection runs in a thread of its own. A
daemon thread, not one of the event loop's pool: the process must be able to end while one is stuck. As long as one is,
no other is started.
"""

import asyncio
import threading
from contextlib import suppress
from functools import partial
from typing import Any

from collector.api import ConsumeError, Host, PeriodicTask, Receiver, Settings
from collector.model import Signal
from receivers.host_metrics.collection import Collection
from receivers.host_metrics.config import HostMetricsConfig
from receivers.host_metrics.scrapers import Machine

__all__ = ["HostMetricsReceiver"]


class HostMetricsReceiver(Receiver):
    """Hands on one batch per collection."""

    def __init__(self, settings: Settings, config: HostMetricsConfig) -> None:
        self._settings, self._config = settings, config
        self._log = settings.telemetry.log
        self._machine = Machine(config.root_path)
        self._errors = settings.telemetry.counter(
            "tailrace_host_metrics_errors",
            "Metrics, file systems and processes that could not be read, and collections that did not end in time",
            ("scraper",),
        )
        self._result: asyncio.Future[Any] | None = None
        """The batch of the latest collection; its thread completes it, and nothing else."""
        self._stopping = asyncio.Event()
        self._failing: set[str] = set()
        """Scrapers whose failure has been logged; ``all`` for the collection as a whole."""
        self._first = PeriodicTask(self._begin, config.initial_delay, settings.clock, log=self._log)
        self._repeating = PeriodicTask(self._collect, config.collection_interval, settings.clock, log=self._log)

    async def start(self, host: Host) -> None:  # noqa: ARG002 - needs nothing of it
        """Begin to collect."""
        self._first.start()

    async def shutdown(self) -> None:
        """End that, without waiting for a collection in progress."""
        self._stopping.set()
        await self._first.stop()
        await self._repeating.stop()

    async def _begin(self) -> None:
        self._repeating.start()
        self._repeating.run_soon()
        await self._first.stop()

    async def _collect(self) -> None:
        if self._stopping.is_set():
            return
        if self._result is not None and not self._result.done():
            self._report("all", "the previous collection has not ended; none is started before it has")
            return
        collection = Collection(self._settings, self._config, self._machine)
        self._result = self._start(collection)
        if not await self._has_ended(self._result):
            return
        batch = self._result.result()
        self._failing &= set(collection.error_counts)
        for scraper, count in collection.error_counts.items():
            self._report(scraper, collection.first_errors[scraper], count)
        # The next collection has newer values; the service has counted the refusal.
        with suppress(ConsumeError):
            if batch.item_count:
                await self._settings.outputs[Signal.METRICS].consume(batch)

    async def _has_ended(self, result: "asyncio.Future[Any]") -> bool:
        """Wait for the collection. False: the timeout has passed, or the receiver is shutting down.

        Without a timeout, a collection that takes longer than the interval is reported once per interval, but used when
        it ends.
        """
        stopping = asyncio.ensure_future(self._stopping.wait())
        limit_s = self._config.timeout or self._config.collection_interval
        try:
            while not result.done() and not stopping.done():
                await asyncio.wait((result, stopping), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                if not result.done() and not stopping.done():
                    self._report("all", "the collection takes longer than the timeout or the collection_interval")
                    if self._config.timeout:
                        break
        finally:
            stopping.cancel()
        return result.done()

    def _start(self, collection: Collection) -> "asyncio.Future[Any]":
        """Run the collection in a thread; the future has its batch."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()

        def run() -> None:
            try:
                batch = collection.run()
            except Exception as error:  # noqa: BLE001 - handed to the event loop
                done = partial(result.set_exception, error)
            else:
                done = partial(result.set_result, batch)
            with suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(done)

        threading.Thread(target=run, name="tailrace-host-metrics", daemon=True).start()
        return result

    def _report(self, scraper: str, message: str, count: int = 1) -> None:
        """Count a failure, and log it once until the scraper has succeeded again."""
        self._errors.add(count, scraper=scraper)
        if scraper not in self._failing:
            self._failing.add(scraper)
            self._log.warning(
                "a scraper could not read everything; the rest is reported", scraper=scraper, count=count, first=message
            )
