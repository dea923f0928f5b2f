"""Zipkin's second format, JSON and protobuf, to OTLP.

The mapping is the Collector's, except where that would lose something: see the README.
Source: https://zipkin.io/zipkin-api/zipkin2-api.yaml and zipkin.proto; open-telemetry/opentelemetry-collector-contrib
pkg/translator/zipkin/zipkinv2.
"""

import socket

import orjson

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from collector.wire.encode.spans cimport GroupedSpans, put_span_id, put_trace_id
from collector.wire.json.repair cimport repaired
from collector.wire.proto cimport Ptr, load_be64, load_le64, read_length, read_tag, read_varint, skip_field
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_fixed64, put_number, put_slice, take,
)
from receivers.zipkin._text cimport parsed, put_bool_pair, put_int_pair, put_text, put_text_pair, put_value_pair

__all__ = ["decode_json", "decode_proto"]

cdef enum:
    RESOURCE_ATTRIBUTES = 0x0A
    SPAN_TRACE_ID = 0x0A
    SPAN_ID = 0x12
    SPAN_TRACE_STATE = 0x1A
    SPAN_PARENT_ID = 0x22
    SPAN_NAME = 0x2A
    SPAN_KIND = 0x30
    SPAN_START = 0x39
    SPAN_END = 0x41
    SPAN_ATTRIBUTES = 0x4A
    SPAN_EVENTS = 0x5A
    SPAN_LINKS = 0x6A
    SPAN_STATUS = 0x7A
    EVENT_TIME = 0x09
    EVENT_NAME = 0x12
    EVENT_ATTRIBUTES = 0x1A
    EVENT_DROPPED = 0x20
    LINK_TRACE_ID = 0x0A
    LINK_SPAN_ID = 0x12
    LINK_TRACE_STATE = 0x1A
    LINK_ATTRIBUTES = 0x22
    LINK_DROPPED = 0x28
    STATUS_MESSAGE = 0x12
    STATUS_CODE = 0x18
    STATUS_ERROR = 2
    MAX_LINKS = 128

cdef str ID_WANTED = "expected 1 to 16 hexadecimal digits"
cdef dict KINDS = {"CLIENT": 3, "SERVER": 2, "PRODUCER": 4, "CONSUMER": 5}
cdef list PROTO_KINDS = ["", "CLIENT", "SERVER", "PRODUCER", "CONSUMER"]
cdef dict STATUS_CODES = {
    "STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2, "Unset": 0, "Ok": 1, "Error": 2,
}
# The tags that belong to the resource: the attributes of OpenTelemetry's semantic conventions for resources, which the
# Collector's exporter writes as tags of each span.
cdef frozenset RESOURCE_KEYS = frozenset(
    """
    cloud.provider cloud.account.id cloud.region cloud.availability_zone cloud.platform cloud.resource_id
    aws.ecs.container.arn aws.ecs.cluster.arn aws.ecs.launchtype aws.ecs.task.arn aws.ecs.task.family
    aws.ecs.task.revision aws.eks.cluster.arn aws.log.group.names aws.log.group.arns aws.log.stream.names
    aws.log.stream.arns container.name container.id container.runtime container.image.name container.image.tag
    deployment.environment device.id device.model.identifier device.model.name device.manufacturer faas.name faas.id
    faas.version faas.instance faas.max_memory host.id host.name host.type host.arch host.image.name host.image.id
    host.image.version k8s.cluster.name k8s.node.name k8s.node.uid k8s.namespace.name k8s.pod.uid k8s.pod.name
    k8s.container.name k8s.container.restart_count k8s.replicaset.uid k8s.replicaset.name k8s.deployment.uid
    k8s.deployment.name k8s.statefulset.uid k8s.statefulset.name k8s.daemonset.uid k8s.daemonset.name k8s.job.uid
    k8s.job.name k8s.cronjob.uid k8s.cronjob.name os.type os.description os.name os.version process.pid
    process.executable.name process.executable.path process.command process.command_line process.command_args
    process.owner process.runtime.name process.runtime.version process.runtime.description service.name
    service.namespace service.instance.id service.version telemetry.sdk.name telemetry.sdk.language
    telemetry.sdk.version telemetry.auto.version webengine.name webengine.version webengine.description
    opencensus.starttime opencensus.exporterversion opencensus.resourcetype
    """.split()
)


# Tags that have a meaning, or the name of an attribute that an endpoint becomes.
cdef frozenset SPECIAL_KEYS = RESOURCE_KEYS | frozenset(
    """
    otlp.service.name.source otel.library.name otel.library.version otel.scope.name otel.scope.version w3c.tracestate
    span.kind otel.status_code otel.status_description error otlp.link.0 network.local.address net.host.port
    service.peer.name network.peer.address net.peer.port
    """.split()
)


cdef class Endpoint:
    cdef str service, ip
    cdef int64_t port


cdef class Span:
    """What both encodings have in common. ``annotations`` are pairs of µs and a text."""

    cdef uint64_t trace_high, trace_low, span_id, parent_id, time_us, duration_us
    cdef str name, kind
    cdef Endpoint local, remote
    cdef list annotations
    cdef dict tags


cdef class Request:
    """Writes one request. ``index`` is the span that is being read, for error messages."""

    cdef GroupedSpans groups
    cdef dict resources
    cdef bint parses_tags
    cdef Py_ssize_t index
    # Of the last span without special tags.
    cdef str last_service
    cdef int32_t last_scope

    def __cinit__(self, Py_ssize_t size_bytes, bint parses_tags):
        self.groups = GroupedSpans(size_bytes)
        self.resources = {}
        self.parses_tags = parses_tags

    def malformed(self, field, reason):
        """The error for a field of the span that is being read."""
        path = f"spans[{self.index}]"
        return MalformedBatch(f"{path}.{field}" if field else path, -1, reason)

    cdef int write(self, Span span) except -1:
        cdef Writer* w = &self.groups.spans
        cdef dict attributes = span.tags, special = None
        cdef str key
        cdef int kind = KINDS.get(span.kind, 0) if span.kind else 0
        for key in span.tags:
            if key in SPECIAL_KEYS:
                special = {} if special is None else special
                special[key] = span.tags[key]
        if special is not None:
            attributes = {key: value for key, value in span.tags.items() if key not in special}
        self.groups.begin_span(self.scope(span, special))
        put_trace_id(w, SPAN_TRACE_ID, span.trace_high, span.trace_low)
        put_span_id(w, SPAN_ID, span.span_id)
        if span.parent_id != span.span_id:
            put_span_id(w, SPAN_PARENT_ID, span.parent_id)
        if span.name:
            put_text(w, SPAN_NAME, span.name)
        put_fixed64(w, SPAN_START, nanoseconds(span.time_us))
        put_fixed64(w, SPAN_END, nanoseconds(span.time_us + span.duration_us))
        if special is not None:
            drop_replaced(special, span)
            kind = write_special(w, special, attributes, kind)
        if kind:
            put_number(w, SPAN_KIND, kind)
        if self.parses_tags:
            for key, value in attributes.items():
                put_value_pair(w, SPAN_ATTRIBUTES, key, parsed(value))
        else:
            for key, value in attributes.items():
                put_text_pair(w, SPAN_ATTRIBUTES, key, value)
        write_endpoints(w, span)
        if not span.time_us:
            put_bool_pair(w, SPAN_ATTRIBUTES, "otel.zipkin.absentField.startTime", True)
        for time_us, value in span.annotations:
            write_event(w, time_us, value)
        self.groups.end_span()
        return 0

    cdef int32_t scope(self, Span span, dict special) except -1:
        """The index of the span's scope; takes what belongs to it and to the resource out of the special tags."""
        cdef str service = span.local.service if span.local is not None else ""
        cdef str name = "", version = "", source = "service.name"
        cdef dict moved = {}
        if special is None:
            if service == self.last_service:
                return self.last_scope
            self.last_scope = self.groups.scope(self.resource(service, source, moved), b"", b"")
            self.last_service = service
            return self.last_scope
        for key in tuple(special):
            if key in RESOURCE_KEYS:
                moved[key] = special.pop(key)
        source = special.pop("otlp.service.name.source", "") or source
        old_name, old_version = special.pop("otel.library.name", ""), special.pop("otel.library.version", "")
        name = special.pop("otel.scope.name", old_name)
        version = special.pop("otel.scope.version", old_version)
        return self.groups.scope(
            self.resource(service, source, moved), name.encode(), version.encode() if name else b""
        )

    cdef int32_t resource(self, str service, str source, dict moved) except -1:
        """The index of the resource with these tags."""
        cdef Writer w
        identity = (service, source, tuple(sorted(moved.items()))) if moved else (service, source)
        index = self.resources.get(identity)
        if index is not None:
            return index
        open_writer(&w, 256)
        try:
            if service:
                put_text_pair(&w, RESOURCE_ATTRIBUTES, source, service)
                moved.pop(source, None)
            for key, value in moved.items():
                put_text_pair(&w, RESOURCE_ATTRIBUTES, key, value)
            index = self.resources[identity] = self.groups.add_resource(take(&w))
        finally:
            close_writer(&w)
        return index


cdef inline uint64_t nanoseconds(uint64_t microseconds) noexcept nogil:
    return microseconds * 1000 if microseconds <= <uint64_t>-1 // 1000 else <uint64_t>-1


cdef int write_status(Writer* w, int status, str message) except -1:
    cdef Py_ssize_t mark = begin(w, SPAN_STATUS)
    if message:
        put_text(w, STATUS_MESSAGE, message)
    if status:
        put_number(w, STATUS_CODE, status)
    end(w, mark)
    return 0


cdef int write_special(Writer* w, dict special, dict attributes, int kind) except -1:
    """Write what tags with a meaning say; those that stay attributes are added to them. Returns the kind."""
    cdef int status = 0
    cdef str message = ""
    state = special.pop("w3c.tracestate", "")
    if state:
        put_text(w, SPAN_TRACE_STATE, state)
    if not kind and special.pop("span.kind", "") == "internal":
        kind = 1
    if "otel.status_code" in special:
        status = STATUS_CODES.get(special.pop("otel.status_code"), 0)
        message = special.pop("otel.status_description", "")
    if "error" in special:
        status = STATUS_ERROR
        if special["error"] == "true":
            del special["error"]
    attributes.update(special)
    if "otlp.link.0" in special:
        write_links(w, attributes)
    if status or message:
        write_status(w, status, message)
    return kind


cdef int write_endpoints(Writer* w, Span span) except -1:
    """The attributes that the endpoints become."""
    if span.local is not None:
        if span.local.ip:
            put_text_pair(w, SPAN_ATTRIBUTES, "network.local.address", span.local.ip)
        if span.local.port > 0:
            put_int_pair(w, SPAN_ATTRIBUTES, "net.host.port", span.local.port)
    if span.remote is not None:
        if span.remote.service:
            put_text_pair(w, SPAN_ATTRIBUTES, "service.peer.name", span.remote.service)
        if span.remote.ip:
            put_text_pair(w, SPAN_ATTRIBUTES, "network.peer.address", span.remote.ip)
        if span.remote.port > 0:
            put_int_pair(w, SPAN_ATTRIBUTES, "net.peer.port", span.remote.port)
    return 0


cdef int drop_replaced(dict special, Span span) except -1:
    """Drop the tags whose names the attributes of the endpoints have."""
    if span.local is not None:
        if span.local.ip:
            special.pop("network.local.address", None)
        if span.local.port > 0:
            special.pop("net.host.port", None)
    if span.remote is not None:
        if span.remote.service:
            special.pop("service.peer.name", None)
        if span.remote.ip:
            special.pop("network.peer.address", None)
        if span.remote.port > 0:
            special.pop("net.peer.port", None)
    return 0


def with_attributes(parts):
    """(attributes, dropped count) of the last parts of a text ``…|{JSON object}|number``; None if it is not one."""
    last = len(parts) - 1
    try:
        found, dropped = orjson.loads("|".join(parts[:last])), parts[last]
    except orjson.JSONDecodeError:
        return None
    if type(found) is not dict or not (dropped.isascii() and dropped.isdigit()) or len(dropped) > 9:
        return None
    kept = {}
    for key, value in found.items():
        if type(value) is float and value.is_integer() and abs(value) < 2.0**63:
            value = int(value)
        if type(value) in (str, bool, float) or (type(value) is int and -(1 << 63) <= value < 1 << 63):
            kept[key] = value
        elif value is not None:
            kept[key] = orjson.dumps(value).decode()
    return kept, int(dropped)


cdef int write_event(Writer* w, uint64_t time_us, str value) except -1:
    """An annotation; the Collector's exporter writes the attributes of an event behind its name."""
    cdef Py_ssize_t mark = begin(w, SPAN_EVENTS)
    cdef str name = value
    found = None
    if "|" in value:
        parts = value.split("|")
        if len(parts) > 2:
            found = with_attributes(parts[1:])
            if found is not None:
                name = parts[0]
    put_fixed64(w, EVENT_TIME, nanoseconds(time_us))
    if name:
        put_text(w, EVENT_NAME, name)
    if found is not None:
        attributes, dropped = found
        for key, item in attributes.items():
            put_value_pair(w, EVENT_ATTRIBUTES, key, item)
        if dropped:
            put_number(w, EVENT_DROPPED, dropped)
    end(w, mark)
    return 0


cdef int write_links(Writer* w, dict attributes) except -1:
    """The tags ``otlp.link.N`` in which the Collector's exporter writes links; others stay attributes."""
    cdef Py_ssize_t mark
    cdef uint64_t high, low, span_id
    for number in range(MAX_LINKS):
        key = f"otlp.link.{number}"
        if key not in attributes:
            return 0
        parts = attributes[key].split("|")
        if len(parts) < 5 or len(parts[0]) != 32 or len(parts[1]) != 16:
            continue
        found = with_attributes(parts[3:])
        try:
            high, low, span_id = int(parts[0][:16], 16), int(parts[0][16:], 16), int(parts[1], 16)
        except (ValueError, OverflowError):
            continue
        if found is None:
            continue
        del attributes[key]
        mark = begin(w, SPAN_LINKS)
        put_trace_id(w, LINK_TRACE_ID, high, low)
        put_span_id(w, LINK_SPAN_ID, span_id)
        if parts[2]:
            put_text(w, LINK_TRACE_STATE, parts[2])
        for name, item in found[0].items():
            put_value_pair(w, LINK_ATTRIBUTES, name, item)
        if found[1]:
            put_number(w, LINK_DROPPED, found[1])
        end(w, mark)
    return 0


cdef str address(str text):
    """An IP address in its usual form; another text stays as it is."""
    if ":" not in text:
        return text
    try:
        packed = socket.inet_pton(socket.AF_INET6, text)
    except (OSError, ValueError):
        return text
    if packed[:12] == b"\0" * 10 + b"\xff\xff":
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)


# JSON.


cdef uint64_t number_of(Request request, dict span, str key) except? 0:
    """A time or duration in µs; 0 without one."""
    value = span.get(key)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value < 1 << 64:
        raise request.malformed(key, "expected a number of microseconds")
    return value


cdef str text_of(Request request, dict span, str key):
    value = span.get(key)
    if value is None:
        return ""
    if type(value) is not str:
        raise request.malformed(key, "expected a text")
    return value


cdef uint64_t id_of(Request request, str text, str key, Py_ssize_t first, Py_ssize_t last) except? 0:
    """An id of up to 16 hexadecimal digits, which are part of a text."""
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    cdef uint64_t value = 0
    cdef unsigned char digit
    if not 0 < last - first <= 16 or last > size:
        raise request.malformed(key, ID_WANTED)
    while first < last:
        digit = <unsigned char>data[first]
        if c"0" <= digit <= c"9":
            digit -= c"0"
        elif c"a" <= (digit | 0x20) <= c"f":
            digit = (digit | 0x20) - c"a" + 10
        else:
            raise request.malformed(key, ID_WANTED)
        value = value << 4 | digit
        first += 1
    return value


cdef Endpoint endpoint_of(Request request, dict span, str key):
    cdef Endpoint endpoint
    value = span.get(key)
    if value is None:
        return None
    if type(value) is not dict:
        raise request.malformed(key, "expected an object")
    endpoint = Endpoint.__new__(Endpoint)
    port = value.get("port") or 0
    service, ip = value.get("serviceName") or "", value.get("ipv6") or value.get("ipv4") or ""
    if type(service) is not str or type(ip) is not str or type(port) is not int or not 0 <= port < 1 << 16:
        raise request.malformed(key, "expected serviceName, ipv4 and ipv6 as texts, and port as a number")
    endpoint.service, endpoint.ip, endpoint.port = service, address(ip), port
    return endpoint


cdef Span json_span(Request request, value):
    cdef dict given
    cdef Span span
    cdef str text
    cdef Py_ssize_t size
    if type(value) is not dict:
        raise request.malformed("", "expected an object")
    given = value
    span = Span.__new__(Span)
    text = text_of(request, given, "traceId")
    size = len(text)
    if size > 32:
        raise request.malformed("traceId", "expected 1 to 32 hexadecimal digits")
    if size > 16:
        span.trace_high = id_of(request, text, "traceId", 0, size - 16)
    span.trace_low = id_of(request, text, "traceId", max(size - 16, 0), size)
    text = text_of(request, given, "id")
    span.span_id = id_of(request, text, "id", 0, len(text))
    if not span.span_id:
        raise request.malformed("id", "must not be zero")
    text = text_of(request, given, "parentId")
    span.parent_id = id_of(request, text, "parentId", 0, len(text)) if text else 0
    span.name, span.kind = text_of(request, given, "name"), text_of(request, given, "kind")
    span.time_us = number_of(request, given, "timestamp")
    span.duration_us = number_of(request, given, "duration")
    span.local = endpoint_of(request, given, "localEndpoint")
    span.remote = endpoint_of(request, given, "remoteEndpoint")
    tags = given.get("tags") or {}
    if type(tags) is not dict:
        raise request.malformed("tags", "expected an object")
    span.tags = tags
    for key, item in tags.items():
        if type(item) is not str:  # not allowed, but common
            span.tags = {key: as_text(item) for key, item in tags.items() if item is not None}
            break
    span.annotations = []
    annotations = given.get("annotations") or ()
    if type(annotations) not in (list, tuple):
        raise request.malformed("annotations", "expected an array")
    for annotation in annotations:
        if type(annotation) is not dict:
            raise request.malformed("annotations", "expected objects")
        span.annotations.append((number_of(request, annotation, "timestamp"), text_of(request, annotation, "value")))
    return span


cdef str as_text(value):
    return value if type(value) is str else orjson.dumps(value).decode()


def parse_json(bytes data not None):
    """The parsed body of a request; text that is not valid Unicode is repaired.

    Raises:
        MalformedBatch: it is not an array in JSON.
    """
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        mended = repaired(data)
        if mended is None:
            raise MalformedBatch("", -1, f"not valid JSON: {error}") from None
        try:
            found = orjson.loads(mended)
        except orjson.JSONDecodeError:
            raise MalformedBatch("", -1, f"not valid JSON: {error}") from None
    if type(found) is not list:
        raise MalformedBatch("", -1, "expected an array of spans")
    return found


def decode_json(bytes data not None, bint parse_string_tags=False):
    """The OTLP request that an array of spans in JSON corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not one; the message names the span and the field.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data), parse_string_tags)
    for value in parse_json(data):
        if value is not None:
            request.write(json_span(request, value))
        request.index += 1
    return request.groups.finish()


# Protobuf.


cdef inline str decoded(Ptr p, Ptr end):
    return PyUnicode_DecodeUTF8(<const char*>p, end - p, "replace")


cdef Endpoint proto_endpoint(Request request, Ptr p, Ptr end):
    cdef Endpoint endpoint = Endpoint.__new__(Endpoint)
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    cdef Ptr stop = NULL
    cdef bytes packed
    endpoint.service = endpoint.ip = ""
    while p < end:
        p = read_tag(p, end, &tag)
        if p != NULL and (tag == 0x0A or tag == 0x12 or tag == 0x1A):
            p = read_length(p, end, &stop)
            if p != NULL:
                packed = (<const char*>p)[: stop - p]
                if tag == 0x0A:
                    endpoint.service = decoded(p, stop)
                elif len(packed) == 4 and (tag == 0x12 and not endpoint.ip):
                    endpoint.ip = socket.inet_ntop(socket.AF_INET, packed)
                elif len(packed) == 16 and tag == 0x1A:
                    endpoint.ip = address(socket.inet_ntop(socket.AF_INET6, packed))
                p = stop
        elif p != NULL and tag == 0x20:
            p = read_varint(p, end, &number)
            endpoint.port = <int64_t>(number & 0xFFFF)
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            raise request.malformed("endpoint", "invalid or truncated")
    return endpoint


cdef tuple proto_annotation(Request request, Ptr p, Ptr end):
    cdef uint32_t tag = 0
    cdef uint64_t time_us = 0
    cdef Ptr stop = NULL
    cdef str value = ""
    while p < end:
        p = read_tag(p, end, &tag)
        if p != NULL and tag == 0x09:
            if end - p < 8:
                raise request.malformed("annotations", "truncated")
            time_us = load_le64(p)
            p += 8
        elif p != NULL and tag == 0x12:
            p = read_length(p, end, &stop)
            if p != NULL:
                value = decoded(p, stop)
                p = stop
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            raise request.malformed("annotations", "invalid or truncated")
    return time_us, value


cdef int proto_tag(Request request, dict tags, Ptr p, Ptr end) except -1:
    cdef uint32_t tag = 0
    cdef Ptr stop = NULL
    cdef str key = "", value = ""
    while p < end:
        p = read_tag(p, end, &tag)
        if p != NULL and (tag == 0x0A or tag == 0x12):
            p = read_length(p, end, &stop)
            if p != NULL:
                if tag == 0x0A:
                    key = decoded(p, stop)
                else:
                    value = decoded(p, stop)
                p = stop
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            raise request.malformed("tags", "invalid or truncated")
    tags[key] = value
    return 0


cdef uint64_t proto_id(Request request, Ptr p, Ptr end, str key) except? 0:
    if end - p != 8:
        raise request.malformed(key, f"expected 8 bytes, got {end - p}")
    return load_be64(p)


cdef Span proto_span(Request request, Ptr p, Ptr end):
    cdef Span span = Span.__new__(Span)
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    cdef Ptr stop = NULL
    cdef bint has_trace_id = False
    span.name = span.kind = ""
    span.tags, span.annotations = {}, []
    while p < end:
        p = read_tag(p, end, &tag)
        if p != NULL and (tag & 7) == 2:
            p = read_length(p, end, &stop)
            if p != NULL:
                if tag == 0x0A:
                    if stop - p != 16:
                        raise request.malformed("trace_id", f"expected 16 bytes, got {stop - p}")
                    span.trace_high, span.trace_low = load_be64(p), load_be64(p + 8)
                    has_trace_id = True
                elif tag == 0x12 and stop > p:
                    span.parent_id = proto_id(request, p, stop, "parent_id")
                elif tag == 0x1A:
                    span.span_id = proto_id(request, p, stop, "id")
                elif tag == 0x2A:
                    span.name = decoded(p, stop)
                elif tag == 0x42:
                    span.local = proto_endpoint(request, p, stop)
                elif tag == 0x4A:
                    span.remote = proto_endpoint(request, p, stop)
                elif tag == 0x52:
                    span.annotations.append(proto_annotation(request, p, stop))
                elif tag == 0x5A:
                    proto_tag(request, span.tags, p, stop)
                p = stop
        elif p != NULL and tag == 0x20:
            p = read_varint(p, end, &number)
            span.kind = PROTO_KINDS[number] if number < 5 else ""
        elif p != NULL and tag == 0x31:
            if end - p < 8:
                raise request.malformed("timestamp", "truncated")
            span.time_us = load_le64(p)
            p += 8
        elif p != NULL and tag == 0x38:
            p = read_varint(p, end, &span.duration_us)
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            raise request.malformed("", "invalid or truncated")
    if not has_trace_id:
        raise request.malformed("trace_id", "expected 16 bytes, got 0")
    if not span.span_id:
        raise request.malformed("id", "must not be zero")
    return span


def decode_proto(bytes data not None, bint parse_string_tags=False):
    """The OTLP request that a ``ListOfSpans`` corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not one; the message names the span and the field.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data) + 64, parse_string_tags)
    cdef Ptr p = <Ptr>PyBytes_AS_STRING(data), end = p + PyBytes_GET_SIZE(data), stop = NULL
    cdef uint32_t tag = 0
    while p < end:
        p = read_tag(p, end, &tag)
        if p != NULL and tag == 0x0A:
            p = read_length(p, end, &stop)
            if p != NULL:
                request.write(proto_span(request, p, stop))
                request.index += 1
                p = stop
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            raise request.malformed("", "invalid or truncated")
    return request.groups.finish()
