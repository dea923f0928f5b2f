"""Decodes Jaeger's protobuf: the request of ``CollectorService.PostSpans``.

Source: jaeger-idl proto/api_v2/{model,collector}.proto.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from collector.wire.errors import MalformedBatch

from collector.wire.proto cimport Ptr, load_be64, load_le64, read_length, read_tag, read_varint, skip_field
from collector.wire.thrift cimport Text
from receivers.jaeger._spans cimport (
    TAG_BOOL, TAG_BYTES, TAG_DOUBLE, TAG_INT, TAG_TEXT, TAG_UNKNOWN, Log, Reference, Span, SpanWriter, Tag,
)

__all__ = ["decode_post_spans"]

cdef enum:
    NANOS_PER_SECOND = 1_000_000_000

cdef uint64_t MAX_SECONDS = <uint64_t>-1 // NANOS_PER_SECOND
# The Collector's exporters write it for a resource without a service name.
cdef bytes NO_SERVICE_NAME = b"OTLPResourceNoServiceName"


cdef class Reader:
    """Reads one request. Each method reads the fields from ``p`` to ``end``, and returns NULL if they are invalid."""

    cdef SpanWriter out
    cdef const char* path  # of the innermost message that is invalid
    cdef Ptr failed_at
    cdef dict processes    # a process as it was sent → the index of its resource

    def __cinit__(self, Py_ssize_t size_bytes):
        self.out = SpanWriter(False, size_bytes)
        self.processes = {}

    cdef bint fail(self, Ptr at, const char* path) noexcept:
        if self.path == NULL:
            self.path, self.failed_at = path, at
        return False

    cdef bint batch(self, Ptr p, Ptr end) except -1:
        cdef uint32_t tag = 0
        cdef Ptr stop = NULL, start = p, field
        cdef Text process
        cdef int32_t resource
        process.data, process.size = NULL, 0
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and tag == 0x12:  # process
                p = read_length(p, end, &stop)
                process.data, process.size = p, stop - p
                p = stop if p != NULL else NULL
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return self.fail(field, "batch")
        resource = self.resource(process)
        if resource < 0:
            return False
        p = start
        while p < end:
            p = read_tag(p, end, &tag)
            if tag == 0x0A:
                p = read_length(p, end, &stop)
                if not self.span(p, stop, resource):
                    return False
                p = stop
            else:
                p = skip_field(p, end, tag)
        return True

    cdef int32_t resource(self, Text process) except -2:
        """The index of the resource of a process; -1 if the process is invalid."""
        cdef SpanWriter out = self.out
        cdef uint32_t tag = 0
        cdef Ptr p = process.data, end = process.data + process.size, stop = NULL, field
        cdef Text name
        key = PyBytes_FromStringAndSize(<const char*>process.data, process.size)
        index = self.processes.get(key)
        if index is not None:
            return index
        name.data, name.size = NULL, 0
        out.begin_span()
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and (tag == 0x0A or tag == 0x12):
                p = read_length(p, end, &stop)
                if p != NULL:
                    if tag == 0x0A:
                        name.data, name.size = p, stop - p
                    elif not self.pair(p, stop, out.add_tag()):
                        return -1
                    p = stop
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                self.fail(field, "process")
                return -1
        if name.size == len(NO_SERVICE_NAME) and memcmp(name.data, <const char*>NO_SERVICE_NAME, name.size) == 0:
            name.size = out.tag_count = 0
        index = self.processes[key] = out.add_resource(name)
        return index

    cdef bint span(self, Ptr p, Ptr end, int32_t resource) except -1:
        cdef SpanWriter out = self.out
        cdef Span span
        cdef uint32_t tag = 0
        cdef uint64_t number = 0
        cdef int64_t start_ns = 0, duration_ns = 0
        cdef Ptr stop = NULL, field, begin = p
        cdef Text process
        cdef Reference* reference
        if p == end:
            return True  # an empty span is left out, as in the Collector
        # A process of its own is read first: it needs the same arrays.
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and tag == 0x52:
                p = read_length(p, end, &stop)
                if p != NULL:
                    process.data, process.size = p, stop - p
                    resource = self.resource(process)
                    if resource < 0:
                        return False
                    p = stop
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return self.fail(field, "batch.spans")
        out.begin_span()
        memset(&span, 0, sizeof(Span))
        p = begin
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if (tag & 7) == 2:
                p = read_length(p, end, &stop)
                if tag == 0x0A:
                    if stop - p < 16:
                        return self.fail(field, "batch.spans.trace_id")
                    span.trace_high, span.trace_low = load_be64(p), load_be64(p + 8)
                elif tag == 0x12:
                    if stop - p < 8:
                        return self.fail(field, "batch.spans.span_id")
                    span.span_id = load_be64(p)
                elif tag == 0x1A:
                    span.name.data, span.name.size = p, stop - p
                elif tag == 0x22:
                    if not self.reference(p, stop):
                        return False
                elif tag == 0x32:
                    if not self.time(p, stop, &start_ns):
                        return self.fail(field, "batch.spans.start_time")
                elif tag == 0x3A:
                    if not self.time(p, stop, &duration_ns):
                        return self.fail(field, "batch.spans.duration")
                elif tag == 0x42:
                    if not self.pair(p, stop, out.add_tag()):
                        return False
                elif tag == 0x4A:
                    if not self.log(p, stop):
                        return False
                p = stop
            elif tag == 0x28:
                p = read_varint(p, end, &number)
                span.flags = <uint32_t>number
            else:
                p = skip_field(p, end, tag)
        span.start_unix_nano = <uint64_t>start_ns if start_ns > 0 else 0
        duration_ns += start_ns
        span.end_unix_nano = <uint64_t>duration_ns if duration_ns > 0 else 0
        out.span = span
        reference = self.parent()
        if reference != NULL:
            out.span.parent_id = reference.span_id
        out.end_span(out.add_scope(resource))
        return True

    cdef Reference* parent(self) noexcept:
        """The first CHILD_OF in the same trace, otherwise the first FOLLOWS_FROM; NULL without one."""
        cdef SpanWriter out = self.out
        cdef Reference* reference
        cdef Reference* follows = NULL
        cdef Py_ssize_t i
        for i in range(out.reference_count):
            reference = &out.references[i]
            if reference.trace_high == out.span.trace_high and reference.trace_low == out.span.trace_low:
                if reference.is_child_of:
                    return reference
                if follows == NULL:
                    follows = reference
        return follows

    cdef bint time(self, Ptr p, Ptr end, int64_t* value) noexcept:
        """Reads a Timestamp or Duration in nanoseconds, within the range of 64 bits."""
        cdef uint32_t tag = 0
        cdef uint64_t number = 0
        cdef int64_t seconds = 0, nanos = 0, limit = <int64_t>0x7FFFFFFFFFFFFFFF // NANOS_PER_SECOND - 2
        while p < end:
            p = read_tag(p, end, &tag)
            if p != NULL and (tag == 0x08 or tag == 0x10):
                p = read_varint(p, end, &number)
                if tag == 0x08:
                    seconds = <int64_t>number
                else:
                    nanos = <int32_t>number
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return False
        seconds = min(max(seconds, -limit), limit)
        value[0] = min(max(seconds * NANOS_PER_SECOND + nanos, -<int64_t>0x3FFFFFFFFFFFFFFF), <int64_t>0x3FFFFFFFFFFFFFFF)
        return True

    cdef bint reference(self, Ptr p, Ptr end) noexcept:
        cdef Reference* reference = self.out.add_reference()
        cdef uint32_t tag = 0
        cdef uint64_t number = 0
        cdef Ptr stop = NULL, field
        if reference == NULL:
            return False
        reference.is_child_of = True
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and (tag == 0x0A or tag == 0x12):
                p = read_length(p, end, &stop)
                if p == NULL or stop - p < (16 if tag == 0x0A else 8):
                    return self.fail(field, "batch.spans.references")
                if tag == 0x0A:
                    reference.trace_high, reference.trace_low = load_be64(p), load_be64(p + 8)
                else:
                    reference.span_id = load_be64(p)
                p = stop
            elif p != NULL and tag == 0x18:
                p = read_varint(p, end, &number)
                reference.is_child_of = number == 0
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return self.fail(field, "batch.spans.references")
        return True

    cdef bint log(self, Ptr p, Ptr end) noexcept:
        cdef SpanWriter out = self.out
        cdef Log* log = out.add_log()
        cdef uint32_t tag = 0
        cdef int64_t time_ns = 0
        cdef Ptr stop = NULL, field
        if log == NULL:
            return False
        log.first = out.field_count
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and (tag == 0x0A or tag == 0x12):
                p = read_length(p, end, &stop)
                if p == NULL:
                    return self.fail(field, "batch.spans.logs")
                if tag == 0x0A and not self.time(p, stop, &time_ns):
                    return self.fail(field, "batch.spans.logs.timestamp")
                if tag == 0x12 and not self.pair(p, stop, out.add_field()):
                    return False
                p = stop
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return self.fail(field, "batch.spans.logs")
        log.time_unix_nano = <uint64_t>time_ns if time_ns > 0 else 0
        log.last = out.field_count
        return True

    cdef bint pair(self, Ptr p, Ptr end, Tag* pair) noexcept:
        """Reads a KeyValue."""
        cdef uint32_t tag = 0
        cdef uint64_t number = 0, kind = 0, integer = 0, real = 0
        cdef bint flag = False
        cdef Text text, octets
        cdef Ptr stop = NULL, field
        if pair == NULL:
            return False
        text.data = octets.data = NULL
        text.size = octets.size = 0
        while p < end:
            field = p
            p = read_tag(p, end, &tag)
            if p != NULL and (tag == 0x0A or tag == 0x1A or tag == 0x3A):
                p = read_length(p, end, &stop)
                if p != NULL:
                    if tag == 0x0A:
                        pair.key.data, pair.key.size = p, stop - p
                    elif tag == 0x1A:
                        text.data, text.size = p, stop - p
                    else:
                        octets.data, octets.size = p, stop - p
                    p = stop
            elif p != NULL and (tag == 0x10 or tag == 0x20 or tag == 0x28):
                p = read_varint(p, end, &number)
                if tag == 0x10:
                    kind = number
                elif tag == 0x20:
                    flag = number != 0
                else:
                    integer = number
            elif p != NULL and tag == 0x31:
                if end - p < 8:
                    return self.fail(field, "batch.spans.tags")
                real = load_le64(p)
                p += 8
            elif p != NULL:
                p = skip_field(p, end, tag)
            if p == NULL:
                return self.fail(field, "batch.spans.tags")
        if kind == 0:
            pair.kind, pair.text = TAG_TEXT, text
        elif kind == 1:
            pair.kind, pair.number = TAG_BOOL, flag
        elif kind == 2:
            pair.kind, pair.number = TAG_INT, <int64_t>integer
        elif kind == 3:
            pair.kind = TAG_DOUBLE
            memcpy(&pair.real, &real, 8)
        elif kind == 4:
            pair.kind, pair.text = TAG_BYTES, octets
        else:
            pair.kind, pair.number = TAG_UNKNOWN, <int32_t>kind
        return True


def decode_post_spans(bytes data not None):
    """The OTLP request that a ``PostSpansRequest`` corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not valid protobuf, or an id is too short.
    """
    cdef Ptr start = <Ptr>PyBytes_AS_STRING(data), p, end, stop = NULL
    cdef Reader reader = Reader(PyBytes_GET_SIZE(data))
    cdef uint32_t tag = 0
    cdef Ptr field
    p = field = start
    end = p + PyBytes_GET_SIZE(data)
    while p < end:
        field = p
        p = read_tag(p, end, &tag)
        if p != NULL and tag == 0x0A:
            p = read_length(p, end, &stop)
            if p != NULL:
                if not reader.batch(p, stop):
                    break
                p = stop
        elif p != NULL:
            p = skip_field(p, end, tag)
        if p == NULL:
            reader.fail(field, "request")
            break
    if reader.out.failed:
        raise MemoryError
    if reader.path != NULL:
        raise MalformedBatch(reader.path.decode(), reader.failed_at - start, "invalid, truncated or too short")
    return reader.out.groups.finish()
