"""Writes Prometheus remote-write 2.0 requests from those of version 1.0, whose samples they carry.

A request is encoded once, as version 1.0, and becomes version 2.0 when it is sent: so it can be cut, described and sent
to a receiver that does not know version 2.0 in one form. Version 2.0 adds a table of symbols, the metadata of each
series, and the time at which each counter and histogram began.

Source: the remote-write specification 2.0; prometheus prompb/io/prometheus/write/v2/types.proto.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

import os

from collector.wire.hash.places cimport slice_hash
from collector.wire.proto cimport Ptr, read_varint
from collector.wire.writer cimport (
    Writer, close_writer, open_writer, put_byte, put_bytes, put_slice, put_varint, set_varint, varint_size,
)

cdef enum:
    V1_SERIES = 0x0A
    V1_LABEL = 0x0A
    V1_SAMPLE = 0x12
    V1_EXEMPLAR = 0x1A
    V1_HISTOGRAM = 0x22
    V1_HISTOGRAM_TIME = 0x78
    V1_SAMPLE_TIME = 0x10
    V2_SYMBOL = 0x22
    V2_SERIES = 0x2A
    V2_REFS = 0x0A
    V2_SAMPLE = 0x12
    V2_HISTOGRAM = 0x1A
    V2_EXEMPLAR = 0x22
    V2_METADATA = 0x2A
    V2_SAMPLE_START = 0x18
    V2_HISTOGRAM_START = 0x88  # field 17, whose tag has two bytes

cdef uint64_t[4] SECRET
for _i in range(4):
    SECRET[_i] = int.from_bytes(os.urandom(8), "little")


cdef struct Symbols:
    Writer written         # finished fields
    Ptr *at                # of each symbol
    int32_t *length
    uint32_t *places       # number of the symbol, 0: free
    uint32_t count, room, mask
    bint failed


cdef bint _open(Symbols *s) noexcept nogil:
    s.at = NULL
    s.length = NULL
    s.places = NULL
    s.count = 1            # number 0 is the empty text
    s.room = 256
    s.mask = 511
    s.failed = False
    open_writer(&s.written, 4096)
    s.at = <Ptr *>malloc(s.room * sizeof(Ptr))
    s.length = <int32_t *>malloc(s.room * sizeof(int32_t))
    s.places = <uint32_t *>calloc(s.mask + 1, sizeof(uint32_t))
    put_byte(&s.written, V2_SYMBOL)
    put_byte(&s.written, 0)
    return s.at != NULL and s.length != NULL and s.places != NULL


cdef void _close(Symbols *s) noexcept nogil:
    close_writer(&s.written)
    free(s.at)
    free(s.length)
    free(s.places)


cdef bint _grow(Symbols *s) noexcept nogil:
    """Twice the room; False without memory."""
    cdef uint32_t room = 2 * s.room, mask = 2 * s.mask + 1, i
    cdef uint64_t place
    cdef Ptr *at = <Ptr *>realloc(s.at, room * sizeof(Ptr))
    cdef int32_t *length
    cdef uint32_t *places
    if at == NULL:
        return False
    s.at = at
    length = <int32_t *>realloc(s.length, room * sizeof(int32_t))
    if length == NULL:
        return False
    s.length = length
    places = <uint32_t *>calloc(<size_t>mask + 1, sizeof(uint32_t))
    if places == NULL:
        return False
    for i in range(1, s.count):
        place = slice_hash(SECRET, s.at[i], s.length[i]) & mask
        while places[place]:
            place = (place + 1) & mask
        places[place] = i
    free(s.places)
    s.places, s.room, s.mask = places, room, mask
    return True


cdef uint32_t _symbol(Symbols *s, Ptr at, int32_t length) noexcept nogil:
    """The number of a text, which is added to the table if it is new."""
    cdef uint64_t place
    cdef uint32_t number
    if length <= 0:
        return 0
    place = slice_hash(SECRET, at, length) & s.mask
    while True:
        number = s.places[place]
        if not number:
            break
        if s.length[number] == length and memcmp(s.at[number], at, length) == 0:
            return number
        place = (place + 1) & s.mask
    if s.count == s.room:
        if not _grow(s):
            s.failed = True
            return 0
        place = slice_hash(SECRET, at, length) & s.mask
        while s.places[place]:
            place = (place + 1) & s.mask
    number = s.count
    s.count += 1
    s.at[number] = at
    s.length[number] = length
    s.places[place] = number
    put_slice(&s.written, V2_SYMBOL, at, length)
    return number


cdef Ptr _piece(Ptr at, Ptr end, Ptr *content) noexcept nogil:
    """The content of the length-delimited field whose tag was read; returns where it ends, NULL if it does not fit."""
    cdef uint64_t length = 0
    at = read_varint(at, end, &length)
    if at == NULL or length > <uint64_t>(end - at):
        return NULL
    content[0] = at
    return at + length


cdef bint _label(Symbols *s, Ptr at, Ptr end, Writer *refs) noexcept nogil:
    """The two references of a label."""
    cdef Ptr content = NULL
    cdef uint32_t name = 0, value = 0
    cdef uint8_t tag
    while at < end:
        tag = at[0]
        at = _piece(at + 1, end, &content)
        if at == NULL:
            return False
        if tag == 0x0A:
            name = _symbol(s, content, <int32_t>(at - content))
        else:
            value = _symbol(s, content, <int32_t>(at - content))
    put_varint(refs, name)
    put_varint(refs, value)
    return True


cdef uint64_t _time(Ptr at, Ptr end, uint8_t wanted) noexcept nogil:
    """The timestamp in a Sample or Histogram."""
    cdef Ptr content = NULL
    cdef uint64_t value = 0, tag = 0
    while at != NULL and at < end:
        at = read_varint(at, end, &tag)
        if at == NULL:
            break
        if tag & 7 == 1:
            at += 8
        elif tag & 7 == 2:
            at = _piece(at, end, &content)
        else:
            at = read_varint(at, end, &value)
            if tag == wanted:
                return value
    return 0


cdef bint _exemplar(Symbols *s, Ptr at, Ptr end, Writer *out, Writer *refs, Writer *rest) noexcept nogil:
    """An Exemplar with references in place of labels."""
    cdef Ptr content = NULL, begin
    cdef uint8_t tag
    cdef uint64_t value = 0
    refs.size = rest.size = 0
    while at < end:
        begin = at
        tag = at[0]
        at += 1
        if tag == 0x0A:
            at = _piece(at, end, &content)
            if at == NULL or not _label(s, content, at, refs):
                return False
            continue
        at = at + 8 if tag & 7 == 1 else read_varint(at, end, &value)
        if at == NULL or at > end:
            return False
        put_bytes(rest, begin, at - begin)  # value and time have the same numbers in both versions
    put_byte(out, V2_EXEMPLAR)
    put_varint(out, (1 + varint_size(refs.size) + refs.size if refs.size else 0) + rest.size)
    if refs.size:
        put_slice(out, V2_REFS, refs.data, refs.size)
    put_bytes(out, rest.data, rest.size)
    return True


cdef void _with_start(Writer *out, uint8_t tag, Ptr at, Ptr end, uint32_t start_tag, uint64_t start) noexcept nogil:
    """A Sample or Histogram, whose start is added if it is known."""
    cdef uint8_t[20] added
    cdef Py_ssize_t size = 0
    if start:
        size = set_varint(set_varint(added, start_tag), start) - added
    put_byte(out, tag)
    put_varint(out, <uint64_t>(end - at) + size)
    put_bytes(out, at, end - at)
    put_bytes(out, added, size)


cdef class _Scratch:
    """What one request needs."""

    cdef Symbols symbols
    cdef Writer series, refs, points, exemplars, exemplar_refs, rest

    def __cinit__(self):
        memset(&self.symbols, 0, sizeof(Symbols))
        open_writer(&self.series, 65536)
        open_writer(&self.refs, 256)
        open_writer(&self.points, 1024)
        open_writer(&self.exemplars, 256)
        open_writer(&self.exemplar_refs, 64)
        open_writer(&self.rest, 64)
        if not _open(&self.symbols):
            raise MemoryError

    def __dealloc__(self):
        _close(&self.symbols)
        close_writer(&self.series)
        close_writer(&self.refs)
        close_writer(&self.points)
        close_writer(&self.exemplars)
        close_writer(&self.exemplar_refs)
        close_writer(&self.rest)

    cdef bint _write(
        self, Ptr at, Ptr end, const int64_t *times, Py_ssize_t time_count, const int64_t *metadata, Ptr texts,
    ) noexcept nogil:
        """One TimeSeries."""
        cdef Ptr content = NULL
        cdef uint8_t tag
        cdef uint64_t time, start
        cdef Py_ssize_t t = 0
        cdef uint32_t help_ref = 0, unit_ref = 0
        cdef Py_ssize_t metadata_size = 0
        self.refs.size = self.points.size = self.exemplars.size = 0
        while at < end:
            tag = at[0]
            at = _piece(at + 1, end, &content)
            if at == NULL:
                return False
            if tag == V1_LABEL:
                if not _label(&self.symbols, content, at, &self.refs):
                    return False
            elif tag == V1_EXEMPLAR:
                if not _exemplar(&self.symbols, content, at, &self.exemplars, &self.exemplar_refs, &self.rest):
                    return False
            else:
                time = _time(content, at, V1_SAMPLE_TIME if tag == V1_SAMPLE else V1_HISTOGRAM_TIME)
                # Both are in the order of time; a sum may lack some of the points.
                while t < time_count and <uint64_t>times[2 * t] < time:
                    t += 1
                start = <uint64_t>times[2 * t + 1] if t < time_count and <uint64_t>times[2 * t] == time else 0
                if tag == V1_SAMPLE:
                    _with_start(&self.points, V2_SAMPLE, content, at, V2_SAMPLE_START, start)
                else:
                    _with_start(&self.points, V2_HISTOGRAM, content, at, V2_HISTOGRAM_START, start)
        if metadata != NULL:
            help_ref = _symbol(&self.symbols, texts + metadata[1], <int32_t>metadata[2])
            unit_ref = _symbol(&self.symbols, texts + metadata[3], <int32_t>metadata[4])
            metadata_size = (2 if metadata[0] else 0) + (1 + varint_size(help_ref) if help_ref else 0)
            metadata_size += 1 + varint_size(unit_ref) if unit_ref else 0
        put_byte(&self.series, V2_SERIES)
        put_varint(
            &self.series,
            1 + varint_size(self.refs.size) + self.refs.size + self.points.size + self.exemplars.size
            + (2 + metadata_size if metadata_size else 0),
        )
        put_slice(&self.series, V2_REFS, self.refs.data, self.refs.size)
        put_bytes(&self.series, self.points.data, self.points.size)
        put_bytes(&self.series, self.exemplars.data, self.exemplars.size)
        if metadata_size:
            put_byte(&self.series, V2_METADATA)
            put_byte(&self.series, <uint8_t>metadata_size)
            if metadata[0]:
                put_byte(&self.series, 0x08)
                put_byte(&self.series, <uint8_t>metadata[0])
            if help_ref:
                put_byte(&self.series, 0x18)
                put_varint(&self.series, help_ref)
            if unit_ref:
                put_byte(&self.series, 0x20)
                put_varint(&self.series, unit_ref)
        return True


def to_v2(
    bytes body not None,                     # a request of version 1.0
    const int64_t[:, ::1] cuts not None,     # (runs, 2): where each run ends, the number of points up to there
    const int64_t[:, ::1] times not None,    # (points, 2): time and start in milliseconds, ascending in each run
    const int32_t[::1] family not None,      # (runs,) row of ``metadata``; negative: none
    const int64_t[:, ::1] metadata not None, # (families, 5): type, start and size of the help, of the unit
    const uint8_t[::1] texts not None,       # the help texts and units
):
    """The request as one of version 2.0, without the metadata of its own; ``b""`` if it has no series.

    Raises:
        ValueError: ``body`` is not a request that our encoder wrote.
    """
    cdef _Scratch scratch = _Scratch()
    cdef Ptr base = <Ptr>PyBytes_AS_STRING(body), at = base, end = base + len(body), content = NULL
    cdef Ptr text = &texts[0] if texts.shape[0] else NULL
    cdef Py_ssize_t run = 0, run_count = cuts.shape[0], first = 0, last
    cdef Py_ssize_t point_count = times.shape[0], r
    cdef const int64_t *about
    cdef uint8_t tag
    cdef bint is_valid = True
    if family.shape[0] < run_count:
        raise IndexError("a run has no family")
    for r in range(run_count):
        if family[r] >= metadata.shape[0]:
            raise IndexError("a family is outside of the table")
    for r in range(metadata.shape[0]):
        if (
            metadata[r, 1] < 0 or metadata[r, 2] < 0 or metadata[r, 1] + metadata[r, 2] > texts.shape[0]
            or metadata[r, 3] < 0 or metadata[r, 4] < 0 or metadata[r, 3] + metadata[r, 4] > texts.shape[0]
        ):
            raise IndexError("a text is outside of its buffer")
    with nogil:
        while at < end:
            while run < run_count and cuts[run, 0] <= at - base:
                first = cuts[run, 1]
                run += 1
            tag = at[0]
            at = _piece(at + 1, end, &content)
            if at == NULL:
                is_valid = False
                break
            if tag != V1_SERIES:
                continue
            last = cuts[run, 1] if run < run_count else first
            last = point_count if last > point_count else last
            about = &metadata[family[run], 0] if run < run_count and family[run] >= 0 else NULL
            if not scratch._write(
                content, at, &times[first, 0] if first < last else NULL, last - first if last > first else 0, about,
                text,
            ):
                is_valid = False
                break
    if not is_valid:
        raise ValueError("this is not a request of version 1.0 that the encoder wrote")
    if (
        scratch.symbols.failed or scratch.symbols.written.failed or scratch.series.failed or scratch.refs.failed
        or scratch.points.failed or scratch.exemplars.failed or scratch.exemplar_refs.failed or scratch.rest.failed
    ):
        raise MemoryError
    if not scratch.series.size:
        return b""
    result = PyBytes_FromStringAndSize(NULL, scratch.symbols.written.size + scratch.series.size)
    memcpy(PyBytes_AS_STRING(result), scratch.symbols.written.data, scratch.symbols.written.size)
    memcpy(
        PyBytes_AS_STRING(result) + scratch.symbols.written.size, scratch.series.data, scratch.series.size
    )
    return result
