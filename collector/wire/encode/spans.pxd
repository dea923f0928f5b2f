# See spans.pyx.
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc

from collector.wire.writer cimport Writer, put_slice

ctypedef struct Written:
    Py_ssize_t first, last  # in the writer of the spans
    int32_t scope


cdef class GroupedSpans:
    cdef Writer spans
    cdef Written* written
    cdef Py_ssize_t span_count, written_room
    cdef list resources, scopes
    cdef dict scope_indexes
    cdef bint failed  # no memory

    cdef int32_t add_resource(self, bytes resource) except -1
    cdef int32_t scope(self, int32_t resource, bytes name, bytes version) except -1
    cdef void begin_span(self, int32_t scope) noexcept nogil
    cdef void end_span(self) noexcept nogil
    cdef bytes finish(self)
    cdef Py_ssize_t scope_size(self, Written* spans, Py_ssize_t count, Py_ssize_t scope) except -1
    cdef int put_scope(self, Writer* w, Written* spans, Py_ssize_t count, Py_ssize_t scope) except -1


cdef inline void put_span_id(Writer* w, uint32_t tag, uint64_t value) noexcept nogil:
    """Writes a span id of 8 bytes, big-endian. An id of zero is none."""
    cdef uint8_t[8] octets
    cdef int i
    if value:
        for i in range(8):
            octets[i] = <uint8_t>(value >> (56 - 8 * i))
        put_slice(w, tag, octets, 8)


cdef inline void put_trace_id(Writer* w, uint32_t tag, uint64_t high, uint64_t low) noexcept nogil:
    """Writes a trace id of 16 bytes, big-endian. An id of zero is none."""
    cdef uint8_t[16] octets
    cdef int i
    if high or low:
        for i in range(8):
            octets[i] = <uint8_t>(high >> (56 - 8 * i))
            octets[8 + i] = <uint8_t>(low >> (56 - 8 * i))
        put_slice(w, tag, octets, 16)


cdef inline bint room_for(void** array, Py_ssize_t* room, Py_ssize_t count, size_t size) noexcept nogil:
    """Makes room for one more element in an array; False without memory."""
    cdef Py_ssize_t wanted = 2 * room[0] if room[0] else 32
    cdef void* grown
    if count < room[0]:
        return True
    grown = realloc(array[0], <size_t>wanted * size)
    if grown == NULL:
        return False
    array[0] = grown
    room[0] = wanted
    return True
