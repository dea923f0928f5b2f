"""The configuration of ``prometheus``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib exporter/prometheusexporter config.go and factory.go.
"""

from typing import Literal, Self

from pydantic import Field, model_validator

from collector.prometheus import TranslationStrategy
from collector.prometheus.config import ConstantLabels, DeltaConfig, ResourceConstantLabelsConfig, ResourceLabelsConfig
from collector.transport.endpoint import Endpoint, check_endpoint
from config.blocks import Duration, HTTPServerConfig, QueueConfig

__all__ = ["PrometheusConfig"]


class PrometheusConfig(HTTPServerConfig):
    """The metrics page: where it is served, and what it contains."""

    endpoint: str = ""
    """``host:port`` to listen on; without a host, on all interfaces. A socket path if transport is unix."""
    read_header_timeout: Duration = 60.0
    """Time in which the head of a request must arrive. 0: read_timeout, or one minute if that is 0 as well."""
    write_timeout: Duration = 30.0
    """Time in which a scraper must accept the page. 0: one minute."""
    idle_timeout: Duration = 60.0
    """Close a connection that has been idle for this long. 0: read_timeout, or about an hour if that is 0 as well."""
    sending_queue: QueueConfig | None = None
    """Accepted for compatibility with the Collector; has no effect, since nothing is sent: the page keeps the last
    values.
    """
    namespace: str = ""
    """Prefix of every metric name, followed by an underscore. Empty: no prefix."""
    const_labels: ConstantLabels = Field(default_factory=dict)
    """Labels to add to every series."""
    send_timestamps: bool = False
    """Whether each line has the timestamp of its data point."""
    metric_expiration: Duration = Field(default=300.0, gt=0)
    """A series is removed from the page after it has not been received for this long."""
    max_series: int = Field(default=0, ge=0)
    """Number of series that are remembered (specific to Tailrace). Points of further series are dropped until others
    have expired. 0: no limit but that of memory.
    """
    delta_temporality: DeltaConfig = DeltaConfig()
    """How metrics of delta temporality are added up (specific to Tailrace)."""
    enable_open_metrics: bool = False
    """Whether scrapers that accept the OpenMetrics format receive it."""
    without_scope_info: bool = False
    """Whether to leave out the ``otel_scope_…`` labels."""
    add_metric_suffixes: bool = True
    """If false, ``translation_strategy: UnderscoreEscapingWithoutSuffixes`` applies."""
    translation_strategy: TranslationStrategy | Literal[""] = "UnderscoreEscapingWithSuffixes"
    """How names are translated: whether characters are escaped, and whether suffixes for unit and type are added.
    Empty: UnderscoreEscapingWithSuffixes.
    """
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    """Whether all resource attributes become labels."""
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()
    """Resource attributes that become labels of every series."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint is required, for example localhost:9464")
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self

    def address(self) -> Endpoint:
        """Where to listen."""
        return Endpoint.parse(self.endpoint, unix=self.transport == "unix")

    @property
    def strategy(self) -> TranslationStrategy:
        """The translation strategy that applies, with ``add_metric_suffixes`` taken into account."""
        if not self.add_metric_suffixes:
            return "UnderscoreEscapingWithoutSuffixes"
        return self.translation_strategy or "UnderscoreEscapingWithSuffixes"
