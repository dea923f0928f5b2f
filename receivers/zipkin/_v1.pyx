"""Zipkin's first format, JSON and Thrift, to OTLP.

The mapping is the Collector's, except where that would lose something: see the README.
Source: https://zipkin.io/zipkin-api/zipkin-api.yaml; thrift/zipkinCore.thrift;
open-telemetry/opentelemetry-collector-contrib pkg/translator/zipkin/zipkinv1.
"""

import base64
import socket
import time

from collector.wire.errors import MalformedBatch
from receivers.zipkin._v2 import parse_json

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.encode.spans cimport GroupedSpans, put_span_id, put_trace_id
from collector.wire.proto cimport Ptr, load_be64
from collector.wire.thrift cimport (
    T_BOOL, T_BYTE, T_I16, T_I32, T_I64, T_LIST, T_STRUCT, T_TEXT, Field, Input, Text, fail, read_bool, read_field,
    read_integer, read_list, read_text, skip, structs,
)
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_fixed64, put_number, put_slice, take,
)
from receivers.zipkin._text cimport parsed, put_bool_pair, put_text, put_text_pair, put_value_pair

__all__ = ["decode_json", "decode_thrift"]

cdef enum:
    RESOURCE_ATTRIBUTES = 0x0A
    SPAN_TRACE_ID = 0x0A
    SPAN_ID = 0x12
    SPAN_PARENT_ID = 0x22
    SPAN_NAME = 0x2A
    SPAN_KIND = 0x30
    SPAN_START = 0x39
    SPAN_END = 0x41
    SPAN_ATTRIBUTES = 0x4A
    SPAN_EVENTS = 0x5A
    SPAN_STATUS = 0x7A
    EVENT_TIME = 0x09
    EVENT_NAME = 0x12
    STATUS_MESSAGE = 0x12
    STATUS_CODE = 0x18
    STATUS_OK = 1
    STATUS_ERROR = 2

cdef dict CORE_KINDS = {"cs": 3, "cr": 3, "ms": 4, "mr": 5, "ss": 2, "sr": 2}
cdef str UNKNOWN_SERVICE = "unknown-service"


cdef class Endpoint:
    cdef str service, ipv4, ipv6
    cdef int64_t port


cdef class Span:
    """What both encodings have in common.

    ``annotations``: (µs, value, endpoint or None); ``binary_annotations``: (key, value, endpoint or None).
    """

    cdef uint64_t trace_high, trace_low, span_id, parent_id
    cdef int64_t time_us, duration_us
    cdef str name
    cdef list annotations, binary_annotations


cdef class Request:
    """Writes one request. ``index`` is the span that is being read, for error messages.

    ``now_ns``: the time of spans that have none; 0: they stay without.
    """

    cdef GroupedSpans groups
    cdef dict resources
    cdef bint parses_tags
    cdef Py_ssize_t index
    cdef uint64_t now_ns

    def __cinit__(self, Py_ssize_t size_bytes, bint parses_tags, uint64_t now_ns):
        self.groups = GroupedSpans(size_bytes)
        self.resources = {}
        self.parses_tags = parses_tags
        self.now_ns = now_ns

    def malformed(self, field, reason):
        """The error for a field of the span that is being read."""
        path = f"spans[{self.index}]"
        return MalformedBatch(f"{path}.{field}" if field else path, -1, reason)

    cdef int write(self, Span span) except -1:
        cdef Writer* w = &self.groups.spans
        cdef Endpoint local = None, endpoint
        cdef int kind = 0
        cdef int64_t time_us, first_us = 0, last_us = 0
        cdef uint64_t start_ns = 0, end_ns = 0
        cdef bint has_time = False
        cdef str value, fallback = "", component = "", service
        cdef dict attributes = {}
        cdef list events = []
        cdef StatusTags status = StatusTags()
        for time_us, value, endpoint in span.annotations:
            if not value:
                continue
            core = CORE_KINDS.get(value)
            if core is not None:
                if local is None and endpoint is not None and endpoint.service:
                    local = endpoint
                if not kind:
                    kind = core
            else:
                events.append((time_us, value))
            if not has_time or time_us < first_us:
                first_us = time_us
            if not has_time or time_us > last_us:
                last_us = time_us
            has_time = True
        for key, item, endpoint in span.binary_annotations:
            if endpoint is not None and endpoint.service:
                fallback = endpoint.service
            if key == "lc":
                key = "component"
                component = item if type(item) is str else ""
            if type(item) is str and self.parses_tags:
                item = parsed(item)
            if not status.take(key, item):
                attributes[key] = item
        service = local.service if local is not None else fallback or component or UNKNOWN_SERVICE
        self.groups.begin_span(self.groups.scope(self.resource(service, local), b"", b""))
        if span.time_us:
            start_ns, end_ns = nanoseconds(span.time_us), nanoseconds(span.time_us + span.duration_us)
        elif has_time:
            start_ns, end_ns = nanoseconds(first_us), nanoseconds(last_us)
        put_trace_id(w, SPAN_TRACE_ID, span.trace_high, span.trace_low)
        put_span_id(w, SPAN_ID, span.span_id)
        put_span_id(w, SPAN_PARENT_ID, span.parent_id)
        if span.name:
            put_text(w, SPAN_NAME, span.name)
        if kind:
            put_number(w, SPAN_KIND, kind)
        if not start_ns and self.now_ns:
            put_fixed64(w, SPAN_START, self.now_ns)
            put_fixed64(w, SPAN_END, self.now_ns)
            put_bool_pair(w, SPAN_ATTRIBUTES, "otel.zipkin.absentField.startTime", True)
        else:
            put_fixed64(w, SPAN_START, start_ns)
            put_fixed64(w, SPAN_END, end_ns)
        for key, item in attributes.items():
            put_value_pair(w, SPAN_ATTRIBUTES, key, item)
        for time_us, value in events:
            write_event(w, time_us, value)
        status.write(w)
        self.groups.end_span()
        return 0

    cdef int32_t resource(self, str service, Endpoint endpoint) except -1:
        """The index of the resource of a service at an endpoint."""
        cdef Writer w
        key = (service, endpoint.ipv4, endpoint.ipv6, endpoint.port) if endpoint is not None else (service, "", "", 0)
        index = self.resources.get(key)
        if index is not None:
            return index
        open_writer(&w, 128)
        try:
            put_text_pair(&w, RESOURCE_ATTRIBUTES, "service.name", service)
            for name, text in (("ipv4", key[1]), ("ipv6", key[2]), ("port", str(key[3]) if key[3] else "")):
                if text:
                    put_text_pair(&w, RESOURCE_ATTRIBUTES, name, text)
            index = self.resources[key] = self.groups.add_resource(take(&w))
        finally:
            close_writer(&w)
        return index


cdef inline uint64_t nanoseconds(int64_t microseconds) noexcept nogil:
    if microseconds <= 0:
        return 0
    return <uint64_t>microseconds * 1000 if <uint64_t>microseconds <= <uint64_t>-1 // 1000 else <uint64_t>-1


cdef int write_event(Writer* w, int64_t time_us, str value) except -1:
    cdef Py_ssize_t mark = begin(w, SPAN_EVENTS)
    put_fixed64(w, EVENT_TIME, nanoseconds(time_us))
    put_text(w, EVENT_NAME, value)
    end(w, mark)
    return 0


cdef class StatusTags:
    """The binary annotations that make the status of a span: those of OpenCensus, OpenTelemetry, HTTP, and ``error``."""

    cdef int census, otel, http
    cdef bint has_census, has_otel, has_http, has_error
    cdef str census_message, otel_message, http_message, error_message

    def __cinit__(self):
        self.census_message = self.otel_message = self.http_message = self.error_message = ""

    cdef bint take(self, str key, item) except -1:
        """Take an annotation into account; returns whether it is not an attribute as well."""
        if key == "census.status_code":
            code = number_of(item)
            if code is not None:
                self.has_census, self.census = True, STATUS_OK if code == 0 else STATUS_ERROR
            return True
        if key in ("census.status_description", "opencensus.status_description"):
            self.census_message = item if type(item) is str else ""
            return True
        if key == "otel.status_code":
            code = number_of(item)
            if code is not None:
                self.has_otel, self.otel = True, code
            return True
        if key == "otel.status_description":
            self.otel_message = item if type(item) is str else ""
            return True
        if key in ("http.status_code", "http.response.status_code"):
            code = number_of(item)
            if code is not None:
                self.has_http, self.http = True, 0 if 100 <= code < 400 else STATUS_ERROR
            return False
        if key == "http.status_message":
            self.http_message = item if type(item) is str else ""
            return False
        if key == "error":
            self.has_error = True
            self.error_message = item if type(item) is str and item != "true" else ""
            return True
        return False

    cdef int write(self, Writer* w) except -1:
        cdef int code
        cdef str message
        cdef Py_ssize_t mark
        if self.has_census:
            code, message = self.census, self.census_message
        elif self.has_otel:
            code, message = self.otel, self.otel_message
        elif self.has_error:
            # The text of the error is the message where there is no other; the Collector drops it.
            code, message = STATUS_ERROR, self.census_message or self.otel_message or self.error_message
        elif self.has_http:
            code, message = self.http, self.http_message
        else:
            return 0
        if not code and not message:
            return 0
        mark = begin(w, SPAN_STATUS)
        if message:
            put_text(w, STATUS_MESSAGE, message)
        if code:
            put_number(w, STATUS_CODE, <uint64_t><int64_t>code)
        end(w, mark)
        return 0


cdef object number_of(item):
    """A number of 32 bits, also as text; None if it is not one."""
    if type(item) is str:
        if not item.isascii() or not item[item[:1] in ("-", "+"):].isdigit() or len(item) > 12:
            return None
        item = int(item)
    if type(item) is not int or not -(1 << 31) <= item < 1 << 31:
        return None
    return item


# JSON.


cdef object member(Request request, dict span, str key, kind, absent):
    value = span.get(key)
    if value is None:
        return absent
    if type(value) is not kind:
        raise request.malformed(key, f"expected {'a text' if kind is str else 'a number' if kind is int else 'an array'}")
    return value


cdef uint64_t id_of(Request request, str text, str key) except? 0:
    """An id of 16 hexadecimal digits, as the format demands."""
    if len(text) != 16 or not text.isalnum():
        raise request.malformed(key, f"expected {'16 or 32' if key == 'traceId' else '16'} hexadecimal digits")
    try:
        return int(text, 16)
    except ValueError:
        raise request.malformed(key, "expected hexadecimal digits") from None


cdef int64_t microseconds_of(Request request, dict holder, str key) except? 0:
    value = member(request, holder, key, int, 0)
    if not -(1 << 63) <= value < 1 << 63:
        raise request.malformed(key, "expected a number of microseconds")
    return value


cdef Endpoint endpoint_of(Request request, dict annotation):
    cdef Endpoint endpoint
    value = annotation.get("endpoint")
    if value is None:
        return None
    if type(value) is not dict:
        raise request.malformed("endpoint", "expected an object")
    endpoint = Endpoint.__new__(Endpoint)
    endpoint.service = member(request, value, "serviceName", str, "")
    endpoint.ipv4, endpoint.ipv6 = member(request, value, "ipv4", str, ""), member(request, value, "ipv6", str, "")
    port = member(request, value, "port", int, 0)
    if not -(1 << 31) <= port < 1 << 31:
        raise request.malformed("endpoint", "the port is out of range")
    endpoint.port = port
    return endpoint


cdef Span json_span(Request request, value):
    cdef dict given
    cdef Span span
    if type(value) is not dict:
        raise request.malformed("", "expected an object")
    given = value
    span = Span.__new__(Span)
    trace_id = member(request, given, "traceId", str, "")
    if len(trace_id) == 32:
        span.trace_high, trace_id = id_of(request, trace_id[:16], "traceId"), trace_id[16:]
    span.trace_low = id_of(request, trace_id, "traceId")
    span.span_id = id_of(request, member(request, given, "id", str, ""), "id")
    parent_id = member(request, given, "parentId", str, "")
    span.parent_id = id_of(request, parent_id, "parentId") if parent_id else 0
    if not span.trace_high and not span.trace_low:
        raise request.malformed("traceId", "must not be zero")
    if not span.span_id or (parent_id and not span.parent_id):
        raise request.malformed("parentId" if span.span_id else "id", "must not be zero")
    span.name = member(request, given, "name", str, "")
    span.time_us, span.duration_us = microseconds_of(request, given, "timestamp"), microseconds_of(request, given, "duration")
    span.annotations, span.binary_annotations = [], []
    for annotation in member(request, given, "annotations", list, ()):
        if annotation is None:
            continue
        if type(annotation) is not dict:
            raise request.malformed("annotations", "expected objects")
        span.annotations.append(
            (
                microseconds_of(request, annotation, "timestamp"),
                member(request, annotation, "value", str, ""),
                endpoint_of(request, annotation),
            )
        )
    for annotation in member(request, given, "binaryAnnotations", list, ()):
        if type(annotation) is not dict:
            raise request.malformed("binaryAnnotations", "expected objects")
        item = annotation.get("value", "")
        if type(item) is bool:  # of the annotations "sa" and "ca"
            item = "true" if item else "false"
        elif type(item) in (int, float):
            item = repr(item)
        elif type(item) is not str:
            raise request.malformed("binaryAnnotations.value", "expected a text")
        span.binary_annotations.append(
            (member(request, annotation, "key", str, ""), item, endpoint_of(request, annotation))
        )
    return span


def decode_json(bytes data not None, bint parse_string_tags=False):
    """The OTLP request that an array of spans of version 1 in JSON corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not one; the message names the span and the field.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data), parse_string_tags, time.time_ns())
    for value in parse_json(data):
        request.write(json_span(request, value))
        request.index += 1
    return request.groups.finish()


# Thrift.


cdef inline str decoded(Text text):
    return PyUnicode_DecodeUTF8(<const char*>text.data, text.size, "replace") if text.size else ""


cdef Endpoint thrift_endpoint(Input* inp):
    cdef Endpoint endpoint = Endpoint.__new__(Endpoint)
    cdef Field field
    cdef int64_t number = 0
    cdef Text text
    cdef bint good = True
    endpoint.service = endpoint.ipv4 = endpoint.ipv6 = ""
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_I32:
            good = read_integer(inp, T_I32, &number)
            if number:
                endpoint.ipv4 = socket.inet_ntop(socket.AF_INET, (number & 0xFFFFFFFF).to_bytes(4, "big"))
        elif field.id == 2 and field.type == T_I16:
            good = read_integer(inp, T_I16, &number)
            endpoint.port = number
        elif field.id == 3 and field.type == T_TEXT:
            good = read_text(inp, &text)
            if good:
                endpoint.service = decoded(text)
        elif field.id == 4 and field.type == T_TEXT:
            good = read_text(inp, &text)
            if good and text.size == 16:
                packed = PyBytes_FromStringAndSize(<const char*>text.data, 16)
                endpoint.ipv6 = socket.inet_ntop(socket.AF_INET6, packed)
        else:
            good = skip(inp, field.type, 0)
    return endpoint


cdef tuple thrift_annotation(Input* inp):
    cdef Field field
    cdef int64_t time_us = 0
    cdef Text text
    cdef str value = ""
    cdef Endpoint host = None
    cdef bint good = True
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_I64:
            good = read_integer(inp, T_I64, &time_us)
        elif field.id == 2 and field.type == T_TEXT:
            good = read_text(inp, &text)
            if good:
                value = decoded(text)
        elif field.id == 3 and field.type == T_STRUCT:
            host = thrift_endpoint(inp)
        else:
            good = skip(inp, field.type, 0)
    return time_us, value, host


cdef object big_endian(Text text, int size):
    """An unsigned number of so many bytes, as the Collector reads it; a text if there are fewer."""
    if text.size < size:
        return "<not enough bytes representing the number>"
    return int.from_bytes((<const char*>text.data)[:size], "big")


cdef tuple thrift_binary_annotation(Input* inp):
    cdef Field field
    cdef int64_t kind = 6
    cdef Text text
    cdef str key = ""
    cdef Endpoint host = None
    cdef bint good = True
    cdef uint64_t bits
    cdef double real
    cdef Text content
    content.data, content.size = NULL, 0
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_TEXT:
            good = read_text(inp, &text)
            if good:
                key = decoded(text)
        elif field.id == 2 and field.type == T_TEXT:
            good = read_text(inp, &content)
        elif field.id == 3 and field.type == T_I32:
            good = read_integer(inp, T_I32, &kind)
        elif field.id == 4 and field.type == T_STRUCT:
            host = thrift_endpoint(inp)
        else:
            good = skip(inp, field.type, 0)
    if kind == 0:
        value = content.size == 1 and content.data[0] == 1
    elif kind == 1:
        value = base64.b64encode((<const char*>content.data)[:content.size]).decode() if content.size else ""
    elif kind == 2:
        value = big_endian(content, 2)
    elif kind == 3:
        value = big_endian(content, 4)
    elif kind == 4:
        value = big_endian(content, 8)
        if type(value) is int and value >= 1 << 63:
            value -= 1 << 64
    elif kind == 5:
        if content.size < 8:
            value = big_endian(content, 8)
        else:
            bits = load_be64(content.data)
            memcpy(&real, &bits, 8)
            value = real
    elif kind == 6:
        value = decoded(content)
    else:
        value = f"<unknown zipkin v1 binary annotation type ({kind})>"
    if key == "lc" and type(value) is not str:
        value = decoded(content)
    return key, value, host


cdef Span thrift_span(Input* inp):
    cdef Span span = Span.__new__(Span)
    cdef Field field
    cdef int64_t number = 0
    cdef Text text
    cdef Py_ssize_t count = 0, i
    cdef bint good = True
    span.name = ""
    span.annotations, span.binary_annotations = [], []
    field.id = 0
    while good and read_field(inp, &field):
        if field.type == T_I64 and field.id in (1, 4, 5, 10, 11, 12):
            good = read_integer(inp, T_I64, &number)
            if field.id == 1:
                span.trace_low = <uint64_t>number
            elif field.id == 4:
                span.span_id = <uint64_t>number
            elif field.id == 5:
                span.parent_id = <uint64_t>number
            elif field.id == 10:
                span.time_us = number
            elif field.id == 11:
                span.duration_us = number
            else:
                span.trace_high = <uint64_t>number
        elif field.id == 3 and field.type == T_TEXT:
            good = read_text(inp, &text)
            if good:
                span.name = decoded(text)
        elif field.type == T_LIST and (field.id == 6 or field.id == 8):
            good = structs(inp, &field, &count)
            i = 0
            while good and i < count:
                if field.id == 6:
                    span.annotations.append(thrift_annotation(inp))
                else:
                    span.binary_annotations.append(thrift_binary_annotation(inp))
                good = inp.problem == NULL
                i += 1
        else:
            good = skip(inp, field.type, 0)
    return span


def decode_thrift(bytes data not None):
    """The OTLP request that a list of spans in Thrift's binary protocol corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not one; the message names the span, the offset is about where.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data), False, 0)
    cdef Input inp
    cdef int type = 0
    cdef Py_ssize_t count = 0
    cdef Span span
    inp.at = <Ptr>PyBytes_AS_STRING(data)
    inp.end = inp.at + PyBytes_GET_SIZE(data)
    inp.is_compact, inp.bool_value, inp.problem, inp.path = False, -1, NULL, NULL
    if read_list(&inp, &type, &count) and count and type != T_STRUCT:
        fail(&inp, "the list has elements of another type")
    while inp.problem == NULL and request.index < count:
        span = thrift_span(&inp)
        if inp.problem == NULL:
            request.write(span)
            request.index += 1
    if inp.problem != NULL:
        offset = inp.at - <Ptr>PyBytes_AS_STRING(data)
        raise MalformedBatch(f"spans[{request.index}]", offset, inp.problem.decode())
    return request.groups.finish()
