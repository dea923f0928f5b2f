"""The configured components as objects, joined by edges.

Building does no I/O: ``validate`` builds a whole graph and throws it away. Receivers, exporters, connectors and
extensions are one object per id, whatever uses them; processors are one object per id and pipeline. What a
configuration may contain was checked by ``config.load``.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from collector.api import (
    Clock,
    Component,
    ComponentId,
    ComponentKind,
    Connector,
    Exporter,
    Output,
    Settings,
    SharedState,
    Stage,
    Transform,
)
from collector.delivery.log import RateLimitedLog
from collector.model import Signal
from collector.service.admission import ServiceAdmission
from collector.service.door import Door
from collector.service.edges import CountedOutput, Edge, ExporterEdge, Fan, NodeEdge, Segment, StageOutput, Step
from collector.service.ledger import LedgerEntry
from collector.service.telemetry import ComponentTelemetry, ServiceTelemetry
from config.model import Config, ConfiguredComponent, Pipeline

__all__ = ["Environment", "Graph", "HeldItems", "Node", "NodeKey", "StartError", "build"]

NodeKey = tuple[ComponentKind, ComponentId, str]
"""Kind, id and pipeline (processors; else empty): the same in two graphs for the same component."""


class StartError(ValueError):
    """A component could not be made or started. The message begins with its path in the configuration."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What every graph of this process shares."""

    telemetry: ServiceTelemetry
    admission: ServiceAdmission
    clock: Clock
    version: str
    instance_id: str
    start_time_unix_nano: int
    shared: dict[str, Any] = field(default_factory=dict)
    """State of scope ``SERVICE``, by key name."""


@dataclass(slots=True)
class Node:
    """One component object."""

    kind: ComponentKind
    id: ComponentId
    component: Component
    pipeline: str = ""

    @property
    def path(self) -> str:
        """Where it is configured: ``exporters::otlp_grpc/a``."""
        return f"{self.kind.value}::{self.id}"

    @property
    def key(self) -> NodeKey:
        """The same in two graphs for the same component."""
        return self.kind, self.id, self.pipeline


@dataclass(frozen=True, slots=True)
class HeldItems:
    """Who holds items of a ledger entry, and how many."""

    node: NodeKey
    entry: LedgerEntry
    count: Callable[[], int]
    is_in_flight: bool = False
    """On their way out through an exporter: they are never handed over to a successor."""
    is_kept: bool = False
    """They stay in a storage when the graph ends, and are in flight until the next one sends them."""


@dataclass(slots=True)
class Graph:
    """All components of one configuration."""

    config: Config
    extensions: list[Node]
    processors: list[Node]
    """Processors and connectors, downstream first."""
    exporters: list[Node]
    receivers: list[Node]
    edges: list[ExporterEdge]
    held: list[HeldItems]
    """What the ledger reads for items held while this graph runs."""
    holders: list[Stage]
    """What the memory budget reads for bytes held."""

    def nodes(self) -> list[Node]:
        """All components in the order they are started: extensions, then downstream first, receivers last."""
        return [*self.extensions, *self.exporters, *self.processors, *self.receivers]


def build(config: Config, environment: Environment) -> Graph:
    """The graph of ``config``.

    Raises:
        StartError: a component refuses its configuration.
    """
    return _Builder(config, environment).build()


class _Builder:
    def __init__(self, config: Config, environment: Environment) -> None:
        self._config, self._environment = config, environment
        self._shared: dict[ComponentId, dict[str, Any]] = {}
        self._pipelines = config.service.pipelines
        self._exporter_edges: dict[ComponentId, ExporterEdge] = {}
        self._connector_edges: dict[ComponentId, NodeEdge] = {}
        self._heads: dict[str, Segment] = {}
        self._reach: dict[str, tuple[ExporterEdge, ...]] = {}
        self._behind: dict[str, set[ExporterEdge]] = {}
        self._exporters: list[Node] = []
        self._processors: list[Node] = []
        self._held: list[HeldItems] = []
        self._holders: list[Stage] = []

    def build(self) -> Graph:
        extensions = [
            self._node(self._config.extensions[extension_id], frozenset(), {})
            for extension_id in self._config.service.extensions
        ]
        for pipeline in self._pipelines.values():
            self._head(pipeline)
        receivers = [self._receiver(receiver) for receiver in self._used_receivers()]
        return Graph(
            self._config,
            extensions,
            self._processors,
            self._exporters,
            receivers,
            list(self._exporter_edges.values()),
            self._held,
            self._holders,
        )

    # Pipelines, from their ends to their heads.

    def _head(self, pipeline: Pipeline) -> Segment:
        """The first segment of a pipeline; builds what is downstream first. The configuration has no cycles."""
        known = self._heads.get(pipeline.id)
        if known is not None:
            return known
        targets: list[Edge] = []
        reach: dict[ComponentId, ExporterEdge] = {}  # with batches of this signal: what the door asks for room
        behind: set[ExporterEdge] = set()  # the same, and those behind connectors that emit another signal
        for exporter_id in pipeline.exporters:
            if exporter_id in self._config.connectors:
                targets.append(self._connector(exporter_id))
                for _, downstream in self._fed_by(exporter_id, pipeline.signal):
                    behind |= self._behind[downstream.id]
                    if downstream.signal is pipeline.signal:
                        reach.update(
                            {
                                edge_id: edge
                                for edge_id, edge in self._exporter_edges.items()
                                if edge in self._reach[downstream.id]
                            }
                        )
            else:
                edge = self._exporter(exporter_id)
                targets.append(edge)
                reach[exporter_id] = edge
        self._reach[pipeline.id] = tuple(reach.values())
        self._behind[pipeline.id] = behind | set(reach.values())
        steps: list[Step] = []
        for processor_id in reversed(pipeline.processors):
            configured = self._config.processors[processor_id]
            telemetry = self._environment.telemetry.component(ComponentKind.PROCESSOR, processor_id, pipeline.id)
            entry, log = telemetry.entry(pipeline.signal), self._rate_limited(telemetry)
            output = StageOutput(Fan([Segment(pipeline.id, steps[::-1], targets)]), entry, log)
            node = self._node(configured, frozenset({pipeline.signal}), {pipeline.signal: output}, pipeline=pipeline.id)
            self._processors.append(node)
            match node.component:
                case Transform() as transform:
                    steps.append(Step(transform, entry, log))
                case Stage() as stage:
                    self._held.append(HeldItems(node.key, entry, stage.held_items, is_kept=stage.keeps_held_items))
                    self._holders.append(stage)
                    edge_to_stage = NodeEdge(stage, {pipeline.signal: entry}, log, self._behind[pipeline.id])
                    targets, steps = [edge_to_stage], []
                case other:
                    raise StartError(
                        f"{node.path}: its factory returned a {type(other).__name__}, expected a Transform or a Stage"
                    )
        self._heads[pipeline.id] = Segment(pipeline.id, steps[::-1], targets)
        return self._heads[pipeline.id]

    def _exporter(self, exporter_id: ComponentId) -> ExporterEdge:
        known = self._exporter_edges.get(exporter_id)
        if known is not None:
            return known
        signals = frozenset(
            pipeline.signal for pipeline in self._pipelines.values() if exporter_id in pipeline.exporters
        )
        telemetry = self._environment.telemetry.component(ComponentKind.EXPORTER, exporter_id)
        node = self._node(self._config.exporters[exporter_id], signals, {})
        exporter = node.component
        if not isinstance(exporter, Exporter):
            raise StartError(f"{node.path}: its factory returned a {type(exporter).__name__}, expected an Exporter")
        entries = {signal: telemetry.entry(signal) for signal in sorted(signals)}
        edge = self._exporter_edges[exporter_id] = ExporterEdge(exporter, entries, self._rate_limited(telemetry))
        for signal, entry in entries.items():
            self._held.append(
                HeldItems(
                    node.key,
                    entry,
                    partial(edge.held_items, signal),
                    is_in_flight=True,
                    is_kept=exporter.waits_for_storage,
                )
            )
        self._exporters.append(node)
        return edge

    def _connector(self, connector_id: ComponentId) -> NodeEdge:
        known = self._connector_edges.get(connector_id)
        if known is not None:
            return known
        configured = self._config.connectors[connector_id]
        telemetry = self._environment.telemetry.component(ComponentKind.CONNECTOR, connector_id)
        into = frozenset(pipeline.signal for pipeline in self._pipelines.values() if connector_id in pipeline.exporters)
        fed = {pipeline.id: pipeline for signal in into for _, pipeline in self._fed_by(connector_id, signal)}
        heads = {name: self._head(pipeline) for name, pipeline in fed.items()}
        outputs: dict[Signal, Output] = {}
        for signal in sorted({pipeline.signal for pipeline in fed.values()}):
            fan = Fan([heads[name] for name, pipeline in fed.items() if pipeline.signal is signal])
            outputs[signal] = CountedOutput(fan, telemetry.entry(signal))
        pipelines = {
            name: CountedOutput(Fan([heads[name]]), telemetry.entry(pipeline.signal)) for name, pipeline in fed.items()
        }
        node = self._node(configured, into, outputs, pipelines=pipelines)
        connector = node.component
        if not isinstance(connector, Connector):
            raise StartError(f"{node.path}: its factory returned a {type(connector).__name__}, expected a Connector")
        entries = {signal: telemetry.entry(signal) for signal in sorted(into)}
        for signal, entry in entries.items():
            self._held.append(
                HeldItems(node.key, entry, partial(_held_by, connector, signal), is_kept=connector.keeps_held_items)
            )
        behind = {edge for name in fed for edge in self._behind[name]}
        self._processors.append(node)
        self._connector_edges[connector_id] = NodeEdge(connector, entries, self._rate_limited(telemetry), behind)
        return self._connector_edges[connector_id]

    def _rate_limited(self, telemetry: ComponentTelemetry) -> RateLimitedLog:
        return RateLimitedLog(telemetry.log, self._environment.clock)

    def _fed_by(self, connector_id: ComponentId, signal: Signal) -> Iterable[tuple[str, Pipeline]]:
        """The pipelines that list the connector as a receiver and can get results of what enters as ``signal``."""
        connects = self._config.connectors[connector_id].factory.connects
        for name, pipeline in self._pipelines.items():
            if connector_id in pipeline.receivers and (signal, pipeline.signal) in connects:
                yield name, pipeline

    # Receivers.

    def _used_receivers(self) -> list[ConfiguredComponent]:
        used = {receiver_id: None for pipeline in self._pipelines.values() for receiver_id in pipeline.receivers}
        return [self._config.receivers[receiver_id] for receiver_id in used if receiver_id in self._config.receivers]

    def _receiver(self, configured: ConfiguredComponent) -> Node:
        fed = [pipeline for pipeline in self._pipelines.values() if configured.id in pipeline.receivers]
        outputs: dict[Signal, Output] = {}
        for signal in sorted({pipeline.signal for pipeline in fed}):
            served = [pipeline for pipeline in fed if pipeline.signal is signal]
            reach = dict.fromkeys(edge for pipeline in served for edge in self._reach[pipeline.id])
            outputs[signal] = self._door(
                configured.id, signal, Fan([self._head(pipeline) for pipeline in served]), list(reach)
            )
        return self._node(configured, frozenset(outputs), outputs)

    def _door(self, receiver_id: ComponentId, signal: Signal, fan: Fan, reach: list[ExporterEdge]) -> Door:
        ledger = self._environment.telemetry.ledger
        telemetry = self._environment.telemetry.component(ComponentKind.RECEIVER, receiver_id)
        return Door(
            signal,
            fan,
            reach,
            self._environment.admission,
            lambda transport: ledger.entry(ComponentKind.RECEIVER, receiver_id, signal, transport=transport),
            telemetry.counter(
                "tailrace_receiver_repaired_strings", "Strings in which invalid UTF-8 was replaced with U+FFFD"
            ),
            telemetry.log,
        )

    def _node(
        self,
        configured: ConfiguredComponent,
        signals: frozenset[Signal],
        outputs: Mapping[Signal, Output],
        *,
        pipelines: Mapping[str, Output] | None = None,
        pipeline: str = "",
    ) -> Node:
        environment = self._environment
        settings = Settings(
            id=configured.id,
            kind=configured.kind,
            telemetry=environment.telemetry.component(configured.kind, configured.id, pipeline),
            clock=environment.clock,
            signals=signals,
            outputs=outputs,
            pipelines=pipelines or {},
            pipeline=pipeline,
            shared=SharedState(
                self._shared.setdefault(configured.id, {}) if configured.kind is ComponentKind.PROCESSOR else {},
                environment.shared,
            ),
            version=environment.version,
            instance_id=environment.instance_id,
            start_time_unix_nano=environment.start_time_unix_nano,
        )
        try:
            component = configured.factory.create(settings, configured.config)
        except Exception as error:
            raise StartError(f"{configured.kind.value}::{configured.id}: {error}") from error
        return Node(configured.kind, configured.id, component, pipeline)


def _held_by(connector: Connector, signal: Signal) -> int:
    return connector.held_items().get(signal, 0)
