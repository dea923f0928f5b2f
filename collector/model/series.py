"""The identity of the series of a metric point, as 128 bits.

It covers the attributes of the resource, the name, version and attributes of the scope, the name, unit, type,
temporality and monotonicity of the metric, and the attributes of the point. Of a repeated key the last occurrence
counts. The order of attributes does not matter, because their hashes are added mod 2^128; one can therefore be removed
or replaced without hashing the others again. An unset text equals an empty one, as everywhere in proto3. This is not a
Prometheus label set, in which the int 1 and the text "1" are the same series.

Source: OpenTelemetry metrics data model, "Timeseries model" and "Single-writer", also for the identity of resources and
scopes.
"""

import numpy as np

from collector.model.arrays import U64, Array
from collector.model.tables import Tables
from collector.wire import hash as wire_hash
from collector.wire.layout import KIND_EMPTY, KIND_STRING

__all__ = ["attribute_identity", "series_key"]


def series_key(batch: Tables, key: bytes | None = None, *, empty_is_absent: bool = False) -> U64:
    """The identity of each point's series, U64[n_points,2].

    Args:
        batch: A ``Metrics`` batch.
        key: 16 bytes shared by all processes that must agree; None = the secret of this process.
        empty_is_absent: Ignores attributes without a value or with an empty text, which are the same series once they
            are written as labels.
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


def attribute_identity(batch: Tables, table: str, key: bytes | None = None, *, empty_is_absent: bool = False) -> U64:
    """The identity of each row's attributes, U64[n,2]: the sum of their hashes; (0, 0) if there are none."""
    rows = batch.attributes(table).rows
    hashes = wire_hash.hash_attributes(batch.wire, rows, key)
    if empty_is_absent:
        hashes[(rows["kind"] == KIND_EMPTY) | ((rows["kind"] == KIND_STRING) & (rows["value_len"] == 0))] = 0
    return wire_hash.sum_by_owner(hashes, rows["owner"], len(batch.table(table).rows), rows)


def _text(batch: Tables, rows: Array, name: str, key: bytes | None) -> U64:
    lengths = rows[f"{name}_len"]
    return wire_hash.hash_slices(batch.wire, np.where(lengths > 0, rows[name], np.int32(-1)), lengths, key)
