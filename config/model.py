"""The service's own part of the configuration (``service:``), and the whole configuration once it is parsed.

The Collector's keys and defaults. Not here: what components are configured with (each component's ``config.py``), how
the whole is read and checked (``config.load``).

Source: open-telemetry/opentelemetry-collector service/{config,pipelines,telemetry}, otelconf's configuration schema.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from collector.api import ComponentId, ComponentKind, Factory
from collector.model import Signal
from config.blocks import ComponentConfig, Duration
from config.errors import ConfigError
from config.resolve import Document
from config.yaml import Position

__all__ = [
    "Config",
    "ConfiguredComponent",
    "LogsTelemetry",
    "MetricsTelemetry",
    "Pipeline",
    "ServiceConfig",
    "TelemetryConfig",
]


class LogSampling(ComponentConfig):
    """At most ``initial`` equal messages a ``tick``, then every ``thereafter``-th."""

    enabled: bool = True
    tick: Duration = Field(default=10.0, gt=0)
    initial: int = Field(default=10, ge=0)
    thereafter: int = Field(default=100, ge=0)
    """0: none after the first ``initial``."""


class LogsTelemetry(ComponentConfig):
    """``service.telemetry.logs``: our own log."""

    level: Literal["debug", "info", "warn", "error"] = "info"
    development: bool = False
    encoding: Literal["console", "json", "logfmt"] = "console"
    disable_caller: bool = False
    disable_stacktrace: bool = False
    sampling: LogSampling | None = LogSampling()
    output_paths: tuple[str, ...] = ("stderr",)
    error_output_paths: tuple[str, ...] = ("stderr",)
    initial_fields: dict[str, Any] = Field(default_factory=dict)
    processors: tuple[dict[str, Any], ...] = ()
    """otelconf log processors; read, and not acted on."""

    @field_validator("level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        lowered = value.lower() if isinstance(value, str) else value
        return "warn" if lowered == "warning" else lowered


class PrometheusReader(ComponentConfig):
    """``readers[].pull.exporter.prometheus``."""

    host: str = "localhost"
    port: int = Field(default=8888, ge=0, le=65535)
    without_units: bool = True
    without_type_suffix: bool = True
    without_scope_info: bool = True
    translation_strategy: str = ""
    with_resource_constant_labels: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class PullExporter(ComponentConfig):
    """``readers[].pull.exporter``."""

    prometheus: PrometheusReader | None = Field(default=None, alias="prometheus")
    prometheus_development: PrometheusReader | None = Field(default=None, alias="prometheus/development")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.prometheus is None and self.prometheus_development is None:
            raise ValueError("a pull reader needs an exporter; known: prometheus")
        return self


class PullReader(ComponentConfig):
    """``readers[].pull``."""

    exporter: PullExporter


class MetricsReader(ComponentConfig):
    """``readers[]``; ``periodic`` is read, and not acted on."""

    pull: PullReader | None = None
    periodic: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.pull is None) == (self.periodic is None):
            raise ValueError("a reader is either pull or periodic")
        return self


_DEFAULT_READERS = (MetricsReader(pull=PullReader(exporter=PullExporter(prometheus=PrometheusReader()))),)


class MetricsTelemetry(ComponentConfig):
    """``service.telemetry.metrics``: our own metrics."""

    level: Literal["none", "basic", "normal", "detailed"] = "normal"
    address: str = ""
    """Deprecated spelling of one pull reader: ``host:port``."""
    readers: tuple[MetricsReader, ...] = _DEFAULT_READERS
    views: tuple[dict[str, Any], ...] = ()

    @field_validator("level", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("address")
    @classmethod
    def _address(cls, value: str) -> str:
        host, separator, port = value.rpartition(":")
        if value and not (separator and port.isdecimal() and int(port) <= 65535):
            raise ValueError("write an address as host:port, for example localhost:8888")
        del host
        return value

    def endpoint(self) -> tuple[str, int] | None:
        """Host and port where our own metrics are served; None: nowhere."""
        if self.level == "none":
            return None
        if self.address:
            host, _, port = self.address.rpartition(":")
            return host.strip("[]"), int(port)
        for reader in self.readers:
            if reader.pull is not None:
                prometheus = reader.pull.exporter.prometheus or reader.pull.exporter.prometheus_development
                assert prometheus is not None
                return prometheus.host.strip("[]"), prometheus.port
        return None


class TelemetryConfig(ComponentConfig):
    """``service.telemetry``."""

    logs: LogsTelemetry = LogsTelemetry()
    metrics: MetricsTelemetry = MetricsTelemetry()
    traces: dict[str, Any] = Field(default_factory=dict)
    """otelconf traces; read, and not acted on: we send no traces of our own."""
    resource: dict[str, Any] = Field(default_factory=dict)
    """Attributes of our own telemetry; a null value removes one. Also otelconf's form: ``attributes: [{name, value}]``."""

    def resource_attributes(self) -> dict[str, str | None]:
        """``resource`` as name → text, None = removed."""
        attributes = self.resource.get("attributes")
        if isinstance(attributes, list | tuple):
            pairs = {str(each.get("name")): each.get("value") for each in attributes if isinstance(each, dict)}
        else:
            pairs = {key: value for key, value in self.resource.items() if key != "schema_url"}
        return {key: None if value is None else str(value) for key, value in pairs.items()}


@dataclass(frozen=True, slots=True)
class Pipeline:
    """One entry of ``service.pipelines``."""

    id: str
    """``traces`` or ``traces/name``."""
    signal: Signal
    receivers: tuple[ComponentId, ...]
    processors: tuple[ComponentId, ...]
    exporters: tuple[ComponentId, ...]
    position: Position


@dataclass(frozen=True, slots=True)
class ServiceConfig:
    """``service:``."""

    extensions: tuple[ComponentId, ...]
    pipelines: Mapping[str, Pipeline]
    telemetry: TelemetryConfig


@dataclass(frozen=True, slots=True)
class ConfiguredComponent:
    """A component as configured: its factory, and its own configuration, parsed."""

    id: ComponentId
    kind: ComponentKind
    factory: Factory
    config: Any
    """An instance of ``factory.config_type``."""
    position: Position


@dataclass(frozen=True, slots=True)
class Config:
    """A whole configuration that was checked: every reference in it resolves, every pipeline can be built."""

    receivers: Mapping[ComponentId, ConfiguredComponent]
    processors: Mapping[ComponentId, ConfiguredComponent]
    exporters: Mapping[ComponentId, ConfiguredComponent]
    connectors: Mapping[ComponentId, ConfiguredComponent]
    extensions: Mapping[ComponentId, ConfiguredComponent]
    service: ServiceConfig
    document: Document
    """As resolved, untyped, with positions."""
    warnings: tuple[ConfigError, ...] = ()
    sources: tuple[str, ...] = field(default=())

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
        """Where ``path`` (``"service", "pipelines", "traces"``) is written; the nearest place above it that is."""
        return self.document.position(*path)
