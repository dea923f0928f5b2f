# See _spans.pyx. What the decoders fill in, and the writer that makes OTLP of it. All texts point into the request.
from libc.stdint cimport int32_t, int64_t, uint32_t, uint64_t

from collector.wire.encode.spans cimport GroupedSpans
from collector.wire.thrift cimport Text

cdef enum TagKind:
    TAG_TEXT
    TAG_BOOL
    TAG_INT
    TAG_DOUBLE
    TAG_BYTES
    TAG_UNKNOWN  # ``number`` is the unknown type

ctypedef struct Tag:
    Text key
    int kind
    bint is_dropped
    Text text
    int64_t number
    double real

ctypedef struct Reference:
    uint64_t trace_high, trace_low, span_id
    bint is_child_of

ctypedef struct Log:
    uint64_t time_unix_nano
    Py_ssize_t first, last  # its fields

ctypedef struct Span:
    uint64_t trace_high, trace_low, span_id, parent_id, start_unix_nano, end_unix_nano
    Text name
    uint32_t flags


cdef class SpanWriter:
    cdef bint is_thrift
    # Of the span or process that is being read.
    cdef Span span
    cdef Tag* tags
    cdef Tag* fields
    cdef Reference* references
    cdef Log* logs
    cdef Py_ssize_t tag_count, field_count, reference_count, log_count
    cdef Py_ssize_t tag_room, field_room, reference_room, log_room
    cdef int32_t* slots
    cdef Py_ssize_t slot_room
    cdef GroupedSpans groups
    cdef bint failed  # no memory

    cdef void begin_span(self) noexcept nogil
    cdef Tag* add_tag(self) noexcept nogil
    cdef Tag* add_field(self) noexcept nogil
    cdef Reference* add_reference(self) noexcept nogil
    cdef Log* add_log(self) noexcept nogil
    cdef void drop_duplicates(self, Tag* tags, Py_ssize_t count) noexcept nogil
    cdef int32_t add_resource(self, Text service_name) except -1
    cdef int32_t add_scope(self, int32_t resource) except -1
    cdef void end_span(self, int32_t scope) noexcept nogil
    cdef void put_log(self, Log* log) noexcept nogil
