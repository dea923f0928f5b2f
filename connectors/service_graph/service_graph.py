"""Connector ``service_graph``: receives spans and emits metrics of the requests between services.

Source of what is counted, of names, labels and intervals: open-telemetry/opentelemetry-collector-contrib
connector/servicegraphconnector v0.156.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from collector.api import Connector, ConsumeError, Host, PeriodicTask, SavedState, Settings
from collector.model import Batch, MetricsBuilder, Signal, Traces
from collector.model.checkpoint import Part, Parts, nested, within
from connectors.service_graph.config import ServiceGraphConfig
from connectors.service_graph.pairing import Edges, SpanStore, resolve_unpaired
from connectors.service_graph.series import Series
from connectors.service_graph.span_counter import SpanCounter
from connectors.service_graph.spans import RequestSides, read_sides
from connectors.service_graph.text_codes import TextCodes

__all__ = ["ServiceGraphConnector"]

_VERSION: Final = 1  # of the parts of a checkpoint


@dataclass(slots=True)
class _State:
    """What a successor continues after a reload."""

    texts: TextCodes
    store: SpanStore
    series: Series
    unpaired: SpanCounter
    dropped: SpanCounter
    start_unix_nano: int
    """The start time of series that do not exist yet: nothing of them has been counted since then."""
    instance_id: str
    """The value of the label collector.instance.id, which stays the same over a restart with a storage."""
    last_time_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class _HandedOver:
    state: _State | None
    """None: the successor makes different series and starts afresh."""


class ServiceGraphConnector(Connector):
    """Pairs spans, counts the requests and emits the metrics on every flush."""

    def __init__(self, settings: Settings, config: ServiceGraphConfig) -> None:
        self._settings = settings
        self.config = config
        self._clock = settings.clock
        self._saved = SavedState(settings, "connectors", kind="service_graph", version=_VERSION)
        self.state = self._new_state(settings.start_time_unix_nano or settings.clock.time_unix_nano())
        self.keeps_held_items = bool(config.storage)
        self._is_handed_over = self._is_taken_over = False
        self._is_stopped = False
        self._flush_task = PeriodicTask(self._flush, config.metrics_flush_interval, self._clock)
        self._expiry_tasks = [
            PeriodicTask(self._expire_store, config.store_expiration_loop_s, self._clock),
            PeriodicTask(self._expire_series, config.cache_loop_s, self._clock),
        ]
        telemetry = settings.telemetry
        # The names of these three are the Collector's.
        self._dropped = telemetry.counter(
            "otelcol_connector_servicegraph_dropped_spans", "Spans dropped when trying to add edges"
        )
        self._opened = telemetry.counter("otelcol_connector_servicegraph_total_edges", "Unique edges")
        self._expired = telemetry.counter(
            "otelcol_connector_servicegraph_expired_edges", "Edges that expired before finding their matching span"
        )
        self._overflowed = telemetry.counter(
            "tailrace_service_graph_overflow_edges",
            "Edges counted in the overflow series because aggregation_cardinality_limit was reached",
        )
        self._invalid_durations = telemetry.counter(
            "tailrace_service_graph_invalid_durations",
            "Spans counted with a duration of 0 because their times are not believed",
        )
        telemetry.gauge(
            "tailrace_service_graph_waiting_spans",
            "Spans waiting for the other side of their request",
            read=lambda: float(len(self.state.store)),
        )
        telemetry.gauge("tailrace_service_graph_series", "Series in memory", read=lambda: float(len(self.state.series)))

    def _new_state(self, start_unix_nano: int, instance_id: str = "") -> _State:
        instance_id = instance_id or self._settings.instance_id
        labels = {"collector.instance.id": instance_id} if self.config.include_collector_instance_id else {}
        return _State(
            texts=TextCodes(),
            store=SpanStore(len(self.config.dimensions)),
            series=Series(self.config, labels),
            unpaired=SpanCounter(
                "traces_service_graph_unpaired_spans_total", labels, limit=self.config.aggregation_cardinality_limit
            ),
            dropped=SpanCounter(
                "traces_service_graph_dropped_spans_total", labels, limit=self.config.aggregation_cardinality_limit
            ),
            start_unix_nano=start_unix_nano,
            instance_id=instance_id,
        )

    def hand_over(self, config: ServiceGraphConfig) -> _HandedOver:
        """The waiting spans and the series, if the successor makes the same series."""
        self._is_handed_over = self.config.same_series(config)
        return _HandedOver(self.state if self._is_handed_over else None)

    def take_over(self, state: object) -> bool:
        """Continue the predecessor's state. Different series start now, so that nothing is counted a second time."""
        if not isinstance(state, _HandedOver):
            return False
        self.state = state.state or self._new_state(self._clock.time_unix_nano())
        self._is_taken_over = True
        return True

    async def start(self, host: Host) -> None:
        """Start expiring, and flushing unless every batch is followed by a flush."""
        if self.config.storage:
            await self._open_state(host)
        for task in self._expiry_tasks:
            task.start()
        if self.config.metrics_flush_interval:
            self._flush_task.start()

    async def shutdown(self) -> None:
        """Emit the last state. Waiting spans count as unpaired, unless a successor or a storage has them."""
        for task in (self._flush_task, *self._expiry_tasks):
            await task.stop()
        async with self._flush_task.lock:  # a flush that ``consume`` has begun ends first
            is_handed_over, self._is_handed_over = self._is_handed_over, False
            if not self._is_stopped and not is_handed_over:
                if not await self._saved.save(self._parts()):
                    self._settle_expired(self.state.store.expire())
                await self._flush()
            self._is_stopped = True

    async def _open_state(self, host: Host) -> None:
        """Continue what the process before has counted."""
        parts = await self._saved.open(
            host, self.config.storage, fingerprint=self.config.fingerprint, restores=not self._is_taken_over
        )
        if parts is None:
            return
        try:
            state = self._restored(parts, self._saved.elapsed(parts))
        except (KeyError, TypeError, ValueError) as error:
            self._saved.refuse(error)
            return
        self.state = state
        self._settings.telemetry.created(Signal.TRACES, len(state.store))

    def _restored(self, parts: Parts, elapsed_s: float) -> _State:
        state = self._new_state(int(parts["start"]), str(parts["instance_id"]))
        state.last_time_unix_nano = int(parts["last_time"])
        state.texts.restore(parts["texts"])
        state.store.restore(within("store", parts), len(state.texts), elapsed_s)
        state.series.restore(within("series", parts), elapsed_s)
        state.unpaired.restore(parts["unpaired"], elapsed_s)
        state.dropped.restore(parts["dropped"], elapsed_s)
        return state

    def _parts(self) -> dict[str, Part]:
        """Everything that is known, for a checkpoint."""
        state = self.state
        return {
            "start": state.start_unix_nano,
            "instance_id": state.instance_id,
            "last_time": state.last_time_unix_nano,
            "texts": state.texts.parts(),
            "unpaired": state.unpaired.parts(),
            "dropped": state.dropped.parts(),
            **nested("store", state.store.parts()),
            **nested("series", state.series.parts()),
        }

    def held_items(self) -> Mapping[Signal, int]:
        """How many spans wait for their pair."""
        return {Signal.TRACES: len(self.state.store)}

    async def consume(self, batch: Batch) -> None:
        """Count the requests that are complete; spans without a pair wait for it."""
        assert isinstance(batch, Traces)
        self._pair(batch)
        if not self.config.metrics_flush_interval:
            async with self._flush_task.lock:
                await self._flush()

    def _pair(self, batch: Traces) -> None:
        state, telemetry = self.state, self._settings.telemetry
        sides, nameless_count, invalid_count = read_sides(batch, self.config, state.texts)
        if invalid_count:
            self._invalid_durations.add(invalid_count)
        if nameless_count:
            telemetry.dropped(Signal.TRACES, nameless_count, "no_service_name")
        # Every span that does not wait afterwards has been counted, or is of a kind that is not part of a request.
        folded = batch.item_count - nameless_count
        if sides is not None:
            held_before = len(state.store)
            if sides.is_root.any():  # they have no pair, so they do not wait as they would in the Collector
                roots, sides = sides.take(sides.is_root), sides.take(~sides.is_root)
                self._opened.add(len(roots))
                self._count_unpaired(roots)
            if len(sides):
                store = self.config.store
                result = state.store.add(sides, now_s=self._clock.monotonic_s(), ttl_s=store.ttl, limit=store.max_items)
                self._opened.add(result.opened_count)
                self._count(result.edges)
                self._expired.add(len(result.expired))
                self._count_unpaired(result.expired)
                if result.rejected_count:
                    self._dropped.add(result.rejected_count)
                    telemetry.dropped(Signal.TRACES, result.rejected_count, "store_full")
                    state.dropped.add(result.rejected, state.texts, **self._times())
                    folded -= result.rejected_count
            folded += held_before - len(state.store)
        telemetry.folded(Signal.TRACES, folded)
        self._compact_texts()

    def _settle_expired(self, sides: RequestSides) -> None:
        """Count spans that have left the store because their pair did not arrive in time."""
        if len(sides):
            self._expired.add(len(sides))
            self._count_unpaired(sides)
            self._settings.telemetry.folded(Signal.TRACES, len(sides))

    def _count_unpaired(self, sides: RequestSides) -> None:
        """Count spans without a pair: as edges with virtual nodes, or as unpaired spans."""
        if len(sides):
            state = self.state
            result = resolve_unpaired(sides, state.texts, virtual_nodes=bool(self.config.virtual_node_peer_attributes))
            self._count(result.edges)
            state.unpaired.add(result.unpaired, state.texts, **self._times())

    def _count(self, edges: Edges) -> None:
        state = self.state
        overflow_count = state.series.add(
            edges,
            state.texts,
            limit=self.config.aggregation_cardinality_limit,
            **self._times(),
        )
        if overflow_count:
            self._overflowed.add(overflow_count)

    def _times(self) -> dict[str, Any]:
        return {
            "now_s": self._clock.monotonic_s(),
            "now_unix_nano": self._clock.time_unix_nano(),
            "start_unix_nano": self.state.start_unix_nano,
        }

    def _compact_texts(self) -> None:
        """Forget names of services and peers that no waiting span has, once there are many."""
        state = self.state
        if state.texts.is_crowded:
            state.store.recode(state.texts.compact(state.store.codes_in_use()))

    # Periodic work.

    async def _expire_store(self) -> None:
        self._settle_expired(self.state.store.expire(self._clock.monotonic_s()))

    async def _expire_series(self) -> None:
        state, now_s = self.state, self._clock.monotonic_s()
        if state.series.expire(now_s) + state.unpaired.expire(now_s) + state.dropped.expire(now_s):
            # A series that comes back begins at 0 again; its start must be later than the last point it had.
            state.start_unix_nano = max(self._clock.time_unix_nano(), state.last_time_unix_nano)

    async def _flush(self) -> None:
        """Emit a point of every series. The caller holds ``_flush_task.lock``."""
        state = self.state
        # Also if the clock was set back, time does not run backwards: backends refuse points that are out of order.
        now = state.last_time_unix_nano = max(self._clock.time_unix_nano(), state.last_time_unix_nano + 1)
        offset_nano = round(self.config.metrics_timestamp_offset * 1e9)
        builder = MetricsBuilder()
        scope = builder.scope(builder.resource(), "traces_service_graph")
        for part in (state.series, state.unpaired, state.dropped):
            part.write(builder, scope, now_unix_nano=now, offset_nano=offset_nano)
        batch = builder.build()
        if self._saved.is_open:
            # Before it is emitted: after a crash, no value is lower than one that a backend has.
            await self._saved.save(self._parts())
        if batch.item_count:
            self._settings.telemetry.created(Signal.METRICS, batch.item_count)
            # The component that refused the batch has counted it; the next flush has the same counts or higher ones.
            with contextlib.suppress(ConsumeError):
                await self._settings.outputs[Signal.METRICS].consume(batch)
