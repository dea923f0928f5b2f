"""Sampling of traces, their logs and metrics from spans in one service, as in the production example."""

import numpy as np

from collector.api import ComponentKind, Exporter, Factory, Receiver, Stability
from collector.model import EMPTY_CONTEXT, LogsBuilder, Signal, TracesBuilder
from collector.registry import Registry
from collector.service import Service
from collector.testing import eventually
from config.blocks import ComponentConfig
from config.load import load

TRACES = 200
YAML = """
receivers: {source: {}}
processors:
  sampling:
    decision_wait: 200ms
    rules: [{name: errors, any: {status: error}, ratio: 1.0}]
connectors:
  forward: {}
  span_metrics: {metrics_flush_interval: 100ms, exemplars: {enabled: true, only_kept: sampling}}
exporters: {target/traces: {}, target/metrics: {}, target/logs: {}}
service:
  telemetry: {metrics: {level: none}, logs: {level: error}}
  pipelines:
    traces: {receivers: [source], exporters: [span_metrics, forward]}
    traces/sampled: {receivers: [forward], processors: [sampling], exporters: [target/traces]}
    metrics: {receivers: [span_metrics], exporters: [target/metrics]}
    logs: {receivers: [source], processors: [sampling], exporters: [target/logs]}
"""


class Source(Receiver):
    def __init__(self, settings) -> None:
        self.outputs = settings.outputs

    async def start(self, host) -> None: ...

    async def shutdown(self) -> None: ...


class Target(Exporter):
    def __init__(self, settings) -> None:
        self.telemetry, self.batches = settings.telemetry, []

    async def start(self, host) -> None: ...

    async def shutdown(self) -> None: ...

    async def consume(self, batch) -> None:
        self.batches.append(batch)
        self.telemetry.delivered(batch.signal, batch.item_count)


class WithEnds(Registry):
    """The installed components, and a receiver and an exporter of the test."""

    def __init__(self) -> None:
        super().__init__()
        self.made = {}
        self._ends = {
            (kind, name): Factory(
                component_type=name,
                config_type=ComponentConfig,
                create=self._making(make),
                stability=Stability.STABLE,
                signals=frozenset(Signal),
                kind=kind,
            )
            for kind, name, make in (
                (ComponentKind.RECEIVER, "source", Source),
                (ComponentKind.EXPORTER, "target", Target),
            )
        }

    def _making(self, make):
        def create(settings, config):
            self.made[str(settings.id)] = make(settings)
            return self.made[str(settings.id)]

        return create

    def find(self, kind, component_type):
        return self._ends.get((kind, component_type)) or super().find(kind, component_type)


def requests():
    """A batch of spans and one of log records: every trace has one of each, and every fourth trace has an error."""
    ids = np.array([[7, number] for number in range(1, TRACES + 1)], np.uint64)
    failed = np.arange(TRACES) % 4 == 0
    spans, logs = TracesBuilder(), LogsBuilder()
    scope = spans.scope(spans.resource({"service.name": "api"}), "test")
    start = np.full(TRACES, 10**18, np.uint64)
    spans.spans(
        scope,
        trace_ids=ids,
        span_ids=np.arange(1, TRACES + 1, dtype=np.uint64),
        names="GET /",
        kinds=np.full(TRACES, 2),
        start_times=start,
        end_times=start + np.uint64(10**6),
        status_codes=np.where(failed, 2, 0),
    )
    scope = logs.scope(logs.resource({"service.name": "api"}), "test")
    logs.records(scope, times=start, trace_ids=ids, severity_numbers=np.full(TRACES, 9), bodies="done")
    return ids, failed, spans.build(), logs.build()


async def test_exemplars_and_logs_follow_the_decision():
    """Exemplars, spans and log records belong to the traces that were kept, and the ledger has no imbalances."""
    registry = WithEnds()
    service = Service(load([f"yaml:{YAML}"], (), registry))
    await service.start()
    try:
        ids, failed, spans, logs = requests()
        outputs = registry.made["source"].outputs
        await outputs[Signal.LOGS].consume_request(logs.wire, EMPTY_CONTEXT)
        await outputs[Signal.TRACES].consume_request(spans.wire, EMPTY_CONTEXT)
        kept = {tuple(pair) for pair in ids[failed].tolist()}

        def found(name):
            return [
                tuple(pair)
                for batch in registry.made[f"target/{name}"].batches
                for pair in batch.field("trace_id").tolist()
            ]

        def exemplars():
            return {
                tuple(pair)
                for batch in registry.made["target/metrics"].batches
                for pair in batch.field("trace_id", "exemplars").tolist()
            }

        await eventually(lambda: sorted(found("traces")) == sorted(kept))
        await eventually(lambda: sorted(found("logs")) == sorted(kept))
        await eventually(exemplars)
        assert exemplars() <= kept
        calls = [
            batch
            for batch in registry.made["target/metrics"].batches
            if "traces.span.metrics.calls" in batch.field("name", "metrics").distinct
        ]
        assert calls
    finally:
        await service.shutdown()
    assert service.ledger.imbalances() == []
