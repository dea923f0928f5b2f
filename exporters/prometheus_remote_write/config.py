"""What the user writes for ``prometheus_remote_write``: the Collector's keys and defaults, and a few of ours."""

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
    """Batches."""
    num_consumers: int = Field(default=5, ge=1, le=200)
    """Shards a batch is sent over at the same time; a series always keeps its order."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Ours: the queue is full at this many bytes whatever its length."""
    block_on_overflow: bool = False
    """Ours: a full queue refuses the request at the door instead of dropping here."""
    storage: str = ""
    """Ours: the extension that keeps the queue."""


class TargetInfoConfig(ComponentConfig):
    """The ``target_info`` series of each resource."""

    enabled: bool = True


class ResourceLabelsConfig(ComponentConfig):
    """All resource attributes as labels."""

    enabled: bool = False


class ResourceConstantLabelsConfig(ComponentConfig):
    """Resource attributes that become labels of every series; globs."""

    included: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()


class PrometheusRemoteWriteConfig(ComponentConfig):
    """``http`` holds the connection's keys; they may also stand directly here, as older configurations write them."""

    http: HTTPClientConfig = HTTPClientConfig.model_validate({"compression": "snappy", "timeout": "5s"})
    timeout: Duration = Field(default=5.0, ge=0)
    """Of one attempt."""
    retry_on_failure: RetryConfig = RetryConfig.model_validate(
        {"initial_interval": "50ms", "max_interval": "200ms", "max_elapsed_time": "1m"}
    )
    remote_write_queue: RemoteWriteQueueConfig = RemoteWriteQueueConfig()
    max_batch_size_bytes: int = Field(default=3_000_000, ge=1)
    """Of one request before compression."""
    namespace: str = ""
    external_labels: dict[str, str] = Field(default_factory=dict)
    target_info: TargetInfoConfig = TargetInfoConfig()
    disable_scope_info: bool = False
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()
    translation_strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes"
    add_metric_suffixes: bool = True
    """Deprecated in the Collector: false is ``translation_strategy: UnderscoreEscapingWithoutSuffixes``."""
    send_metadata: bool = False
    sanitize_leading_underscore: bool = True
    """Ours: ``_x`` becomes ``key_x``, as in Prometheus' own OTLP endpoint."""
    preserve_multiple_underscores: bool = True
    """Ours: ``a..b`` becomes ``a__b`` as in Prometheus' own OTLP endpoint; false collapses them as the Collector does."""

    @model_validator(mode="before")
    @classmethod
    def _flat_http_keys(cls, value: Any) -> Any:
        """Move the connection's keys written directly here into ``http``."""
        if not isinstance(value, dict):
            return value
        flat = {key: value[key] for key in value if key in _HTTP_KEYS - {"timeout"}}
        rest = {key: entry for key, entry in value.items() if key not in flat}
        http = rest.get("http", {})
        if isinstance(http, dict):
            rest["http"] = {"compression": "snappy", "timeout": value.get("timeout", "5s"), **flat, **http}
        return rest

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.http.endpoint:
            raise ValueError("endpoint is required, for example http://localhost:9090/api/v1/write")
        if not self.http.endpoint.startswith(("http://", "https://")):
            raise ValueError(
                f"endpoint {self.http.endpoint!r} is no URL: write http://HOST:PORT/api/v1/write or https://…"
            )
        if self.http.compression != "snappy":
            raise ValueError(f"compression {self.http.compression!r}: remote-write knows snappy alone; remove the key")
        return self

    @property
    def strategy(self) -> TranslationStrategy:
        """The strategy in force."""
        return self.translation_strategy if self.add_metric_suffixes else "UnderscoreEscapingWithoutSuffixes"
