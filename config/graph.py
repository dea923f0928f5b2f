"""What pipelines may contain: the checks that need the whole graph. Nothing is built here.

Source: open-telemetry/opentelemetry-collector otelcol/config.go, service/internal/graph/graph.go.
"""

from collections.abc import Iterable, Mapping

from collector.api import ComponentId, ComponentKind, Factory, Trait
from config.errors import ConfigError
from config.model import Pipeline, ServiceConfig, singular
from config.resolve import Document
from config.yaml import ListNode, Node, Position, ScalarNode

__all__ = ["Factories", "check_graph"]

Factories = Mapping[ComponentKind, Mapping[ComponentId, tuple[Factory | None, Position]]]
"""Configured ids by section; None for types that are not known, which is reported elsewhere."""


def check_graph(
    service: ServiceConfig,
    factories: Factories,
    document: Document,
    errors: list[ConfigError],
    warnings: list[ConfigError],
) -> None:
    """Append what is wrong with the graph to ``errors``, and what is merely suspicious to ``warnings``."""
    _check_ambiguous(factories, errors)
    for pipeline in service.pipelines.values():
        _check_pipeline(pipeline, factories, document, errors)
    for connector_id, (factory, position) in factories[ComponentKind.CONNECTOR].items():
        _check_connector(connector_id, factory, position, service, errors)
    _check_cycles(service, factories, errors)
    _warn_unused(service, factories, errors, warnings)
    _warn_counting_behind_sampling(service, factories, warnings)


def _check_ambiguous(factories: Factories, errors: list[ConfigError]) -> None:
    for connector_id, (_, position) in factories[ComponentKind.CONNECTOR].items():
        for kind in (ComponentKind.RECEIVER, ComponentKind.EXPORTER):
            if connector_id in factories[kind]:
                other = factories[kind][connector_id][1]
                message = f"the id '{connector_id}' is ambiguous: the {singular(kind)} at {other} has the same id"
                hint = f"rename one of them, for example to '{connector_id.type}/connector'"
                errors.append(ConfigError(position, ("connectors", str(connector_id)), message, hint=hint))


def _check_pipeline(pipeline: Pipeline, factories: Factories, document: Document, errors: list[ConfigError]) -> None:
    path = ("service", "pipelines", pipeline.id)
    listed = {
        ComponentKind.RECEIVER: pipeline.receivers,
        ComponentKind.PROCESSOR: pipeline.processors,
        ComponentKind.EXPORTER: pipeline.exporters,
    }
    for kind, ids in listed.items():
        # Listed ids that are not configured are reported elsewhere: do not call the list empty as well.
        if not ids and kind is not ComponentKind.PROCESSOR and _is_empty(document.node(*path, str(kind))):
            errors.append(ConfigError(pipeline.position, path, f"the pipeline must have at least one {singular(kind)}"))
        for component_id in ids:
            factory = factories[kind].get(component_id, (None, None))[0]
            if factory is not None and pipeline.signal not in factory.signals:
                supported = ", ".join(sorted(factory.signals)) or "no signals"
                message = f"the {singular(kind)} '{component_id}' does not support {pipeline.signal}"
                position = _listed_at(document, (*path, str(kind)), component_id)
                errors.append(ConfigError(position, (*path, str(kind)), message, hint=f"it only supports {supported}"))


def _is_empty(node: Node | None) -> bool:
    """Whether a list of component ids is absent or empty."""
    if isinstance(node, ScalarNode):
        return node.value is None
    return node is None or (isinstance(node, ListNode) and not node.items)


def _listed_at(document: Document, path: tuple[str, ...], component_id: ComponentId) -> Position:
    """The position of the component's id in the list at ``path``."""
    node = document.node(*path)
    for item in node.items if isinstance(node, ListNode) else ():
        if (
            isinstance(item, ScalarNode)
            and isinstance(item.value, str)
            and ComponentId.parse(item.value) == component_id
        ):
            return item.position
    return document.position(*path)


def _check_connector(
    connector_id: ComponentId,
    factory: Factory | None,
    position: Position,
    service: ServiceConfig,
    errors: list[ConfigError],
) -> None:
    into = [pipeline for pipeline in service.pipelines.values() if connector_id in pipeline.exporters]
    out_of = [pipeline for pipeline in service.pipelines.values() if connector_id in pipeline.receivers]
    if factory is None:
        return
    unconnected = [
        (pipeline, "an exporter", "a receiver")
        for pipeline in into
        if not any((pipeline.signal, other.signal) in factory.connects for other in out_of)
    ]
    unconnected += [
        (pipeline, "a receiver", "an exporter")
        for pipeline in out_of
        if not any((other.signal, pipeline.signal) in factory.connects for other in into)
    ]
    for pipeline, role, missing_role in unconnected:
        message = (
            f"the connector is used as {role} in pipeline '{pipeline.id}', "
            f"but not as {missing_role} in any pipeline that it can connect to this one"
        )
        hint = f"it can connect {_connections(factory)}"
        errors.append(ConfigError(position, ("connectors", str(connector_id)), message, hint=hint))


def _connections(factory: Factory) -> str:
    return ", ".join(f"{before} to {after}" for before, after in sorted(factory.connects)) or "no signals"


def _check_cycles(service: ServiceConfig, factories: Factories, errors: list[ConfigError]) -> None:
    edges: dict[str, list[tuple[ComponentId, str]]] = {name: [] for name in service.pipelines}
    for connector_id, (factory, _) in factories[ComponentKind.CONNECTOR].items():
        for name, pipeline in service.pipelines.items():
            if factory is None or connector_id not in pipeline.exporters:
                continue
            for other_name, other in service.pipelines.items():
                if connector_id in other.receivers and (pipeline.signal, other.signal) in factory.connects:
                    edges[name].append((connector_id, other_name))
    done: set[str] = set()
    for start in service.pipelines:
        cycle = _cycle_from(start, edges, done)
        if cycle:
            message = f"the connectors form a cycle: {' -> '.join(cycle)}"
            errors.append(
                ConfigError(service.pipelines[cycle[0]].position, ("service", "pipelines", cycle[0]), message)
            )


def _cycle_from(start: str, edges: Mapping[str, list[tuple[ComponentId, str]]], done: set[str]) -> list[str]:
    """The first cycle reachable from ``start``, as pipeline, connector, pipeline …; empty if there is none.

    Adds the pipelines that it visited to ``done``.
    """
    if start in done:
        return []
    trail: list[str] = [start]  # pipelines
    through: list[ComponentId] = []
    pending = [iter(edges[start])]
    while pending:
        step = next(pending[-1], None)
        if step is None:
            done.add(trail.pop())
            pending.pop()
            if through:
                through.pop()
            continue
        connector_id, following = step
        if following in trail:
            first = trail.index(following)
            words = [trail[first]]
            for name, connector in zip([*trail[first + 1 :], following], [*through[first:], connector_id], strict=True):
                words += [f"connector {connector}", name]
            done.update(trail)
            return words
        if following not in done:
            trail.append(following)
            through.append(connector_id)
            pending.append(iter(edges[following]))
    return []


def _warn_unused(
    service: ServiceConfig, factories: Factories, errors: list[ConfigError], warnings: list[ConfigError]
) -> None:
    # A mistake in a list is one finding: what it should have named is not called unused as well.
    mistaken = {error.path[1] for error in errors if error.path[:1] == ("service",) and len(error.path) > 1}
    pipelines = service.pipelines.values()
    used = {
        ComponentKind.RECEIVER: {each for pipeline in pipelines for each in pipeline.receivers},
        ComponentKind.PROCESSOR: {each for pipeline in pipelines for each in pipeline.processors},
        ComponentKind.EXPORTER: {each for pipeline in pipelines for each in pipeline.exporters},
        ComponentKind.CONNECTOR: {
            each for pipeline in pipelines for each in (*pipeline.receivers, *pipeline.exporters)
        },
        ComponentKind.EXTENSION: set(service.extensions),
    }
    for kind, ids in factories.items():
        if ("extensions" if kind is ComponentKind.EXTENSION else "pipelines") in mistaken:
            continue
        for component_id, (_, position) in ids.items():
            if component_id not in used[kind]:
                usage = "listed in service::extensions" if kind is ComponentKind.EXTENSION else "used in any pipeline"
                message = f"this {singular(kind)} is configured but not {usage}"
                warnings.append(ConfigError(position, (str(kind), str(component_id)), message))


def _warn_counting_behind_sampling(service: ServiceConfig, factories: Factories, warnings: list[ConfigError]) -> None:
    """Connectors that count items behind a processor that removes some: their results are estimates, or wrong."""

    def having(trait: Trait, ids: Iterable[ComponentId], kind: ComponentKind) -> list[ComponentId]:
        found = ((component_id, factories[kind].get(component_id, (None, None))[0]) for component_id in ids)
        return [component_id for component_id, factory in found if factory is not None and trait in factory.traits]

    def sampler_upstream(pipeline: Pipeline, seen: frozenset[str]) -> ComponentId | None:
        for sampler in having(Trait.SAMPLES, pipeline.processors, ComponentKind.PROCESSOR):
            return sampler
        for other in service.pipelines.values():
            if (
                other.id not in seen
                and set(other.exporters) & set(pipeline.receivers)
                and other.signal is pipeline.signal
            ):
                found = sampler_upstream(other, seen | {other.id})
                if found is not None:
                    return found
        return None

    for pipeline in service.pipelines.values():
        counting = having(Trait.COUNTS, pipeline.exporters, ComponentKind.CONNECTOR)
        sampler = sampler_upstream(pipeline, frozenset({pipeline.id})) if counting else None
        for connector_id in counting if sampler is not None else ():
            message = (
                f"counts only the items that {sampler} keeps in pipeline {pipeline.id}, "
                "so its results are estimates at best; "
                "list it as an exporter of a pipeline upstream of the sampling"
            )
            warnings.append(
                ConfigError(
                    factories[ComponentKind.CONNECTOR][connector_id][1], ("connectors", str(connector_id)), message
                )
            )
