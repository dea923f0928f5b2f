"""The receiver ``file_log``: reads files in a thread, and remembers what the pipeline has accepted."""

import asyncio
import json
from collections import deque
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from collector.api import ConsumeError, Host, Receiver, RetryableError, Settings, StateStore, find_storage
from collector.delivery.log import RateLimitedLog
from collector.log_operators import Block, OperatorReport, Pipeline
from collector.model import Logs, Signal
from receivers.file_log.config import FileLogConfig
from receivers.file_log.follower import Follower, Portion
from receivers.file_log.header import HeaderReader
from receivers.file_log.tail import Tail

__all__ = ["FileLogReceiver"]

_STATE_VERSION: Final = 1
_SAVING_SHARE: Final = 0.1  # of the time is spent on saving offsets, if they are many
_POLL_S: Final = 1.0

_Place = tuple[int, int, bytes]


@dataclass(slots=True)
class _Round:
    """Entries that were read together."""

    token: int
    begins: dict[Tail, _Place]
    """Where each file was before."""
    logs: list[Logs] = field(default_factory=list)


class FileLogReceiver(Receiver):
    """Polls the files, and passes their entries through the operators.

    Reading goes on when the pipeline has accepted what was read, so that a slow pipeline costs no memory.
    """

    def __init__(self, settings: Settings, config: FileLogConfig) -> None:
        self._id, self._config, self._clock = settings.id, config, settings.clock
        self._output = settings.outputs[Signal.LOGS]
        self._telemetry = settings.telemetry
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        report = OperatorReport(settings, self._log)
        self._pipeline = Pipeline(
            config.operators, report=report, attributes=config.attributes, resource=config.resource
        )
        header = HeaderReader(config.header, config, report) if config.header is not None else None
        self._errors: list[tuple[str, str]] = []
        self._follower = Follower(config, header, lambda reason, path: self._errors.append((reason, path)))
        self._failures = settings.telemetry.counter(
            "tailrace_file_log_errors", "Files that could not be read or deleted, by reason", ("reason",)
        )
        settings.telemetry.gauge(
            "otelcol_fileconsumer_open_files",
            "Number of open files",
            read=lambda: float(self._follower.open_count),
        )
        self._reading_count = 0
        settings.telemetry.gauge(
            "otelcol_fileconsumer_reading_files",
            "Number of open files that are being read",
            read=lambda: float(self._reading_count),
        )
        self._held: dict[int, _Round] = {}
        """Rounds of which the operators hold entries, by token."""
        self._token = 0
        self._store: StateStore | None = None
        self._is_dirty = False
        self._next_save_s = 0.0
        self._taken_over = False
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    async def start(self, host: Host) -> None:
        """Begin to read.

        Raises:
            ValueError: There is no such storage extension.
        """
        if self._config.storage:
            key = f"receivers::{self._id}::storage"
            self._store = find_storage(host, self._config.storage, key=key).state(str(self._id))
            if not self._taken_over:
                self._restore(await self._store.load())
        self._task = asyncio.ensure_future(self._run())

    async def shutdown(self) -> None:
        """End, when what is on its way has been accepted, and save the offsets."""
        task, self._task = self._task, None
        if task is None:
            return
        self._stopping.set()
        try:
            await task
        except asyncio.CancelledError:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
            raise
        finally:
            self._follower.close()
            if self._store is not None:
                try:
                    self._store.save_now(self._state())
                except OSError as error:
                    self._log.error("the offsets of files could not be saved", error=str(error))

    def sole_use(self) -> Collection[str]:
        """The files: a successor begins when this one has ended."""
        return (f"file_log {self._id}",)

    def hand_over(self, config: FileLogConfig) -> object | None:  # noqa: ARG002 - the offsets are right for any
        """The files and their offsets."""
        return self._follower

    def take_over(self, state: object) -> bool:
        """Continue where the predecessor has ended."""
        if not isinstance(state, Follower):
            return False
        for tail in state.tails.values():
            tail.attributes = {}
            tail.roll_back()
        self._follower.restore(state.tails.values(), knows_all=False)
        self._follower.gone = state.gone
        self._taken_over = True
        return True

    async def _run(self) -> None:
        while not self._stopping.is_set():
            has_more = False
            try:
                has_more = await self._poll()
            except ConsumeError as error:
                self._log.first_errors("log entries were refused", reason=error.reason)
            except Exception as error:  # noqa: BLE001 - files must be read on, whatever one of them contains
                self._log.first_errors("a poll of files failed", error=repr(error))
            self._report_errors()
            if not has_more:
                await self._pause(self._config.poll_interval)
        await self._end()

    async def _poll(self) -> bool:
        """Whether files have more. Reads for about a second; then new and rotated files are looked for."""
        until_s, has_more = self._clock.monotonic_s() + _POLL_S, False
        ready = await asyncio.to_thread(self._follower.poll)
        size = self._config.max_concurrent_files
        for begin in range(0, len(ready), size):
            batch = ready[begin : begin + size]
            self._reading_count = len(batch)
            waiting = deque(batch)
            while waiting and not self._stopping.is_set():
                made = await asyncio.to_thread(self._read, waiting)
                if made is not None and not await self._deliver(made):
                    return False
                if self._clock.monotonic_s() >= until_s:
                    break
            has_more = has_more or bool(waiting)
            if self._config.delete_after_read:
                await asyncio.to_thread(self._follower.delete_read, batch)
        self._reading_count = 0
        due = self._pipeline.next_flush_unix_nano()
        now = self._clock.time_unix_nano()
        if due is not None and due <= now:
            await self._deliver(_Round(0, {}, self._pipeline.flush(now)))
        return has_more

    def _read(self, waiting: deque[Tail]) -> _Round | None:
        """The next entries, and what the operators make of them. Runs in a thread."""
        portions = self._follower.read(waiting)
        if not portions:
            return None
        self._token += 1
        begins = {portion.tail: portion.before for portion in reversed(portions)}
        made = _Round(self._token, begins)
        made.logs = self._pipeline.process(_block(portions, self._config, self._clock.time_unix_nano(), made.token))
        return made

    async def _deliver(self, made: _Round) -> bool:
        """Whether the pipeline has taken everything. False: the receiver is to end, and the offsets stay."""
        for logs in made.logs:
            if not await self._consume(logs):
                return False
        if made.token:
            self._held[made.token] = made
            made.logs = []
        tokens = self._pipeline.held_tokens()
        ended = [number for number in self._held if number not in tokens]
        for tail in {tail: None for number in ended for tail in self._held.pop(number).begins}:
            tail.commit()
        for waiting in reversed(self._held.values()):
            for tail, place in waiting.begins.items():
                tail.committed = place
        self._is_dirty = True
        await self._save()
        return True

    async def _consume(self, logs: Logs) -> bool:
        retry = self._config.retry_on_failure
        pause_s, begin_s = retry.initial_interval, self._clock.monotonic_s()
        while True:
            try:
                await self._output.consume(logs)
            except RetryableError as error:
                if self._stopping.is_set():
                    return False
                elapsed_s = self._clock.monotonic_s() - begin_s
                if not retry.enabled or 0 < retry.max_elapsed_time <= elapsed_s:
                    self._log.first_errors("log entries were refused", entries=logs.item_count, reason=error.reason)
                    return True
                if await self._pause(max(pause_s, error.retry_after_s or 0.0)):
                    return False
                pause_s = min(2 * pause_s, retry.max_interval)
            except ConsumeError as error:
                self._log.first_errors("log entries were refused", entries=logs.item_count, reason=error.reason)
                return True
            else:
                return True

    async def _end(self) -> None:
        """Pass on what the operators hold: it has been read, and will not be read again."""
        with suppress(ConsumeError):
            for logs in self._pipeline.flush():
                if not await self._consume(logs):
                    return  # it is read again after the next start
            await self._deliver(_Round(0, {}))

    async def _pause(self, seconds: float) -> bool:
        """Wait; returns True at once if the receiver is to end."""
        stop = asyncio.ensure_future(self._stopping.wait())
        sleep = asyncio.ensure_future(self._clock.sleep(seconds))
        try:
            await asyncio.wait((stop, sleep), return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            sleep.cancel()
        return self._stopping.is_set()

    def _report_errors(self) -> None:
        errors, self._errors[:] = list(self._errors), []
        for reason, path in errors:
            self._failures.add(reason=reason)
            self._log.first_errors("a file could not be read or deleted", reason=reason, path=path)

    # The offsets in the storage.

    async def _save(self) -> None:
        if self._store is None or not self._is_dirty or self._clock.monotonic_s() < self._next_save_s:
            return
        begin_s = self._clock.monotonic_s()
        try:
            await self._store.save(self._state())
            self._is_dirty = False
        except OSError as error:
            self._log.first_errors("the offsets of files could not be saved", error=str(error))
        end_s = self._clock.monotonic_s()
        self._next_save_s = end_s + (end_s - begin_s) / _SAVING_SHARE

    def _state(self) -> bytes:
        tails: Iterable[Tail] = (*self._follower.gone, *self._follower.tails.values())
        saved = [tail.saved() for tail in tails if tail.twin is None]
        state = {"version": _STATE_VERSION, "include": self._config.include, "files": saved}
        return json.dumps(state, separators=(",", ":")).encode("utf-8", "surrogatepass")

    def _restore(self, state: bytes | None) -> None:
        if state is None:
            return
        try:
            saved: Any = json.loads(state.decode("utf-8", "surrogatepass"))
            if saved["version"] != _STATE_VERSION:
                raise ValueError(f"version {saved['version']}")  # noqa: TRY301 - handled like other damage
            tails = [Tail.restored(entry) for entry in saved["files"]]
            knows_all = list(self._config.include) == saved["include"]
        except (ValueError, KeyError, TypeError) as error:
            self._log.error("the saved offsets of files cannot be used", error=str(error))
            return
        self._follower.restore(tails, knows_all=knows_all)


def _block(portions: Sequence[Portion], config: FileLogConfig, now_unix_nano: int, token: int) -> Block:
    """All portions as one block."""
    splits = [portion.split for portion in portions]
    sizes = [len(split.text) for split in splits]
    places = np.cumsum([0, *sizes[:-1]])
    counts = [len(split.starts) for split in splits]
    numbers = {}
    if config.include_file_record_number:
        numbers["log.file.record_number"] = np.concatenate([portion.numbers for portion in portions])
    if config.include_file_record_offset:
        numbers["log.file.record_offset"] = np.concatenate([part.split.offsets + part.offset for part in portions])
    return Block(
        splits[0].text if len(splits) == 1 else b"".join(split.text for split in splits),
        np.concatenate([split.starts + place for split, place in zip(splits, places, strict=True)]),
        np.concatenate([split.ends + place for split, place in zip(splits, places, strict=True)]),
        now_unix_nano,
        [portion.tail.attributes for portion in portions],
        np.repeat(np.arange(len(portions), dtype=np.int32), counts),
        numbers,
        token=token,
    )
