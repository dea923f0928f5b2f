"""Sources to a checked configuration, or to every reason why there is none.

``load``      the configuration, or ConfigErrors with all findings
``examine``   the same without raising, with what became of each component (for ``validate`` on somebody else's file)

What a component's keys mean is the component's matter (its pydantic model); what a pipeline may hold is checked in
``config.graph``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel

from collector.api import ComponentId, ComponentKind, Factory
from collector.model import Signal
from config.blocks import AuthConfig, QueueConfig
from config.errors import ConfigError, ConfigErrors
from config.explain import closest, parse_model
from config.graph import check_graph
from config.model import Config, ConfiguredComponent, Pipeline, ServiceConfig, TelemetryConfig
from config.resolve import Document, ReadFile, read_file, resolve
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode

__all__ = ["ComponentOutcome", "Examination", "FactoryLookup", "Outcome", "examine", "load"]

_SECTIONS = (*(str(kind) for kind in ComponentKind), "service")
_SINGULAR = {kind: str(kind).removesuffix("s") for kind in ComponentKind}


class FactoryLookup(Protocol):
    """What loading needs to know of the registry."""

    def find(self, kind: ComponentKind, component_type: str) -> Factory | None:
        """The factory of that type, by any of its spellings.

        Raises:
            ImportError: installed, and cannot be loaded.
        """
        ...

    def types(self, kind: ComponentKind) -> Sequence[str]:
        """The types there are, sorted."""
        ...

    def known_elsewhere(self, kind: ComponentKind, component_type: str) -> bool:
        """Whether the Collector has a component of that type (and we do not)."""
        ...


class Outcome(StrEnum):
    """What became of one configured component."""

    RUNS = "runs"
    INVALID = "invalid"
    """We have it, but not these settings."""
    ELSEWHERE = "elsewhere"
    """The Collector has it, we do not yet."""
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class ComponentOutcome:
    """One configured component and what became of it."""

    kind: ComponentKind
    id: str
    outcome: Outcome
    position: Position


@dataclass(frozen=True, slots=True)
class Examination:
    """All there is to say about a configuration. ``config`` is None if and only if there are errors."""

    config: Config | None
    errors: tuple[ConfigError, ...]
    warnings: tuple[ConfigError, ...]
    components: tuple[ComponentOutcome, ...]
    pipeline_count: int = 0


def load(
    sources: Sequence[str],
    sets: Sequence[str] = (),
    registry: FactoryLookup | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    read: ReadFile = read_file,
) -> Config:
    """The checked configuration of ``sources`` (paths, ``file:``, ``env:``, ``yaml:``) under ``sets`` (``a.b=value``).

    Raises:
        ConfigErrors: every finding, in the order of files and lines.
    """
    found = examine(sources, sets, registry, environ=environ, read=read)
    if found.config is None:
        raise ConfigErrors(found.errors)
    return found.config


def examine(
    sources: Sequence[str],
    sets: Sequence[str] = (),
    registry: FactoryLookup | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    read: ReadFile = read_file,
) -> Examination:
    """What ``load`` finds, without raising."""
    assert registry is not None, "pass collector.registry.Registry()"
    try:
        document = resolve(sources, sets, environ=os.environ if environ is None else environ, read=read)
    except ConfigErrors as exc:
        return Examination(None, exc.errors, (), ())
    return _Loader(document, registry, tuple(sources)).examination()


@dataclass(slots=True)
class _Loader:
    document: Document
    registry: FactoryLookup
    sources: tuple[str, ...]
    errors: list[ConfigError] = field(default_factory=list)
    warnings: list[ConfigError] = field(default_factory=list)
    outcomes: list[ComponentOutcome] = field(default_factory=list)
    factories: dict[ComponentKind, dict[ComponentId, tuple[Factory | None, Position]]] = field(default_factory=dict)
    """Every configured id, also of those that are invalid or unknown: the graph is checked all the same."""
    configured: dict[ComponentKind, dict[ComponentId, ConfiguredComponent]] = field(default_factory=dict)

    def examination(self) -> Examination:
        self.warnings += self.document.warnings
        root = self.document.root
        for key, entry in root.entries.items():
            if key not in _SECTIONS:
                message = f'unknown section "{key}"; allowed: {", ".join(_SECTIONS)}'
                self._error(entry.key_position, (), message, closest(key, _SECTIONS))
        for kind in ComponentKind:
            self._section(kind)
        service = self._service()
        check_graph(service, self.factories, self.document, self.errors, self.warnings)
        self._check_extension_references(service)
        order = {source: index for index, source in enumerate(dict.fromkeys(error.file for error in self.errors))}
        errors = tuple(
            sorted(dict.fromkeys(self.errors), key=lambda error: (order[error.file], error.line, error.column))
        )
        config = None
        if not errors:
            config = Config(
                **{str(kind): self.configured[kind] for kind in ComponentKind},
                service=service,
                document=self.document,
                warnings=tuple(self.warnings),
                sources=self.sources,
            )
        return Examination(
            config, errors, tuple(dict.fromkeys(self.warnings)), tuple(self.outcomes), len(service.pipelines)
        )

    def _error(self, position: Position, path: tuple[str, ...], message: str, suggestion: str = "") -> None:
        self.errors.append(ConfigError(position, path, message, suggestion=suggestion))

    def _mapping(self, node: Node | None, path: tuple[str, ...]) -> MapNode | None:
        """The node as a mapping; None for null, and for what is none (reported)."""
        if node is None or (isinstance(node, ScalarNode) and node.value is None):
            return None
        if not isinstance(node, MapNode):
            self._error(
                node.position, path, f"expected a mapping, got {'a list' if isinstance(node, ListNode) else 'a value'}"
            )
            return None
        return node

    def _section(self, kind: ComponentKind) -> None:
        self.factories[kind], self.configured[kind] = {}, {}
        section = self._mapping(self.document.node(kind), (kind,))
        for text, entry in section.entries.items() if section else ():
            self._component(kind, text, entry.key_position, entry.node)

    def _component(self, kind: ComponentKind, text: str, position: Position, node: Node) -> None:
        path = (str(kind), text)
        try:
            component_id = ComponentId.parse(text)
        except ValueError as exc:
            self._error(position, (str(kind),), str(exc))
            return
        if component_id in self.factories[kind]:
            self._error(position, (str(kind),), f'the id "{component_id}" is given twice')
            return
        factory, outcome = None, Outcome.INVALID
        try:
            factory = self.registry.find(kind, component_id.type)
        except ImportError as exc:
            self._error(position, path, f"the component is installed but cannot be loaded: {exc}")
        else:
            if factory is None:
                outcome = self._unknown_type(kind, component_id.type, path, position)
        self.factories[kind][component_id] = (factory, position)
        if factory is not None:
            config, errors = parse_model(factory.config_type, node, path)
            # What concerns the component as a whole is shown at its id. A block mapping begins where its first key
            # does, so an unknown first key has that place too; it keeps it.
            whole = (node.position, path)
            self.errors += [
                replace(error, position=position)
                if (error.position, error.path) == whole and not error.message.startswith("unknown key")
                else error
                for error in errors
            ]
            if config is not None:
                self.configured[kind][component_id] = ConfiguredComponent(component_id, kind, factory, config, position)
                outcome = Outcome.RUNS
        self.outcomes.append(ComponentOutcome(kind, text, outcome, position))

    def _unknown_type(
        self, kind: ComponentKind, component_type: str, path: tuple[str, ...], position: Position
    ) -> Outcome:
        singular = _SINGULAR[kind]
        if self.registry.known_elsewhere(kind, component_type):
            self._error(
                position,
                path,
                f'the OpenTelemetry Collector has the {singular} "{component_type}", Tailrace does not yet',
            )
            return Outcome.ELSEWHERE
        types = self.registry.types(kind)
        near = closest(component_type, types)
        elsewhere = [
            other for other in ComponentKind if other is not kind and component_type in self.registry.types(other)
        ]
        hint = f"; known: {', '.join(types) or 'none'}"
        if elsewhere and not near:
            hint = f"; it is one of the {elsewhere[0]}: configure it there"
        self._error(position, path, f'unknown {singular} type "{component_type}"{hint}', near)
        return Outcome.UNKNOWN

    def _service(self) -> ServiceConfig:
        node = self._mapping(self.document.node("service"), ("service",))
        allowed = ("extensions", "pipelines", "telemetry")
        for key, entry in node.entries.items() if node else ():
            if key not in allowed:
                self._error(
                    entry.key_position,
                    ("service",),
                    f'unknown key "{key}"; allowed: {", ".join(allowed)}',
                    closest(key, allowed),
                )
        telemetry = TelemetryConfig()
        telemetry_node = self.document.node("service", "telemetry")
        if telemetry_node is not None:
            parsed, errors = parse_model(TelemetryConfig, telemetry_node, ("service", "telemetry"))
            self.errors += errors
            telemetry = parsed or telemetry
            self._telemetry_warnings(telemetry)
        pipelines = {}
        section = self._mapping(self.document.node("service", "pipelines"), ("service", "pipelines"))
        for text, entry in section.entries.items() if section else ():
            pipeline = self._pipeline(text, entry.key_position, entry.node)
            if pipeline is not None:
                pipelines[text] = pipeline
        if section is None or not section.entries:
            path = ("service", "pipelines")
            self._error(self.document.position(*path), path, "the service must have at least one pipeline")
        return ServiceConfig(self._ids(("service", "extensions")), pipelines, telemetry)

    def _telemetry_warnings(self, telemetry: TelemetryConfig) -> None:
        ignored = {
            ("traces",): bool(telemetry.traces) and telemetry.traces.get("level") != "none",
            ("logs", "processors"): bool(telemetry.logs.processors),
            ("metrics", "views"): bool(telemetry.metrics.views),
            ("metrics", "readers"): any(reader.periodic is not None for reader in telemetry.metrics.readers),
        }
        for keys, is_set in ignored.items():
            if is_set:
                path = ("service", "telemetry", *keys)
                what = "a periodic reader is" if keys[-1] == "readers" else "this is"
                message = f"{what} read and has no effect: Tailrace serves its own metrics for scraping"
                self.warnings.append(ConfigError(self.document.position(*path), path, message))

    def _pipeline(self, text: str, position: Position, node: Node) -> Pipeline | None:
        path = ("service", "pipelines", text)
        try:
            pipeline_id = ComponentId.parse(text)
        except ValueError as exc:
            self._error(position, path[:2], str(exc))
            return None
        signals = [str(signal) for signal in Signal]
        if pipeline_id.type not in signals:
            unsupported = (
                "profiles are not supported yet"
                if pipeline_id.type == "profiles"
                else f'unknown signal "{pipeline_id.type}"'
            )
            self._error(
                position, path, f"{unsupported}; allowed: {', '.join(signals)}", closest(pipeline_id.type, signals)
            )
            return None
        body = self._mapping(node, path)
        allowed = ("receivers", "processors", "exporters")
        for key, entry in body.entries.items() if body else ():
            if key not in allowed:
                self._error(
                    entry.key_position,
                    path,
                    f'unknown key "{key}"; allowed: {", ".join(allowed)}',
                    closest(key, allowed),
                )
        return Pipeline(
            text,
            Signal(pipeline_id.type),
            self._ids((*path, "receivers")),
            self._ids((*path, "processors"), unique=True),
            self._ids((*path, "exporters")),
            position,
        )

    def _ids(self, path: tuple[str, ...], *, unique: bool = False) -> tuple[ComponentId, ...]:
        """The component ids listed at ``path``, in order, each once. References are checked here."""
        node = self.document.node(*path)
        if node is None or (isinstance(node, ScalarNode) and node.value is None):
            return ()
        if not isinstance(node, ListNode):
            shown = f"[{node.value}]" if isinstance(node, ScalarNode) and isinstance(node.value, str) else "[a, b]"
            self._error(node.position, path, f"expected a list of component ids; write {shown}")
            return ()
        found: dict[ComponentId, None] = {}
        for item in node.items:
            if not isinstance(item, ScalarNode) or not isinstance(item.value, str):
                self._error(item.position, path, "expected a component id (type or type/name)")
                continue
            try:
                component_id = ComponentId.parse(item.value)
            except ValueError as exc:
                self._error(item.position, path, str(exc))
                continue
            if component_id in found:
                finding = ConfigError(item.position, path, f'"{component_id}" is listed twice')
                (self.errors if unique else self.warnings).append(finding)
            elif self._check_reference(component_id, path, item.position):
                found[component_id] = None
        return tuple(found)

    def _check_reference(self, component_id: ComponentId, path: tuple[str, ...], position: Position) -> bool:
        section = path[-1]
        kinds = [ComponentKind(section)]
        if section in ("receivers", "exporters"):
            kinds.append(ComponentKind.CONNECTOR)
        if any(component_id in self.factories[kind] for kind in kinds):
            return True
        candidates = [str(each) for kind in kinds for each in self.factories[kind]]
        singular = _SINGULAR[kinds[0]]
        others = [kind for kind in ComponentKind if component_id in self.factories[kind]]
        hint = (
            f"; it is configured as {_SINGULAR[others[0]]}"
            if others
            else f"; configured: {', '.join(candidates) or 'none'}"
        )
        message = f'references {singular} "{component_id}" which is not configured{hint}'
        self._error(position, path, message, closest(str(component_id), candidates))
        return False

    def _check_extension_references(self, service: ServiceConfig) -> None:
        """``auth.authenticator`` and ``storage`` name extensions that must be listed in ``service.extensions``."""
        for kind in ComponentKind:
            for component in self.configured[kind].values():
                for path in _extension_references(component.config):
                    full = (str(kind), str(component.id), *path)
                    node = self.document.node(*full)
                    if not isinstance(node, ScalarNode) or not isinstance(node.value, str) or not node.value:
                        continue
                    listed = [str(each) for each in service.extensions]
                    if node.value not in listed:
                        known = ", ".join(listed) or "none"
                        message = (
                            f'references extension "{node.value}" which is not in service::extensions; listed: {known}'
                        )
                        self._error(node.position, full, message, closest(node.value, listed))


def _extension_references(config: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths, inside one component's configuration, of the shared blocks' keys that name an extension."""
    found: list[tuple[str, ...]] = []
    if isinstance(config, AuthConfig):
        found.append((*path, "authenticator"))
    elif isinstance(config, QueueConfig):
        found.append((*path, "storage"))
    elif isinstance(config, BaseModel):
        for name, model_field in type(config).model_fields.items():
            found += _extension_references(getattr(config, name), (*path, model_field.alias or name))
    elif isinstance(config, Mapping):
        for key, value in config.items():
            found += _extension_references(value, (*path, str(key)))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            found += _extension_references(value, (*path, str(index)))
    return found
