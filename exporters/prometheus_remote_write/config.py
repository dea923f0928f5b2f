"""The configuration of ``prometheus_remote_write``: the Collector's keys and defaults, and some additions.

Source: opentelemetry-collector-contrib exporter/prometheusremotewriteexporter config.go.
"""

from typing import Any, Self

from pydantic import Field, model_validator

from collector.prometheus import TranslationStrategy
from config.blocks import ByteSize, ComponentConfig, Duration, HTTPClientConfig, RetryConfig

__all__ = ["PrometheusRemoteWriteConfig", "RemoteWriteQueueConfig"]

_HTTP_KEYS = frozenset(HTTPClientConfig.model_fields)


class RemoteWriteQueueConfig(ComponentConfig):
    """The queue of this exporter."""

    enabled: bool = True
    queue_size: int = Field(default=10000, ge=1)
    """In batches."""
    num_consumers: int = Field(default=5, ge=1, le=200)
    """Number of shards of a batch that are sent at the same time; a series always keeps its order."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """An addition: the queue is also full at this many bytes; 0: no such limit."""
    block_on_overflow: bool = False
    """An addition: a full queue makes the receiver refuse requests instead of dropping data here."""
    storage: str = ""
    """An addition: the id of the extension that stores the queue."""


class TargetInfoConfig(ComponentConfig):
    """Whether each resource gets a ``target_info`` series."""

    enabled: bool = True


class ResourceLabelsConfig(ComponentConfig):
    """Whether all resource attributes become labels."""

    enabled: bool = False


class ResourceConstantLabelsConfig(ComponentConfig):
    """Globs of resource attributes that become labels of every series."""

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class PrometheusRemoteWriteConfig(ComponentConfig):
    """The keys of the connection are below ``http``, or directly here as in older configurations."""

    http: HTTPClientConfig = HTTPClientConfig.model_validate({"compression": "snappy", "timeout": "5s"})
    timeout: Duration = Field(default=5.0, ge=0)
    """Timeout of one attempt; 0 disables it."""
    retry_on_failure: RetryConfig = RetryConfig.model_validate(
        {"initial_interval": "50ms", "max_interval": "200ms", "max_elapsed_time": "1m"}
    )
    remote_write_queue: RemoteWriteQueueConfig = RemoteWriteQueueConfig()
    max_batch_size_bytes: int = Field(default=3_000_000, ge=1)
    """Size limit of a request before compression."""
    namespace: str = ""
    external_labels: dict[str, str] = Field(default_factory=dict)
    target_info: TargetInfoConfig = TargetInfoConfig()
    disable_scope_info: bool = False
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()
    translation_strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes"
    add_metric_suffixes: bool = True
    """Deprecated in the Collector: false means ``translation_strategy: UnderscoreEscapingWithoutSuffixes``."""
    send_metadata: bool = False
    sanitize_leading_underscore: bool = True
    """An addition: ``_x`` becomes ``key_x``, as in Prometheus' own OTLP endpoint."""
    preserve_multiple_underscores: bool = True
    """An addition: ``a..b`` becomes ``a__b`` as in Prometheus' OTLP endpoint; if false ``a_b`` as in the Collector."""

    @model_validator(mode="before")
    @classmethod
    def _flat_http_keys(cls, value: Any) -> Any:
        """Move keys of the connection that are written directly here into ``http``."""
        if not isinstance(value, dict):
            return value
        flat = {key: value[key] for key in value if key in _HTTP_KEYS - {"timeout"}}
        others = {key: entry for key, entry in value.items() if key not in flat}
        http = others.get("http", {})
        if isinstance(http, dict):
            others["http"] = {"compression": "snappy", "timeout": value.get("timeout", "5s"), **flat, **http}
        return others

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.http.endpoint:
            raise ValueError("endpoint is required, for example http://localhost:9090/api/v1/write")
        if not self.http.endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"endpoint {self.http.endpoint!r} is not an http or https URL; expected for example"
                " http://localhost:9090/api/v1/write"
            )
        if self.http.compression != "snappy":
            raise ValueError(
                f"compression {self.http.compression!r} is not available: remote write requires snappy; remove the key"
            )
        return self

    @property
    def strategy(self) -> TranslationStrategy:
        """The translation strategy that applies, with ``add_metric_suffixes`` taken into account."""
        return self.translation_strategy if self.add_metric_suffixes else "UnderscoreEscapingWithoutSuffixes"
