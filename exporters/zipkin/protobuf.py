"""Traces as a protobuf list of Zipkin's spans: the same content as in ``spans``.

Source: zipkin-api zipkin.proto (ListOfSpans, Span, Endpoint, Annotation); zipkin-go proto/zipkin_proto3.
"""

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import orjson

from collector.model import StringColumn, Traces
from collector.model.arrays import Array
from collector.model.builders.fields import fixed64_field, grouped_by_owner, raw_field, texts_field
from collector.model.runs import rank_in_run, run_starts
from collector.wire.encode import ID8, ID16, NUMBER, MessageField, encode_rows
from collector.wire.protobuf import LENGTH_DELIMITED, VARINT, field, field_tag, varint
from exporters.zipkin.pieces import Pieces
from exporters.zipkin.spans import FIRST, LAST, microseconds, put_event, put_link, tags_of

__all__ = ["spans_protobuf"]

_KINDS: Final = np.array([0, 0, 2, 1, 3, 4], np.uint64)
"""Zipkin's number of each kind of OTLP."""


def spans_protobuf(batch: Traces, default_service_name: str) -> bytes:
    """The spans of the batch, all of which have ids, as protobuf."""
    count = batch.item_count
    tags = tags_of(batch, default_service_name)
    starts, ends = batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano")
    durations = np.where(ends > starts, np.maximum(microseconds(ends - np.minimum(starts, ends)), 1), 0)
    kinds = batch.field("kind")
    names: StringColumn = batch.field("name").map(str.lower)
    fields = [
        MessageField(ID16, 1, batch.field("trace_id")),
        MessageField(ID8, 2, batch.field("parent_span_id")),
        MessageField(ID8, 3, batch.field("span_id")),
        MessageField(NUMBER, 4, _KINDS[np.where((kinds >= 0) & (kinds < len(_KINDS)), kinds, 0)]),
        texts_field(5, names, count),
        fixed64_field(6, microseconds(starts), count, "start times"),
        MessageField(NUMBER, 7, durations.astype(np.uint64)),
        _endpoints_field(8, tags.local),
        _endpoints_field(9, tags.remote),
        _annotations_field(batch),
        _tags_field(batch, tags.span, StringColumn.from_codes(tags.key, tags.keys), tags.values, tags.value),
    ]
    encoded: bytes = encode_rows(1, count, fields).blob
    return encoded


def _annotations_field(batch: Traces) -> MessageField | None:
    events = batch.table("events")
    if not events.row_count:
        return None
    values = StringColumn.of(_texts(batch, events.row_count, put_event))
    times = microseconds(batch.field("time_unix_nano", "events"))
    fields = [fixed64_field(1, times, events.row_count, "times"), texts_field(2, values, events.row_count)]
    encoded = encode_rows(10, events.row_count, fields)
    return raw_field(grouped_by_owner(encoded, events.parent, batch.item_count, "annotations"))


def _tags_field(
    batch: Traces, span: Array, keys: StringColumn, values: Sequence[str], value: Array
) -> MessageField | None:
    """Tags, and behind them one tag for each link."""
    links = batch.table("links")
    owner = links.parent
    if not len(span) and not links.row_count:
        return None
    count = len(span) + links.row_count
    link_keys = StringColumn.of([f"otlp.link.{number}" for number in rank_in_run(run_starts(owner)).tolist()])
    link_values = _texts(batch, links.row_count, put_link)
    key_codes = np.concatenate([keys.codes, link_keys.codes + keys.distinct_count])
    value_codes = np.concatenate([value, len(values) + np.arange(links.row_count)])
    fields = [
        texts_field(1, StringColumn.from_codes(key_codes, [*keys.distinct, *link_keys.distinct]), count),
        texts_field(2, StringColumn.from_codes(value_codes, [*values, *link_values]), count),
    ]
    owners = np.concatenate([span, owner])
    return raw_field(grouped_by_owner(encode_rows(11, count, fields), owners, batch.item_count, "tags"))


def _texts(batch: Traces, count: int, put: Callable[[Pieces, Traces, Array, Array], None]) -> list[str]:
    """The text that ``put`` writes, as the content of a JSON string, for each of the rows."""
    if not count:
        return []
    text = Pieces()
    rows = np.arange(count)
    places = np.zeros(count, np.int64)
    text.put(rows, places, FIRST, text.piece(b',"'))
    put(text, batch, rows, places)
    text.put(rows, places, LAST, text.piece(b'"'))
    found: list[str] = orjson.loads(b"[" + text.join()[1:] + b"]")
    return found


def _endpoints_field(number: int, endpoints: StringColumn) -> MessageField:
    """End points, each distinct one encoded once; the kernel writes them like texts."""
    encoded = [_endpoint(text) for text in endpoints.distinct]
    made = texts_field(number, StringColumn.from_codes(endpoints.codes, encoded), len(endpoints))
    assert made is not None
    return made


def _endpoint(text: str) -> bytes:
    """An Endpoint from its JSON."""
    found = orjson.loads(text)
    parts = [field(field_tag(1, LENGTH_DELIMITED), found["serviceName"].encode())] if "serviceName" in found else []
    for number, key in ((2, "ipv4"), (3, "ipv6")):
        if key in found:
            parts.append(field(field_tag(number, LENGTH_DELIMITED), ipaddress.ip_address(found[key]).packed))
    if "port" in found:
        parts.append(field_tag(4, VARINT) + varint(found["port"]))
    return b"".join(parts)
