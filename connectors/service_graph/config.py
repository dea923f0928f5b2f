"""Configuration of ``service_graph``: the Collector's keys, defaults and rules, and two keys of our own.

Source: open-telemetry/opentelemetry-collector-contrib connector/servicegraphconnector/config.go, v0.156.
"""

from itertools import pairwise
from typing import Annotated, ClassVar, Final, Self

from pydantic import Field, model_validator

from config import ComponentConfig, Duration

__all__ = ["ServiceGraphConfig", "StoreConfig"]

_DEFAULT_CACHE_LOOP_S: Final = 60.0
_DEFAULT_EXPIRATION_LOOP_S: Final = 2.0

Key = Annotated[str, Field(min_length=1)]


class StoreConfig(ComponentConfig):
    """The store in which spans wait for the other side of their request."""

    ttl: Duration = Field(default=2.0, ge=0)
    """How long a span waits for the other side of its request."""
    max_items: int = Field(default=1000, ge=1, le=10_000_000)
    """How many spans may wait at once; further spans without a counterpart are dropped and counted."""


class ServiceGraphConfig(ComponentConfig):
    """Metrics of the requests between services."""

    store: StoreConfig = StoreConfig()
    """The store in which spans wait for the other side of their request."""
    dimensions: tuple[Key, ...] = Field(default=(), max_length=64)
    """Attributes of the resource or else of the span that become the labels ``client_<name>`` and ``server_<name>``."""
    virtual_node_peer_attributes: tuple[Key, ...] = Field(
        default=("peer.service", "db.name", "db.system"), max_length=64
    )
    """Attributes of a client span without a counterpart; the first one present names its server. Empty: no virtual
    nodes.
    """
    virtual_node_extra_label: bool = False
    """Whether to add the label ``virtual_node``, which is ``client``, ``server`` or empty."""
    database_name_attributes: tuple[Key, ...] = Field(default=("db.name",), min_length=1, max_length=64)
    """A client span with one of these is a complete database request; the first one present names the server."""
    database_name_attribute: str = ""
    """Deprecated: one more entry at the end of ``database_name_attributes``."""
    latency_histogram_buckets: tuple[Duration, ...] | None = Field(default=None, max_length=1000)
    """Upper bounds of the buckets in ascending order. Unset: 2ms 4ms 6ms 8ms 10ms 50ms 100ms 200ms 400ms 800ms 1s 1.4s
    2s 5s 10s 15s.
    """
    exponential_histogram_max_size: int = Field(default=0, ge=0, le=16384)
    """Maximum number of buckets of exponential histograms. 0: explicit buckets are used instead."""
    metrics_flush_interval: Duration = Field(default=60.0, ge=0)
    """How often the metrics are sent. 0: after each batch of spans."""
    metrics_timestamp_offset: Duration = 0.0
    """Duration that is subtracted from the timestamps of the metrics."""
    cache_loop: Duration = Field(default=_DEFAULT_CACHE_LOOP_S, ge=0)
    """How often series that had no edge for 15 minutes are removed. 0: the default."""
    store_expiration_loop: Duration = Field(default=_DEFAULT_EXPIRATION_LOOP_S, ge=0)
    """How often spans past their ``ttl`` are removed from the store. 0: the default."""
    metrics_exporter: str = ""
    """Deprecated by the Collector; has no effect."""
    aggregation_cardinality_limit: int = Field(default=2000, ge=0)
    """Limit on the number of series (specific to Tailrace); further ones are counted in one with
    otel.metric.overflow=true. 0: no limit.
    """
    include_collector_instance_id: bool = False
    """Whether to add the label ``collector.instance.id``, so that replicas do not write the same series (specific to
    Tailrace).
    """

    storage: str = ""
    """The id of a storage extension in which series and waiting spans survive a restart (specific to Tailrace). Empty:
    none.
    """

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.storage and not self.metrics_flush_interval:
            raise ValueError(
                "storage needs a metrics_flush_interval above 0, because the state is saved before each flush"
            )
        bounds = self.latency_histogram_buckets
        if bounds is not None:
            if self.exponential_histogram_max_size:
                raise ValueError("use either latency_histogram_buckets or exponential_histogram_max_size, not both")
            if any(bound < 0 for bound in bounds) or any(low >= high for low, high in pairwise(bounds)):
                raise ValueError("latency_histogram_buckets must be in ascending order and not negative")
        for name in ("dimensions", "virtual_node_peer_attributes", "database_name_attributes"):
            keys = getattr(self, name)
            if len(set(keys)) < len(keys):
                raise ValueError(f"{name} lists an attribute twice: {list(keys)}")
        return self

    @property
    def database_keys(self) -> tuple[str, ...]:
        """All attributes that name a database, in the order in which they are looked up."""
        is_configured = "database_name_attributes" in self.model_fields_set
        if not self.database_name_attribute or self.database_name_attribute in self.database_name_attributes:
            return self.database_name_attributes
        return (*(self.database_name_attributes if is_configured else ()), self.database_name_attribute)

    @property
    def cache_loop_s(self) -> float:
        """The interval, where 0 means the default as in the Collector."""
        return self.cache_loop or _DEFAULT_CACHE_LOOP_S

    @property
    def store_expiration_loop_s(self) -> float:
        """The interval, where 0 means the default as in the Collector."""
        return self.store_expiration_loop or _DEFAULT_EXPIRATION_LOOP_S

    def same_series(self, other: "ServiceGraphConfig") -> bool:
        """Whether both make the same series, so that one can continue the counts of the other."""
        return self.fingerprint == other.fingerprint

    @property
    def fingerprint(self) -> str:
        """What determines the series that are made of requests."""
        names = {
            "dimensions",
            "virtual_node_extra_label",
            "latency_histogram_buckets",
            "exponential_histogram_max_size",
            "include_collector_instance_id",
        }
        return self.model_dump_json(include=names)
