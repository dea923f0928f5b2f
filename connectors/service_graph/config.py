"""Configuration of ``service_graph``: the Collector's keys, defaults and rules, and two keys of ours.

Source: open-telemetry/opentelemetry-collector-contrib connector/servicegraphconnector/config.go, v0.156.
"""

from itertools import pairwise
from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from config import ComponentConfig, Duration

__all__ = ["ServiceGraphConfig", "StoreConfig"]

_DEFAULT_CACHE_LOOP_S: Final = 60.0
_DEFAULT_EXPIRATION_LOOP_S: Final = 2.0

Key = Annotated[str, Field(min_length=1)]


class StoreConfig(ComponentConfig):
    """Where spans wait for the other side of their request."""

    ttl: Duration = Field(default=2.0, ge=0)
    """How long a span waits for its pair."""
    max_items: int = Field(default=1000, ge=1, le=10_000_000)
    """How many spans wait at once; beyond it a span that finds no pair is dropped and counted."""


class ServiceGraphConfig(ComponentConfig):
    """``service_graph``."""

    store: StoreConfig = StoreConfig()
    dimensions: tuple[Key, ...] = Field(default=(), max_length=64)
    """Attributes (resource, else span) that become labels: ``client_<name>`` of the client span, ``server_<name>`` of the server span."""
    virtual_node_peer_attributes: tuple[Key, ...] = Field(
        default=("peer.service", "db.name", "db.system"), max_length=64
    )
    """Attributes of an unpaired client span that name the server nobody saw, the first present one; empty: no virtual nodes."""
    virtual_node_extra_label: bool = False
    """Adds the label ``virtual_node``: ``client``, ``server`` or empty."""
    database_name_attributes: tuple[Key, ...] = Field(default=("db.name",), min_length=1, max_length=64)
    """A client span with one of these is a database request: complete on its own, the value (of the first present) names the server."""
    database_name_attribute: str = ""
    """Deprecated: one more of ``database_name_attributes``, looked at last."""
    latency_histogram_buckets: tuple[Duration, ...] | None = Field(default=None, max_length=1000)
    """Upper bounds; unset: 2ms 4ms 6ms 8ms 10ms 50ms 100ms 200ms 400ms 800ms 1s 1.4s 2s 5s 10s 15s."""
    exponential_histogram_max_size: int = Field(default=0, ge=0, le=16384)
    """Buckets of an exponential histogram, which is used instead; 0: explicit buckets."""
    metrics_flush_interval: Duration = Field(default=60.0, ge=0)
    """0: after each batch of spans."""
    metrics_timestamp_offset: Duration = 0.0
    """Taken off the metrics' times."""
    cache_loop: Duration = Field(default=_DEFAULT_CACHE_LOOP_S, ge=0)
    """How often series without an edge for 15 minutes are let go; 0: the default."""
    store_expiration_loop: Duration = Field(default=_DEFAULT_EXPIRATION_LOOP_S, ge=0)
    """How often the store is searched for spans past their ``ttl``; 0: the default."""
    metrics_exporter: str = ""
    """Deprecated and without effect, as in the Collector."""
    aggregation_cardinality_limit: int = Field(default=2000, ge=0)
    """Ours: series (edges with their labels); further ones are added up in one with ``otel.metric.overflow=true``. 0: no limit."""
    include_collector_instance_id: bool = False
    """Ours: the label ``collector.instance.id``, so that replicas do not write one and the same series."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        bounds = self.latency_histogram_buckets
        if bounds is not None:
            if self.exponential_histogram_max_size:
                raise ValueError("use either `latency_histogram_buckets` or `exponential_histogram_max_size`")
            if any(bound < 0 for bound in bounds) or any(low >= high for low, high in pairwise(bounds)):
                raise ValueError("`latency_histogram_buckets` must rise from bound to bound, and none may be negative")
        for name in ("dimensions", "virtual_node_peer_attributes", "database_name_attributes"):
            keys = getattr(self, name)
            if len(set(keys)) < len(keys):
                raise ValueError(f"`{name}` names an attribute twice")
        return self

    @property
    def database_keys(self) -> tuple[str, ...]:
        """All attributes that name a database, the first present wins."""
        written = "database_name_attributes" in self.model_fields_set
        if not self.database_name_attribute or self.database_name_attribute in self.database_name_attributes:
            return self.database_name_attributes
        return (*(self.database_name_attributes if written else ()), self.database_name_attribute)

    @property
    def cache_loop_s(self) -> float:
        """As the Collector reads 0."""
        return self.cache_loop or _DEFAULT_CACHE_LOOP_S

    @property
    def store_expiration_loop_s(self) -> float:
        """As the Collector reads 0."""
        return self.store_expiration_loop or _DEFAULT_EXPIRATION_LOOP_S

    def same_series(self, other: "ServiceGraphConfig") -> bool:
        """Whether what was collected under ``other`` can be continued."""
        names = (
            "dimensions",
            "virtual_node_extra_label",
            "latency_histogram_buckets",
            "exponential_histogram_max_size",
            "include_collector_instance_id",
        )
        return all(getattr(self, name) == getattr(other, name) for name in names)
