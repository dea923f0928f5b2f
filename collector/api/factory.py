"""How a component type is found, configured and created."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from collector.api.component import Component
from collector.api.host import Clock, Output, Telemetry
from collector.api.shared import SharedState
from collector.model import Signal

__all__ = ["ComponentId", "ComponentKind", "Factory", "Settings", "Stability", "Trait"]

_TYPE = re.compile(r"^[a-zA-Z][0-9a-zA-Z_]{0,62}$")
_NAME_MAX_CHARS = 1024


class ComponentKind(StrEnum):
    """The section of the configuration that a component is in.

    >>> ComponentKind.PROCESSOR.value
    'processors'
    """

    RECEIVER = "receivers"
    PROCESSOR = "processors"
    EXPORTER = "exporters"
    CONNECTOR = "connectors"
    EXTENSION = "extensions"


class Stability(StrEnum):
    """How far users can rely on a component, in the Collector's terms.

    >>> Stability("beta") is Stability.BETA
    True
    """

    DEVELOPMENT = "development"
    ALPHA = "alpha"
    BETA = "beta"
    STABLE = "stable"


@dataclass(frozen=True, slots=True, order=True)
class ComponentId:
    """``type`` or ``type/name``. Source: the Collector's component.ID.

    >>> component_id = ComponentId.parse("otlp_grpc/backup")
    >>> component_id.type, component_id.name, str(component_id)
    ('otlp_grpc', 'backup', 'otlp_grpc/backup')
    """

    type: str
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> Self:
        """The id written as ``text``.

        Raises:
            ValueError: the text is not a component id; the message says which part is wrong and what is allowed.
        """
        type_, separator, name = text.partition("/")
        type_, name = type_.strip(), name.strip()
        if not _TYPE.match(type_):
            raise ValueError(
                f"invalid component type {type_!r}: expected a letter, then up to 62 letters, digits or underscores"
            )
        if separator and not name:
            raise ValueError(f"invalid component id {text!r}: the name after '/' is empty")
        if len(name) > _NAME_MAX_CHARS or any(ch.isspace() or not ch.isprintable() for ch in name):
            raise ValueError(
                f"invalid component id {text!r}: the name is longer than {_NAME_MAX_CHARS} characters, "
                "or contains white space or control characters"
            )
        return cls(type_, name)

    def __str__(self) -> str:
        return f"{self.type}/{self.name}" if self.name else self.type


@dataclass(frozen=True, slots=True)
class Settings:
    """What the service passes to ``Factory.create`` in addition to the configuration.

    Example::

        class CountErrors(Connector):
            def __init__(self, settings: Settings, config: CountErrorsConfig) -> None:
                self._output = settings.outputs[Signal.METRICS]
                self._clock = settings.clock
                self._errors = settings.telemetry.counter("tailrace_count_errors_spans", "Failed spans counted")

    Tests make them with ``collector.testing.make_settings``.
    """

    id: ComponentId
    kind: ComponentKind
    telemetry: Telemetry
    clock: Clock
    signals: frozenset[Signal] = frozenset()
    """Signals of the pipelines that use this component (processors: exactly one)."""
    outputs: Mapping[Signal, Output] = field(default_factory=dict)
    """Where receivers (as ReceiverOutput), stages and connectors send, by signal."""
    pipelines: Mapping[str, Output] = field(default_factory=dict)
    """For connectors that route: the downstream pipelines by name (``traces/a``)."""
    pipeline: str = ""
    """For processors: the pipeline that this object serves."""
    shared: SharedState = field(default_factory=SharedState)
    """State shared with other objects of this id, or of the whole service: see :class:`SharedState`."""
    version: str = ""
    instance_id: str = ""
    """``service.instance.id`` of this process."""
    start_time_unix_nano: int = 0


class Trait(StrEnum):
    """What the service must know of a component type to warn about pipelines that cannot work as meant.

    Example::

        factory = Factory(
            component_type="count_errors",
            kind=ComponentKind.CONNECTOR,
            config_type=CountErrorsConfig,
            create=CountErrors,
            stability=Stability.ALPHA,
            signals=frozenset({Signal.TRACES}),
            connects=frozenset({(Signal.TRACES, Signal.METRICS)}),
            traits=frozenset({Trait.COUNTS}),  # so that `validate` warns about a sampler in front of it
        )
    """

    SAMPLES = "samples"
    """A processor that keeps some items and drops others of the same kind."""
    COUNTS = "counts"
    """A connector whose results are only right if it sees every item: it must not be behind one that samples."""
    KEEPS_RESOURCES = "keeps_resources"
    """A connector whose results have the resources of the items that they were made of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factory:
    """A component type. Found through the entry points ``tailrace.receivers`` … ``tailrace.extensions``.

    Example::

        factory = Factory(
            component_type="uppercase",
            kind=ComponentKind.PROCESSOR,
            config_type=UppercaseConfig,
            create=lambda settings, config: Uppercase(settings, config),
            signals=frozenset({Signal.LOGS}),
            stability=Stability.ALPHA,
        )
    """

    component_type: str
    kind: ComponentKind
    config_type: type[Any]
    """A ``config.ComponentConfig`` subclass; its defaults are the component's defaults."""
    create: Callable[[Settings, Any], Component]
    """``create(settings, config)`` returns the component without doing any I/O."""
    stability: Stability
    signals: frozenset[Signal]
    """Signals it can serve (connectors: as exporter)."""
    aliases: tuple[str, ...] = ()
    """Other accepted spellings of the type, such as the Collector's older one (``otlphttp`` for ``otlp_http``)."""
    connects: frozenset[tuple[Signal, Signal]] = frozenset()
    """Connectors: which signal in can result in which signal out."""
    replacement: str = ""
    """Set if the type is outdated: what users should write instead. Each use of the type is reported as a warning."""
    traits: frozenset[Trait] = frozenset()
