"""Arranges the items of a batch under other resources: ``regroup``.

The messages of resources, scopes and metrics are written anew around the items, whose own bytes are copied as they are.
Fields of these messages that OpenTelemetry does not define are left out. Python code runs once per resource, scope and
metric of the result, not per item.
"""

from itertools import pairwise
from typing import Final, TypeAlias, TypeVar

import numpy as np

from collector.model.arrays import Array
from collector.model.batch import Batch
from collector.model.builders.base import message_bytes
from collector.model.groups import groups
from collector.model.series import attribute_identity
from collector.model.signal import Signal
from collector.wire.layout import METRIC_SUM
from collector.wire.splice.values import encode_length_delimited

__all__ = ["regroup"]

B = TypeVar("B", bound=Batch)

_Runs: TypeAlias = list[tuple[int, int]]

_RESOURCES: Final = 1  # resource_spans, resource_metrics and resource_logs of a request
_SCOPES: Final = 2  # scope_spans, scope_metrics and scope_logs of a resource
_ITEMS: Final = 2  # spans, metrics and log_records of a scope
_POINTS: Final = 1
_SCHEMA_URL: Final = 3


def regroup(batch: B, codes: Array) -> B:
    """The batch with one resource for each code, in the order of the codes.

    The resource is that of the first item with the code. Equal scopes under it, and equal metrics, become one; items
    keep their order.

    Args:
        batch: Any batch.
        codes: I32[n]: the group of each item.
    """
    if not batch.item_count:
        return batch
    scope_of_item = batch.ancestor("scopes")
    scopes = batch.table("scopes").rows
    scope = groups(
        attribute_identity(batch, "scopes"),
        *(batch.field(name, "scopes") for name in ("name", "version", "schema_url")),
    ).codes[scope_of_item]
    levels = [codes, scope]
    if batch.signal is Signal.METRICS:
        levels.append(_metric_codes(batch)[batch.ancestor("metrics")])
    order = np.lexsort(levels[::-1])
    items = batch.table().rows[order]
    item_tag = (_POINTS if batch.signal is Signal.METRICS else _ITEMS) << 3 | 2
    payload, starts, _ = encode_length_delimited(
        bytes([item_tag]), batch.wire, items["body"].copy(), (items["end"] - items["body"]).astype(np.int32)
    )
    starts = np.append(starts, len(payload))
    # Runs of items that agree in the first level, in the first two, and so on; the innermost runs hold the items.
    runs = _runs([level[order] for level in levels])
    contents = [payload[starts[first] : starts[last]] for first, last in runs[-1]]
    if batch.signal is Signal.METRICS:
        metrics = batch.ancestor("metrics")[order]
        contents = [
            _metric(batch, int(metrics[first]), points) for (first, _), points in zip(runs[-1], contents, strict=True)
        ]
    scope_rows, resource_rows = (
        scopes[scope_of_item[order]],
        batch.table("resources").rows[batch.ancestor("resources")[order]],
    )
    scope_messages = [
        _holder(_SCOPES, batch.wire, scope_rows[first], parts)
        for (first, _), parts in zip(runs[1], _gathered(runs[1], runs[-1], contents), strict=True)
    ]
    resource_messages = [
        _holder(_RESOURCES, batch.wire, resource_rows[first], parts)
        for (first, _), parts in zip(runs[0], _gathered(runs[0], runs[1], scope_messages), strict=True)
    ]
    return batch.with_wire(b"".join(resource_messages))


def _metric_codes(batch: Batch) -> Array:
    rows = batch.table("metrics").rows
    columns = [batch.field(name, "metrics") for name in ("name", "unit", "description")]
    return groups(*columns, rows["type"].copy(), rows["temporality"].copy(), rows["monotonic"].copy()).codes


def _runs(levels: list[Array]) -> list[_Runs]:
    """For each level, (first, one past the last) item of each run of items that agree in it and all levels above."""
    runs = []
    is_new = np.zeros(len(levels[0]), np.bool_)
    is_new[0] = True
    for level in levels:
        is_new = is_new.copy()
        is_new[1:] |= level[1:] != level[:-1]
        firsts = np.flatnonzero(is_new)
        runs.append(list(zip(firsts.tolist(), [*firsts[1:].tolist(), len(level)], strict=True)))
    return runs


def _gathered(outer: _Runs, inner: _Runs, contents: list[bytes]) -> list[list[bytes]]:
    """For each outer run, the contents of the inner runs that it consists of."""
    places = np.searchsorted([first for first, _ in inner], [first for first, _ in outer]).tolist()
    return [contents[low:high] for low, high in pairwise([*places, len(inner)])]


def _holder(number: int, wire: bytes, row: Array, contents: list[bytes]) -> bytes:
    """A message of a resource or scope: its inner message, what it holds, and the schema URL."""
    inner = wire[row["inner_start"] : row["inner_end"]] if row["inner_start"] >= 0 else b""
    url = b""
    if row["schema_url_len"] > 0:
        url = message_bytes(_SCHEMA_URL, wire[row["schema_url"] : row["schema_url"] + row["schema_url_len"]])
    return message_bytes(number, inner, *contents, url)


def _metric(batch: Batch, number: int, points: bytes) -> bytes:
    """A metric like the one with this number, with other points."""
    row, wire = batch.table("metrics").rows[number], batch.wire
    temporality = bytes((0x10, row["temporality"])) if row["temporality"] > 0 else b""
    monotonic = b"\x18\x01" if row["type"] == METRIC_SUM and row["monotonic"] else b""
    before, after = wire[row["body"] : row["data_start"]], wire[row["data_end"] : row["end"]]
    data = message_bytes(wire[row["data_start"]] >> 3, points, temporality, monotonic)
    return message_bytes(_ITEMS, before, data, after)
