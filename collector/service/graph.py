"""The configured components as objects, joined by edges.

Building does no I/O: ``validate`` builds a whole graph and throws it away. Receivers, exporters, connectors and
extensions are one object per id, whatever uses them; processors are one object per id and pipeline. What a
configuration may contain was checked by ``config.load``.

A reload builds the new graph beside the running one. The objects whose configuration has not changed are in both; what
they emit through leads to the new graph from :meth:`Graph.connect` on.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from collector.api import (
    Clock,
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
from collector.service.edges import Edge, ExporterEdge, NodeEdge, Segment, Step
from collector.service.keeping import Keeper
from collector.service.nodes import HeldItems, Node
from collector.service.outputs import CountedOutput, Fan, HeldFan, StageOutput
from collector.service.telemetry import ComponentTelemetry, ServiceTelemetry
from config.errors import ConfigError, ConfigErrors
from config.model import Config, ConfiguredComponent, Pipeline
from config.refusals import refusals

__all__ = ["BuildError", "Connection", "DoorConnection", "Environment", "Graph", "StartError", "build"]


class StartError(ValueError):
    """A component could not be made or started. The message begins with its path in the configuration."""


class BuildError(ConfigErrors, StartError):
    """Components refuse their configuration; ``errors`` holds what each of them refuses, with its place."""


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


@dataclass(frozen=True, slots=True)
class Connection:
    """Where an output of a component leads in one graph."""

    output: StageOutput | CountedOutput
    fan: Fan

    def connect(self) -> None:
        """Lead there from now on."""
        self.output.connect(self.fan)

    def hold(self) -> None:
        """Let batches wait until another graph is connected."""
        self.output.hold()


@dataclass(frozen=True, slots=True)
class DoorConnection:
    """Where a door leads in one graph, and the exporters that it asks for room."""

    door: Door
    fan: Fan
    exporters: tuple[ExporterEdge, ...]

    def connect(self) -> None:
        """Lead there from now on."""
        for door in self.door.by_transport:
            door.connect(self.fan, self.exporters)

    def hold(self) -> None:
        """Let requests wait until another graph is connected."""
        for door in self.door.by_transport:
            door.hold()

    def close(self) -> None:
        """Refuse requests: no graph will be connected."""
        for door in self.door.by_transport:
            door.close()


@dataclass(slots=True, eq=False)
class Graph:
    """All components of one configuration."""

    config: Config
    extensions: list[Node]
    processors: list[Node]
    """Processors and connectors, downstream first."""
    exporters: list[Node]
    receivers: list[Node]
    doors: dict[tuple[ComponentId, Signal], DoorConnection]
    """By receiver and signal: the outputs of the receivers."""
    connections: list[Connection]
    """Of all other outputs."""

    def connect(self) -> None:
        """Lead every output of the components to where it leads in this graph."""
        for connection in self.connections:
            connection.connect()
        for door in self.doors.values():
            door.connect()

    def fans(self) -> list[Fan]:
        """Everything that outputs lead to."""
        return [*(connection.fan for connection in self.connections), *(door.fan for door in self.doors.values())]

    def nodes(self) -> list[Node]:
        """All components in the order they are started: extensions, then downstream first, receivers last."""
        return [*self.extensions, *self.exporters, *self.processors, *self.receivers]


def build(config: Config, environment: Environment, running: Graph | None = None) -> Graph:
    """The graph of ``config``, with those components of the ``running`` graph that stay as they are.

    Nothing in the running graph changes until :meth:`Graph.connect`.

    Raises:
        BuildError: components refuse their configuration.
    """
    return _Builder(config, environment, running).build()


class _Builder:
    def __init__(self, config: Config, environment: Environment, running: Graph | None) -> None:
        self._config, self._environment = config, environment
        self._keeper = Keeper(config, environment.instance_id, running.nodes() if running is not None else ())
        self._running_doors = running.doors if running is not None else {}
        self._shared: dict[ComponentId, dict[str, Any]] = {}
        self._pipelines = config.service.pipelines
        self._exporter_edges: dict[ComponentId, ExporterEdge] = {}
        self._connector_edges: dict[ComponentId, NodeEdge] = {}
        self._heads: dict[str, Segment] = {}
        self._reach: dict[str, tuple[ExporterEdge, ...]] = {}
        self._behind: dict[str, set[ExporterEdge]] = {}
        self._exporters: list[Node] = []
        self._processors: list[Node] = []
        self._doors: dict[tuple[ComponentId, Signal], DoorConnection] = {}
        self._connections: list[Connection] = []
        self._findings: dict[ConfigError, None] = {}

    def build(self) -> Graph:
        extensions = [
            self._node(configured, self._telemetry(configured), frozenset(), {})
            for configured in (self._config.extensions[each] for each in self._config.service.extensions)
        ]
        for pipeline in self._pipelines.values():
            self._head(pipeline)
        receivers = [self._receiver(receiver) for receiver in self._used_receivers()]
        if self._findings:
            raise BuildError(sorted(self._findings, key=lambda finding: (finding.file, finding.line, finding.column)))
        return Graph(
            self._config,
            [node for node in extensions if node is not None],
            self._processors,
            self._exporters,
            [node for node in receivers if node is not None],
            self._doors,
            self._connections,
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
                connector = self._connector(exporter_id)
                if connector is not None:
                    targets.append(connector)
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
                if edge is not None:
                    targets.append(edge)
                    reach[exporter_id] = edge
        self._reach[pipeline.id] = tuple(reach.values())
        self._behind[pipeline.id] = behind | set(reach.values())
        steps: list[Step] = []
        for processor_id in reversed(pipeline.processors):
            configured = self._config.processors[processor_id]
            telemetry = self._telemetry(configured, pipeline.id)
            entry, log = telemetry.entry(pipeline.signal), self._rate_limited(telemetry)
            fan = Fan([Segment(pipeline.id, steps[::-1], targets)])
            signals = frozenset({pipeline.signal})
            output = StageOutput(fan, entry, log)
            node = self._node(configured, telemetry, signals, {pipeline.signal: output}, pipeline=pipeline.id)
            if node is None:
                continue
            self._connect(node.settings.outputs[pipeline.signal], fan)
            self._processors.append(node)
            match node.component:
                case Transform() as transform:
                    steps.append(Step(transform, entry, log))
                case Stage() as stage:
                    node.held = [HeldItems(entry, stage.held_items, is_kept=stage.keeps_held_items)]
                    edge_to_stage = NodeEdge(stage, {pipeline.signal: entry}, log, self._behind[pipeline.id])
                    targets, steps = [edge_to_stage], []
                case other:
                    self._refuse(configured, _wrong_class(other, "a Transform or a Stage"))
        self._heads[pipeline.id] = Segment(pipeline.id, steps[::-1], targets)
        return self._heads[pipeline.id]

    def _exporter(self, exporter_id: ComponentId) -> ExporterEdge | None:
        known = self._exporter_edges.get(exporter_id)
        if known is not None:
            return known
        signals = frozenset(
            pipeline.signal for pipeline in self._pipelines.values() if exporter_id in pipeline.exporters
        )
        configured = self._config.exporters[exporter_id]
        telemetry = self._telemetry(configured)
        node = self._node(configured, telemetry, signals, {})
        if node is None:
            return None
        exporter = node.component
        if not isinstance(exporter, Exporter):
            self._refuse(configured, _wrong_class(exporter, "an Exporter"))
            return None
        if node.edge is None:
            entries = {signal: telemetry.entry(signal) for signal in sorted(signals)}
            edge = node.edge = ExporterEdge(exporter, entries, self._rate_limited(telemetry))
            node.held = [
                HeldItems(entry, partial(edge.held_items, signal), is_kept=exporter.waits_for_storage)
                for signal, entry in entries.items()
            ]
        self._exporters.append(node)
        self._exporter_edges[exporter_id] = node.edge
        return node.edge

    def _connector(self, connector_id: ComponentId) -> NodeEdge | None:
        known = self._connector_edges.get(connector_id)
        if known is not None:
            return known
        configured = self._config.connectors[connector_id]
        telemetry = self._telemetry(configured)
        into = frozenset(pipeline.signal for pipeline in self._pipelines.values() if connector_id in pipeline.exporters)
        fed = {pipeline.id: pipeline for signal in into for _, pipeline in self._fed_by(connector_id, signal)}
        heads = {name: self._head(pipeline) for name, pipeline in fed.items()}
        fans = {
            signal: Fan([heads[name] for name, pipeline in fed.items() if pipeline.signal is signal])
            for signal in sorted({pipeline.signal for pipeline in fed.values()})
        }
        single_fans = {name: Fan([heads[name]]) for name in fed}
        outputs: dict[Signal, Output] = {
            signal: CountedOutput(fan, telemetry.entry(signal)) for signal, fan in fans.items()
        }
        pipelines = {name: CountedOutput(fan, telemetry.entry(fed[name].signal)) for name, fan in single_fans.items()}
        node = self._node(configured, telemetry, into, outputs, pipelines=pipelines)
        if node is None:
            return None
        for signal, fan in fans.items():
            self._connect(node.settings.outputs[signal], fan)
        for name, fan in single_fans.items():
            self._connect(node.settings.pipelines[name], fan)
        connector = node.component
        if not isinstance(connector, Connector):
            self._refuse(configured, _wrong_class(connector, "a Connector"))
            return None
        entries = {signal: telemetry.entry(signal) for signal in sorted(into)}
        node.held = [
            HeldItems(entry, partial(_held_by, connector, signal), is_kept=connector.keeps_held_items)
            for signal, entry in entries.items()
        ]
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

    def _receiver(self, configured: ConfiguredComponent) -> Node | None:
        fed = [pipeline for pipeline in self._pipelines.values() if configured.id in pipeline.receivers]
        telemetry = self._telemetry(configured)
        outputs: dict[Signal, Output] = {}
        for signal in sorted({pipeline.signal for pipeline in fed}):
            served = [pipeline for pipeline in fed if pipeline.signal is signal]
            reach = dict.fromkeys(edge for pipeline in served for edge in self._reach[pipeline.id])
            known = self._running_doors.get((configured.id, signal))
            outputs[signal] = door = known.door if known is not None else self._door(configured.id, signal, telemetry)
            fan = Fan([self._head(pipeline) for pipeline in served])
            self._doors[configured.id, signal] = DoorConnection(door, fan, tuple(reach))
        return self._node(configured, telemetry, frozenset(outputs), outputs)

    def _door(self, receiver_id: ComponentId, signal: Signal, telemetry: ComponentTelemetry) -> Door:
        """A door whose requests wait until it is connected."""
        ledger = self._environment.telemetry.ledger
        return Door(
            signal,
            HeldFan(),
            (),
            self._environment.admission,
            lambda transport: ledger.entry(ComponentKind.RECEIVER, receiver_id, signal, transport=transport),
            telemetry.counter(
                "tailrace_receiver_repaired_strings", "Strings in which invalid UTF-8 was replaced with U+FFFD"
            ),
            telemetry.log,
        )

    def _telemetry(self, configured: ConfiguredComponent, pipeline: str = "") -> ComponentTelemetry:
        return self._environment.telemetry.component(configured.kind, configured.id, pipeline, is_shown=False)

    def _connect(self, output: Output, fan: Fan) -> None:
        assert isinstance(output, StageOutput | CountedOutput)  # made here
        self._connections.append(Connection(output, fan))

    def _node(
        self,
        configured: ConfiguredComponent,
        telemetry: ComponentTelemetry,
        signals: frozenset[Signal],
        outputs: Mapping[Signal, Output],
        *,
        pipelines: Mapping[str, Output] | None = None,
        pipeline: str = "",
    ) -> Node | None:
        """The node of the running graph if it stays, otherwise a new one, which emits through ``outputs``.

        None if the component refuses its configuration: it is left out, so that the others can say what they refuse.
        """
        pipelines = pipelines or {}
        key = (configured.kind, configured.id, pipeline)
        kept = self._keeper.kept(key, configured.config, signals, outputs.keys(), pipelines.keys())
        if kept is not None:
            return kept
        environment = self._environment
        settings = Settings(
            id=configured.id,
            kind=configured.kind,
            telemetry=telemetry,
            clock=environment.clock,
            signals=signals,
            outputs=outputs,
            pipelines=pipelines,
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
        except Exception as error:  # noqa: BLE001 - a constructor may raise anything
            self._refuse(configured, error)
            return None
        return Node(configured.kind, configured.id, component, settings, configured.config, telemetry, pipeline)

    def _refuse(self, configured: ConfiguredComponent, error: Exception) -> None:
        """Report ``error`` at the place that it is about."""
        self._findings |= dict.fromkeys(refusals(self._config, configured, error))


def _wrong_class(component: object, expected: str) -> TypeError:
    return TypeError(f"its factory returned a {type(component).__name__}, expected {expected}")


def _held_by(connector: Connector, signal: Signal) -> int:
    return connector.held_items().get(signal, 0)
