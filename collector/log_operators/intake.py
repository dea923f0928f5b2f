"""Takes entries from sockets, many at a time, through the operators to the pipeline."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np

from collector.api import ConsumeError, Output, PeriodicTask, RetryableError, Settings
from collector.log_operators.block import Block
from collector.log_operators.pipeline import Pipeline
from collector.log_operators.setup import LimitedLog
from collector.log_operators.splitting import Split
from collector.model import Logs, Signal

__all__ = ["Intake", "Portion"]

_INTERVAL_S: Final = 0.05
_FLUSH_INTERVAL_S: Final = 0.2
_SOON_BYTES: Final = 256 * 1024
_RETRY_FIRST_S: Final = 0.1
_RETRY_MAX_S: Final = 5.0

Portion = tuple[Split, Mapping[str, Any]]
"""Entries from one peer, with their attributes."""


class Intake:
    """Calls ``take`` every 50 ms if there is something to take, or sooner if it is much, and passes the entries on.

    ``waits``: entries that are refused for a time are kept, and nothing more is taken until they are accepted; else
    they are dropped, and the door counts them as refused.
    """

    def __init__(
        self,
        settings: Settings,
        pipeline: Pipeline,
        take: Callable[[], Sequence[Portion]],
        *,
        waits: bool,
        log: LimitedLog,
    ) -> None:
        self._clock, self._pipeline, self._take, self._waits, self._log = settings.clock, pipeline, take, waits, log
        self._output: Output = settings.outputs[Signal.LOGS]
        self._wake = asyncio.Event()
        self._is_much = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._flushing = PeriodicTask(self._flush_due, _FLUSH_INTERVAL_S, settings.clock, log=settings.telemetry.log)
        self._ending = asyncio.Event()

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._run())
        self._flushing.start()

    def wake(self, waiting_bytes: int) -> None:
        """There is something to take."""
        self._wake.set()
        if waiting_bytes >= _SOON_BYTES:
            self._is_much.set()

    async def finish(self) -> None:
        """Pass on everything that there is to take or held, and end. Entries are not kept if they are refused."""
        if self._task is None:
            return
        self._ending.set()
        self._wake.set()
        await self._flushing.stop()
        task, self._task = self._task, None
        await task  # it ends behind the delivery in progress, which must not be cut off
        await self._pass_on(self._take())
        for logs in self._pipeline.flush():
            await self._deliver(logs)

    async def _run(self) -> None:
        while not self._ending.is_set():
            await self._wake.wait()
            await self._pause(_INTERVAL_S, self._is_much)  # for more entries, so that a block has many
            self._wake.clear()
            self._is_much.clear()
            await self._pass_on(self._take())

    async def _pause(self, seconds: float, *until: asyncio.Event) -> None:
        """Wait until the time is over, or for one of the events, or for the end."""
        waits: list[asyncio.Future[Any]] = [asyncio.ensure_future(event.wait()) for event in (*until, self._ending)]
        waits.append(asyncio.ensure_future(self._clock.sleep(seconds)))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _pass_on(self, portions: Sequence[Portion]) -> None:
        if not portions:
            return
        for logs in self._pipeline.process(_block(portions, self._clock.time_unix_nano())):
            await self._deliver(logs)

    async def _flush_due(self) -> None:
        due = self._pipeline.next_flush_unix_nano()
        now = self._clock.time_unix_nano()
        if due is not None and due <= now:
            for logs in self._pipeline.flush(now):
                await self._deliver(logs)

    async def _deliver(self, logs: Logs) -> None:
        pause_s = _RETRY_FIRST_S
        while True:
            try:
                await self._output.consume(logs)
            except RetryableError as error:
                if not self._waits or self._ending.is_set():
                    self._log.first_errors("log entries were refused", entries=logs.item_count, reason=error.reason)
                    return
                await self._pause(max(pause_s, error.retry_after_s or 0.0))
                pause_s = min(2 * pause_s, _RETRY_MAX_S)
            except ConsumeError as error:
                self._log.first_errors("log entries were refused", entries=logs.item_count, reason=error.reason)
                return
            else:
                return


def _block(portions: Sequence[Portion], now_unix_nano: int) -> Block:
    """All portions as one block."""
    if len(portions) == 1:
        split, attributes = portions[0]
        return Block(split.text, split.starts, split.ends, now_unix_nano, [attributes])
    starts: list[Any] = []
    ends: list[Any] = []
    codes: list[Any] = []
    sets: dict[int, int] = {}
    attributes_of: list[Mapping[str, Any]] = []
    place = 0
    for split, attributes in portions:
        starts.append(split.starts + place)
        ends.append(split.ends + place)
        place += len(split.text)
        code = sets.setdefault(id(attributes), len(attributes_of))
        if code == len(attributes_of):
            attributes_of.append(attributes)
        codes.append(np.full(len(split.starts), code, np.int32))
    return Block(
        b"".join(split.text for split, _ in portions),
        np.concatenate(starts),
        np.concatenate(ends),
        now_unix_nano,
        attributes_of,
        np.concatenate(codes),
    )
