"""Rewrites a scanned request: repairs invalid UTF-8, turns instrumentation-library fields into scopes, leaves fields and items out.

The slow path of the door, in C all the same: a hostile sender chooses how often it is taken. It relies on the scan for what is valid
(depth, lengths) but reads with the same bounds checks.
"""

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

from collector.wire.proto cimport Ptr, is_utf8, read_length, read_tag, skip_field, utf8_step
from collector.wire.gil cimport RELEASE_GIL_BYTES

__all__ = ["repair"]

cdef enum Form:                   # what a field is: left out, copied, text, or one of the messages
    LEFT_OUT = -1
    COPIED = 0
    TEXT = 1
    RESOURCE_GROUP = 2            # ResourceSpans …
    SCOPE_GROUP = 3               # ScopeSpans …
    RESOURCE = 4
    SCOPE = 5
    SPAN = 6
    EVENT = 7
    LINK = 8
    STATUS = 9
    METRIC = 10
    NUMBERS = 11                  # Gauge, Sum
    HISTOGRAM = 12
    EXPONENTIAL = 13
    SUMMARY = 14
    NUMBER_POINT = 15
    HISTOGRAM_POINT = 16
    EXPONENTIAL_POINT = 17
    SUMMARY_POINT = 18
    EXEMPLAR = 19
    RECORD = 20
    KEY_VALUE = 21
    ANY = 22
    ARRAY = 23
    MAP = 24
    ENTITY = 25
    REQUEST = 26

ctypedef struct Range:
    int32_t start, end

ctypedef struct Rewrite:
    Ptr base
    int item                      # SPAN, METRIC or RECORD
    const Range* drop             # next one
    const Range* drops_end
    uint8_t* out
    Py_ssize_t length, capacity
    int64_t repaired
    bint out_of_memory


cdef int form_of(int message, uint32_t number, int item) noexcept nogil:
    """Old fields (reserved in today's .proto files) and those of profiles are left out: only some decoders read them."""
    if message == KEY_VALUE:
        return TEXT if number == 1 else ANY if number == 2 else LEFT_OUT if number == 3 else COPIED
    if message == ANY:
        return TEXT if number == 1 else ARRAY if number == 5 else MAP if number == 6 else LEFT_OUT if number == 8 else COPIED
    if message == ARRAY:
        return ANY if number == 1 else COPIED
    if message == MAP:
        return KEY_VALUE if number == 1 else COPIED
    if message == REQUEST:
        return RESOURCE_GROUP if number == 1 else COPIED
    if message == RESOURCE_GROUP:
        return RESOURCE if number == 1 else SCOPE_GROUP if number == 2 or number == 1000 else TEXT if number == 3 else COPIED
    if message == SCOPE_GROUP:
        return SCOPE if number == 1 else item if number == 2 else TEXT if number == 3 else COPIED
    if message == RESOURCE:
        return KEY_VALUE if number == 1 else ENTITY if number == 3 else COPIED
    if message == SCOPE:
        return TEXT if number <= 2 else KEY_VALUE if number == 3 else COPIED
    if message == ENTITY:
        return TEXT if number <= 4 else COPIED
    if message == SPAN:
        if number == 9:
            return KEY_VALUE
        if number == 3 or number == 5:
            return TEXT
        return EVENT if number == 11 else LINK if number == 13 else STATUS if number == 15 else COPIED
    if message == EVENT:
        return TEXT if number == 2 else KEY_VALUE if number == 3 else COPIED
    if message == LINK:
        return TEXT if number == 3 else KEY_VALUE if number == 4 else COPIED
    if message == STATUS:
        return LEFT_OUT if number == 1 else TEXT if number == 2 else COPIED
    if message == RECORD:
        if number == 3 or number == 12:
            return TEXT
        return LEFT_OUT if number == 4 else ANY if number == 5 else KEY_VALUE if number == 6 else COPIED
    if message == METRIC:
        if number <= 3:
            return TEXT
        if number == 4 or number == 6 or number == 8:
            return LEFT_OUT
        if number == 5 or number == 7:
            return NUMBERS
        if number == 9:
            return HISTOGRAM
        return EXPONENTIAL if number == 10 else SUMMARY if number == 11 else KEY_VALUE if number == 12 else COPIED
    if message == NUMBERS:
        return NUMBER_POINT if number == 1 else COPIED
    if message == HISTOGRAM:
        return HISTOGRAM_POINT if number == 1 else COPIED
    if message == EXPONENTIAL:
        return EXPONENTIAL_POINT if number == 1 else COPIED
    if message == SUMMARY:
        return SUMMARY_POINT if number == 1 else COPIED
    if message == NUMBER_POINT:
        return LEFT_OUT if number == 1 else KEY_VALUE if number == 7 else EXEMPLAR if number == 5 else COPIED
    if message == HISTOGRAM_POINT:
        return LEFT_OUT if number == 1 else KEY_VALUE if number == 9 else EXEMPLAR if number == 8 else COPIED
    if message == EXPONENTIAL_POINT:
        return KEY_VALUE if number == 1 else EXEMPLAR if number == 11 else COPIED
    if message == SUMMARY_POINT:
        return LEFT_OUT if number == 1 else KEY_VALUE if number == 7 else COPIED
    if message == EXEMPLAR:
        return LEFT_OUT if number == 1 else KEY_VALUE if number == 7 else COPIED
    return COPIED


cdef int reserve(Rewrite* r, Py_ssize_t more) noexcept nogil:
    cdef Py_ssize_t capacity
    cdef void* grown
    if r.length + more <= r.capacity:
        return 0
    capacity = r.capacity + (r.capacity >> 1) + more
    grown = realloc(r.out, <size_t>capacity)
    if grown == NULL:
        r.out_of_memory = True
        return -1
    r.out = <uint8_t*>grown
    r.capacity = capacity
    return 0


cdef int put(Rewrite* r, Ptr p, Py_ssize_t length) noexcept nogil:
    if reserve(r, length) < 0:
        return -1
    memcpy(r.out + r.length, p, <size_t>length)
    r.length += length
    return 0


cdef int set_length(Rewrite* r, Py_ssize_t body) noexcept nogil:
    """Writes the length of the content from ``body`` to the end before it, where one byte was kept free for it."""
    cdef uint64_t value = <uint64_t>(r.length - body)
    cdef uint64_t rest = value
    cdef Py_ssize_t size = 1
    cdef uint8_t* at
    while rest >= 0x80:
        rest >>= 7
        size += 1
    if reserve(r, size) < 0:
        return -1
    if size > 1:
        memmove(r.out + body + size - 1, r.out + body, <size_t>value)
        r.length += size - 1
    at = r.out + body - 1
    while value >= 0x80:
        at[0] = <uint8_t>(value | 0x80)
        value >>= 7
        at += 1
    at[0] = <uint8_t>value
    return 0


cdef int put_text(Rewrite* r, Ptr p, Ptr end) noexcept nogil:
    """The text with U+FFFD for each ill-formed sequence."""
    cdef int step
    r.repaired += 1
    while p < end:
        step = utf8_step(p, end)
        if step > 0:
            if put(r, p, step) < 0:
                return -1
            p += step
        else:
            if put(r, <Ptr><const char*>b"\xef\xbf\xbd", 3) < 0:
                return -1
            p -= step
    return 0


cdef bint has_scopes(Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0
    while p < end:
        p = read_tag(p, end, &tag)
        if p == NULL or tag == 0x12:
            return p != NULL
        p = skip_field(p, end, tag)
        if p == NULL:
            return False
    return False


cdef int rewrite(Rewrite* r, int message, Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0
    cdef int form
    cdef Ptr start, body, stop = NULL
    cdef Py_ssize_t content
    # With both present the old field holds the same data again and is ignored (opentelemetry-proto 0.15, trace.proto).
    cdef bint ignore_old = message == RESOURCE_GROUP and has_scopes(p, end)
    while p < end:
        start = p
        p = read_tag(p, end, &tag)
        if p == NULL:
            return -1
        body = p
        p = skip_field(p, end, tag)
        if p == NULL:
            return -1
        if r.drop < r.drops_end and r.base + r.drop.start == start:
            r.drop += 1
            continue
        form = form_of(message, tag >> 3, r.item)
        if form == LEFT_OUT or (ignore_old and tag >> 3 == 1000):
            continue
        if form == COPIED or (tag & 7) != 2:
            if put(r, start, p - start) < 0:
                return -1
            continue
        stop = p
        if tag >> 3 == 1000 and message == RESOURCE_GROUP:
            if put(r, <Ptr><const char*>b"\x12", 1) < 0:
                return -1
        elif put(r, start, body - start) < 0:
            return -1
        body = read_length(body, end, &stop)
        if body == NULL or put(r, <Ptr><const char*>b"\x00", 1) < 0:
            return -1
        content = r.length
        if form != TEXT:
            if rewrite(r, form, body, stop) < 0:
                return -1
        elif is_utf8(body, stop):
            if put(r, body, stop - body) < 0:
                return -1
        elif put_text(r, body, stop) < 0:
            return -1
        if set_length(r, content) < 0:
            return -1
    return 0


def repair(str signal not None, bytes wire not None, bytes drops not None):
    """(rewritten request, number of texts repaired). ``drops``: pairs of I32 (start, end) of items to leave out, in document order."""
    cdef Rewrite r
    cdef int rc
    r.base = <Ptr>PyBytes_AS_STRING(wire)
    r.item = {"traces": SPAN, "metrics": METRIC, "logs": RECORD}[signal]
    r.drop = <const Range*>PyBytes_AS_STRING(drops)
    r.drops_end = r.drop + PyBytes_GET_SIZE(drops) // <Py_ssize_t>sizeof(Range)
    r.length = r.repaired = 0
    r.out_of_memory = False
    r.capacity = PyBytes_GET_SIZE(wire) + 64
    r.out = <uint8_t*>malloc(<size_t>r.capacity)
    if r.out == NULL:
        raise MemoryError
    cdef Ptr end = r.base + PyBytes_GET_SIZE(wire)
    try:
        if end - r.base > RELEASE_GIL_BYTES:
            with nogil:
                rc = rewrite(&r, REQUEST, r.base, end)
        else:
            rc = rewrite(&r, REQUEST, r.base, end)
        if rc < 0:
            if r.out_of_memory:
                raise MemoryError
            raise MalformedBatch("", 0, "not a scanned request")
        return PyBytes_FromStringAndSize(<char*>r.out, r.length), r.repaired
    finally:
        free(r.out)
