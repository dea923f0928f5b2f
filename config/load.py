"""Sources to a checked configuration, or to every reason why there is none.

``load``      the configuration, or ConfigErrors with all findings
``examine``   the same without raising, with the outcome of each component (for ``validate`` on a foreign file)

Either can leave out the components that do not exist here (``config.missing``).

What a component's keys mean is up to the component (its pydantic model); the section ``service`` is read by
``config.service``; what a pipeline may hold is checked in ``config.graph``.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from collector.api import ComponentId, ComponentKind, Factory
from config.distributions import distribution_of
from config.errors import ConfigError, ConfigErrors, Findings
from config.explain import closest, describe, listing
from config.graph import check_graph
from config.missing import Key, Remainder, remainder
from config.model import Config, ConfiguredComponent, ServiceConfig, singular
from config.references import ReadFile, read_file
from config.resolve import Document, resolve
from config.series import warn_of_merged_series
from config.service import check_extension_references, read_service
from config.validation import (
    expect_mapping,
    numeric_durations,
    parse_model,
    settings_with_warnings,
    warn_outdated_keys,
)
from config.yaml import Node, Position

__all__ = ["ComponentOutcome", "Examination", "FactoryLookup", "Outcome", "WithoutMissing", "examine", "load"]

_SECTIONS = (*(str(kind) for kind in ComponentKind), "service")


class FactoryLookup(Protocol):
    """What loading needs of the registry."""

    def find(self, kind: ComponentKind, component_type: str) -> Factory | None:
        """The factory of that type, by any of its spellings.

        Raises:
            ImportError: the component is installed but cannot be loaded.
        """
        ...

    def types(self, kind: ComponentKind) -> Sequence[str]:
        """The available types, sorted."""
        ...

    def known_elsewhere(self, kind: ComponentKind, component_type: str) -> bool:
        """Whether the Collector has a component of that type that is not available here."""
        ...

    def safe_to_skip(self, component_type: str) -> bool:
        """Whether the missing processor of that type certainly does not keep data from leaving."""
        ...


class Outcome(StrEnum):
    """What became of one configured component."""

    RUNS = "runs"
    INVALID = "invalid"
    """The type is available, but it cannot run with these settings."""
    ELSEWHERE = "elsewhere"
    """The Collector has the type, Tailrace does not have it yet."""
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
    """Everything found out about a configuration. ``config`` is None if and only if there are errors."""

    config: Config | None
    errors: tuple[ConfigError, ...]
    warnings: tuple[ConfigError, ...]
    components: tuple[ComponentOutcome, ...]
    pipeline_count: int = 0
    without_missing: "WithoutMissing | None" = None
    """What remains without the components that do not exist here; None if all of them exist."""


@dataclass(frozen=True, slots=True)
class WithoutMissing:
    """A configuration without the components that do not exist here."""

    remainder: Remainder
    examination: Examination


def load(
    sources: Sequence[str],
    sets: Sequence[str],
    registry: FactoryLookup,
    *,
    skip_missing: bool = False,
    allow_unprotected: bool = False,
    environ: Mapping[str, str] | None = None,
    read: ReadFile = read_file,
) -> Config:
    """The checked configuration of ``sources`` (paths, ``file:``, ``env:``, ``yaml:``) with ``sets`` (``a.b=value``).

    ``skip_missing`` leaves out the components that do not exist here; ``Config.left_out`` has them. Pipelines that lack
    a processor which may remove or mask data do not run, unless ``allow_unprotected``.

    Raises:
        ConfigErrors: every finding, in the order of files and lines.
    """
    found = examine(sources, sets, registry, allow_unprotected=allow_unprotected, environ=environ, read=read)
    if skip_missing and found.without_missing is not None:
        if not found.without_missing.remainder.running:
            raise ConfigErrors((*found.errors, *found.without_missing.remainder.changed), found.warnings)
        found = found.without_missing.examination
    if found.config is None:
        raise ConfigErrors(found.errors, found.warnings)
    return found.config


def examine(
    sources: Sequence[str],
    sets: Sequence[str],
    registry: FactoryLookup,
    *,
    allow_unprotected: bool = False,
    environ: Mapping[str, str] | None = None,
    read: ReadFile = read_file,
) -> Examination:
    """What ``load`` finds, without raising."""
    try:
        document = resolve(sources, sets, os.environ if environ is None else environ, read)
    except ConfigErrors as exc:
        return Examination(None, exc.errors, exc.warnings, ())
    loader = _Loader(document, registry, tuple(sources))
    found = loader.examination()
    left = remainder(
        loader.service,
        loader.factories,
        loader.configured,
        loader.missing,
        document,
        may_skip=lambda component_type: allow_unprotected or registry.safe_to_skip(component_type),
    )
    if left is None:
        return found
    reduced = _Loader(left.document, registry, tuple(sources), left).examination()
    return replace(found, without_missing=WithoutMissing(left, reduced))


@dataclass(slots=True)
class _Loader:
    document: Document
    registry: FactoryLookup
    sources: tuple[str, ...]
    remainder: Remainder | None = None
    """What ``document`` is, if something was left out of it."""
    findings: Findings = field(default_factory=Findings)
    outcomes: list[ComponentOutcome] = field(default_factory=list)
    factories: dict[ComponentKind, dict[ComponentId, tuple[Factory | None, Position]]] = field(default_factory=dict)
    """Every configured id, including invalid and unknown ones: the graph is checked all the same."""
    configured: dict[ComponentKind, dict[ComponentId, ConfiguredComponent]] = field(default_factory=dict)
    missing: dict[Key, ConfigError] = field(default_factory=dict)
    """The finding about each component whose type does not exist here."""
    service: ServiceConfig = field(init=False)
    """The section ``service``, as far as it is valid."""

    def examination(self) -> Examination:
        findings = self.findings
        findings.warnings += self.document.warnings
        for key, entry in self.document.root.entries.items():
            if key not in _SECTIONS:
                findings.error(
                    entry.key_position,
                    (),
                    f"unknown section {key!r}",
                    suggestion=closest(key, _SECTIONS),
                    hint=listing("allowed section", _SECTIONS),
                )
        for kind in ComponentKind:
            self._section(kind)
        service = self.service = read_service(self.document, self.factories, findings)
        check_graph(service, self.factories, self.document, findings.errors, findings.warnings)
        warn_of_merged_series(service, self.factories, self.configured, findings.warnings)
        check_extension_references(service, self.configured, self.document, findings)
        file_order = {file: index for index, file in enumerate(dict.fromkeys(error.file for error in findings.errors))}
        errors = tuple(
            sorted(dict.fromkeys(findings.errors), key=lambda error: (file_order[error.file], error.line, error.column))
        )
        config = None
        if not errors:
            config = Config(
                **{str(kind): self.configured[kind] for kind in ComponentKind},
                service=service,
                document=self.document,
                warnings=tuple(findings.warnings),
                sources=self.sources,
                left_out=self.remainder.left_out if self.remainder else (),
                changed_pipelines=self.remainder.changed if self.remainder else (),
            )
        return Examination(
            config, errors, tuple(dict.fromkeys(findings.warnings)), tuple(self.outcomes), len(service.pipelines)
        )

    def _section(self, kind: ComponentKind) -> None:
        self.factories[kind], self.configured[kind] = {}, {}
        section = expect_mapping(self.document.node(kind), (kind,), self.findings)
        for text, entry in section.entries.items() if section else ():
            self._component(kind, text, entry.key_position, entry.node)

    def _component(self, kind: ComponentKind, text: str, position: Position, node: Node) -> None:
        path = (str(kind), text)
        try:
            component_id = ComponentId.parse(text)
        except ValueError as exc:
            self.findings.error(position, path[:1], str(exc))
            return
        if component_id in self.factories[kind]:
            self.findings.error(position, path[:1], f"the component id '{component_id}' is configured twice")
            return
        factory, outcome = None, Outcome.INVALID
        try:
            factory = self.registry.find(kind, component_id.type)
        except ImportError as exc:
            self.findings.error(position, path, f"the component is installed but cannot be loaded: {exc}")
        else:
            if factory is None:
                outcome = self._unknown_type(kind, component_id.type, path, position)
                self.missing[kind, component_id] = self.findings.errors[-1]
        self.factories[kind][component_id] = (factory, position)
        if factory is not None:
            config, errors = parse_model(factory.config_type, node, position, path)
            self.findings.errors += errors
            if config is not None:
                for spot, keys in numeric_durations(node, factory.config_type):
                    message = f"{describe(spot)} has no unit and is read as nanoseconds, as in the Collector"
                    self.findings.warning(spot.position, (*path, *keys), message, hint="write for example 5s or 250ms")
                for keys, sentence in settings_with_warnings(config):
                    place = self.document.position(*path, *keys)
                    self.findings.warning(place, (*path, *keys), sentence)
                self._warn_outdated(factory, node, path, position)
                self.configured[kind][component_id] = ConfiguredComponent(component_id, kind, factory, config, position)
                outcome = Outcome.RUNS
        self.outcomes.append(ComponentOutcome(kind, text, outcome, position))

    def _warn_outdated(self, factory: Factory, node: Node, path: tuple[str, ...], position: Position) -> None:
        """Add a warning if the component type is outdated, and one for each outdated key."""
        if factory.replacement:
            message = f"the {singular(factory.kind)} type '{factory.component_type}' is outdated"
            self.findings.warning(position, path, message, hint=f"write {factory.replacement}")
        warn_outdated_keys(node, factory.config_type, path, self.findings)

    def _unknown_type(
        self, kind: ComponentKind, component_type: str, path: tuple[str, ...], position: Position
    ) -> Outcome:
        if self.registry.known_elsewhere(kind, component_type):
            message = (
                f"the {singular(kind)} type '{component_type}' is part of the OpenTelemetry Collector, "
                "but Tailrace does not have it yet"
            )
            self.findings.error(position, path, message)
            return Outcome.ELSEWHERE
        if distribution := distribution_of(component_type):
            message = f"the {singular(kind)} type '{component_type}' is part of {distribution}, but not of Tailrace"
            self.findings.error(position, path, message)
            return Outcome.ELSEWHERE
        types = self.registry.types(kind)
        near = closest(component_type, types)
        hint = listing("available type", types, none=f"no {kind} are installed")
        elsewhere = [
            other for other in ComponentKind if other is not kind and component_type in self.registry.types(other)
        ]
        if elsewhere and not near:
            hint = f"it is one of the {elsewhere[0]}; configure it there"
        message = f"unknown {singular(kind)} type '{component_type}'"
        self.findings.error(position, path, message, suggestion=near, hint=hint)
        return Outcome.UNKNOWN
