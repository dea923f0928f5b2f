"""The ``service_graph`` connector: takes spans, emits metrics of the requests between services.

Source: open-telemetry/opentelemetry-collector-contrib connector/servicegraphconnector v0.156 (what is counted, names,
    labels, intervals).
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from collector.api import Connector, ConsumeError, Host, Settings
from collector.model import Batch, MetricsBuilder, Signal, Traces
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.pairing import Edges, Store, unpaired
from connectors.service_graph.series import Series, shifted
from connectors.service_graph.spans import Halves, read
from connectors.service_graph.tally import SpanTally
from connectors.service_graph.texts import Texts

__all__ = ["ServiceGraphConnector"]


@dataclass(slots=True)
class _State:
    """What goes on over a reload."""

    texts: Texts
    store: Store
    series: Series
    unpaired: SpanTally
    dropped: SpanTally
    start_unix_nano: int
    """Nothing had been counted of a series that is not there since this time."""
    last_time_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class _HandedOver:
    state: _State | None
    """None: the successor makes other series."""


class ServiceGraphConnector(Connector):
    """See the module."""

    def __init__(self, settings: Settings, config: ServiceGraphConfig) -> None:
        self._settings = settings
        self.config = config
        self._clock = settings.clock
        self.state = self._new_state(settings.start_time_unix_nano or settings.clock.time_unix_nano())
        self._is_handed_over = False
        self._is_stopped = False
        self._flushing = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        telemetry = settings.telemetry
        # The Collector's names.
        self._dropped = telemetry.counter(
            "otelcol_connector_servicegraph_dropped_spans", "Spans dropped when trying to add edges"
        )
        self._opened = telemetry.counter("otelcol_connector_servicegraph_total_edges", "Unique edges")
        self._expired = telemetry.counter(
            "otelcol_connector_servicegraph_expired_edges", "Edges that expired before finding their matching span"
        )
        self._overflowed = telemetry.counter(
            "tailrace_service_graph_overflow_edges",
            "Edges counted in the overflow series: aggregation_cardinality_limit was reached",
        )
        telemetry.gauge(
            "tailrace_service_graph_waiting_spans",
            "Spans waiting for their pair",
            read=lambda: float(self.held_items()),
        )
        telemetry.gauge("tailrace_service_graph_series", "Series held", read=lambda: float(len(self.state.series)))

    def _new_state(self, start_unix_nano: int) -> _State:
        labels = (
            {"collector.instance.id": self._settings.instance_id} if self.config.include_collector_instance_id else {}
        )
        return _State(
            texts=Texts(),
            store=Store(len(self.config.dimensions)),
            series=Series(self.config, labels),
            unpaired=SpanTally(
                "traces_service_graph_unpaired_spans_total", labels, limit=self.config.aggregation_cardinality_limit
            ),
            dropped=SpanTally(
                "traces_service_graph_dropped_spans_total", labels, limit=self.config.aggregation_cardinality_limit
            ),
            start_unix_nano=start_unix_nano,
        )

    def hand_over(self, config: ServiceGraphConfig) -> "_HandedOver":
        """The spans that wait for their pair and the series, if the successor makes the same series."""
        self._is_handed_over = self.config.same_series(config)
        return _HandedOver(self.state if self._is_handed_over else None)

    def take_over(self, state: object) -> bool:
        """Continue both. Other series begin now: of what the predecessor counted, nothing may be counted again."""
        if not isinstance(state, _HandedOver):
            return False
        self.state = state.state or self._new_state(self._clock.time_unix_nano())
        return True

    async def start(self, host: Host) -> None:  # noqa: ARG002 - it needs nothing of the host
        """Begin the loops."""
        loops = [
            (self.config.store_expiration_loop_s, self._expire_store),
            (self.config.cache_loop_s, self._expire_series),
        ]
        if self.config.metrics_flush_interval:
            loops.append((self.config.metrics_flush_interval, self._flush))
        self._tasks = [asyncio.ensure_future(self._every(interval_s, work)) for interval_s, work in loops]

    async def shutdown(self) -> None:
        """Count the waiting spans as unpaired and emit the last state, unless a successor continues both."""
        async with self._flushing:  # what is on its way gets there
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        is_handed_over, self._is_handed_over = self._is_handed_over, False
        if not self._is_stopped and not is_handed_over:
            self._leave_store(self.state.store.expire())
            await self._flush()
        self._is_stopped = True

    def held_items(self) -> int:
        """Spans that wait for their pair."""
        return len(self.state.store)

    async def consume(self, batch: Batch) -> None:
        """Count the requests that are complete, keep the spans that wait for their pair."""
        assert isinstance(batch, Traces)
        self._take(batch)
        if not self.config.metrics_flush_interval:
            await self._flush()

    def _take(self, batch: Traces) -> None:
        state, telemetry = self.state, self._settings.telemetry
        halves, nameless_count = read(batch, self.config, state.texts)
        if nameless_count:
            telemetry.dropped(Signal.TRACES, nameless_count, "no_service_name")
        # Whatever does not wait afterwards has become part of a number (or, as INTERNAL spans, of none: they say
        # nothing of a request).
        folded = batch.item_count - nameless_count
        if halves is not None:
            held_before = len(state.store)
            if halves.is_root.any():  # no pair can come: they need not wait for it as they do in the Collector
                roots, halves = halves.take(halves.is_root), halves.take(~halves.is_root)
                self._opened.add(len(roots))
                self._settle(roots)
            if len(halves):
                store = self.config.store
                pairs = state.store.add(halves, now_s=self._clock.monotonic_s(), ttl_s=store.ttl, limit=store.max_items)
                self._opened.add(pairs.opened_count)
                self._count(pairs.edges)
                self._expired.add(len(pairs.expired))
                self._settle(pairs.expired)
                if pairs.homeless_count:
                    self._dropped.add(pairs.homeless_count)
                    telemetry.dropped(Signal.TRACES, pairs.homeless_count, "store_full")
                    state.dropped.add(pairs.homeless, state.texts, self._clock.monotonic_s(), state.start_unix_nano)
                    folded -= pairs.homeless_count
            folded += held_before - len(state.store)
        telemetry.folded(Signal.TRACES, folded)
        self._compact_texts()

    def _leave_store(self, halves: Halves) -> None:
        """Spans whose pair did not come in time."""
        if len(halves):
            self._expired.add(len(halves))
            self._settle(halves)
            self._settings.telemetry.folded(Signal.TRACES, len(halves))

    def _settle(self, halves: Halves) -> None:
        """Count spans that stay alone: as edges of virtual nodes, or as unpaired."""
        if len(halves):
            state = self.state
            result = unpaired(halves, state.texts, virtual_nodes=bool(self.config.virtual_node_peer_attributes))
            self._count(result.edges)
            state.unpaired.add(result.lone, state.texts, self._clock.monotonic_s(), state.start_unix_nano)

    def _count(self, edges: Edges) -> None:
        state = self.state
        overflow_count = state.series.add(
            edges,
            state.texts,
            now_s=self._clock.monotonic_s(),
            start_unix_nano=state.start_unix_nano,
            limit=self.config.aggregation_cardinality_limit,
        )
        if overflow_count:
            self._overflowed.add(overflow_count)

    def _compact_texts(self) -> None:
        """Names of services and peers that are gone would be kept for ever."""
        state = self.state
        if state.texts.is_crowded:
            state.store.recode(state.texts.compact(state.store.codes_in_use()))

    # From the clock.

    async def _every(self, interval_s: float, work: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(interval_s)
            await work()

    async def _expire_store(self) -> None:
        self._leave_store(self.state.store.expire(self._clock.monotonic_s()))

    async def _expire_series(self) -> None:
        state, now_s = self.state, self._clock.monotonic_s()
        if state.series.expire(now_s) + state.unpaired.expire(now_s) + state.dropped.expire(now_s):
            # A series that comes back begins at 0 again: later than the last point it had.
            state.start_unix_nano = max(self._clock.time_unix_nano(), state.last_time_unix_nano)

    async def _flush(self) -> None:
        """Emit a point of every series."""
        async with self._flushing:
            state = self.state
            # Never backwards, whatever the clock does: points out of order are refused.
            now = state.last_time_unix_nano = max(self._clock.time_unix_nano(), state.last_time_unix_nano + 1)
            offset_nano = round(self.config.metrics_timestamp_offset * 1e9)
            time_unix_nano = int(shifted(np.array([now], np.uint64), offset_nano)[0])
            builder = MetricsBuilder()
            scope = builder.scope(builder.resource(), "traces_service_graph")
            for part in (state.series, state.unpaired, state.dropped):
                part.write(builder, scope, time_unix_nano=time_unix_nano, offset_nano=offset_nano)
            batch = builder.build()
            if batch.item_count:
                self._settings.telemetry.created(Signal.METRICS, batch.item_count)
                # An exporter that waits for its backend may have given up: it has counted that, and the next points say
                # the same and more.
                with contextlib.suppress(ConsumeError):
                    await self._settings.outputs[Signal.METRICS].consume(batch)
