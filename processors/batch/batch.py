"""The processor ``batch``: collects batches and passes them on as one when they are large enough or old enough.

Sizes and times are the Collector's (processor/batchprocessor). Unlike there, nothing is refused above
``metadata_cardinality_limit`` (further values are passed on uncollected), a batch waits ``timeout`` from its own first
item, and metadata values of which nothing is held take no memory.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final

from collector.api import ConsumeError, Host, Settings, Stage
from collector.model import Batch, Context, batch_type
from collector.text.cache import TextCache
from processors.batch.config import BatchConfig

__all__ = ["BatchProcessor"]

# Whatever the configured sizes are: offsets in a batch have 32 bits, and merging needs the memory twice.
_MAX_PART_BYTES: Final = 64 * 1024 * 1024
_ITEM_BUCKETS: Final = (
    10.0,
    25.0,
    50.0,
    75.0,
    100.0,
    250.0,
    500.0,
    750.0,
    *(1000.0 * n for n in range(1, 11)),
    20e3,
    30e3,
    50e3,
    100e3,
)
_BYTE_BUCKETS: Final = (*_ITEM_BUCKETS, *(100e3 * n for n in range(2, 10)), *(1e6 * n for n in range(1, 10)))


class _Shard:
    """The batches collected for one context. Its parts are sent in order, one at a time."""

    def __init__(self, context: Context) -> None:
        self.context = context
        self.batches: list[Batch] = []
        self.item_count = 0
        self.size_bytes = 0
        self.memory_bytes = 0
        self.unsent: deque[tuple[Batch, int]] = deque()
        """Merged parts that are due but not sent yet, with the memory that each counts for. They are still held."""
        self.timer: asyncio.Task[None] | None = None
        self.lock = asyncio.Lock()


class BatchProcessor(Stage):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: BatchConfig) -> None:
        self._settings = settings
        self._config = config
        (self._signal,) = settings.signals
        self._output = settings.outputs[self._signal]
        self._keys = frozenset(key.lower() for key in config.metadata_keys)
        self._waits = config.timeout > 0 and config.send_batch_size > 0
        self._shards: dict[Context, _Shard] = {}
        self._contexts = TextCache[Context | None](max_entry_bytes=16 * 1024)
        """The context to collect under, by the parts of the incoming context."""
        self._timers: set[asyncio.Task[None]] = set()
        self._sends: set[asyncio.Task[None]] = set()
        self._held_items = 0
        self._held_bytes = 0
        self._is_stopping = False
        telemetry = settings.telemetry
        self._sent_items = telemetry.histogram(
            "otelcol_processor_batch_batch_send_size", "Items in the batches sent", _ITEM_BUCKETS
        )
        self._sent_bytes = telemetry.histogram(
            "otelcol_processor_batch_batch_send_size_bytes", "Bytes in the batches sent", _BYTE_BUCKETS
        )
        self._by_size = telemetry.counter(
            "otelcol_processor_batch_batch_size_trigger_send", "Batches sent because they reached send_batch_size"
        )
        self._by_time = telemetry.counter(
            "otelcol_processor_batch_timeout_trigger_send", "Batches sent because their timeout expired"
        )
        self._uncollected = telemetry.counter(
            "tailrace_processor_batch_uncollected_batches",
            "Batches passed on without merging because metadata_cardinality_limit was reached",
        )
        telemetry.gauge(
            "otelcol_processor_batch_metadata_cardinality",
            "Distinct combinations of metadata values being batched",
            read=lambda: len(self._shards),
        )

    async def start(self, host: Host) -> None:  # noqa: ARG002 - it needs nothing of the host
        """Begin to collect. A timer starts with the first item of a batch."""
        self._is_stopping = False

    async def consume(self, batch: Batch) -> None:
        """Collect the batch; returns when everything that became due with it has been sent."""
        if not batch.item_count:
            return
        context = self._collecting_context(batch.context)
        if context is not batch.context:
            batch = batch.with_context(context)
        shard = self._shards.get(context)
        if shard is None:
            limit = self._config.metadata_cardinality_limit
            if self._keys and limit and len(self._shards) >= limit:
                self._uncollected.add()
                shard = _Shard(context)
                self._make_due(shard, self._parts([batch]))
                await self._send_due(shard)
                return
            shard = self._shards[context] = _Shard(context)
        self._add(shard, batch)
        if not self._waits or self._is_stopping:
            await self._send(shard, everything=True)
        elif self._is_due(shard.item_count, shard.size_bytes):
            await self._send(shard, everything=False)
        elif shard.timer is None:
            self._set_timer(shard)

    def try_consume(self, batch: Batch) -> bool:
        """Collect the batch if that is all there is to do, as for nearly every batch."""
        context, item_count = batch.context, batch.item_count
        shard = self._shards.get(context)
        if shard is None or shard.timer is None or context.metadata or context.claims or self._is_stopping:
            return False
        if self._is_due(shard.item_count + item_count, shard.size_bytes + batch.size_bytes):
            return False
        if item_count:
            self._add(shard, batch)
        return True

    def _is_due(self, item_count: int, size_bytes: int) -> bool:
        """Whether this much is sent without waiting for the timer."""
        return item_count >= self._config.send_batch_size or size_bytes >= _MAX_PART_BYTES

    async def shutdown(self) -> None:
        """Send everything that is held, and wait for it."""
        self._is_stopping = True
        for timer in list(self._timers):
            timer.cancel()
        for shard in list(self._shards.values()):
            await self._send(shard, everything=True)
        while self._sends:
            await asyncio.wait(self._sends)

    def held_items(self) -> int:
        """Number of items collected and not sent yet."""
        return self._held_items

    def held_bytes(self) -> int:
        """Memory of the items collected and not sent yet."""
        return self._held_bytes

    def _collecting_context(self, context: Context) -> Context:
        """The context to collect under: tenant, locality and, of the metadata, only ``metadata_keys``."""
        if not context.metadata and not context.claims:
            return context
        parts = (context.metadata, context.tenant, context.claims, context.local_peer)
        kept = self._contexts.get(parts, None)
        if kept is None:
            metadata = tuple((name, values) for name, values in context.metadata if name in self._keys)
            kept = Context(metadata=metadata, tenant=context.tenant, local_peer=context.local_peer)
            self._contexts.put(parts, kept)
        return kept

    def _add(self, shard: _Shard, batch: Batch, *, first: bool = False) -> None:
        shard.batches.insert(0 if first else len(shard.batches), batch)
        shard.item_count += batch.item_count
        shard.size_bytes += batch.size_bytes
        memory_bytes = batch.memory_bytes
        shard.memory_bytes += memory_bytes
        self._held_items += batch.item_count
        self._held_bytes += memory_bytes

    def _take(self, shard: _Shard) -> list[Batch]:
        """Remove and return everything that is collected."""
        batches, shard.batches = shard.batches, []
        self._held_items -= shard.item_count
        self._held_bytes -= shard.memory_bytes
        shard.item_count = shard.size_bytes = shard.memory_bytes = 0
        return batches

    async def _send(self, shard: _Shard, *, everything: bool) -> None:
        """Send what is due of a shard: ``everything``, or all but a rest of less than ``send_batch_size`` items."""
        if shard.timer is not None:
            shard.timer.cancel()
            shard.timer = None
        async with shard.lock:
            parts = self._parts(self._take(shard))
            smallest = self._config.send_batch_size
            if not everything and parts and parts[-1].item_count < smallest and parts[-1].size_bytes < _MAX_PART_BYTES:
                self._add(shard, parts.pop(), first=True)
            if parts and self._waits:
                (self._by_time if everything else self._by_size).add(len(parts))
            self._make_due(shard, parts)
            await self._send_due(shard)
        if shard.item_count:
            if shard.timer is None and not self._is_stopping:
                self._set_timer(shard)
        elif not shard.lock.locked() and self._shards.get(shard.context) is shard:
            del self._shards[shard.context]

    def _parts(self, batches: list[Batch]) -> list[Batch]:
        """The batches merged into as few parts as the limits allow, in order."""
        if not batches:
            return []
        merged: list[Batch] = []
        group: list[Batch] = []
        size_bytes = 0
        for batch in batches:
            if group and size_bytes + batch.size_bytes > _MAX_PART_BYTES:
                merged.append(batch_type(self._signal).concat(group))
                group, size_bytes = [], 0
            group.append(batch)
            size_bytes += batch.size_bytes
        merged.append(group[0] if len(group) == 1 else batch_type(self._signal).concat(group))
        limit = self._config.send_batch_max_size
        if not limit:
            return merged
        return [
            part for batch in merged for part in (batch.split(max_items=limit) if batch.item_count > limit else [batch])
        ]

    def _make_due(self, shard: _Shard, parts: list[Batch]) -> None:
        """Hold the parts until ``_send_due`` gets to them."""
        for part in parts:
            memory_bytes = part.memory_bytes
            shard.unsent.append((part, memory_bytes))
            self._held_items += part.item_count
            self._held_bytes += memory_bytes

    async def _send_due(self, shard: _Shard) -> None:
        """Send the parts that are due. Those that a cancelled call leaves behind are sent by the next one."""
        try:
            while shard.unsent:
                part, memory_bytes = shard.unsent.popleft()
                self._held_items -= part.item_count
                self._held_bytes -= memory_bytes
                self._sent_items.observe(part.item_count)
                self._sent_bytes.observe(part.size_bytes)
                # An exporter that waits for its backend may have failed. It has counted that; the other parts are sent
                # all the same, and the clients that sent these items got their responses long ago.
                with contextlib.suppress(ConsumeError):
                    await self._output.consume(part)
        finally:
            if shard.unsent:
                self._keep_unsent(shard)

    def _keep_unsent(self, shard: _Shard) -> None:
        """Have what a cancelled call did not send sent by a timer, or by the shutdown."""
        kept = self._shards.setdefault(shard.context, shard)
        if kept is not shard:
            kept.unsent.extend(shard.unsent)
            shard.unsent.clear()
        if kept.timer is None and not self._is_stopping:
            self._set_timer(kept)

    def _set_timer(self, shard: _Shard) -> None:
        shard.timer = self._spawn(self._expire(shard), self._timers)

    async def _expire(self, shard: _Shard) -> None:
        """Wait for the timeout. This task may be cancelled at any time, so the data is sent by another one."""
        await self._settings.clock.sleep(self._config.timeout)
        shard.timer = None
        self._spawn(self._send(shard, everything=True), self._sends)

    def _spawn(self, work: Coroutine[Any, Any, None], owner: set[asyncio.Task[None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        owner.add(task)
        task.add_done_callback(owner.discard)
        return task
