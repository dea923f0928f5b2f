"""The configuration of ``prometheus``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib exporter/prometheusexporter config.go.
"""

from typing import Self

from pydantic import Field, model_validator

from collector.prometheus import TranslationStrategy
from collector.prometheus.config import ResourceConstantLabelsConfig, ResourceLabelsConfig
from config.blocks import ComponentConfig, Duration, TLSServerConfig

__all__ = ["PrometheusConfig"]


class PrometheusConfig(ComponentConfig):
    """The metrics page: where it is served, and what it contains."""

    endpoint: str = ""
    """``host:port`` to listen on; without a host, on all interfaces."""
    tls: TLSServerConfig | None = None
    """TLS settings. Absent: plaintext."""
    namespace: str = ""
    """Prefix of every metric name, followed by an underscore. Empty: no prefix."""
    const_labels: dict[str, str] = Field(default_factory=dict)
    """Labels to add to every series."""
    send_timestamps: bool = False
    """Whether each line has the timestamp of its data point."""
    metric_expiration: Duration = Field(default=300.0, gt=0)
    """A series is removed from the page after it has not been received for this long."""
    enable_open_metrics: bool = False
    """Whether scrapers that accept the OpenMetrics format receive it."""
    without_scope_info: bool = False
    """Whether to leave out the ``otel_scope_…`` labels."""
    add_metric_suffixes: bool = True
    """If false, ``translation_strategy: UnderscoreEscapingWithoutSuffixes`` applies."""
    translation_strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes"
    """How names are translated: whether characters are escaped, and whether suffixes for unit and type are added."""
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    """Whether all resource attributes become labels."""
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()
    """Resource attributes that become labels of every series."""

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
