"""The configuration of ``prometheus_remote_write``: the Collector's keys and defaults, and some additions.

Source: opentelemetry-collector-contrib exporter/prometheusremotewriteexporter config.go.
"""

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from collector.prometheus import TranslationStrategy
from collector.prometheus.config import ConstantLabels, DeltaConfig, ResourceConstantLabelsConfig, ResourceLabelsConfig
from config.blocks import (
    AdaptiveConcurrencyConfig,
    ByteSize,
    CircuitBreakerConfig,
    ComponentConfig,
    DeadLetterConfig,
    Duration,
    HTTPClientConfig,
    InvalidSettings,
    RetryConfig,
)

__all__ = ["MESSAGE_V1", "MESSAGE_V2", "PrometheusRemoteWriteConfig", "RemoteWriteQueueConfig", "WALConfig"]

MESSAGE_V1 = "prometheus.WriteRequest"
MESSAGE_V2 = "io.prometheus.write.v2.Request"
_HTTP_KEYS = frozenset(HTTPClientConfig.model_fields)


class RemoteWriteQueueConfig(ComponentConfig):
    """The queue of this exporter."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    enabled: bool = True
    """Queue data before sending it. false: the sender of a batch waits for its delivery."""
    queue_size: int = Field(default=10000, ge=1)
    """Capacity of the queue in batches."""
    num_consumers: int = Field(default=5, ge=1, le=200)
    """Number of shards of a batch that are sent at the same time; the points of a series always keep their order."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Capacity of the queue in bytes (specific to Tailrace), in addition to queue_size. 0: no limit."""
    block_on_overflow: bool = False
    """Refuse new requests at the receiver while the queue is full, instead of dropping data (specific to Tailrace)."""
    storage: str = ""
    """Id of the extension that keeps the queue across restarts (specific to Tailrace). Empty: the queue is kept in
    memory.
    """


class WALConfig(ComponentConfig):
    """A queue on disk, without an extension."""

    directory: str
    """Directory of the queue, which is created if it does not exist. One process uses it at a time."""
    buffer_size: int = Field(default=300, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since batches are read as they are sent."""
    truncate_frequency: Duration = Field(default=60.0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since files are deleted when they are delivered."""
    lag_record_frequency: Duration = Field(default=15.0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since the size of the queue is a metric."""


class TargetInfoConfig(ComponentConfig):
    """The ``target_info`` series."""

    enabled: bool = True
    """Whether each resource has a ``target_info`` series."""


class RemoteWriteClientConfig(HTTPClientConfig):
    """Settings of the connection to the server."""

    # The specification: senders must not let users set them. Source: Prometheus config.go, ReservedHeaders.
    reserved_headers: ClassVar[frozenset[str]] = frozenset(
        {"host", "user-agent", "x-prometheus-remote-read-version", "x-prometheus-remote-write-version"}
    )

    compression: Literal["snappy"] = "snappy"
    """Compression of requests; remote write has only this one."""
    timeout: Duration = Field(default=5.0, ge=0)
    """Timeout of one attempt; 0 disables it."""


class PrometheusRemoteWriteConfig(ComponentConfig):
    """The keys of the connection are below ``http``, or at this level as in older configurations."""

    inline_block: ClassVar[str] = "http"

    http: RemoteWriteClientConfig = RemoteWriteClientConfig()
    """Connection to the server."""
    timeout: Duration = Field(default=5.0, ge=0)
    """Timeout of one attempt; 0 disables it."""
    retry_on_failure: RetryConfig = RetryConfig.model_validate({"initial_interval": "50ms"})
    """Retries of failed requests."""
    remote_write_queue: RemoteWriteQueueConfig = RemoteWriteQueueConfig()
    """The queue in which data waits to be sent."""
    max_batch_request_parallelism: int | None = Field(default=None, ge=1, le=200)
    """Number of requests of a batch that are sent at the same time. Absent: ``remote_write_queue.num_consumers``."""
    circuit_breaker: CircuitBreakerConfig = CircuitBreakerConfig()
    """Single attempts while the server is down (specific to Tailrace)."""
    adaptive_concurrency: AdaptiveConcurrencyConfig = AdaptiveConcurrencyConfig()
    """Fewer shards at once while the server is overloaded (specific to Tailrace)."""
    dead_letter: DeadLetterConfig | None = None
    """Where data goes that the server refuses or does not accept in time (specific to Tailrace). Absent: it is
    dropped.
    """
    wal: WALConfig | None = None
    """A directory that keeps the queue across restarts. Absent: it is in memory, or in remote_write_queue::storage."""
    max_batch_size_bytes: int = Field(default=3_000_000, ge=1)
    """Size limit of a request in bytes, before compression."""
    namespace: str = ""
    """Prefix of every metric name, followed by an underscore. Empty: no prefix."""
    external_labels: ConstantLabels = Field(default_factory=dict)
    """Labels to add to every series."""
    target_info: TargetInfoConfig = TargetInfoConfig()
    """The ``target_info`` series."""
    disable_scope_info: bool = False
    """Whether to leave out the ``otel_scope_…`` labels."""
    resource_to_telemetry_conversion: ResourceLabelsConfig = ResourceLabelsConfig()
    """Whether all resource attributes become labels."""
    resource_constant_labels: ResourceConstantLabelsConfig = ResourceConstantLabelsConfig()
    """Resource attributes that become labels of every series."""
    translation_strategy: TranslationStrategy | Literal[""] = "UnderscoreEscapingWithSuffixes"
    """How names are translated: whether characters are escaped, and whether suffixes for unit and type are added.
    Empty: UnderscoreEscapingWithSuffixes.
    """
    add_metric_suffixes: bool = True
    """Deprecated by the Collector; false means ``translation_strategy: UnderscoreEscapingWithoutSuffixes``."""
    protobuf_message: str = MESSAGE_V1
    """The message that is sent: ``prometheus.WriteRequest`` is remote write 1.0, ``io.prometheus.write.v2.Request`` is
    2.0. Receivers that do not know 2.0 receive 1.0.
    """
    convert_histograms_to_nhcb: bool = False
    """Whether histograms with explicit bounds become native histograms with custom buckets, one series each. This
    requires the message of remote write 2.0 (specific to Tailrace; the key is that of Prometheus' OTLP endpoint).
    """
    send_metadata: bool = False
    """Whether to send the type, help and unit of each metric, at most once per minute. Remote write 2.0 always carries
    them.
    """
    delta_temporality: DeltaConfig = DeltaConfig()
    """How metrics of delta temporality are added up (specific to Tailrace)."""
    sanitize_leading_underscore: bool = True
    """Whether ``_x`` becomes ``key_x``, as in Prometheus' own OTLP endpoint (specific to Tailrace)."""
    preserve_multiple_underscores: bool = True
    """Whether ``a..b`` becomes ``a__b`` as in Prometheus' own OTLP endpoint, or ``a_b`` as in the Collector (specific
    to Tailrace).
    """
    max_series: int = Field(default=0, ge=0)
    """Number of series that are remembered (specific to Tailrace). Points of further series are dropped until others
    have had no points for five minutes. 0: no limit but that of memory.
    """
    stale_after: Duration = Field(default=0.0, ge=0)
    """A series without samples for this long ends with a stale marker, which is sent with the next batch (specific to
    Tailrace). 0: never.
    """

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
            others["http"] = {"timeout": value.get("timeout", "5s"), **flat, **http}
        return others

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        found: list[tuple[tuple[str, ...], str]] = []
        if self.wal is not None and self.remote_write_queue.storage:
            found.append((("wal",), "this key and remote_write_queue::storage both keep the queue on disk; remove one"))
        if self.wal is not None and not self.wal.directory:
            found.append((("wal", "directory"), "the directory must not be empty, for example ./prometheus_rw"))
        if not self.http.endpoint:
            found.append(((), "endpoint is required, for example http://localhost:9090/api/v1/write"))
        if self.protobuf_message not in (MESSAGE_V1, MESSAGE_V2):
            message = f"{self.protobuf_message!r} does not exist: expected {MESSAGE_V1} or {MESSAGE_V2}"
            found.append((("protobuf_message",), message))
        elif self.convert_histograms_to_nhcb and self.protobuf_message != MESSAGE_V2:
            found.append((("convert_histograms_to_nhcb",), f"this key requires protobuf_message: {MESSAGE_V2}"))
        if found:
            raise InvalidSettings(*found)
        return self

    @property
    def shard_count(self) -> int:
        """The number of requests of a batch that are sent at the same time, at most."""
        return self.max_batch_request_parallelism or self.remote_write_queue.num_consumers

    @property
    def strategy(self) -> TranslationStrategy:
        """The translation strategy that applies, with ``add_metric_suffixes`` taken into account."""
        if not self.add_metric_suffixes:
            return "UnderscoreEscapingWithoutSuffixes"
        return self.translation_strategy or "UnderscoreEscapingWithSuffixes"
