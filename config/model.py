"""The service's own part of the configuration (``service:``), and the whole configuration once it is parsed.

The Collector's keys and defaults. Not here: the settings of components (each component's ``config.py``), and how the
whole is read and checked (``config.load``).

Source: open-telemetry/opentelemetry-collector service/{config,pipelines,telemetry}, otelconf's configuration schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Self
from urllib.parse import unquote

from pydantic import Field, field_validator, model_validator

from collector.api import ComponentId, ComponentKind, Factory, PipelineOverview
from collector.model import Signal
from config.blocks import ComponentConfig, Duration, OutdatedKey
from config.errors import ConfigError
from config.resolve import Document
from config.yaml import Position

__all__ = [
    "Config",
    "ConfiguredComponent",
    "DrainConfig",
    "LogsTelemetry",
    "MetricsTelemetry",
    "Pipeline",
    "ServiceConfig",
    "TelemetryConfig",
    "singular",
]


def singular(kind: ComponentKind) -> str:
    """The name of one component of the kind: ``receiver`` for ``receivers``."""
    return str(kind).removesuffix("s")


class LogSampling(ComponentConfig):
    """Sampling of the service's own log: limits how often equal messages are written."""

    enabled: bool = True
    """Whether equal messages are sampled."""
    tick: Duration = Field(default=10.0, gt=0)
    """Time after which counting starts again."""
    initial: int = Field(default=10, ge=0)
    """Equal messages that are written in each tick before sampling begins."""
    thereafter: int = Field(default=100, ge=0)
    """After the initial ones, one out of this many equal messages is written. 0: none."""


class LogsTelemetry(ComponentConfig):
    """The service's own log (service::telemetry::logs)."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    """Lowest severity that is written."""
    development: bool = False
    """Accepted for compatibility with the Collector; has no effect."""
    encoding: Literal["console", "json", "logfmt"] = "console"
    """Format of the log lines."""
    disable_caller: bool = False
    """Leave out the file name and line number of the caller."""
    disable_stacktrace: bool = False
    """Log the message of an exception without its traceback."""
    sampling: LogSampling | None = LogSampling()
    """Limits how often equal messages are written."""
    output_paths: tuple[str, ...] = ("stderr",)
    """Where the log is written: stderr, stdout, or paths of files."""
    error_output_paths: tuple[str, ...] = ("stderr",)
    """Accepted for compatibility with the Collector; has no effect."""
    initial_fields: dict[str, Any] = Field(default_factory=dict)
    """Fields to add to every message."""
    processors: tuple[dict[str, Any], ...] = ()
    """Accepted for compatibility with the Collector; has no effect."""

    @field_validator("level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        lowered = value.lower() if isinstance(value, str) else value
        return "warn" if lowered == "warning" else lowered


class ConstantLabels(ComponentConfig):
    """Names of attributes; they are compared as they are, without wildcards."""

    included: tuple[str, ...] = ()
    """The attributes that become labels. Empty: all of them."""
    excluded: tuple[str, ...] = ()
    """Attributes that do not become labels."""

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if both := sorted(set(self.included) & set(self.excluded)):
            raise ValueError(f"{both[0]!r} is both included and excluded; remove it from one of the lists")
        return self

    def selects(self, name: str) -> bool:
        """Whether the attribute becomes a label."""
        return name not in self.excluded and (not self.included or name in self.included)


class PrometheusReader(ComponentConfig):
    """Where the service's own metrics can be scraped (readers[].pull.exporter.prometheus)."""

    host: str = "localhost"
    """Host name or address to listen on."""
    port: int = Field(default=8888, ge=0, le=65535)
    """Port to listen on. 0: any free port."""
    without_units: bool = True
    """Must be true: the names of the service's own metrics have no units."""
    without_type_suffix: bool = True
    """Must be true: the names of the service's own counters do not end in _total."""
    without_scope_info: bool = True
    """Must be true: the service's own metrics have no labels of scopes."""
    translation_strategy: Literal["", "UnderscoreEscapingWithoutSuffixes"] = ""
    """How names are translated; there is only this way."""
    with_resource_constant_labels: ConstantLabels | None = None
    """Which attributes of service::telemetry::resource are labels of every metric. Absent: none; they are labels of
    target_info in any case."""

    @model_validator(mode="after")
    def _is_available(self) -> Self:
        for key in ("without_units", "without_type_suffix", "without_scope_info"):
            if not getattr(self, key):
                raise ValueError(f"{key}: false is not available for the service's own metrics; remove it")
        return self


class PullExporter(ComponentConfig):
    """Exporter of a pull reader (readers[].pull.exporter)."""

    prometheus: PrometheusReader | None = Field(default=None, alias="prometheus")
    """A page for Prometheus."""
    prometheus_development: PrometheusReader | None = Field(default=None, alias="prometheus/development")
    """Another spelling of prometheus."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.prometheus is None and self.prometheus_development is None:
            raise ValueError("a pull reader must have an exporter; the only supported one is prometheus")
        return self


class PullReader(ComponentConfig):
    """A reader whose metrics are scraped (readers[].pull)."""

    exporter: PullExporter
    """How the metrics are exposed."""


class MetricsReader(ComponentConfig):
    """One reader of the service's own metrics (readers[])."""

    pull: PullReader | None = None
    """A reader whose metrics are scraped."""
    periodic: dict[str, Any] | None = None
    """Accepted for compatibility with the Collector; has no effect."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pull is None) == (self.periodic is None):
            raise ValueError("a reader must have exactly one of the keys pull and periodic")
        return self


_DEFAULT_READERS = (MetricsReader(pull=PullReader(exporter=PullExporter(prometheus=PrometheusReader()))),)


class MetricsTelemetry(ComponentConfig):
    """The service's own metrics (service::telemetry::metrics)."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        "address": OutdatedKey("readers: [{pull: {exporter: {prometheus: {host: ..., port: ...}}}}]")
    }

    level: Literal["none", "basic", "normal", "detailed"] = "normal"
    """How much is reported. none: no metrics are served."""
    address: str = ""
    """Deprecated form of a single pull reader, as host:port."""
    readers: tuple[MetricsReader, ...] = _DEFAULT_READERS
    """Where the metrics are served."""
    views: tuple[dict[str, Any], ...] = ()
    """Accepted for compatibility with the Collector; has no effect."""

    @field_validator("level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if value and not (separator and port.isdecimal() and int(port) <= 65535):
            raise ValueError(f"{value!r} is not a valid address; write host:port, for example localhost:8888")
        del host
        return value

    def endpoint(self) -> tuple[str, int] | None:
        """Host and port on which the service's own metrics are served; None if they are not served."""
        if self.level == "none":
            return None
        if self.address:
            host, _, port = self.address.rpartition(":")
            return host.strip("[]"), int(port)
        reader = self._reader()
        return None if reader is None else (reader.host.strip("[]"), reader.port)

    def constant_labels(self) -> ConstantLabels | None:
        """Which attributes of the resource are labels of every metric; None means none of them."""
        reader = None if self.address else self._reader()
        return None if reader is None else reader.with_resource_constant_labels

    def _reader(self) -> PrometheusReader | None:
        """The reader that is served: the first pull reader."""
        for reader in self.readers:
            if reader.pull is not None:
                return reader.pull.exporter.prometheus or reader.pull.exporter.prometheus_development
        return None


# Keys of the declarative form of ``resource``; any other key is an attribute in the Collector's older form.
_RESOURCE_KEYS = frozenset({"attributes", "attributes_list", "schema_url", "detectors", "detection/development"})


class TelemetryConfig(ComponentConfig):
    """Telemetry about the service itself (service::telemetry)."""

    logs: LogsTelemetry = LogsTelemetry()
    """The service's own log."""
    metrics: MetricsTelemetry = MetricsTelemetry()
    """The service's own metrics."""
    traces: dict[str, Any] = Field(default_factory=dict)
    """Accepted for compatibility with the Collector; has no effect, since the service does not trace itself."""
    resource: dict[str, Any] = Field(default_factory=dict)
    """Attributes of the service's own metrics, by name or as attributes: [{name, value}]: labels of target_info, and of
    every metric if with_resource_constant_labels selects them. null removes service.name, service.version or
    service.instance.id.
    """

    @field_validator("resource")
    @classmethod
    def _attributes_have_names(cls, value: dict[str, Any]) -> dict[str, Any]:
        attributes = value.get("attributes")
        if attributes is None:
            return value
        if not isinstance(attributes, list | tuple) or not all(
            isinstance(each, dict) and isinstance(each.get("name"), str) and each["name"] for each in attributes
        ):
            raise ValueError("attributes: expected a list of mappings such as {name: service.name, value: gateway}")
        return value

    def unused_resource_keys(self) -> list[str]:
        """The keys of ``resource`` that have no effect."""
        return [key for key in ("detectors", "detection/development") if self.resource.get(key)]

    def resource_attributes(self) -> dict[str, str | None]:
        """``resource`` as texts by name; None removes an attribute."""
        listed = [pair.partition("=") for pair in str(self.resource.get("attributes_list") or "").split(",")]
        attributes: dict[str, Any] = {name.strip(): unquote(value.strip()) for name, equals, value in listed if equals}
        attributes |= {key: value for key, value in self.resource.items() if key not in _RESOURCE_KEYS}
        attributes |= {each["name"]: each.get("value") for each in self.resource.get("attributes") or ()}
        return {name: None if value is None else _attribute_text(value) for name, value in attributes.items()}


def _attribute_text(value: object) -> str:
    """The value as the Collector shows it in a label."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_attribute_text, value))}]"
    return str(value)


class DrainConfig(ComponentConfig):
    """How the service ends (service)."""

    shutdown_timeout: Duration = Field(default=30.0, ge=0)
    """How long data may drain at shutdown, and after a reload from what the reload replaced. What remains is dropped
    and counted, or kept by a durable queue. The default is Kubernetes' terminationGracePeriodSeconds; a shorter one
    there needs a shorter one here.
    """


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One entry of ``service::pipelines``."""

    id: str
    """``traces`` or ``traces/name``."""
    signal: Signal
    receivers: tuple[ComponentId, ...]
    processors: tuple[ComponentId, ...]
    exporters: tuple[ComponentId, ...]
    position: Position

    def overview(self) -> PipelineOverview:
        """The pipeline without its place in the file."""
        return PipelineOverview(
            self.id,
            self.signal,
            tuple(map(str, self.receivers)),
            tuple(map(str, self.processors)),
            tuple(map(str, self.exporters)),
        )


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """The section ``service``."""

    extensions: tuple[ComponentId, ...]
    pipelines: Mapping[str, Pipeline]
    telemetry: TelemetryConfig
    drain: DrainConfig = field(default_factory=DrainConfig)


@dataclass(frozen=True, slots=True)
class ConfiguredComponent:
    """A configured component: its factory and its own configuration, parsed."""

    id: ComponentId
    kind: ComponentKind
    factory: Factory
    config: Any
    """An instance of ``factory.config_type``."""
    position: Position


@dataclass(frozen=True, slots=True)
class Config:
    """A whole, checked configuration: every reference in it resolves, every pipeline can be built."""

    receivers: Mapping[ComponentId, ConfiguredComponent]
    processors: Mapping[ComponentId, ConfiguredComponent]
    exporters: Mapping[ComponentId, ConfiguredComponent]
    connectors: Mapping[ComponentId, ConfiguredComponent]
    extensions: Mapping[ComponentId, ConfiguredComponent]
    service: ServiceConfig
    document: Document
    """The resolved document: untyped, with positions."""
    warnings: tuple[ConfigError, ...] = ()
    sources: tuple[str, ...] = field(default=())
    left_out: tuple[ConfigError, ...] = ()
    """With ``--skip-missing``: each component that was left out because it does not exist here, and why."""
    changed_pipelines: tuple[ConfigError, ...] = ()
    """With ``--skip-missing``: each pipeline that does not run, or not with all of its components."""

    def components(self, kind: ComponentKind) -> Mapping[ComponentId, ConfiguredComponent]:
        """The configured components of one section."""
        sections: dict[ComponentKind, Mapping[ComponentId, ConfiguredComponent]] = {
            ComponentKind.RECEIVER: self.receivers,
            ComponentKind.PROCESSOR: self.processors,
            ComponentKind.EXPORTER: self.exporters,
            ComponentKind.CONNECTOR: self.connectors,
            ComponentKind.EXTENSION: self.extensions,
        }
        return sections[kind]

    def position(self, *path: str) -> Position:
        """Where ``path`` (``"service", "pipelines", "traces"``) is written, or the nearest place above it."""
        return self.document.position(*path)
