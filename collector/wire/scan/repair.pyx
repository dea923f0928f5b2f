"""Rewrites a scanned request: repairs UTF-8, makes instrumentation-library fields scopes, removes fields and items.

Unknown varints of more than 64 bits are cut to 64, as decoders read them.

This is the slow path of the door, but it is compiled all the same, because a hostile sender chooses how often it is
taken. It relies on the scan for validity (depth, lengths) but reads with the same bounds checks.
"""

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint32_t, uint64_t

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.proto cimport WIRE_VARINT, Ptr, is_utf8, read_length, read_tag, skip_field, utf8_step
from collector.wire.scan.readers cimport skip_long_varint
from collector.wire.scan.state cimport Range
from collector.wire.writer cimport Writer, close_writer, end as end_message, open_writer, put_byte, put_bytes, put_varint, take

__all__ = ["repair"]

cdef enum Form:                   # of a field: left out, copied, repaired as text, or rewritten as a message
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
    BUCKETS = 27
    QUANTILE = 28

cdef enum:
    OLD_SCOPE_GROUP = 1000        # the instrumentation-library field of RESOURCE_GROUP
    SCOPE_GROUP_TAG = 0x12

ctypedef struct Rewrite:
    Ptr base
    int item                      # SPAN, METRIC or RECORD
    const Range* drop             # the next one
    const Range* drops_end
    Writer out
    int64_t repaired


def repair(str signal not None, bytes wire not None, bytes drops not None):
    """(The rewritten request, the number of repaired texts).

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        wire: The scanned request.
        drops: Pairs of I32 (start, end) of items to leave out, in document order.

    Raises:
        MalformedBatch: The request was not scanned.
    """
    cdef Rewrite r
    cdef int rc
    r.base = <Ptr>PyBytes_AS_STRING(wire)
    r.item = {"traces": SPAN, "metrics": METRIC, "logs": RECORD}[signal]
    r.drop = <const Range*>PyBytes_AS_STRING(drops)
    r.drops_end = r.drop + PyBytes_GET_SIZE(drops) // <Py_ssize_t>sizeof(Range)
    r.repaired = 0
    open_writer(&r.out, PyBytes_GET_SIZE(wire) + 64)
    cdef Ptr end = r.base + PyBytes_GET_SIZE(wire)
    try:
        if end - r.base > RELEASE_GIL_BYTES:
            with nogil:
                rc = rewrite(&r, REQUEST, r.base, end)
        else:
            rc = rewrite(&r, REQUEST, r.base, end)
        if rc < 0:
            raise MalformedBatch("", 0, "the request was not validated before")
        return take(&r.out), r.repaired
    finally:
        close_writer(&r.out)


cdef int rewrite(Rewrite* r, int message, Ptr p, Ptr end) noexcept nogil:
    cdef uint32_t tag = 0
    cdef int form
    cdef Ptr start, body, stop = NULL
    cdef Py_ssize_t content
    # If both are present, the old field repeats the same data and is ignored (opentelemetry-proto 0.15, trace.proto).
    cdef bint ignore_old = message == RESOURCE_GROUP and has_scopes(p, end)
    while p < end:
        start = p
        p = read_tag(p, end, &tag)
        if p == NULL:
            return -1
        body = p
        p = skip_field(p, end, tag)
        if p == NULL and (tag & 7) == WIRE_VARINT:
            p = skip_long_varint(body, end)
            if p != NULL:
                put_bytes(&r.out, start, body - start)
                put_varint(&r.out, low_bits(body, p))
                continue
        if p == NULL:
            return -1
        if r.drop < r.drops_end and r.base + r.drop.start == start:
            r.drop += 1
            continue
        form = form_of(message, tag >> 3, r.item)
        if form == LEFT_OUT or (ignore_old and tag >> 3 == OLD_SCOPE_GROUP):
            continue
        if form == COPIED or (tag & 7) != 2:
            put_bytes(&r.out, start, p - start)
            continue
        stop = p
        if tag >> 3 == OLD_SCOPE_GROUP and message == RESOURCE_GROUP:
            put_byte(&r.out, SCOPE_GROUP_TAG)
        else:
            put_bytes(&r.out, start, body - start)
        body = read_length(body, end, &stop)
        if body == NULL:
            return -1
        put_byte(&r.out, 0)        # end_message() writes the length here
        content = r.out.size
        if form != TEXT:
            if rewrite(r, form, body, stop) < 0:
                return -1
        elif is_utf8(body, stop):
            put_bytes(&r.out, body, stop - body)
        else:
            put_repaired(r, body, stop)
        end_message(&r.out, content)
    return 0


cdef uint64_t low_bits(Ptr p, Ptr end) noexcept nogil:
    """The lowest 64 bits of the varint in these bytes."""
    cdef uint64_t value = 0
    cdef uint32_t shift = 0
    while p < end:
        value |= (<uint64_t>(p[0] & 0x7F)) << shift
        shift += 7
        p += 1
    return value


cdef int form_of(int message, uint32_t number, int item) noexcept nogil:
    """What happens to a field of a message.

    Old fields (reserved in current .proto files) and those of profiles are left out: only some decoders read them.
    """
    if message == KEY_VALUE:
        return TEXT if number == 1 else ANY if number == 2 else LEFT_OUT if number == 3 else COPIED
    if message == ANY:
        if number == 8:
            return LEFT_OUT
        return TEXT if number == 1 else ARRAY if number == 5 else MAP if number == 6 else COPIED
    if message == ARRAY:
        return ANY if number == 1 else COPIED
    if message == MAP:
        return KEY_VALUE if number == 1 else COPIED
    if message == REQUEST:
        return RESOURCE_GROUP if number == 1 else COPIED
    if message == RESOURCE_GROUP:
        if number == 2 or number == OLD_SCOPE_GROUP:
            return SCOPE_GROUP
        return RESOURCE if number == 1 else TEXT if number == 3 else COPIED
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
        if number == 8 or number == 9:
            return BUCKETS
        return KEY_VALUE if number == 1 else EXEMPLAR if number == 11 else COPIED
    if message == SUMMARY_POINT:
        return LEFT_OUT if number == 1 else QUANTILE if number == 6 else KEY_VALUE if number == 7 else COPIED
    if message == EXEMPLAR:
        return LEFT_OUT if number == 1 else KEY_VALUE if number == 7 else COPIED
    return COPIED


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


cdef void put_repaired(Rewrite* r, Ptr p, Ptr end) noexcept nogil:
    """Writes a text with U+FFFD in place of each ill-formed sequence."""
    cdef int step
    r.repaired += 1
    while p < end:
        step = utf8_step(p, end)
        if step > 0:
            put_bytes(&r.out, p, step)
            p += step
        else:
            put_bytes(&r.out, b"\xef\xbf\xbd", 3)
            p -= step
