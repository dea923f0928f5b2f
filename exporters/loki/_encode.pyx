"""Writes Loki push requests from index rows and finished label pieces.

The kernel does not know label rules: stream labels and LabelPair fields arrive as finished bytes; lines are slices of
the request or of an arena.

Source: grafana/loki pkg/push/push.proto (PushRequest, Stream, Entry, LabelPair).
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

import numpy as np

from collector.wire.layout cimport RecordRow
from collector.wire.proto cimport Ptr, read_length
from collector.wire.writer cimport set_varint, varint_size


cdef inline uint8_t *_copy(uint8_t *at, const uint8_t *source, int64_t size) noexcept nogil:
    if size > 0:
        memcpy(at, source, size)
    return at + size


cdef const char *HEX = b"0123456789abcdef"


cdef inline uint8_t *_hex(uint8_t *at, uint64_t word) noexcept nogil:
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
    const uint8_t[::1] records not None,             # RecordRow records
    const int32_t[::1] order not None,               # record rows, stream after stream, each in time order
    const int32_t[::1] stream_offsets not None,      # (streams + 1,) positions in ``order``
    const uint8_t[::1] stream_arena not None,        # texts of stream labels
    const int64_t[:, ::1] stream_slices not None,    # (streams, 2): start, size
    const uint64_t[::1] times not None,              # (records,) nanoseconds
    const uint8_t[::1] line_arena not None,          # texts of bodies that are not strings
    const int64_t[:, ::1] line_slices not None,      # (records, 2): start, size; start -1: the record's own text
    int64_t line_max_bytes,
    const uint8_t[::1] piece_arena not None,         # LabelPair fields
    const int64_t[:, ::1] piece_slices not None,     # (pieces, 2): start, size
    const int32_t[::1] attribute_pieces not None,    # (attributes,) piece of each attribute; -1: none
    const int32_t[::1] attribute_offsets not None,   # (records + 1,)
    const int32_t[:, ::1] shared_pieces not None,    # (records, k): pieces of resource, scope, severity …; -1: none
    int64_t request_max_bytes,                       # 0: no limit
):
    """PushRequests of at most ``request_max_bytes``, in order, as tuples (bytes, number of entries).

    An entry that is larger by itself makes up a request of its own.
    """
    cdef RecordRow *rows = <RecordRow *>&records[0] if records.shape[0] else NULL
    cdef const uint8_t *text = wire
    cdef const uint8_t *pieces = &piece_arena[0]
    cdef Py_ssize_t stream_count = stream_offsets.shape[0] - 1, record_count = order.shape[0]
    cdef Py_ssize_t shared = shared_pieces.shape[1]
    cdef Py_ssize_t s, i, k, begin = 0, end, stream_end
    cdef int64_t entry_size, stream_size, label_size, line_size, closed = 0
    cdef uint64_t seconds, nanos
    cdef int32_t row, a, piece
    cdef const uint8_t *line
    cdef const uint8_t *trace_label = TRACE_ID
    cdef const uint8_t *span_label = SPAN_ID
    cdef Py_ssize_t trace_label_size = len(TRACE_ID), span_label_size = len(SPAN_ID)
    cdef int64_t[::1] entry_sizes = np.zeros(max(record_count, 1), np.int64)
    cdef list planned = []  # (end in ``order``, size in bytes) of each request
    cdef list requests = []
    cdef bytes body
    cdef uint8_t *at
    # First pass: sizes.
    for s in range(stream_count):
        label_size = stream_size = _field_size(stream_slices[s, 1])
        for i in range(stream_offsets[s], stream_offsets[s + 1]):
            row = order[i]
            line_size = _line_size(rows, line_slices, row, line_max_bytes, text, &line_arena[0])
            entry_size = 1 + 1 + _time_size(times[row])
            if line_size:
                entry_size += _field_size(line_size)
            if rows[row].trace_id_hi | rows[row].trace_id_lo:
                entry_size += trace_label_size + 32
            if rows[row].span_id:
                entry_size += span_label_size + 16
            for k in range(shared):
                piece = shared_pieces[row, k]
                if piece >= 0:
                    entry_size += piece_slices[piece, 1]
            for a in range(attribute_offsets[row], attribute_offsets[row + 1]):
                piece = attribute_pieces[a]
                if piece >= 0:
                    entry_size += piece_slices[piece, 1]
            entry_sizes[i] = entry_size
            entry_size = _field_size(entry_size)
            if request_max_bytes and i > begin and closed + _field_size(stream_size + entry_size) > request_max_bytes:
                planned.append((i, closed + (_field_size(stream_size) if stream_size > label_size else 0)))
                begin, closed, stream_size = i, 0, label_size
            stream_size += entry_size
        if stream_size > label_size:
            closed += _field_size(stream_size)
    if record_count:
        planned.append((record_count, closed))
    # Second pass: bytes.
    s = i = 0
    for end, needed in planned:
        begin = i
        body = PyBytes_FromStringAndSize(NULL, needed)
        at = <uint8_t *>PyBytes_AS_STRING(body)
        while i < end:
            while stream_offsets[s + 1] <= i:
                s += 1
            stream_end = min(<Py_ssize_t>stream_offsets[s + 1], end)
            stream_size = _field_size(stream_slices[s, 1])
            for k in range(i, stream_end):
                stream_size += _field_size(entry_sizes[k])
            at[0] = 0x0A
            at = set_varint(at + 1, stream_size)
            at[0] = 0x0A
            at = set_varint(at + 1, stream_slices[s, 1])
            at = _copy(at, &stream_arena[0] + stream_slices[s, 0], stream_slices[s, 1])
            while i < stream_end:
                row = order[i]
                at[0] = 0x12
                at = set_varint(at + 1, entry_sizes[i])
                seconds, nanos = times[row] // 1000000000, times[row] % 1000000000
                at[0] = 0x0A
                at[1] = <uint8_t>_time_size(times[row])
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
                for a in range(attribute_offsets[row], attribute_offsets[row + 1]):
                    piece = attribute_pieces[a]
                    if piece >= 0:
                        at = _copy(at, pieces + piece_slices[piece, 0], piece_slices[piece, 1])
                i += 1
        assert at - <uint8_t *>PyBytes_AS_STRING(body) == len(body)
        requests.append((body, end - begin))
    return requests


def cut(bytes request not None):
    """Cut a request of :func:`encode` into two of about half its size: (first, its number of entries, second).

    The second is empty if there is only one entry.
    """
    cdef Ptr data = request
    cdef Ptr limit = data + len(request)
    cdef Ptr p = data
    cdef Ptr half = data + len(request) // 2
    cdef Ptr stream, content, entries, entry, end = NULL, stop = NULL
    cdef Py_ssize_t count = 0
    while p < limit:
        stream = p
        content = read_length(p + 1, limit, &end)
        if content == NULL or read_length(content + 1, end, &p) == NULL:
            raise ValueError("not a request of encode()")
        entries = p
        while p < end:
            entry = p
            if read_length(p + 1, end, &stop) == NULL:
                raise ValueError("not a request of encode()")
            p = stop
            if p > half and count:  # before this entry
                if entry == entries:
                    return request[:stream - data], count, request[stream - data:]
                return (
                    request[:stream - data] + _stream(request[content - data:entry - data]),
                    count,
                    _stream(request[content - data:entries - data] + request[entry - data:end - data])
                    + request[end - data:],
                )
            count += 1
    return request, count, b""


cdef bytes _stream(bytes content):
    """A Stream as a field of PushRequest."""
    cdef uint8_t[11] head
    head[0] = 0x0A
    return head[:set_varint(&head[1], len(content)) - &head[0]] + content


cdef inline int64_t _field_size(int64_t length) noexcept nogil:
    """Size of a length-delimited field with a tag of one byte."""
    return 1 + varint_size(length) + length


cdef inline int64_t _time_size(uint64_t time) noexcept nogil:
    cdef uint64_t seconds = time // 1000000000, nanos = time % 1000000000
    return (1 + varint_size(seconds) if seconds else 0) + (1 + varint_size(nanos) if nanos else 0)


cdef inline int64_t _line_size(
    RecordRow *rows, const int64_t[:, ::1] slices, int32_t row, int64_t limit, const uint8_t *wire, const uint8_t *arena
) noexcept nogil:
    """Size of the line, cut at ``limit`` without splitting a character."""
    cdef int64_t size = rows[row].text_len if slices[row, 0] < 0 else slices[row, 1]
    cdef const uint8_t *line = wire + rows[row].text if slices[row, 0] < 0 else arena + slices[row, 0]
    if limit <= 0 or size <= limit:
        return size if size > 0 else 0
    size = limit
    while size > 0 and (line[size] & 0xC0) == 0x80:
        size -= 1
    return size
