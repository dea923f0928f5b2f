"""Makes text in a JSON body valid Unicode: bytes that are not UTF-8, and escapes that are half of a surrogate pair.

JavaScript makes the latter when it cuts a text in the middle of an emoji. Only for bodies that a parser has refused.

Source: RFC 8259 §7 and §8.2; the Unicode Standard 3.9 ("maximal subpart").
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t, uint32_t

from collector.wire.proto cimport Ptr, utf8_step
from collector.wire.writer cimport Writer, close_writer, open_writer, put_bytes, take

__all__ = []

cdef enum:
    ESCAPE_BYTES = 6              # \uXXXX
    NO_ESCAPE = 0x110000


cdef bytes repaired(bytes body):
    """``body`` with U+FFFD in place of each ill-formed sequence and lone surrogate; None if it has none."""
    cdef Writer w
    cdef Ptr start = <Ptr>PyBytes_AS_STRING(body)
    cdef Ptr end = start + PyBytes_GET_SIZE(body)
    cdef bint changed
    open_writer(&w, end - start)
    try:
        with nogil:
            changed = put_repaired(&w, start, end)
        if not changed:
            return None
        return take(&w)
    finally:
        close_writer(&w)


cdef bint put_repaired(Writer* w, Ptr at, Ptr end) noexcept nogil:
    """Writes the body and returns whether anything was replaced."""
    cdef Ptr kept = at            # what was not written yet
    cdef bint changed = False
    cdef uint32_t first, second
    cdef int step
    while at < end:
        if at[0] == c'\\':         # outside of strings it is not valid, and stays so
            first = escape(at, end)
            if first == NO_ESCAPE:
                step = 2
            elif first < 0xD800 or first > 0xDFFF:
                step = ESCAPE_BYTES
            else:
                second = escape(at + ESCAPE_BYTES, end)
                if first < 0xDC00 and 0xDC00 <= second <= 0xDFFF:
                    step = 2 * ESCAPE_BYTES
                else:
                    step = -ESCAPE_BYTES
        else:
            step = 1 if at[0] < 0x80 else utf8_step(at, end)
        if step > 0:
            at += step
            continue
        put_bytes(w, kept, at - kept)
        put_bytes(w, b"\xef\xbf\xbd", 3)
        at -= step
        kept = at
        changed = True
    if kept < end:                # a backslash at the end steps beyond it
        put_bytes(w, kept, end - kept)
    return changed


cdef uint32_t escape(Ptr at, Ptr end) noexcept nogil:
    """The code unit of the escape at ``at``, or NO_ESCAPE if there is none."""
    cdef uint32_t unit = 0
    cdef int i
    cdef uint8_t c
    if end - at < ESCAPE_BYTES or at[0] != c'\\' or at[1] != c'u':
        return NO_ESCAPE
    for i in range(2, ESCAPE_BYTES):
        c = at[i]
        if c'0' <= c <= c'9':
            c -= c'0'
        elif c'a' <= (c | 0x20) <= c'f':
            c = (c | 0x20) - c'a' + 10
        else:
            return NO_ESCAPE
        unit = unit << 4 | c
    return unit
