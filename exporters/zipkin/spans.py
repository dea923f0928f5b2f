"""Traces as a JSON list of Zipkin's spans.

Source: the Collector's pkg/translator/zipkin/zipkinv2 (from_translator.go); OpenTelemetry specification, "OpenTelemetry
to Zipkin transformation"; Zipkin API v2.
"""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import orjson

from collector.model import KIND_BYTES, KIND_EMPTY, KIND_STRING, StringColumn, Traces, groups
from collector.model.arrays import Array, Mask, starts_of
from collector.model.runs import rank_in_run, run_ends, run_starts
from collector.otlp.semantics import STATUS_CODES
from exporters.zipkin.pieces import Pieces, json_text

__all__ = ["FIRST", "LAST", "Tags", "microseconds", "put_event", "put_link", "spans_json", "tags_of"]

_KINDS: Final = {2: b"SERVER", 3: b"CLIENT", 4: b"PRODUCER", 5: b"CONSUMER"}
_INTERNAL: Final = 1
_ERROR: Final = 2
_NAME_SOURCES: Final = ("service.name", "faas.name", "k8s.deployment.name", "process.executable.name")
_LOCAL: Final = ("net.host.ip", "net.host.port")
_REMOTE: Final = ("net.peer.ip", "net.peer.port", "service.peer.name", "peer.service")
_PORT_MAX: Final = 65535
# Places in the text of a span.
_HEAD, _PARENT, _KIND, _NAME, _TIME, _DURATION, _LOCAL_END, _REMOTE_END = range(8)
_ANNOTATIONS: Final = 1 << 20
_TAGS: Final = 1 << 40
_END: Final = 1 << 60
_VALUES: Final = 1 << 20  # within an annotation or tag: the attributes as JSON come here
FIRST: Final = 0
"""The place in front of what an annotation or tag says."""
LAST: Final = _VALUES * 2 + 1
"""The place behind it."""


def spans_json(batch: Traces, default_service_name: str) -> bytes:
    """The spans of the batch, all of which have ids, as JSON."""
    text = Pieces()
    count = batch.item_count
    spans = np.arange(count)
    tags = tags_of(batch, default_service_name)
    text.put(spans, _HEAD, 0, text.piece(b',{"traceId":"'))
    text.put(spans, _HEAD, 1, text.hexadecimals(batch.field("trace_id"), short=True))
    text.put(spans, _HEAD, 2, text.piece(b'","id":"'))
    text.put(spans, _HEAD, 3, text.hexadecimals(batch.field("span_id")))
    text.put(spans, _HEAD, 4, text.piece(b'"'))
    _put_optional(text, batch)
    for place, key, column in (
        (_LOCAL_END, b',"localEndpoint":', tags.local),
        (_REMOTE_END, b',"remoteEndpoint":', tags.remote),
    ):
        rows = np.flatnonzero(column.present)
        text.put(rows, place, 0, text.piece(key))
        text.put(rows, place, 1, text.pieces(column.distinct_bytes)[column.codes[rows]] if len(rows) else 0)
    _put_annotations(text, batch)
    _put_tags(text, batch, tags)
    text.put(spans, _END, 0, text.piece(b"}"))
    return b"[" + text.join()[1:] + b"]"


def _put_optional(text: Pieces, batch: Traces) -> None:
    """Parent, kind, name, time and duration, where they are set."""
    parents = batch.field("parent_span_id")
    rows = np.flatnonzero(parents)
    text.put(rows, _PARENT, 0, text.piece(b',"parentId":"'))
    text.put(rows, _PARENT, 1, text.hexadecimals(parents[rows]))
    text.put(rows, _PARENT, 2, text.piece(b'"'))
    kinds = batch.field("kind")
    for kind, name in _KINDS.items():
        text.put(np.flatnonzero(kinds == kind), _KIND, 0, text.piece(b',"kind":"%b"' % name))
    names: StringColumn = batch.field("name")
    rows = np.flatnonzero(names.present & ~names.equals(""))
    text.put(rows, _NAME, 0, text.piece(b',"name":'))
    encoded = text.pieces(json_text(name.lower()) for name in names.distinct)
    text.put(rows, _NAME, 1, encoded[names.codes[rows]])
    starts, ends = batch.field("start_time_unix_nano"), batch.field("end_time_unix_nano")
    rows = np.flatnonzero(starts)
    text.put(rows, _TIME, 0, text.piece(b',"timestamp":'))
    text.put(rows, _TIME, 1, text.decimals(microseconds(starts[rows])))
    rows = np.flatnonzero(ends > starts)
    text.put(rows, _DURATION, 0, text.piece(b',"duration":'))
    # Anything shorter than a microsecond takes one, because 0 means that the duration is not known.
    text.put(rows, _DURATION, 1, text.decimals(np.maximum(microseconds(ends[rows] - starts[rows]), 1)))


def _put_annotations(text: Pieces, batch: Traces) -> None:
    """Events: the name alone, or name, attributes as JSON and the number of dropped attributes."""
    events = batch.table("events")
    if not events.row_count:
        return
    owner = events.parent
    number = rank_in_run(run_starts(owner))
    place = _ANNOTATIONS + 1 + number
    first = number == 0
    text.put(owner[first], _ANNOTATIONS, 0, text.piece(b',"annotations":['))
    text.put(owner[~first], place[~first], 0, text.piece(b","))
    text.put(owner, place, 1, text.piece(b'{"timestamp":'))
    text.put(owner, place, 2, text.decimals(microseconds(batch.field("time_unix_nano", "events"))))
    text.put(owner, place, 3, text.piece(b',"value":"'))
    put_event(text, batch, owner, place)
    text.put(owner, place, LAST, text.piece(b'"}'))
    last = run_ends(owner)
    text.put(owner[last], place[last], LAST + 1, text.piece(b"]"))


def put_event(text: Pieces, batch: Traces, rows: Array, places: Array) -> None:
    """What an annotation says, as the content of a JSON string, for each event at a row and place."""
    names: StringColumn = batch.field("name", "events")
    named = names.present
    encoded = text.pieces(_inner(name) for name in names.distinct)
    text.put(rows[named], places[named], 4, encoded[names.codes[named]] if named.any() else 0)
    has_attributes = np.zeros(len(rows), np.bool_)
    has_attributes[batch.attributes("events").owner] = True
    rows, places = rows[has_attributes], places[has_attributes]
    text.put(rows, places, 5, text.piece(b"|"))
    _put_attributes(text, batch, "events", rows, places, np.flatnonzero(has_attributes))
    text.put(rows, places, _VALUES * 2, text.piece(b"|0"))


def _put_attributes(text: Pieces, batch: Traces, table: str, rows: Array, places: Array, owners: Array) -> None:
    """The attributes of some rows of a table as a JSON object inside a JSON string; ``owners`` are those rows."""
    attributes = batch.attributes(table)
    place_of = np.full(batch.table(table).row_count, -1, np.int64)
    row_of = place_of.copy()
    place_of[owners], row_of[owners] = places, rows
    text.put(rows, places, _VALUES, text.piece(b"{"))
    text.put(rows, places, _VALUES * 2 - 1, text.piece(b"}"))
    if not attributes.row_count:
        return
    keys = attributes.key
    sorted_keys = np.argsort(np.argsort(np.array(keys.distinct, object))) if keys.distinct_count else np.zeros(0, int)
    key_rank = sorted_keys[keys.codes]
    # By owner and key, as Go sorts maps; of a repeated key the last one counts.
    order = np.lexsort((np.arange(attributes.row_count), key_rank, attributes.owner))
    owner, rank = attributes.owner[order], key_rank[order]
    is_last = run_ends(owner) | run_ends(rank)
    order, owner = order[is_last], owner[is_last]
    number = rank_in_run(run_starts(owner))
    within = _VALUES + 1 + 3 * number
    target, place = row_of[owner], place_of[owner]
    later = number > 0
    text.put(target[later], place[later], within[later], text.piece(b","))
    encoded = text.pieces(_inner(json_text(key).decode() + ":") for key in keys.distinct)
    text.put(target, place, within + 1, encoded[keys.codes[order]])
    values = attributes.as_text()
    is_text = np.isin(attributes.kind, (KIND_STRING, KIND_BYTES))
    is_text |= (attributes.kind != KIND_EMPTY) & values.isin(("NaN", "Infinity", "-Infinity", "inf", "-inf", "nan"))
    found = groups(values, is_text)
    distinct = zip(values.take(found.first).to_list(), is_text[found.first].tolist(), strict=True)
    numbers = text.pieces(
        _inner(json_text(value or "").decode() if quoted else value or "null") for value, quoted in distinct
    )
    text.put(target, place, within + 2, numbers[found.codes[order]])


def _put_tags(text: Pieces, batch: Traces, tags: "Tags") -> None:
    """Tags, and behind them one tag for each link."""
    number = rank_in_run(run_starts(tags.span))
    place = _TAGS + 1 + number
    first = number == 0
    has_tags = np.zeros(batch.item_count, np.bool_)
    has_tags[tags.span] = True
    links = batch.table("links")
    owner = links.parent
    opened = has_tags.copy()
    opened[owner] = True
    text.put(np.flatnonzero(opened), _TAGS, 0, text.piece(b',"tags":{'))
    text.put(tags.span[~first], place[~first], 0, text.piece(b","))
    keys = text.pieces(json_text(key) + b":" for key in tags.keys)
    values = text.pieces(json_text(value) for value in tags.values)
    text.put(tags.span, place, 1, keys[tags.key] if len(tags.key) else 0)
    text.put(tags.span, place, 2, values[tags.value] if len(tags.value) else 0)
    if links.row_count:
        number = rank_in_run(run_starts(owner))
        place = _TAGS + (1 << 30) + number
        comma = has_tags[owner] | (number > 0)
        text.put(owner[comma], place[comma], 0, text.piece(b","))
        text.put(owner, place, 1, text.piece(b'"otlp.link.'))
        text.put(owner, place, 2, text.decimals(number))
        text.put(owner, place, 3, text.piece(b'":"'))
        put_link(text, batch, owner, place)
        text.put(owner, place, LAST, text.piece(b'"'))
    text.put(np.flatnonzero(opened), _END - 1, 0, text.piece(b"}"))


def put_link(text: Pieces, batch: Traces, rows: Array, places: Array) -> None:
    """What the tag of a link says, as the content of a JSON string, for each link at a row and place."""
    text.put(rows, places, 4, text.hexadecimals(batch.field("trace_id", "links")))
    text.put(rows, places, 5, text.piece(b"|"))
    text.put(rows, places, 6, text.hexadecimals(batch.field("span_id", "links")))
    text.put(rows, places, 7, text.piece(b"|"))
    states: StringColumn = batch.field("trace_state", "links")
    encoded = text.pieces(_inner(state) for state in states.distinct)
    stated = states.present
    text.put(rows[stated], places[stated], 8, encoded[states.codes[stated]] if stated.any() else 0)
    text.put(rows, places, 9, text.piece(b"|"))
    _put_attributes(text, batch, "links", rows, places, np.arange(len(rows)))
    text.put(rows, places, _VALUES * 2, text.piece(b"|0"))


@dataclass(slots=True)
class Tags:
    """The tags of all spans, sorted by span, each key once; and the end points, which some tags become."""

    span: Array
    key: Array
    value: Array
    keys: list[str]
    values: list[str]
    local: StringColumn
    remote: StringColumn


class _Entries:
    """Tags while they are collected; the last one of a span and key counts."""

    def __init__(self) -> None:
        self.keys: dict[str, int] = {}
        self.values: list[str] = []
        self._parts: list[tuple[Array, Array, Array]] = []

    def key(self, text: str) -> int:
        return self.keys.setdefault(text, len(self.keys))

    def add_column(self, spans: Array, key: str, values: StringColumn) -> None:
        """One tag of some spans, where the column has a value."""
        present = values.present
        first = len(self.values)
        self.values.extend(values.distinct)
        self._parts.append(
            (spans[present], np.full(int(present.sum()), self.key(key), np.int64), first + values.codes[present])
        )

    def add_constant(self, spans: Array, key: str, value: str) -> None:
        """One tag of some spans."""
        self.add_column(spans, key, StringColumn.constant(value, len(spans)))

    def add_attributes(self, batch: Traces, table: str, owner_of_span: Array) -> None:
        """The attributes of a table, for the spans that have its rows above them."""
        attributes = batch.attributes(table)
        if not attributes.row_count:
            return
        codes = np.array([self.key(key) for key in attributes.key.distinct], np.int64)
        texts = attributes.as_text()
        first = len(self.values)
        self.values.extend(texts.distinct)
        counts = np.bincount(attributes.owner, minlength=batch.table(table).row_count)
        begins = starts_of(counts)
        order = np.argsort(attributes.owner, kind="stable")
        per_span = counts[owner_of_span]
        spans = np.repeat(np.arange(len(owner_of_span)), per_span)
        within = np.arange(len(spans)) - np.repeat(starts_of(per_span), per_span)
        rows = order[np.repeat(begins[owner_of_span], per_span) + within]
        self._parts.append((spans, codes[attributes.key.codes[rows]], first + texts.codes[rows]))

    def merged(self) -> tuple[Array, Array, Array]:
        """(span, key, value) sorted by span; each key of a span once."""
        if not self._parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.int64)
        spans, keys, values = (np.concatenate([part[column] for part in self._parts]) for column in range(3))
        order = np.lexsort((np.arange(len(spans)), keys, spans))
        spans, keys, values = spans[order], keys[order], values[order]
        is_last = run_ends(spans) | run_ends(keys)
        return spans[is_last], keys[is_last], values[is_last]


def tags_of(batch: Traces, default_service_name: str) -> Tags:
    """The tags and the end points of all spans."""
    entries = _Entries()
    spans = np.arange(batch.item_count)
    resource, scope = batch.ancestor("resources"), batch.ancestor("scopes")
    entries.add_attributes(batch, "resources", resource)
    services, sources = _services(batch, default_service_name)
    entries.add_column(spans, "otlp.service.name.source", sources.take(resource))
    entries.add_attributes(batch, "scopes", scope)
    for field, tag in (("name", "otel.library.name"), ("version", "otel.library.version")):
        column: StringColumn = batch.field(field, "scopes").take(scope)
        entries.add_column(spans, tag, column.only(~column.equals("")))
    entries.add_attributes(batch, "spans", spans)
    # Zipkin servers know the older names of these.
    status, older = (batch.attribute(name, inherit=True) for name in ("http.response.status_code", "http.status_code"))
    entries.add_column(spans, "http.status_code", status.as_text().only(~older.present))
    cloud = batch.attribute("cloud.resource_id", "resources").as_text().take(resource)
    entries.add_column(spans, "faas.id", cloud.only(~batch.attribute("faas.id", inherit=True).present))
    states: StringColumn = batch.field("trace_state")
    entries.add_column(spans, "w3c.tracestate", states.only(~states.equals("")))
    entries.add_constant(np.flatnonzero(batch.field("kind") == _INTERNAL), "span.kind", "internal")
    codes = batch.field("status_code")
    entries.add_constant(np.flatnonzero(codes == _ERROR), "error", "true")
    for code, name in enumerate(STATUS_CODES):
        if code:
            entries.add_constant(np.flatnonzero(codes == code), "otel.status_code", f"STATUS_CODE_{name}")
    messages: StringColumn = batch.field("status_message")
    entries.add_column(spans, "otel.status_description", messages.only(~messages.equals("") & (codes != 0)))
    span, key, value = entries.merged()
    local, remote, is_used = _endpoints(entries, span, key, value, services.take(resource), batch.item_count)
    # Zipkin takes any span with the tag "error" for failed.
    is_used |= (key == entries.keys.get("error", -1)) & (codes[span] != _ERROR)
    # What became the name of the service is not a tag as well.
    own_name = {entries.keys.get(source, -1): source for source in _NAME_SOURCES}
    for number, source in own_name.items():
        from_source = sources.equals(source) if source != "service.name" else ~sources.present
        inherited = ~batch.attribute(source).present & ~batch.attribute(source, "scopes").take(scope).present
        is_used |= (key == number) & (from_source[resource] & inherited)[span]
    is_used |= (key == entries.keys.get("cloud.resource_id", -1)) & (
        cloud.present
        & ~batch.attribute("cloud.resource_id").present
        & ~batch.attribute("cloud.resource_id", "scopes").take(scope).present
    )[span]
    kept = ~is_used
    return Tags(span[kept], key[kept], value[kept], list(entries.keys), entries.values, local, remote)


def _services(batch: Traces, default: str) -> tuple[StringColumn, StringColumn]:
    """The name of each resource's service, and the attribute it comes from, unless that is service.name."""
    names, sources = [], []
    columns = {source: batch.attribute(source, "resources").as_text().to_list() for source in _NAME_SOURCES}
    for resource in range(batch.table("resources").row_count):
        source = next((source for source in _NAME_SOURCES if columns[source][resource] is not None), None)
        names.append(default if source is None else columns[source][resource])
        sources.append(None if source in (None, "service.name") else source)
    return StringColumn.of(names), StringColumn.of(sources)


def _endpoints(
    entries: _Entries, span: Array, key: Array, value: Array, services: StringColumn, count: int
) -> tuple[StringColumn, StringColumn, Mask]:
    """The local and the remote end point of each span as JSON, and which tags they are made of."""
    is_used = np.zeros(len(span), np.bool_)

    def column(name: str) -> Array:
        """The value of a tag of each span, -1 where it is missing."""
        codes = np.full(count, -1, np.int64)
        rows = key == entries.keys.get(name, -1)
        codes[span[rows]] = value[rows]
        is_used[rows] = True
        return codes

    ip, port = (column(name) for name in _LOCAL)
    local = _rendered(entries, services.codes.astype(np.int64), services.distinct, ip, port)
    ip, port, peer, older_peer = (column(name) for name in _REMOTE)
    if (peer >= 0).any():
        # The older name stays a tag where the newer one is used.
        is_used &= ~((key == entries.keys.get("peer.service", -1)) & (peer[span] >= 0))
    remote = _rendered(entries, np.where(peer >= 0, peer, older_peer), entries.values, ip, port)
    return local, remote, is_used


def _rendered(entries: _Entries, name: Array, names: Sequence[str], ip: Array, port: Array) -> StringColumn:
    """One JSON object for each distinct name, address and port."""
    found = groups(name, ip, port)
    texts: list[str | None] = []
    for row in found.first.tolist():
        endpoint: dict[str, object] = {}
        if name[row] >= 0 and names[name[row]]:
            endpoint["serviceName"] = names[name[row]]
        try:
            address = ipaddress.ip_address(entries.values[ip[row]]) if ip[row] >= 0 else None
        except ValueError:
            address = None
        if address is not None:
            endpoint[f"ipv{address.version}"] = str(address)
        number = entries.values[port[row]] if port[row] >= 0 else ""
        if endpoint and number.isascii() and number.isdecimal() and 0 < int(number[:6]) <= _PORT_MAX:
            endpoint["port"] = int(number)
        texts.append(orjson.dumps(endpoint).decode() if endpoint else None)
    return StringColumn.of(texts).take(found.codes)


def _inner(text: str) -> bytes:
    """The text inside a JSON string: escaped, without quotes."""
    return json_text(text)[1:-1]


def microseconds(nanoseconds: Array) -> Array:
    """Rounded to the nearest microsecond."""
    return (nanoseconds // np.uint64(1000)).astype(np.int64) + (nanoseconds % np.uint64(1000) >= 500)
