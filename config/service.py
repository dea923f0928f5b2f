"""The section ``service``: extensions, pipelines and telemetry, with every reference to a component checked."""

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from collector.api import ComponentId, ComponentKind
from collector.model import Signal
from config.blocks import ComponentConfig
from config.errors import Findings
from config.explain import closest, describe, listing
from config.graph import Factories
from config.model import ConfiguredComponent, DrainConfig, Pipeline, ServiceConfig, TelemetryConfig, singular
from config.resolve import Document
from config.validation import expect_mapping, parse_model, warn_outdated_keys
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode

__all__ = [
    "UNSUPPORTED_SIGNAL",
    "check_extension_references",
    "extension_references",
    "read_service",
    "sections_for",
]

UNSUPPORTED_SIGNAL = "profiles"
"""The signal that the Collector has and Tailrace does not."""

_SERVICE_KEYS = ("extensions", "pipelines", "telemetry", "shutdown_timeout")
_PIPELINE_KEYS = ("receivers", "processors", "exporters")


def read_service(document: Document, factories: Factories, findings: Findings) -> ServiceConfig:
    """The section ``service`` of the document, as far as it is valid."""
    return _ServiceReader(document, factories, findings).service()


def check_extension_references(
    service: ServiceConfig,
    configured: Mapping[ComponentKind, Mapping[ComponentId, ConfiguredComponent]],
    document: Document,
    findings: Findings,
) -> None:
    """What the blocks' ``extension_keys`` name must be listed in ``service.extensions``."""
    listed = [str(extension) for extension in service.extensions]
    for _, path, node in extension_references(configured, document):
        if node.value not in listed:
            findings.error(
                node.position,
                path,
                f"the extension '{node.value}' is not listed in service::extensions",
                suggestion=closest(str(node.value), listed),
                hint=listing("listed extension", listed, none="no extensions are listed"),
            )


def extension_references(
    configured: Mapping[ComponentKind, Mapping[ComponentId, ConfiguredComponent]], document: Document
) -> Iterator[tuple[ConfiguredComponent, tuple[str, ...], ScalarNode]]:
    """Every ``auth.authenticator`` and ``storage``: the component, the path of the key, and the extension's id."""
    for kind in ComponentKind:
        for component in configured[kind].values():
            for keys in _extension_references(component.config):
                path = (str(kind), str(component.id), *keys)
                node = document.node(*path)
                if isinstance(node, ScalarNode) and isinstance(node.value, str) and node.value:
                    yield component, path, node


class _ServiceReader:
    def __init__(self, document: Document, factories: Factories, findings: Findings) -> None:
        self._document = document
        self._factories = factories
        self._findings = findings
        self._missing: dict[tuple[str, ComponentId], list[tuple[Position, tuple[str, ...]]]] = {}
        """Where each component that is not configured is listed."""

    def service(self) -> ServiceConfig:
        self._check_keys(self._mapping("service"), ("service",), _SERVICE_KEYS)
        telemetry, drain = self._telemetry(), self._drain()
        path = ("service", "pipelines")
        section = self._mapping(*path)
        pipelines = {}
        for text, entry in section.entries.items() if section else ():
            pipeline = self._pipeline(text, entry.key_position, entry.node)
            if pipeline is not None:
                pipelines[text] = pipeline
        if section is None or not section.entries:
            self._findings.error(self._document.position(*path), path, "the service must have at least one pipeline")
        extensions = self._component_ids(("service", "extensions"))
        for (listed_under, component_id), places in self._missing.items():
            self._report_missing(ComponentKind(listed_under), component_id, places)
        return ServiceConfig(extensions, pipelines, telemetry, drain)

    def _mapping(self, *path: str) -> MapNode | None:
        return expect_mapping(self._document.node(*path), path, self._findings)

    def _check_keys(self, node: MapNode | None, path: tuple[str, ...], allowed: tuple[str, ...]) -> None:
        for key, entry in node.entries.items() if node else ():
            if key not in allowed:
                self._findings.error(
                    entry.key_position,
                    path,
                    f"unknown key {key!r}",
                    suggestion=closest(key, allowed),
                    hint=listing("allowed key", allowed),
                )

    def _telemetry(self) -> TelemetryConfig:
        path = ("service", "telemetry")
        node = self._document.node(*path)
        if node is None:
            return TelemetryConfig()
        telemetry, errors = parse_model(TelemetryConfig, node, self._document.position(*path), path)
        self._findings.errors += errors
        if telemetry is None:
            return TelemetryConfig()
        warn_outdated_keys(node, TelemetryConfig, path, self._findings)
        for keys, reason in _settings_without_effect(telemetry):
            position = self._document.position(*path, *keys)
            self._findings.warning(position, (*path, *keys), f"this setting has no effect: {reason}")
        return telemetry

    def _drain(self) -> DrainConfig:
        section = self._mapping("service")
        if section is None:
            return DrainConfig()
        entries = {key: entry for key, entry in section.entries.items() if key in DrainConfig.model_fields}
        drain, errors = parse_model(DrainConfig, MapNode(entries, section.position), section.position, ("service",))
        self._findings.errors += errors
        return drain or DrainConfig()

    def _pipeline(self, text: str, position: Position, node: Node) -> Pipeline | None:
        path = ("service", "pipelines", text)
        try:
            pipeline_id = ComponentId.parse(text)
        except ValueError as exc:
            self._findings.error(position, path[:2], str(exc))
            return None
        signals = [str(signal) for signal in Signal]
        if pipeline_id.type not in signals:
            message = f"unknown signal '{pipeline_id.type}'"
            if pipeline_id.type == UNSUPPORTED_SIGNAL:
                message = f"the signal '{pipeline_id.type}' is not supported yet"
            self._findings.error(
                position,
                path,
                message,
                suggestion=closest(pipeline_id.type, signals),
                hint=listing("supported signal", signals),
            )
            return None
        self._check_keys(expect_mapping(node, path, self._findings), path, _PIPELINE_KEYS)
        return Pipeline(
            text,
            Signal(pipeline_id.type),
            self._component_ids((*path, "receivers")),
            self._component_ids((*path, "processors"), unique=True),
            self._component_ids((*path, "exporters")),
            position,
        )

    def _component_ids(self, path: tuple[str, ...], *, unique: bool = False) -> tuple[ComponentId, ...]:
        """The configured components listed at ``path``, in order, each once."""
        node = self._document.node(*path)
        if node is None or (isinstance(node, ScalarNode) and node.value is None):
            return ()
        if not isinstance(node, ListNode):
            example = f"[{node.value}]" if isinstance(node, ScalarNode) and isinstance(node.value, str) else "[a, b]"
            message = f"expected a list of component ids, got {describe(node)}"
            self._findings.error(node.position, path, message, hint=f"write {example}")
            return ()
        found: dict[ComponentId, None] = {}
        for item in node.items:
            if not isinstance(item, ScalarNode) or not isinstance(item.value, str):
                message = f"expected a component id such as type or type/name, got {describe(item)}"
                self._findings.error(item.position, path, message)
                continue
            try:
                component_id = ComponentId.parse(item.value)
            except ValueError as exc:
                self._findings.error(item.position, path, str(exc))
                continue
            if component_id in found:
                report = self._findings.error if unique else self._findings.warning
                report(item.position, path, f"'{component_id}' is listed twice")
            elif self._is_configured(component_id, path, item.position):
                found[component_id] = None
        return tuple(found)

    def _is_configured(self, component_id: ComponentId, path: tuple[str, ...], position: Position) -> bool:
        """Whether the component is configured in a section that ``path`` may refer to; noted if not."""
        if any(component_id in self._factories[kind] for kind in sections_for(ComponentKind(path[-1]))):
            return True
        self._missing.setdefault((path[-1], component_id), []).append((position, path))
        return False

    def _report_missing(
        self, section: ComponentKind, component_id: ComponentId, places: list[tuple[Position, tuple[str, ...]]]
    ) -> None:
        """One finding for a component that is not configured, at the first of the places that list it."""
        kinds = sections_for(section)
        noun = singular(section)
        candidates = [str(candidate) for kind in kinds for candidate in self._factories[kind]]
        hint = listing(f"configured {noun}", candidates, none=f"no {noun}s are configured")
        for kind in ComponentKind:
            if component_id in self._factories[kind]:
                hint = f"'{component_id}' is configured under {kind}"
                break
        position, path = places[0]
        message = f"the {noun} '{component_id}' is not configured"
        if len(places) > 1:
            message += f" (also listed in {', '.join(other[2] for _, other in places[1:])})"
        self._findings.error(position, path, message, suggestion=closest(str(component_id), candidates), hint=hint)


def sections_for(section: ComponentKind) -> list[ComponentKind]:
    """The sections whose components a pipeline may list under ``section``."""
    is_end = section in (ComponentKind.RECEIVER, ComponentKind.EXPORTER)
    return [section, ComponentKind.CONNECTOR] if is_end else [section]


def _settings_without_effect(telemetry: TelemetryConfig) -> list[tuple[tuple[str, ...], str]]:
    """Keys below ``telemetry`` that are accepted for the Collector's files, with the reason why they do nothing."""
    found: list[tuple[tuple[str, ...], str]] = []
    if telemetry.traces and telemetry.traces.get("level") != "none":
        found.append((("traces",), "Tailrace does not trace itself"))
    if telemetry.logs.processors:
        found.append(
            (("logs", "processors"), "Tailrace does not export its own log; it writes the log to output_paths")
        )
    if telemetry.metrics.views:
        found.append((("metrics", "views"), "Tailrace does not apply views to its own metrics"))
    found += [
        (("resource", key), "Tailrace does not detect resources; write the attributes here")
        for key in telemetry.unused_resource_keys()
    ]
    if any(reader.periodic is not None for reader in telemetry.metrics.readers):
        reason = "Tailrace does not push its own metrics; use a pull reader and scrape it instead of a periodic one"
        found.append((("metrics", "readers"), reason))
    return found


def _extension_references(config: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths, inside one component's configuration, of keys that name an extension."""
    found: list[tuple[str, ...]] = []
    if isinstance(config, ComponentConfig):
        found += [(*path, key) for key in config.extension_keys]
    if isinstance(config, BaseModel):
        for name, model_field in type(config).model_fields.items():
            found += _extension_references(getattr(config, name), (*path, model_field.alias or name))
    elif isinstance(config, Mapping):
        for key, value in config.items():
            found += _extension_references(value, (*path, str(key)))
    elif isinstance(config, list | tuple):
        for index, value in enumerate(config):
            found += _extension_references(value, (*path, str(index)))
    return found
