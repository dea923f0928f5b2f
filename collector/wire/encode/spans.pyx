"""Writes an ExportTraceServiceRequest span by span, in whatever order they come, in groups by resource and scope.

For receivers of other formats: their kernels write each span's fields with ``collector.wire.writer``.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from collector.wire.writer cimport (
    Writer, close_writer, open_writer, put_bytes, put_slice, set_varint, take, varint_size,
)

cdef enum:
    # Field number << 3 | wire type.
    RESOURCE_SPANS = 0x0A
    RESOURCE = 0x0A
    SCOPE_SPANS = 0x12
    SCOPE = 0x0A
    SCOPE_NAME = 0x0A
    SCOPE_VERSION = 0x12
    SPANS = 0x12


cdef class GroupedSpans:
    """One request. Add resources and scopes; between ``begin_span`` and ``end_span``, write a span into ``spans``."""

    def __cinit__(self, Py_ssize_t size_bytes):
        """``size_bytes``: about how large the request becomes."""
        self.resources, self.scopes, self.scope_indexes = [], [], {}
        open_writer(&self.spans, size_bytes)

    def __dealloc__(self):
        free(self.written)
        close_writer(&self.spans)

    cdef int32_t add_resource(self, bytes resource) except -1:
        """Add an encoded Resource; returns its index."""
        self.resources.append(resource)
        return <int32_t>(len(self.resources) - 1)

    cdef int32_t scope(self, int32_t resource, bytes name, bytes version) except -1:
        """The index of a scope in a resource."""
        key = (resource, name, version)
        index = self.scope_indexes.get(key)
        if index is None:
            index = self.scope_indexes[key] = len(self.scopes)
            self.scopes.append(key)
        return index

    cdef void begin_span(self, int32_t scope) noexcept nogil:
        if not room_for(<void**>&self.written, &self.written_room, self.span_count, sizeof(Written)):
            self.failed = True
            return
        self.written[self.span_count].scope = scope
        self.written[self.span_count].first = self.spans.size
        self.span_count += 1

    cdef void end_span(self) noexcept nogil:
        if not self.failed:
            self.written[self.span_count - 1].last = self.spans.size

    cdef bytes finish(self):
        """The ExportTraceServiceRequest; empty without spans."""
        cdef Writer w
        cdef Py_ssize_t scope_count = len(self.scopes), i, scope, size, inner
        cdef Py_ssize_t* starts = NULL
        cdef Written* sorted_spans = NULL
        if self.failed or self.spans.failed:
            raise MemoryError
        if not self.span_count:
            return b""
        open_writer(&w, self.spans.size + 16 * self.span_count + 4096)
        try:
            # Spans in the order of their scopes: a counting sort.
            starts = <Py_ssize_t*>realloc(NULL, (scope_count + 2) * sizeof(Py_ssize_t))
            sorted_spans = <Written*>realloc(NULL, (self.span_count + 1) * sizeof(Written))
            if starts == NULL or sorted_spans == NULL:
                raise MemoryError
            memset(starts, 0, (scope_count + 2) * sizeof(Py_ssize_t))
            for i in range(self.span_count):
                starts[self.written[i].scope + 2] += 1
            for i in range(2, scope_count + 2):
                starts[i] += starts[i - 1]
            for i in range(self.span_count):
                scope = self.written[i].scope
                sorted_spans[starts[scope + 1]] = self.written[i]
                starts[scope + 1] += 1
            of_resource = {}
            for scope in range(scope_count):
                of_resource.setdefault(self.scopes[scope][0], []).append(scope)
            for resource, scopes in of_resource.items():
                encoded = self.resources[resource]
                size = slice_size(len(encoded)) if encoded else 0
                sizes = []
                for scope in scopes:
                    inner = self.scope_size(sorted_spans + starts[scope], starts[scope + 1] - starts[scope], scope)
                    sizes.append(inner)
                    size += slice_size(inner)
                put_head(&w, RESOURCE_SPANS, size)
                if encoded:
                    put_slice(&w, RESOURCE, <const char*>encoded, len(encoded))
                for scope, size in zip(scopes, sizes, strict=True):
                    put_head(&w, SCOPE_SPANS, size)
                    self.put_scope(&w, sorted_spans + starts[scope], starts[scope + 1] - starts[scope], scope)
            return take(&w)
        finally:
            close_writer(&w)
            free(starts)
            free(sorted_spans)

    cdef Py_ssize_t scope_size(self, Written* spans, Py_ssize_t count, Py_ssize_t scope) except -1:
        """The size of a ScopeSpans."""
        cdef Py_ssize_t i, size = 0
        _, name, version = self.scopes[scope]
        if name or version:
            size += slice_size(scope_message_size(len(name), len(version)))
        for i in range(count):
            size += slice_size(spans[i].last - spans[i].first)
        return size

    cdef int put_scope(self, Writer* w, Written* spans, Py_ssize_t count, Py_ssize_t scope) except -1:
        cdef Py_ssize_t i
        _, name, version = self.scopes[scope]
        if name or version:
            put_head(w, SCOPE, scope_message_size(len(name), len(version)))
            if name:
                put_slice(w, SCOPE_NAME, <const char*>name, len(name))
            if version:
                put_slice(w, SCOPE_VERSION, <const char*>version, len(version))
        for i in range(count):
            put_slice(w, SPANS, self.spans.data + spans[i].first, spans[i].last - spans[i].first)
        return 0


cdef inline Py_ssize_t slice_size(Py_ssize_t size) noexcept nogil:
    """The size of a length-delimited field with a tag of one byte."""
    return 1 + varint_size(<uint64_t>size) + size


cdef inline Py_ssize_t scope_message_size(Py_ssize_t name_size, Py_ssize_t version_size) noexcept nogil:
    return (slice_size(name_size) if name_size else 0) + (slice_size(version_size) if version_size else 0)


cdef inline void put_head(Writer* w, uint32_t tag, Py_ssize_t size) noexcept nogil:
    """Writes the tag and the length of a message that follows."""
    cdef uint8_t[16] octets
    put_bytes(w, octets, set_varint(set_varint(octets, tag), <uint64_t>size) - octets)
