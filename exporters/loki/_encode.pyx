"""Index rows and ready-made label pieces in, Loki push requests out.

Knows nothing of label rules: stream labels and LabelPair bytes come ready-made; lines are slices of the request or of an arena.
Source: grafana/loki pkg/push/push.proto (PushRequest, Stream, Entry, LabelPair).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from collector.wire.layout cimport RecordRow
from collector.wire.writer cimport set_varint, varint_size


cdef inline uint8_t* _copy(uint8_t* at, const uint8_t* source, int64_t size) noexcept nogil:
    if size > 0:
        memcpy(at, source, size)
    return at + size


cdef const char* HEX = b"0123456789abcdef"


cdef inline uint8_t* _hex(uint8_t* at, uint64_t word) noexcept nogil:
    cdef int shift
    for shift in range(60, -4, -4):
        at[0] = HEX[(word >> shift) & 15]
        at += 1
    return at


# LabelPair fields of an Entry whose value is an id: tag 0x1a, sizes, name, value tag.
cdef bytes TRACE_ID = b"\x1a\x2c\x0a\x08trace_id\x12\x20"   # 2 + 8 + 2 + 32 = 44
cdef bytes SPAN_ID = b"\x1a\x1b\x0a\x07span_id\x12\x10"     # 2 + 7 + 2 + 16 = 27


def encode(
    bytes wire not None,
    const uint8_t[::1] records not None,          # RecordRow records
    const int32_t[::1] order not None,            # record rows, stream after stream, in time order
    const int32_t[::1] streams not None,          # (streams + 1,) positions in order
    const uint8_t[::1] stream_arena not None,     # label texts
    const int64_t[:, ::1] stream_slices not None, # (streams, 2): start, size
    const uint64_t[::1] times not None,           # (records,) ns
    const uint8_t[::1] line_arena not None,       # texts of bodies that are no strings
    const int64_t[:, ::1] line_slices not None,   # (records, 2): start, size; start -1: the record's own text
    int64_t line_max_bytes,
    const uint8_t[::1] piece_arena not None,      # LabelPair fields
    const int64_t[:, ::1] piece_slices not None,  # (pieces, 2): start, size
    const int32_t[::1] attribute_piece not None,  # (attributes,) piece of each attribute, -1: none
    const int32_t[::1] attribute_first not None,  # (records + 1,)
    const int32_t[:, ::1] shared_pieces not None, # (records, k): pieces of each record's resource, scope, severity …; -1: none
):
    """One PushRequest."""
    cdef RecordRow* rows = <RecordRow*> &records[0] if records.shape[0] else NULL
    cdef const uint8_t* text = wire
    cdef const uint8_t* pieces = &piece_arena[0]
    cdef Py_ssize_t stream_count = streams.shape[0] - 1, s, i, k, shared = shared_pieces.shape[1]
    cdef int64_t needed = 0, entry_size, stream_size, line_size, time_size, total
    cdef uint64_t seconds, nanos
    cdef int32_t row, a, piece
    cdef const uint8_t* line
    cdef const uint8_t* trace_label = TRACE_ID
    cdef const uint8_t* span_label = SPAN_ID
    cdef Py_ssize_t trace_label_size = len(TRACE_ID), span_label_size = len(SPAN_ID)
    cdef int64_t[::1] entry_sizes
    cdef uint8_t* out = NULL
    cdef uint8_t* at
    import numpy
    entry_sizes = numpy.zeros(max(order.shape[0], 1), numpy.int64)
    # First pass: sizes.
    for s in range(stream_count):
        stream_size = 1 + varint_size(stream_slices[s, 1]) + stream_slices[s, 1]
        for i in range(streams[s], streams[s + 1]):
            row = order[i]
            time_size = _time_size(times[row])
            line_size = _line_size(rows, line_slices, row, line_max_bytes, text, &line_arena[0])
            entry_size = 1 + 1 + time_size
            if line_size:
                entry_size += 1 + varint_size(line_size) + line_size
            if rows[row].trace_id_hi | rows[row].trace_id_lo:
                entry_size += trace_label_size + 32
            if rows[row].span_id:
                entry_size += span_label_size + 16
            for k in range(shared):
                piece = shared_pieces[row, k]
                if piece >= 0:
                    entry_size += piece_slices[piece, 1]
            for a in range(attribute_first[row], attribute_first[row + 1]):
                piece = attribute_piece[a]
                if piece >= 0:
                    entry_size += piece_slices[piece, 1]
            entry_sizes[i] = entry_size
            stream_size += 1 + varint_size(entry_size) + entry_size
        needed += 1 + varint_size(stream_size) + stream_size
    out = <uint8_t*> malloc(needed if needed else 1)
    if out == NULL:
        raise MemoryError
    at = out
    try:
        for s in range(stream_count):
            stream_size = 1 + varint_size(stream_slices[s, 1]) + stream_slices[s, 1]
            for i in range(streams[s], streams[s + 1]):
                stream_size += 1 + varint_size(entry_sizes[i]) + entry_sizes[i]
            at[0] = 0x0A
            at = set_varint(at + 1, stream_size)
            at[0] = 0x0A
            at = set_varint(at + 1, stream_slices[s, 1])
            at = _copy(at, &stream_arena[0] + stream_slices[s, 0], stream_slices[s, 1])
            for i in range(streams[s], streams[s + 1]):
                row = order[i]
                at[0] = 0x12
                at = set_varint(at + 1, entry_sizes[i])
                seconds, nanos = times[row] // 1000000000, times[row] % 1000000000
                at[0] = 0x0A
                at[1] = <uint8_t> _time_size(times[row])
                at += 2
                if seconds:
                    at[0] = 0x08
                    at = set_varint(at + 1, seconds)
                if nanos:
                    at[0] = 0x10
                    at = set_varint(at + 1, nanos)
                line_size = _line_size(rows, line_slices, row, line_max_bytes, text, &line_arena[0])
                if line_size:
                    line = text + rows[row].text if line_slices[row, 0] < 0 else &line_arena[0] + line_slices[row, 0]
                    at[0] = 0x12
                    at = set_varint(at + 1, line_size)
                    at = _copy(at, line, line_size)
                if rows[row].trace_id_hi | rows[row].trace_id_lo:
                    at = _copy(at, trace_label, trace_label_size)
                    at = _hex(_hex(at, rows[row].trace_id_hi), rows[row].trace_id_lo)
                if rows[row].span_id:
                    at = _copy(at, span_label, span_label_size)
                    at = _hex(at, rows[row].span_id)
                for k in range(shared):
                    piece = shared_pieces[row, k]
                    if piece >= 0:
                        at = _copy(at, pieces + piece_slices[piece, 0], piece_slices[piece, 1])
                for a in range(attribute_first[row], attribute_first[row + 1]):
                    piece = attribute_piece[a]
                    if piece >= 0:
                        at = _copy(at, pieces + piece_slices[piece, 0], piece_slices[piece, 1])
        assert at - out == needed
        return out[:needed]
    finally:
        free(out)


cdef inline int64_t _time_size(uint64_t time) noexcept nogil:
    cdef uint64_t seconds = time // 1000000000, nanos = time % 1000000000
    return (1 + varint_size(seconds) if seconds else 0) + (1 + varint_size(nanos) if nanos else 0)


cdef inline int64_t _line_size(RecordRow* rows, const int64_t[:, ::1] slices, int32_t row, int64_t limit, const uint8_t* wire, const uint8_t* arena) noexcept nogil:
    """Bytes of the line, cut at ``limit`` without splitting a character."""
    cdef int64_t size = rows[row].text_len if slices[row, 0] < 0 else slices[row, 1]
    cdef const uint8_t* line = wire + rows[row].text if slices[row, 0] < 0 else arena + slices[row, 0]
    if limit <= 0 or size <= limit:
        return size if size > 0 else 0
    size = limit
    while size > 0 and (line[size] & 0xC0) == 0x80:
        size -= 1
    return size
