"""The identity of a metric point's series as 128 bits. Not a Prometheus label set: there int 1 and "1" are one series, here they are two.

Identity: resource attributes, scope name, version and attributes, metric name, unit, type, temporality and monotonic,
    point attributes.
Of a key that stands twice the last counts; the order of attributes does not matter, because their hashes are added mod
2^128 (so one can be taken out or replaced without hashing the others again). An unset text equals an empty one, as
everywhere in proto3.

Source: OpenTelemetry metrics data model, "Timeseries model" and "Single-writer"; resource and scope identity from the
    same chapter.
"""

from typing import Protocol

import numpy as np

from collector.model.arrays import U64, Array
from collector.wire import hash as wire_hash
from collector.wire.layout import KIND_EMPTY, KIND_STRING

__all__ = ["attribute_identity", "series_key"]


class Rows(Protocol):
    """A table or an attribute table: its record array."""

    @property
    def rows(self) -> Array:
        """One record a row."""


class Indexed(Protocol):
    """As much of ``Metrics`` as identity needs."""

    @property
    def wire(self) -> bytes:
        """The request."""

    def table(self, name: str, /) -> Rows:
        """The rows of a table."""

    def attributes(self, table: str, /) -> Rows:
        """The attributes of a table."""


def series_key(batch: Indexed, key: bytes | None = None, *, empty_is_absent: bool = False) -> U64:
    """The identity of each point's series, U64[n_points,2].

    Args:
        batch: A ``Metrics`` batch.
        key: 16 bytes known to all who must agree; None = the secret of this process.
        empty_is_absent: An attribute without a value, or with an empty text, is none: what is written as labels is one
            series then.
    """
    scopes, metrics, points = (batch.table(name).rows for name in ("scopes", "metrics", "points"))
    resource = attribute_identity(batch, "resources", key, empty_is_absent=empty_is_absent)
    scope = wire_hash.combine(
        resource[scopes["parent"]],
        _text(batch, scopes, "name", key),
        _text(batch, scopes, "version", key),
        attribute_identity(batch, "scopes", key, empty_is_absent=empty_is_absent),
        key=key,
    )
    kind = (metrics["type"].astype(np.uint64) << np.uint64(40)) | (
        metrics["temporality"].astype(np.uint32).astype(np.uint64) << np.uint64(8)
    )
    metric = wire_hash.combine(
        scope[metrics["parent"]],
        _text(batch, metrics, "name", key),
        _text(batch, metrics, "unit", key),
        kind | (metrics["monotonic"] != 0).astype(np.uint64),
        key=key,
    )
    own = attribute_identity(batch, "points", key, empty_is_absent=empty_is_absent)
    return wire_hash.combine(metric[points["parent"]], own, key=key)


def attribute_identity(batch: Indexed, table: str, key: bytes | None = None, *, empty_is_absent: bool = False) -> U64:
    """The identity of each row's attribute set, U64[n,2]: the sum of its attributes' hashes; (0, 0) for none."""
    rows = batch.attributes(table).rows
    hashes = wire_hash.hash_attributes(batch.wire, rows, key)
    if empty_is_absent:
        hashes[(rows["kind"] == KIND_EMPTY) | ((rows["kind"] == KIND_STRING) & (rows["value_len"] == 0))] = 0
    return wire_hash.sum_by_owner(hashes, rows["owner"], len(batch.table(table).rows), rows)


def _text(batch: Indexed, rows: Array, name: str, key: bytes | None) -> U64:
    lengths = rows[f"{name}_len"]
    return wire_hash.hash_slices(batch.wire, np.where(lengths > 0, rows[name], np.int32(-1)), lengths, key)
