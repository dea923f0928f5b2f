"""Spans become what a slow translation, span by span, makes of them."""

import base64
import ipaddress
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Traces
from collector.testing import traces
from collector.wire.protobuf import read_varint
from exporters.zipkin.protobuf import spans_protobuf
from exporters.zipkin.spans import spans_json

KINDS = {2: "SERVER", 3: "CLIENT", 4: "PRODUCER", 5: "CONSUMER"}
SOURCES = ("service.name", "faas.name", "k8s.deployment.name", "process.executable.name")


def plain(value):
    """An AnyValue as JSON has it."""
    match value.WhichOneof("value"):
        case "array_value":
            return [plain(item) for item in value.array_value.values]
        case "kvlist_value":
            return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return None
        case kind:
            return getattr(value, kind)


def text(value):
    """An AnyValue as a tag has it."""
    found = plain(value)
    if isinstance(found, str):
        return found
    if found is None:
        return ""
    if isinstance(found, float):
        return str(int(found)) if found.is_integer() and abs(found) < 1e15 else repr(found)
    return json.dumps(found, separators=(",", ":"), ensure_ascii=False)


def attributes(pairs):
    return json.dumps(dict(sorted((pair.key, plain(pair.value)) for pair in pairs)))


def endpoint(name, ip, port):
    found = {"serviceName": name} if name else {}
    try:
        address = ipaddress.ip_address(ip) if ip is not None else None
    except ValueError:
        address = None
    if address:
        found[f"ipv{address.version}"] = str(address)
    if found and port and port.isdecimal() and 0 < int(port) < 65536:
        found["port"] = int(port)
    return found


def slow(wire, default):
    """The translation, span by span."""
    out = []
    for resource in ExportTraceServiceRequest.FromString(wire).resource_spans:
        base = {pair.key: text(pair.value) for pair in resource.resource.attributes}
        source = next((source for source in SOURCES if source in base), None)
        name = base.pop(source) if source else default
        if source not in (None, "service.name"):
            base["otlp.service.name.source"] = source
        if "cloud.resource_id" in base:
            base.setdefault("faas.id", base.pop("cloud.resource_id"))
        for scope in resource.scope_spans:
            scoped = base | {pair.key: text(pair.value) for pair in scope.scope.attributes}
            for key, value in (("name", scope.scope.name), ("version", scope.scope.version)):
                if value:
                    scoped[f"otel.library.{key}"] = value
            out += [slow_span(span, dict(scoped), name) for span in scope.spans]
    return out


def slow_span(span, tags, service):
    tags |= {pair.key: text(pair.value) for pair in span.attributes}
    if "http.response.status_code" in tags:
        tags.setdefault("http.status_code", tags["http.response.status_code"])
    trace_id = span.trace_id.hex()
    found = {"traceId": trace_id[16:] if trace_id.startswith("0" * 16) else trace_id, "id": span.span_id.hex()}
    if any(span.parent_span_id):
        found["parentId"] = span.parent_span_id.hex()
    if span.kind in KINDS:
        found["kind"] = KINDS[span.kind]
    if span.name:
        found["name"] = span.name.lower()
    if span.start_time_unix_nano:
        found["timestamp"] = (span.start_time_unix_nano + 500) // 1000
    if span.end_time_unix_nano > span.start_time_unix_nano:
        found["duration"] = max(1, (span.end_time_unix_nano - span.start_time_unix_nano + 500) // 1000)
    if span.trace_state:
        tags["w3c.tracestate"] = span.trace_state
    if span.kind == 1:
        tags["span.kind"] = "internal"
    if local := endpoint(service, tags.pop("net.host.ip", None), tags.pop("net.host.port", None)):
        found["localEndpoint"] = local
    peer = tags.pop("service.peer.name") if "service.peer.name" in tags else tags.pop("peer.service", "")
    if remote := endpoint(peer, tags.pop("net.peer.ip", None), tags.pop("net.peer.port", None)):
        found["remoteEndpoint"] = remote
    tags.pop("error", None)
    if span.status.code == 2:
        tags["error"] = "true"
    if span.status.code:
        tags["otel.status_code"] = ("", "STATUS_CODE_OK", "STATUS_CODE_ERROR")[span.status.code]
        if span.status.message:
            tags["otel.status_description"] = span.status.message
    for number, link in enumerate(span.links):
        parts = [link.trace_id.hex(), link.span_id.hex(), link.trace_state]
        tags[f"otlp.link.{number}"] = (parts, json.loads(attributes(link.attributes)))
    if tags:
        found["tags"] = tags
    if span.events:
        found["annotations"] = [
            {
                "timestamp": (event.time_unix_nano + 500) // 1000,
                "value": (event.name, json.loads(attributes(event.attributes))) if event.attributes else event.name,
            }
            for event in span.events
        ]
    return found


def parsed(wire, default="none"):
    """What the exporter sends, with the JSON inside of texts parsed."""
    found = json.loads(spans_json(Traces.from_wire(wire), default))
    for span in found:
        for annotation in span.get("annotations", ()):
            name, bar, rest = annotation["value"].partition("|{")
            if bar:
                assert rest.endswith("}|0")
                annotation["value"] = (name, json.loads("{" + rest.removesuffix("|0")))
        for key, value in span.get("tags", {}).items():
            if key.startswith("otlp.link."):
                *parts, rest = value.split("|", 3)
                assert rest.endswith("|0")
                span["tags"][key] = (parts, json.loads(rest.removesuffix("|0")))
    return found


def from_protobuf(wire, default="none"):
    """The protobuf form as the JSON form has it."""
    number = ("", "CLIENT", "SERVER", "PRODUCER", "CONSUMER")
    out = []
    for tag, content in fields(spans_protobuf(Traces.from_wire(wire), default)):
        assert tag == 1
        span = {"tags": {}, "annotations": []}
        for name, value in fields(content):
            match name:
                case 1:
                    span["traceId"] = value.hex()[16:] if value.startswith(bytes(8)) else value.hex()
                case 2 | 3:
                    span[{2: "parentId", 3: "id"}[name]] = value.hex()
                case 4:
                    span["kind"] = number[value]
                case 5:
                    span["name"] = value.decode()
                case 6:
                    span["timestamp"] = int.from_bytes(value, "little")
                case 7:
                    span["duration"] = value
                case 8 | 9:
                    span[{8: "localEndpoint", 9: "remoteEndpoint"}[name]] = endpoint_of(value)
                case 10:
                    found = dict(fields(value))
                    time = int.from_bytes(found.get(1, b""), "little")
                    span["annotations"].append({"timestamp": time, "value": found.get(2, b"").decode()})
                case 11:
                    found = dict(fields(value))
                    span["tags"][found.get(1, b"").decode()] = found.get(2, b"").decode()
        out.append({key: value for key, value in span.items() if value or key not in {"tags", "annotations"}})
    return out


def without_zeros(spans):
    """Protobuf does not write a time of 0."""
    return [{key: value for key, value in span.items() if value != 0} for span in spans]


def endpoint_of(content):
    found = dict(fields(content))
    made = {"serviceName": found[1].decode()} if 1 in found else {}
    for number, key in ((2, "ipv4"), (3, "ipv6")):
        if number in found:
            made[key] = str(ipaddress.ip_address(found[number]))
    return made | ({"port": found[4]} if 4 in found else {})


def fields(message):
    """(number, int or bytes) of each field."""
    at = 0
    while at < len(message):
        tag, at = read_varint(message, at)
        if tag & 7 == 0:
            value, at = read_varint(message, at)
        else:
            length = 8
            if tag & 7 == 2:
                length, at = read_varint(message, at)
            else:
                assert tag & 7 == 1
            value, at = message[at : at + length], at + length
        yield tag >> 3, value


def test_generated_traces():
    """A few hundred spans of several services, with events and links."""
    wire = traces(spans=400, services=3).wire
    assert parsed(wire) == slow(wire, "none")
    assert from_protobuf(wire) == without_zeros(json.loads(spans_json(Traces.from_wire(wire), "none")))


TEXTS = st.sampled_from(
    ["", "a", 'quote " and \\ back', "line\nbreak", "ü\u2028", "{}", "10.0.0.1", "::1", "80", "x" * 50]
)
KEYS = st.sampled_from(
    ["a", 'b"c', "error", "net.host.ip", "net.host.port", "net.peer.ip", "net.peer.port", "peer.service",
     "service.peer.name", "service.name", "faas.name", "cloud.resource_id", "faas.id", "http.response.status_code"]
)  # fmt: skip


@st.composite
def requests(draw):
    request = ExportTraceServiceRequest()

    def fill(pairs):
        for key in draw(st.lists(KEYS, max_size=4, unique=True)):
            value = pairs.add(key=key).value
            match draw(st.sampled_from(["text", "text", "int", "bool", "double", "array", "empty"])):
                case "text":
                    value.string_value = draw(TEXTS)
                case "int":
                    value.int_value = draw(st.sampled_from([0, 443, -1, 70000]))
                case "bool":
                    value.bool_value = draw(st.booleans())
                case "double":
                    value.double_value = draw(st.sampled_from([0.5, 2.0, -1.25]))
                case "array":
                    value.array_value.values.add().string_value = draw(TEXTS)

    for _ in range(draw(st.integers(1, 2))):
        resource = request.resource_spans.add()
        fill(resource.resource.attributes)
        for _ in range(draw(st.integers(1, 2))):
            scope = resource.scope_spans.add()
            scope.scope.name, scope.scope.version = draw(TEXTS), draw(st.sampled_from(["", "1"]))
            fill(scope.scope.attributes)
            for _ in range(draw(st.integers(1, 3))):
                span = scope.spans.add(name=draw(TEXTS), kind=draw(st.integers(0, 5)))
                span.trace_id = draw(st.sampled_from([bytes(8) + bytes([1] * 8), bytes(range(16))]))
                span.span_id = bytes([0, 0, 0, 0, 0, 0, 0, draw(st.integers(1, 255))])
                span.parent_span_id = draw(st.sampled_from([b"", bytes([9] * 8)]))
                span.trace_state = draw(st.sampled_from(["", "a=b"]))
                span.start_time_unix_nano = draw(st.sampled_from([0, 1, 1_499, 1_500, 1_700_000_000_000_000_499]))
                span.end_time_unix_nano = draw(st.sampled_from([0, 2, 1_501, 1_700_000_000_000_000_500]))
                span.status.code, span.status.message = draw(st.integers(0, 2)), draw(TEXTS)
                fill(span.attributes)
                for _ in range(draw(st.integers(0, 2))):
                    event = span.events.add(time_unix_nano=draw(st.integers(0, 5000)))
                    event.name = draw(st.sampled_from(["", "e", 'e"f']))
                    fill(event.attributes)
                for _ in range(draw(st.integers(0, 2))):
                    link = span.links.add(trace_id=bytes([7] * 16), span_id=bytes([8] * 8))
                    fill(link.attributes)
    return request.SerializeToString()


@given(wire=requests())
def test_any_small_request_agrees_with_the_slow_translation(wire):
    """Whatever texts, types, times and keys there are; and the protobuf form has the same content."""
    assert parsed(wire) == slow(wire, "none")
    assert from_protobuf(wire) == without_zeros(json.loads(spans_json(Traces.from_wire(wire), "none")))


@pytest.mark.parametrize("name", ["", "none"])
def test_an_empty_default_name_gives_no_end_point(name):
    """The default is for spans whose resource has no name."""
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.add(trace_id=bytes([1] * 16), span_id=bytes([1] * 8))
    (span,) = parsed(request.SerializeToString(), name)
    assert span.get("localEndpoint") == ({"serviceName": name} if name else None)
