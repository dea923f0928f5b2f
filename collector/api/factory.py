"""How a component type is found, configured and made."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from collector.api.component import Component
from collector.api.host import Clock, Output, Telemetry
from collector.model import Signal

__all__ = ["ComponentId", "ComponentKind", "Factory", "Settings", "Stability"]

_TYPE = re.compile(r"^[a-zA-Z][0-9a-zA-Z_]{0,62}$")
_NAME_MAX_CHARS = 1024


class ComponentKind(StrEnum):
    """The section of the configuration a component stands in."""

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    CONNECTOR = "connectors"
    EXTENSION = "extensions"


class Stability(StrEnum):
    """The Collector's words for how far one may rely on a component."""

    DEVELOPMENT = "development"
    ALPHA = "alpha"
    BETA = "beta"
    STABLE = "stable"


@dataclass(frozen=True, slots=True, order=True)
class ComponentId:
    """``type`` or ``type/name``. Source: the Collector's component.ID."""

    type: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id written as ``text``.

        Raises:
            ValueError: the text is no id; the message says which part and what is allowed.
        """
        type_, separator, name = text.partition("/")
        type_, name = type_.strip(), name.strip()
        if not _TYPE.match(type_):
            raise ValueError(
                f"invalid component type {type_!r}: a letter, then up to 62 letters, digits or underscores"
            )
        if separator and not name:
            raise ValueError(f"invalid component id {text!r}: the name after '/' is empty")
        if len(name) > _NAME_MAX_CHARS or any(ch.isspace() or not ch.isprintable() for ch in name):
            raise ValueError(
                f"invalid component id {text!r}: the name is longer than {_NAME_MAX_CHARS} or holds white space or control characters"
            )
        return cls(type_, name)

    def __str__(self) -> str:
        return f"{self.type}/{self.name}" if self.name else self.type


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service hands to ``Factory.create`` beside the configuration."""

    id: ComponentId
    kind: ComponentKind
    telemetry: Telemetry
    clock: Clock
    signals: frozenset[Signal] = frozenset()
    """Signals of the pipelines that use this component (processors: exactly one)."""
    outputs: Mapping[Signal, Output] = field(default_factory=dict)
    """Receivers (as ReceiverOutput), stages, connectors: where to send, by signal."""
    pipelines: Mapping[str, Output] = field(default_factory=dict)
    """Connectors that route: the pipelines downstream by name (``traces/a``)."""
    pipeline: str = ""
    """Processors: the pipeline this object serves."""
    shared: dict[str, Any] = field(default_factory=dict)
    """One dictionary for all objects of one id: state that pipelines of one processor share."""
    process: dict[str, Any] = field(default_factory=dict)
    """One dictionary for all objects of the service, kept over reloads: what components of a type share whatever their id. Keys: types."""
    version: str = ""
    instance_id: str = ""
    """Our own ``service.instance.id``."""
    start_time_unix_nano: int = 0


@dataclass(frozen=True, slots=True)
class Factory:
    """A component type. Found through the entry points ``tailrace.receivers`` … ``tailrace.extensions``.

    ``create(settings, config, previous)`` returns the component without any I/O. ``previous`` is the object that had
    the same id before a reload (else None); the new one may take over its state or sockets.
    """

    component_type: str
    config_type: type[Any]
    """A ``config.ComponentConfig`` subclass; its defaults are the component's defaults."""
    create: Callable[[Settings, Any, Component | None], Component]
    stability: Stability
    signals: frozenset[Signal]
    """Signals it can serve (connectors: as exporter)."""
    kind: ComponentKind = ComponentKind.PROCESSOR
    aliases: tuple[str, ...] = ()
    """Other accepted spellings of the type (``otlphttp`` for ``otlp_http``)."""
    connects: frozenset[tuple[Signal, Signal]] = frozenset()
    """Connectors: which signal in can give which signal out."""
