"""The component types of this installation: found through entry points, loaded when first needed.

A distribution offers a component with an entry point in the group ``tailrace.receivers`` … ``tailrace.extensions``,
named after its type, that points at a ``collector.api.Factory``. Its other spellings are ``Factory.aliases``.
"""

import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Self

from collector.api import ComponentKind, Factory
from collector.known_elsewhere import is_known_elsewhere, is_safe_to_skip

__all__ = ["TOP_LEVEL_NAMES", "ComponentDescription", "Registry", "check_top_level_names"]

TOP_LEVEL_NAMES = ("collector", "config", "receivers", "processors", "exporters", "connectors", "extensions")
DISTRIBUTION = "tailrace"


@dataclass(frozen=True, slots=True)
class ComponentDescription:
    """One component type, for ``tailrace components``."""

    kind: ComponentKind
    type: str
    module: str
    factory: Factory | None
    problem: str = ""
    """Why it cannot be loaded; empty if it can."""
    distribution: str = ""
    """Name and version of the distribution that provides it (``tailrace 0.1.0``), or of all rivals; or empty."""

    @property
    def is_third_party(self) -> bool:
        """Whether a distribution other than Tailrace's own provides it."""
        names = [text.partition(" ")[0].lower() for text in self.distribution.split(", ")]
        return names not in ([""], [DISTRIBUTION])


@dataclass(frozen=True, slots=True)
class _Offer:
    """One entry point: where a factory can be loaded from, and which distribution declares it."""

    module: str
    load: Callable[[], Any]
    distribution: str = ""

    @property
    def is_ours(self) -> bool:
        """Whether Tailrace's own distribution declares it."""
        return self.distribution.partition(" ")[0].lower() == DISTRIBUTION


class Registry:
    """The component types of this installation, from entry points.

    ``Registry.of`` takes factories instead, for tests.
    """

    def __init__(self, offers: Mapping[ComponentKind, Mapping[str, _Offer]] | None = None) -> None:
        self._offers = _entry_points() if offers is None else offers
        self._loaded: dict[tuple[ComponentKind, str], Factory] = {}
        self._problems: dict[tuple[ComponentKind, str], str] = {}

    @classmethod
    def of(cls, factories: Iterable[Factory]) -> Self:
        """A registry of exactly these factories."""
        offers: dict[ComponentKind, dict[str, _Offer]] = {kind: {} for kind in ComponentKind}
        for factory in factories:
            offers[factory.kind][factory.component_type] = _Offer(
                factory.config_type.__module__, partial(_same, factory)
            )
        return cls(offers)

    def find(self, kind: ComponentKind, component_type: str) -> Factory | None:
        """The factory of that type, by any of its spellings; None if there is no such type.

        Raises:
            ImportError: the component is installed but cannot be loaded; the message says why.
        """
        if component_type not in self._offers[kind]:
            return self._by_alias(kind, component_type)
        factory = self._load(kind, component_type)
        offer = self._offers[kind][component_type]
        if not offer.is_ours:
            rival = self._by_alias(kind, component_type)
            if rival is not None and rival is not factory:
                raise ImportError(
                    f"{offer.distribution or offer.module} provides a component of this name, but it is also an alias "
                    f"of {rival.component_type}; uninstall one of them or rename the component"
                )
        return factory

    def _by_alias(self, kind: ComponentKind, alias: str) -> Factory | None:
        """The factory that has this alias; Tailrace's own come first."""
        # Nearly all differ from the type by underscores alone; asking those first spares loading the others.
        compact, offers = alias.replace("_", ""), self._offers[kind]
        for offered in sorted(offers, key=lambda name: (not offers[name].is_ours, name.replace("_", "") != compact)):
            try:
                factory = self._load(kind, offered)
            except ImportError:
                continue
            if alias in factory.aliases:
                return factory
        return None

    def types(self, kind: ComponentKind) -> Sequence[str]:
        """All types, sorted."""
        return sorted(self._offers[kind])

    def known_elsewhere(self, kind: ComponentKind, component_type: str) -> bool:
        """Whether the OpenTelemetry Collector has a component of that type."""
        return is_known_elsewhere(kind, component_type)

    def safe_to_skip(self, component_type: str) -> bool:
        """Whether the missing processor of that type certainly does not keep data from leaving."""
        return is_safe_to_skip(component_type)

    def describe(self) -> list[ComponentDescription]:
        """All types, by section and name; loads every one of them."""
        found = []
        for kind in ComponentKind:
            for component_type in self.types(kind):
                factory, problem = None, ""
                try:
                    factory = self._load(kind, component_type)
                except ImportError as exc:
                    problem = str(exc)
                offer = self._offers[kind][component_type]
                found.append(
                    ComponentDescription(kind, component_type, offer.module, factory, problem, offer.distribution)
                )
        return found

    def _load(self, kind: ComponentKind, component_type: str) -> Factory:
        key = (kind, component_type)
        if key in self._problems:
            raise ImportError(self._problems[key])
        if key not in self._loaded:
            try:
                factory = self._offers[kind][component_type].load()
            except Exception as exc:  # a plug-in's module may raise anything when imported
                self._problems[key] = f"{type(exc).__name__}: {exc}"
                raise ImportError(self._problems[key]) from exc
            problem = _mismatch(factory, kind, component_type)
            if problem:
                self._problems[key] = problem
                raise ImportError(problem)
            self._loaded[key] = factory
        return self._loaded[key]


def _same(factory: Factory) -> Factory:
    return factory


def _mismatch(factory: object, kind: ComponentKind, component_type: str) -> str:
    """Why ``factory`` is not what its entry point promises; empty if it is."""
    if not isinstance(factory, Factory):
        return f"its entry point refers to {type(factory).__name__!r}, expected a collector.api.Factory"
    if factory.kind is not kind:
        return f"its factory is of the kind {factory.kind}, but its entry point is in the group of {kind}"
    if component_type not in (factory.component_type, *factory.aliases):
        return f"its factory is of type {factory.component_type!r}, but its entry point is named {component_type!r}"
    return ""


def _entry_points() -> dict[ComponentKind, dict[str, _Offer]]:
    offers: dict[ComponentKind, dict[str, _Offer]] = {}
    for kind in ComponentKind:
        found: dict[str, dict[str, str]] = {}
        offers[kind] = {}
        for point in importlib.metadata.entry_points(group=f"{DISTRIBUTION}.{kind}"):
            distribution = f"{point.dist.name} {point.dist.version}" if point.dist else ""
            found.setdefault(point.name, {})[point.value] = distribution
            offers[kind][point.name] = _Offer(point.module, point.load, distribution)
        for name, distributions in found.items():
            if len(distributions) > 1:
                rivals = ", ".join(sorted(distributions))
                refuse = _refusal(f"several distributions provide it: {rivals}; uninstall all but one")
                offers[kind][name] = _Offer(rivals, refuse, ", ".join(sorted(filter(None, distributions.values()))))
    return offers


def _refusal(message: str) -> Callable[[], Any]:
    def load() -> Any:
        raise ImportError(message)

    return load


def check_top_level_names(
    names: Sequence[str] = TOP_LEVEL_NAMES,
    distributions: Callable[[], Iterable[importlib.metadata.Distribution]] = importlib.metadata.distributions,
) -> list[str]:
    """One message for each of our import packages that another distribution owns or shadows in this environment.

    Our top-level names are common words; an environment of Tailrace's own keeps them ours (ADR 1). Run from a source
    tree, where no installer can have mixed files, only shadowing is looked for.
    """
    ours = Path(sys.modules["collector"].__file__ or "").resolve().parent.parent
    problems = []
    for name in names:
        spec = importlib.util.find_spec(name)
        places = [spec.origin] if spec and spec.origin else list(spec.submodule_search_locations or []) if spec else []
        problems += [
            f"the package {name!r} is imported from {place} instead of Tailrace's directory ({ours})"
            for place in places[:1]
            if ours not in Path(place).resolve().parents
        ]
    if (ours / "pyproject.toml").exists():
        return problems
    for distribution in distributions():
        taken = sorted(_top_level(distribution) & set(names))
        owner = (distribution.metadata["Name"] or "") if taken else ""
        if owner.lower() != DISTRIBUTION:
            advice = "install Tailrace in a virtual environment of its own"
            problems += [
                f"the distribution {owner!r} also installs a package named {name!r}: {advice}" for name in taken
            ]
    return problems


def _top_level(distribution: importlib.metadata.Distribution) -> set[str]:
    """The distribution's top-level import names, from its own list or from its files."""
    listed = distribution.read_text("top_level.txt")
    if listed is not None:
        return set(listed.split())
    files = distribution.read_text("RECORD") or ""
    return {line.split("/", 1)[0] for line in files.splitlines() if "/" in line}
