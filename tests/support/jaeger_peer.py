"""Writes Jaeger batches in all of its encodings, and translates them slowly: the reference for the receiver.

A batch is ``{"service": str, "tags": [tag], "spans": [span]}``; a tag is ``(key, value)``, whose value's type is that of
the tag; ``("unknown", n)`` is a tag of the unknown type n. A span is a dictionary with the keys of ``SPAN``.

Source: Apache Thrift's protocol specifications; jaeger-idl thrift/jaeger.thrift and proto/api_v2/model.proto.
"""

import struct
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

BOOL, DOUBLE, I16, I32, I64, TEXT, STRUCT, LIST = 2, 4, 6, 8, 10, 11, 12, 15
_COMPACT = {BOOL: 1, I16: 4, DOUBLE: 7, I32: 5, I64: 6, TEXT: 8, STRUCT: 12, LIST: 9}
SPAN: dict[str, Any] = {
    "trace_id": 1 << 64 | 2,
    "span_id": 3,
    "parent_id": 0,
    "name": "op",
    "references": [],  # (is_child_of, trace id, span id)
    "flags": 0,
    "start_us": 1_700_000_000_000_000,
    "duration_us": 5,
    "tags": [],
    "logs": [],  # (time_us, [tag])
    "process": None,  # protobuf only: (service, [tag])
}


def _signed(value: int) -> int:
    return (value & (1 << 64) - 1) - ((value & 1 << 63) << 1)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def _zigzag(value: int) -> bytes:
    return varint((value << 1 ^ value >> 63) & (1 << 64) - 1)


# A Thrift value is (type, content): a struct's content is {field id: value}, a list's is [value].


def thrift(value: tuple[int, Any], *, compact: bool) -> bytes:
    """The encoded value."""
    kind, content = value
    if kind == BOOL:
        return bytes([1 if content else 2 if compact else 0])
    if kind == DOUBLE:
        return struct.pack("<d" if compact else ">d", content)
    if kind == TEXT:
        data = content if isinstance(content, bytes) else content.encode()
        return (varint(len(data)) if compact else struct.pack(">i", len(data))) + data
    if kind == I16:
        return _zigzag(content) if compact else struct.pack(">h", content)
    if kind in {I32, I64}:
        return _zigzag(content) if compact else struct.pack(">i" if kind == I32 else ">q", content)
    if kind == LIST:
        items = b"".join(thrift(item, compact=compact) for item in content)
        inner = content[0][0] if content else STRUCT
        if not compact:
            return struct.pack(">bi", inner, len(content)) + items
        head = bytes([len(content) << 4 | _COMPACT[inner]]) if len(content) < 15 else bytes([0xF0 | _COMPACT[inner]])
        return head + (varint(len(content)) if len(content) >= 15 else b"") + items
    out, last = b"", 0
    for number, field in content.items():
        if not compact:
            out += struct.pack(">bh", field[0], number) + thrift(field, compact=compact)
            continue
        kind = (1 if field[1] else 2) if field[0] == BOOL else _COMPACT[field[0]]
        delta = number - last
        out += bytes([delta << 4 | kind]) if 0 < delta < 16 else bytes([kind]) + _zigzag(number)
        out += b"" if field[0] == BOOL else thrift(field, compact=compact)
        last = number
    return out + b"\0"


def _thrift_tag(tag: tuple[str, Any]) -> tuple[int, Any]:
    key, value = tag
    fields: dict[int, Any] = {1: (TEXT, key)}
    if isinstance(value, bool):
        fields |= {2: (I32, 2), 5: (BOOL, value)}
    elif isinstance(value, str):
        fields |= {2: (I32, 0), 3: (TEXT, value)}
    elif isinstance(value, float):
        fields |= {2: (I32, 1), 4: (DOUBLE, value)}
    elif isinstance(value, int):
        fields |= {2: (I32, 3), 6: (I64, value)}
    elif isinstance(value, bytes):
        fields |= {2: (I32, 4), 7: (TEXT, value)}
    else:
        fields |= {2: (I32, value[1])}
    return (STRUCT, fields)


def _thrift_span(span: dict[str, Any]) -> tuple[int, Any]:
    span = SPAN | span
    references = [
        (
            STRUCT,
            {
                1: (I32, 0 if is_child else 1),
                2: (I64, _signed(trace)),
                3: (I64, _signed(trace >> 64)),
                4: (I64, _signed(at)),
            },
        )
        for is_child, trace, at in span["references"]
    ]
    logs = [(STRUCT, {1: (I64, at), 2: (LIST, [_thrift_tag(tag) for tag in fields])}) for at, fields in span["logs"]]
    return (
        STRUCT,
        {
            1: (I64, _signed(span["trace_id"])),
            2: (I64, _signed(span["trace_id"] >> 64)),
            3: (I64, _signed(span["span_id"])),
            4: (I64, _signed(span["parent_id"])),
            5: (TEXT, span["name"]),
            6: (LIST, references),
            7: (I32, span["flags"]),
            8: (I64, span["start_us"]),
            9: (I64, span["duration_us"]),
            10: (LIST, [_thrift_tag(tag) for tag in span["tags"]]),
            11: (LIST, logs),
        },
    )


def thrift_batch(batch: dict[str, Any], *, compact: bool = False) -> bytes:
    """The batch as Thrift, as it is sent over HTTP."""
    return thrift(_batch(batch), compact=compact)


def _batch(batch: dict[str, Any]) -> tuple[int, Any]:
    process = (STRUCT, {1: (TEXT, batch["service"]), 2: (LIST, [_thrift_tag(tag) for tag in batch["tags"]])})
    return (STRUCT, {1: process, 2: (LIST, [_thrift_span(span) for span in batch["spans"]])})


def thrift_packet(batch: dict[str, Any], *, compact: bool, method: str = "emitBatch") -> bytes:
    """The batch as a packet to the agent."""
    head = (
        b"\x82" + bytes([4 << 5 | 1]) + varint(7) + varint(len(method)) + method.encode()
        if compact
        else b"\x80\x01\0\4" + struct.pack(">i", len(method)) + method.encode() + struct.pack(">i", 7)
    )
    return head + thrift((STRUCT, {1: _batch(batch)}), compact=compact)


def _slice(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _number(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value & (1 << 64) - 1)


def _proto_tag(tag: tuple[str, Any]) -> bytes:
    key, value = tag
    out = _slice(1, key.encode())
    if isinstance(value, bool):
        return out + _number(2, 1) + _number(4, value)
    if isinstance(value, str):
        return out + _slice(3, value.encode())
    if isinstance(value, float):
        return out + _number(2, 3) + varint(6 << 3 | 1) + struct.pack("<d", value)
    if isinstance(value, int):
        return out + _number(2, 2) + _number(5, value)
    if isinstance(value, bytes):
        return out + _number(2, 4) + _slice(7, value)
    return out + _number(2, value[1])


def _time(us: int) -> bytes:
    return _number(1, us // 1_000_000) + _number(2, us % 1_000_000 * 1000)


def _process(service: str, tags: list[Any]) -> bytes:
    return _slice(1, service.encode()) + b"".join(_slice(2, _proto_tag(tag)) for tag in tags)


def _proto_span(span: dict[str, Any]) -> bytes:
    span = SPAN | span
    references = list(span["references"])
    if span["parent_id"]:
        references.insert(0, (True, span["trace_id"], span["parent_id"]))
    out = _slice(1, span["trace_id"].to_bytes(16, "big")) + _slice(2, span["span_id"].to_bytes(8, "big"))
    out += _slice(3, span["name"].encode())
    for is_child, trace, at in references:
        out += _slice(
            4, _slice(1, trace.to_bytes(16, "big")) + _slice(2, at.to_bytes(8, "big")) + _number(3, 1 - is_child)
        )
    out += _number(5, span["flags"]) + _slice(6, _time(span["start_us"])) + _slice(7, _time(span["duration_us"]))
    out += b"".join(_slice(8, _proto_tag(tag)) for tag in span["tags"])
    for at, fields in span["logs"]:
        out += _slice(9, _slice(1, _time(at)) + b"".join(_slice(2, _proto_tag(tag)) for tag in fields))
    if span["process"] is not None:
        out += _slice(10, _process(*span["process"]))
    return out


def post_spans(batch: dict[str, Any]) -> bytes:
    """The batch as a PostSpansRequest."""
    spans = b"".join(_slice(1, _proto_span(span)) for span in batch["spans"])
    return _slice(1, spans + _slice(2, _process(batch["service"], batch["tags"])))


# The reference.


def _set(attributes: Any, tags: dict[str, Any], *, is_thrift: bool) -> None:
    for key, value in tags.items():
        pair = attributes.add(key=key)
        if isinstance(value, tuple):
            kind = "<UNSET>" if is_thrift else str(value[1])
            pair.value.string_value = f'<Unknown Jaeger TagType "{kind}">'
        else:
            name = {bool: "bool", str: "string", int: "int", float: "double", bytes: "bytes"}[type(value)]
            setattr(pair.value, f"{name}_value", value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _status(tags: dict[str, Any], kind: int) -> Status:
    status = Status()
    decided = tags.get("error") is True
    if decided:
        del tags["error"]
        status.code = Status.STATUS_CODE_ERROR
        status.message = _text(
            tags.pop("otel.status_description", None)
            if "otel.status_description" in tags
            else tags.get("http.status_message")
        )
    if "otel.status_code" in tags:
        code = _text(tags.pop("otel.status_code")).upper()
        if not decided:
            status.code = {"OK": Status.STATUS_CODE_OK, "ERROR": Status.STATUS_CODE_ERROR}.get(code, 0)
            status.message = _text(tags.pop("otel.status_description", None))
    elif not decided and "http.status_code" in tags:
        code = tags["http.status_code"]
        try:
            number = int(code) if isinstance(code, str) and code.isascii() and code.lstrip("+-").isdigit() else code
        except ValueError:
            return status
        if isinstance(number, bool) or not isinstance(number, int) or not -(1 << 63) <= number < 1 << 63:
            return status
        is_error = not (100 <= number < 399 or (400 <= number < 500 and kind == Span.SPAN_KIND_SERVER))
        if is_error:
            status.code = Status.STATUS_CODE_ERROR
            status.message = _text(tags.get("http.status_message"))
    return status


def _resource(resource: Any, service: str, tags: list[Any], *, is_thrift: bool) -> None:
    if not is_thrift and service == "OTLPResourceNoServiceName":
        return
    found = ({"service.name": service} if service else {}) | dict(tags)
    if "hostname" in found and "host.name" not in found:
        found["host.name"] = found.pop("hostname")
    if "jaeger.version" in found and "opencensus.exporterversion" not in found:
        found["opencensus.exporterversion"] = "Jaeger-" + _text(found.pop("jaeger.version"))
    _set(resource.attributes, found, is_thrift=is_thrift)


def _without_first(tags: list[Any], key: str) -> tuple[list[Any], Any]:
    for index, (name, value) in enumerate(tags):
        if name == key:
            return tags[:index] + tags[index + 1 :], (_text(value),)
    return tags, None


def reference(batch: dict[str, Any], *, is_thrift: bool) -> ExportTraceServiceRequest:
    """The OTLP request that the batch corresponds to."""
    request = ExportTraceServiceRequest()
    groups: dict[Any, Any] = {}
    for given in batch["spans"]:
        span = SPAN | given
        process = (
            span["process"] if span["process"] is not None and not is_thrift else (batch["service"], batch["tags"])
        )
        if repr(process) not in groups:
            groups[repr(process)] = request.resource_spans.add(), {}
            _resource(groups[repr(process)][0].resource, *process, is_thrift=is_thrift)
        resource_spans, scopes = groups[repr(process)]
        tags, name, version = span["tags"], None, None
        if not is_thrift:
            tags, name = _without_first(tags, "otel.scope.name")
            if name is not None:
                tags, version = _without_first(tags, "otel.scope.version")
        scope = ((name or ("",))[0], (version or ("",))[0])
        if scope not in scopes:
            scopes[scope] = resource_spans.scope_spans.add()
            scopes[scope].scope.name, scopes[scope].scope.version = scope
            if scope == ("", ""):
                scopes[scope].ClearField("scope")
        _span(scopes[scope].spans.add(), span, dict(tags), is_thrift=is_thrift)
    return request


def _span(out: Any, span: dict[str, Any], tags: dict[str, Any], *, is_thrift: bool) -> None:
    out.trace_id = span["trace_id"].to_bytes(16, "big") if span["trace_id"] else b""
    out.span_id = span["span_id"].to_bytes(8, "big") if span["span_id"] else b""
    out.name = span["name"]
    out.flags = span["flags"] & 1
    references = list(span["references"])
    if span["parent_id"] and not is_thrift:
        references.insert(0, (True, span["trace_id"], span["parent_id"]))
    same = [found for found in references if found[1] == span["trace_id"]]
    parents = [found for found in same if found[0]] or same
    parent = span["parent_id"] if is_thrift and span["parent_id"] else parents[0][2] if parents else 0
    out.parent_span_id = parent.to_bytes(8, "big") if parent else b""
    kinds = {"client": 3, "server": 2, "producer": 4, "consumer": 5, "internal": 1}
    out.kind = kinds.get(_text(tags.pop("span.kind", None)), 0)
    out.start_time_unix_nano = span["start_us"] * 1000
    out.end_time_unix_nano = (span["start_us"] + span["duration_us"]) * 1000
    status = _status(tags, out.kind)
    if status != Status():
        out.status.CopyFrom(status)
    if not is_thrift:
        out.trace_state = _text(tags.pop("w3c.tracestate", None))
    _set(out.attributes, tags, is_thrift=is_thrift)
    for at, fields in span["logs"]:
        event = out.events.add(time_unix_nano=at * 1000)
        found = dict(fields)
        event.name = _text(found.pop("event", None))
        _set(event.attributes, found, is_thrift=is_thrift)
    for is_child, trace, at in references:
        if is_child and at == parent:
            continue
        link = out.links.add(
            trace_id=trace.to_bytes(16, "big") if trace else b"", span_id=at.to_bytes(8, "big") if at else b""
        )
        _set(
            link.attributes,
            {"opentracing.ref_type": "child_of" if is_child else "follows_from"},
            is_thrift=is_thrift,
        )


def comparable(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """The request with attributes sorted by key: their order has no meaning."""

    def sort(holder: Any) -> None:
        pairs = sorted(holder.attributes, key=lambda pair: pair.key)
        del holder.attributes[:]
        holder.attributes.extend(pairs)

    for resource_spans in request.resource_spans:
        sort(resource_spans.resource)
        if not resource_spans.resource.attributes:
            resource_spans.ClearField("resource")
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                for holder in (span, *span.events, *span.links):
                    sort(holder)
    return request
