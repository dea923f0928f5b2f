"""What remains of a configuration without the components that do not exist in this installation.

Left out are the missing components themselves, and every component that refers to a missing extension: it would run
with less than the file asks for, for example without authentication. A pipeline runs without them as long as a receiver
and an exporter remain, and no missing processor may have had to remove or mask data: of a type that nobody knows, that
has to be assumed. What only served pipelines that do not run is left out without mention, and a connector stays in
a pipeline only if it still connects it to another one.

Not here: what counts as missing (``config.load``). The remaining document is checked like any other.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

from collector.api import ComponentId, ComponentKind
from config.errors import ConfigError
from config.graph import Factories
from config.model import ConfiguredComponent, Pipeline, ServiceConfig, singular
from config.resolve import Document
from config.service import UNSUPPORTED_SIGNAL, extension_references, sections_for
from config.yaml import Entry, ListNode, MapNode, Node, ScalarNode

__all__ = ["Key", "Remainder", "remainder"]

Key: TypeAlias = tuple[ComponentKind, ComponentId]
"""A configured component."""


@dataclass(frozen=True, slots=True)
class Remainder:
    """A configuration without its missing components, before it is checked."""

    document: Document
    left_out: tuple[ConfigError, ...]
    """One finding for each component that is left out, and why."""
    changed: tuple[ConfigError, ...]
    """One finding for each pipeline that does not run, or not with all of its components."""
    running: tuple[str, ...]
    """The ids of the pipelines that remain."""
    pipeline_count: int
    """The number of pipelines in the whole configuration."""


def remainder(
    service: ServiceConfig,
    factories: Factories,
    configured: Mapping[ComponentKind, Mapping[ComponentId, ConfiguredComponent]],
    missing: Mapping[Key, ConfigError],
    document: Document,
    *,
    may_skip: Callable[[str], bool],
) -> Remainder | None:
    """What remains of ``document`` without ``missing``; None if everything exists.

    ``missing`` has the finding about each component whose type does not exist. ``may_skip`` says of the type of a
    processor whether data may pass without it.
    """
    unsupported = _unsupported_pipelines(document)
    if not missing and not unsupported:
        return None
    return _Reduction(service, factories, configured, missing, document, unsupported, may_skip).remainder()


class _Reduction:
    def __init__(
        self,
        service: ServiceConfig,
        factories: Factories,
        configured: Mapping[ComponentKind, Mapping[ComponentId, ConfiguredComponent]],
        missing: Mapping[Key, ConfigError],
        document: Document,
        unsupported: Mapping[str, ConfigError],
        may_skip: Callable[[str], bool],
    ) -> None:
        self._service = service
        self._factories = factories
        self._configured = configured
        self._document = document
        self._may_skip = may_skip
        self._left_out = dict(missing)
        self._stopped = dict(unsupported)
        """The findings about pipelines that do not run, by id."""
        self._running = dict(service.pipelines)
        """The pipelines that still run, with the components that they still have."""

    def remainder(self) -> Remainder:
        self._leave_out_dependents()
        self._stop_unprotected()
        while self._remove_left_out() | self._remove_unconnected() | self._stop_incomplete():
            pass
        changed = [*self._stopped.values(), *filter(None, map(self._without, self._running))]
        return Remainder(
            self._remaining_document(),
            tuple(self._left_out.values()),
            tuple(sorted(changed, key=lambda finding: finding.position)),
            tuple(self._running),
            len(self._running) + len(self._stopped),
        )

    def _leave_out_dependents(self) -> None:
        """Leave out what refers to an extension that is left out, directly or through another extension."""
        references = [
            (component, path, extension)
            for component, path, node in extension_references(self._configured, self._document)
            if (extension := _parsed(node.value)) is not None
        ]
        while True:
            dependents = {
                (component.kind, component.id): ConfigError(
                    component.position,
                    path[:2],
                    f"the {singular(component.kind)} is left out because it refers to the extension '{extension}' "
                    f"({'::'.join(path[2:])})",
                )
                for component, path, extension in references
                if (ComponentKind.EXTENSION, extension) in self._left_out
                and (component.kind, component.id) not in self._left_out
            }
            if not dependents:
                return
            self._left_out |= dependents

    def _stop_unprotected(self) -> None:
        """Stop the pipelines from which a processor is missing that may have had to remove or mask data."""
        for name, pipeline in list(self._running.items()):
            lost = [
                each
                for each in pipeline.processors
                if (ComponentKind.PROCESSOR, each) in self._left_out and not self._may_skip(each.type)
            ]
            if lost:
                message = (
                    f"the pipeline does not run because without processors [{', '.join(map(str, lost))}] data may "
                    "leave that should not; --allow-unprotected starts it all the same"
                )
                self._stopped[name] = ConfigError(pipeline.position, ("service", "pipelines", name), message)
                del self._running[name]

    def _remove_left_out(self) -> bool:
        """Take components that are left out from the pipelines; True if there were any."""
        return self._keep(lambda _, __, key: key not in self._left_out)

    def _remove_unconnected(self) -> bool:
        """Take connectors from pipelines that they no longer connect to any other; True if there were any."""
        before, now = self._service.pipelines.values(), self._running.values()

        def keeps(pipeline: Pipeline, section: ComponentKind, key: Key) -> bool:
            kind, connector = key
            return (
                kind is not ComponentKind.CONNECTOR
                or self._connects(connector, pipeline, section, now)
                or not self._connects(connector, pipeline, section, before)  # an error of its own
            )

        return self._keep(keeps)

    def _connects(
        self, connector: ComponentId, pipeline: Pipeline, section: ComponentKind, others: Iterable[Pipeline]
    ) -> bool:
        """Whether the connector, listed under ``section`` of the pipeline, connects it to one of ``others``."""
        factory = self._factories[ComponentKind.CONNECTOR][connector][0]
        connects = factory.connects if factory is not None else frozenset()
        if section is ComponentKind.EXPORTER:
            return any(connector in other.receivers and (pipeline.signal, other.signal) in connects for other in others)
        return any(connector in other.exporters and (other.signal, pipeline.signal) in connects for other in others)

    def _keep(self, keeps: Callable[[Pipeline, ComponentKind, Key], bool]) -> bool:
        """Reduce the running pipelines to the components for which ``keeps``; True if that changes any."""

        def kept(pipeline: Pipeline, section: ComponentKind) -> tuple[ComponentId, ...]:
            ids = _listed(pipeline)[section]
            return tuple(each for each in ids if keeps(pipeline, section, self._key(section, each)))

        reduced = {
            name: replace(
                pipeline,
                receivers=kept(pipeline, ComponentKind.RECEIVER),
                processors=kept(pipeline, ComponentKind.PROCESSOR),
                exporters=kept(pipeline, ComponentKind.EXPORTER),
            )
            for name, pipeline in self._running.items()
        }
        is_changed = reduced != self._running
        self._running = reduced
        return is_changed

    def _key(self, section: ComponentKind, component_id: ComponentId) -> Key:
        """The component that a pipeline means by an id under ``section``."""
        return next((kind, component_id) for kind in sections_for(section) if component_id in self._factories[kind])

    def _stop_incomplete(self) -> bool:
        """Stop the pipelines that have lost all of their receivers or exporters; True if there were any."""
        found = {}
        for name, pipeline in self._running.items():
            whole = self._service.pipelines[name]
            lost = [
                str(section)
                for section, ids in _listed(pipeline).items()
                if section is not ComponentKind.PROCESSOR and not ids and _listed(whole)[section]
            ]
            if lost:
                message = f"the pipeline does not run because none of its {' and '.join(lost)} is available"
                found[name] = ConfigError(pipeline.position, ("service", "pipelines", name), message)
        self._stopped |= found
        for name in found:
            del self._running[name]
        return bool(found)

    def _without(self, name: str) -> ConfigError | None:
        """The finding about a pipeline that runs; None if it has all of its components."""
        whole, reduced = self._service.pipelines[name], _listed(self._running[name])
        lost = {
            section: [each for each in ids if each not in reduced[section]] for section, ids in _listed(whole).items()
        }
        if not any(lost.values()):
            return None
        parts = [f"{section} [{', '.join(map(str, ids))}]" for section, ids in lost.items() if ids]
        message = f"the pipeline runs without {' and '.join(parts)}"
        if lost[ComponentKind.PROCESSOR]:
            message += "; its data passes unchanged where a processor is left out"
        return ConfigError(whole.position, ("service", "pipelines", name), message)

    def _remaining_document(self) -> Document:
        """The document without what does not run."""
        unused = self._used(self._service.pipelines.values()) - self._used(self._running.values())
        gone = unused | set(self._left_out)
        root: Node = self._document.root
        for kind in ComponentKind:
            ids = {component_id for section, component_id in gone if section is kind}
            root = _changed(root, (str(kind),), partial(_without_entries, ids=ids))
            if kind is ComponentKind.EXTENSION:
                root = _changed(root, ("service", "extensions"), partial(_without_items, ids=ids))
        pipelines = ("service", "pipelines")
        root = _changed(root, pipelines, partial(_without_keys, keys=self._stopped))
        for name, pipeline in self._running.items():
            now = _listed(pipeline)
            for section, before in _listed(self._service.pipelines[name]).items():
                lost = set(before) - set(now[section])
                root = _changed(root, (*pipelines, name, str(section)), partial(_without_items, ids=lost))
        assert isinstance(root, MapNode)
        return replace(self._document, root=root)

    def _used(self, pipelines: Iterable[Pipeline]) -> set[Key]:
        return {
            self._key(section, component_id)
            for pipeline in pipelines
            for section, ids in _listed(pipeline).items()
            for component_id in ids
        }


def _unsupported_pipelines(document: Document) -> dict[str, ConfigError]:
    """The findings about pipelines of a signal that Tailrace does not support, by the id of the pipeline."""
    node = document.node("service", "pipelines")
    return {
        name: ConfigError(
            entry.key_position,
            ("service", "pipelines", name),
            f"the pipeline does not run because the signal '{UNSUPPORTED_SIGNAL}' is not supported yet",
        )
        for name, entry in (node.entries.items() if isinstance(node, MapNode) else ())
        if name.partition("/")[0].strip() == UNSUPPORTED_SIGNAL
    }


def _listed(pipeline: Pipeline) -> dict[ComponentKind, tuple[ComponentId, ...]]:
    """What a pipeline lists, by section."""
    return {
        ComponentKind.RECEIVER: pipeline.receivers,
        ComponentKind.PROCESSOR: pipeline.processors,
        ComponentKind.EXPORTER: pipeline.exporters,
    }


def _parsed(text: object) -> ComponentId | None:
    """The component id written as ``text``; None if it is none."""
    try:
        return ComponentId.parse(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _changed(node: Node, path: tuple[str, ...], change: Callable[[Node], Node]) -> Node:
    """``node`` with ``change`` applied to the node at ``path``, if there is one."""
    if not path:
        return change(node)
    if not isinstance(node, MapNode) or path[0] not in node.entries:
        return node
    entry = node.entries[path[0]]
    changed = Entry(entry.key_position, _changed(entry.node, path[1:], change))
    return replace(node, entries=node.entries | {path[0]: changed})


def _without_keys(node: Node, keys: Collection[str]) -> Node:
    if not isinstance(node, MapNode):
        return node
    return replace(node, entries={key: entry for key, entry in node.entries.items() if key not in keys})


def _without_entries(node: Node, ids: Collection[ComponentId]) -> Node:
    keys = node.entries if isinstance(node, MapNode) else ()
    return _without_keys(node, [key for key in keys if _parsed(key) in ids])


def _without_items(node: Node, ids: Collection[ComponentId]) -> Node:
    if not isinstance(node, ListNode):
        return node
    items = (item for item in node.items if not (isinstance(item, ScalarNode) and _parsed(item.value) in ids))
    return replace(node, items=tuple(items))
