"""The configuration of ``prometheus``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib exporter/prometheusexporter config.go.
"""

from typing import Self

from pydantic import Field, model_validator

from collector.prometheus import TranslationStrategy
from config.blocks import ComponentConfig, Duration, TLSServerConfig

__all__ = ["PrometheusConfig"]


class ResourceLabelsConfig(ComponentConfig):
    """Whether all resource attributes become labels."""

    enabled: bool = False


class ResourceConstantLabelsConfig(ComponentConfig):
    """Globs of resource attributes that become labels of every series."""

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class PrometheusConfig(ComponentConfig):
    """The page that is served, and what is on it."""

    endpoint: str = ""
    """``host:port`` to listen on; without a host, on all interfaces."""
    tls: TLSServerConfig | None = None
    namespace: str = ""
    const_labels: dict[str, str] = Field(default_factory=dict)
    send_timestamps: bool = False
    metric_expiration: Duration = Field(default=300.0, gt=0)
    enable_open_metrics: bool = False
    without_scope_info: bool = False
    add_metric_suffixes: bool = True
    translation_strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes"
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint is required, for example localhost:9464")
        port = self.endpoint.rpartition(":")[2]
        if not port.isdigit() or int(port) > 65535:
            raise ValueError(f"endpoint {self.endpoint!r} is not host:port with a port from 0 to 65535")
        return self

    @property
    def strategy(self) -> TranslationStrategy:
        """The translation strategy that applies, with ``add_metric_suffixes`` taken into account."""
        return self.translation_strategy if self.add_metric_suffixes else "UnderscoreEscapingWithoutSuffixes"
