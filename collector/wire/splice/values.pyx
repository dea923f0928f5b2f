"""What a splice inserts, and single values read: attributes found and gathered, fields encoded, numbers as text.

Rows are those of ``layout.ATTRIBUTE``; their slices point into a *source*, the request or bytes made for the purpose.
Field numbers: ``common.proto`` (AnyValue, KeyValue) of opentelemetry-proto 1.x.
"""

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memset

from collector.wire.layout import ATTRIBUTE
from collector.wire.layout cimport AttributeRow

cnp.import_array()

__all__ = [
    "bodies",
    "compact",
    "decimal",
    "find_key",
    "gather",
    "length_delimited",
    "overlay",
    "read_values",
    "slices",
    "varints",
]

cdef enum:
    KIND_EMPTY = 0
    KIND_STRING = 1
    KIND_BOOL = 2
    KIND_INT = 3
    KIND_DOUBLE = 4
    KIND_ARRAY = 5
    KIND_MAP = 6
    KIND_BYTES = 7
    KIND_ABSENT = 255


cdef AttributeRow* _attributes(cnp.ndarray rows) except? NULL:
    if rows.dtype is not ATTRIBUTE and rows.dtype != ATTRIBUTE:
        raise TypeError("attribute rows are needed")
    if not rows.flags.c_contiguous:
        raise TypeError("contiguous rows are needed")
    return <AttributeRow*>cnp.PyArray_DATA(rows)


def find_key(cnp.ndarray rows, int32_t code, Py_ssize_t owner_count):
    """The last attribute with this key of each owner: int32[owner_count], -1 = none. The last of duplicates wins."""
    cdef const AttributeRow* row = _attributes(rows)
    cdef Py_ssize_t i, count = len(rows)
    cdef cnp.ndarray result = np.full(owner_count, -1, np.int32)
    cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(result)
    for i in range(count):
        if row[i].key_code == code and 0 <= row[i].owner < owner_count:
            out[row[i].owner] = <int32_t>i
    return result


cdef void _absent(AttributeRow* row) noexcept nogil:
    memset(row, 0, sizeof(AttributeRow))
    row.start = row.end = row.key = row.any = row.value = -1
    row.key_code = -1
    row.kind = KIND_ABSENT


def gather(cnp.ndarray rows, const int32_t[::1] index):
    """``rows[index]`` with an absent row where the index is -1."""
    cdef const AttributeRow* row = _attributes(rows)
    cdef Py_ssize_t i, count = index.shape[0], row_count = len(rows)
    cdef cnp.ndarray result = np.empty(count, ATTRIBUTE)
    cdef AttributeRow* out = <AttributeRow*>cnp.PyArray_DATA(result)
    for i in range(count):
        if 0 <= index[i] < row_count:
            out[i] = row[index[i]]
        else:
            _absent(&out[i])
        out[i].owner = <int32_t>i
    return result


def overlay(cnp.ndarray rows, cnp.ndarray others, const int32_t[::1] index):
    """``rows`` with ``others[index]`` where a row is absent and its index is not -1."""
    cdef const AttributeRow* other = _attributes(others)
    cdef Py_ssize_t i, count = len(rows), other_count = len(others)
    cdef cnp.ndarray result
    cdef AttributeRow* out
    if index.shape[0] != count:
        raise ValueError("arrays of different lengths")
    _attributes(rows)
    result = np.empty(count, ATTRIBUTE)
    out = <AttributeRow*>cnp.PyArray_DATA(result)
    memcpy(out, cnp.PyArray_DATA(rows), count * sizeof(AttributeRow))
    for i in range(count):
        if out[i].kind == KIND_ABSENT and 0 <= index[i] < other_count:
            out[i] = other[index[i]]
            out[i].owner = <int32_t>i
    return result


cdef int64_t _varint(const uint8_t* source, int64_t at, int64_t end, uint64_t* value) noexcept nogil:
    """One past the varint at ``at``; -1 where it does not end in time."""
    cdef int shift = 0
    cdef uint64_t byte
    value[0] = 0
    while at < end and shift < 70:
        byte = source[at]
        at += 1
        if shift < 64:
            value[0] |= (byte & 0x7f) << shift
        if byte < 0x80:
            return at
        shift += 7
    return -1


cdef void read_value(const uint8_t* source, int64_t at, int64_t end, AttributeRow* row) noexcept nogil:
    """Fill kind and value from an AnyValue's content; stop at anything that is none."""
    cdef uint64_t tag, number
    row.kind = KIND_EMPTY
    while at < end:
        at = _varint(source, at, end, &tag)
        if at < 0:
            return
        if tag & 7 == 0:
            at = _varint(source, at, end, &number)
            if at < 0:
                return
            if tag == 0x10:
                row.kind, row.int_value = KIND_BOOL, 1 if number else 0
            elif tag == 0x18:
                row.kind, row.int_value = KIND_INT, <int64_t>number
        elif tag & 7 == 1:
            if end - at < 8:
                return
            if tag == 0x21:
                row.kind = KIND_DOUBLE
                memcpy(&row.double_value, source + at, 8)
            at += 8
        elif tag & 7 == 2:
            at = _varint(source, at, end, &number)
            if at < 0 or number > <uint64_t>(end - at):
                return
            if tag in (0x0a, 0x2a, 0x32, 0x3a):
                row.kind, row.value, row.value_len = <int32_t>(tag >> 3), <int32_t>at, <int32_t>number
            at += <int64_t>number
        elif tag & 7 == 5:
            at += 4
        else:
            return


def read_values(bytes source, const int32_t[::1] starts, const int32_t[::1] lengths):
    """Attribute rows without a key for AnyValue contents; absent where the start is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(source)
    cdef cnp.ndarray result = np.empty(count, ATTRIBUTE)
    cdef AttributeRow* out = <AttributeRow*>cnp.PyArray_DATA(result)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(source)
    if lengths.shape[0] != count:
        raise ValueError("arrays of different lengths")
    for i in range(count):
        _absent(&out[i])
        out[i].owner = <int32_t>i
        if starts[i] < 0:
            continue
        if lengths[i] < 0 or starts[i] + <int64_t>lengths[i] > size:
            raise ValueError("a slice outside its source")
        out[i].any, out[i].any_len = starts[i], lengths[i]
        read_value(data, starts[i], starts[i] + <int64_t>lengths[i], &out[i])
    return result


cdef int _size(uint64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef uint8_t* _put(uint8_t* out, uint64_t value) noexcept nogil:
    while value >= 0x80:
        out[0] = <uint8_t>(value | 0x80)
        value >>= 7
        out += 1
    out[0] = <uint8_t>value
    return out + 1


def length_delimited(bytes tag, bytes source, const int32_t[::1] offsets, const int32_t[::1] sizes):
    """Fields of one tag with slices of ``source`` as content: (bytes, int64[k] starts, int64[k] lengths)."""
    cdef Py_ssize_t i, count = offsets.shape[0]
    cdef int64_t size = len(source), total = 0, tag_length = len(tag)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(source)
    cdef const uint8_t* tag_data = <const uint8_t*>PyBytes_AS_STRING(tag)
    cdef uint8_t* out
    cdef uint8_t* start
    cdef bytes result
    cdef cnp.ndarray starts = np.empty(count, np.int64), lengths = np.empty(count, np.int64)
    cdef int64_t* start_out = <int64_t*>cnp.PyArray_DATA(starts)
    cdef int64_t* length_out = <int64_t*>cnp.PyArray_DATA(lengths)
    if sizes.shape[0] != count:
        raise ValueError("arrays of different lengths")
    for i in range(count):
        if offsets[i] < 0 or sizes[i] < 0 or offsets[i] + <int64_t>sizes[i] > size:
            raise ValueError("a slice outside its source")
        total += tag_length + _size(sizes[i]) + sizes[i]
    result = PyBytes_FromStringAndSize(NULL, total)
    start = out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count):
        start_out[i] = out - start
        memcpy(out, tag_data, tag_length)
        out = _put(out + tag_length, sizes[i])
        memcpy(out, data + offsets[i], sizes[i])
        out += sizes[i]
        length_out[i] = out - start - start_out[i]
    return result, starts, lengths


def varints(bytes tag, const uint64_t[::1] values):
    """Varint fields of one tag: (bytes, int64[k] starts, int64[k] lengths)."""
    cdef Py_ssize_t i, count = values.shape[0]
    cdef int64_t total = 0, tag_length = len(tag)
    cdef const uint8_t* tag_data = <const uint8_t*>PyBytes_AS_STRING(tag)
    cdef uint8_t* out
    cdef uint8_t* start
    cdef bytes result
    cdef cnp.ndarray starts = np.empty(count, np.int64), lengths = np.empty(count, np.int64)
    cdef int64_t* start_out = <int64_t*>cnp.PyArray_DATA(starts)
    cdef int64_t* length_out = <int64_t*>cnp.PyArray_DATA(lengths)
    for i in range(count):
        total += tag_length + _size(values[i])
    result = PyBytes_FromStringAndSize(NULL, total)
    start = out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count):
        start_out[i] = out - start
        memcpy(out, tag_data, tag_length)
        out = _put(out + tag_length, values[i])
        length_out[i] = out - start - start_out[i]
    return result, starts, lengths


def compact(cnp.ndarray rows, bytes source, int64_t base):
    """The values of the rows alone: (their AnyValue contents joined, rows that point into them, moved by ``base``)."""
    cdef const AttributeRow* row = _attributes(rows)
    cdef Py_ssize_t i, count = len(rows)
    cdef int64_t size = len(source), total = 0, at = 0
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(source)
    cdef uint8_t* out
    cdef bytes joined
    cdef cnp.ndarray result = rows.copy()
    cdef AttributeRow* moved = <AttributeRow*>cnp.PyArray_DATA(result)
    for i in range(count):
        if row[i].any < 0:
            continue
        if row[i].any_len < 0 or row[i].any + <int64_t>row[i].any_len > size:
            raise ValueError("a slice outside its source")
        total += row[i].any_len
    if base < 0 or base + total >= 0x7fffffff:
        raise ValueError("more than 2 GiB")
    joined = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t*>PyBytes_AS_STRING(joined)
    for i in range(count):
        moved[i].start = moved[i].end = moved[i].key = -1
        if row[i].any < 0:
            continue
        memcpy(out + at, data + row[i].any, row[i].any_len)
        moved[i].any = <int32_t>(base + at)
        if row[i].value >= 0:
            moved[i].value = <int32_t>(base + at + row[i].value - row[i].any)
        at += row[i].any_len
    return joined, result


def slices(bytes source, const int32_t[::1] starts, const int32_t[::1] lengths):
    """A list of the slices, ``b""`` where the start is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(source)
    cdef const char* data = PyBytes_AS_STRING(source)
    cdef list result = [b""] * count
    if lengths.shape[0] != count:
        raise ValueError("arrays of different lengths")
    for i in range(count):
        if starts[i] < 0:
            continue
        if lengths[i] < 0 or starts[i] + <int64_t>lengths[i] > size:
            raise ValueError("a slice outside its source")
        result[i] = PyBytes_FromStringAndSize(data + starts[i], lengths[i])
    return result


def decimal(const int64_t[::1] values):
    """Decimal text of each value: (bytes, int32[n] starts, int32[n] lengths)."""
    cdef Py_ssize_t i, count = values.shape[0]
    cdef int digits
    cdef uint64_t rest
    cdef uint8_t[24] text
    cdef cnp.ndarray starts = np.empty(count, np.int32), lengths = np.empty(count, np.int32)
    cdef int32_t* start_out = <int32_t*>cnp.PyArray_DATA(starts)
    cdef int32_t* length_out = <int32_t*>cnp.PyArray_DATA(lengths)
    cdef bytes room = PyBytes_FromStringAndSize(NULL, 20 * count)      # -9223372036854775808 has 20 characters
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(room)
    cdef int64_t at = 0
    if 20 * count >= 0x7fffffff:
        raise ValueError("more than 2 GiB")
    for i in range(count):
        digits = 0
        rest = 0 - <uint64_t>values[i] if values[i] < 0 else <uint64_t>values[i]
        while True:
            digits += 1
            text[24 - digits] = 48 + <uint8_t>(rest % 10)
            rest //= 10
            if rest == 0:
                break
        if values[i] < 0:
            digits += 1
            text[24 - digits] = 45
        memcpy(out + at, &text[24 - digits], digits)
        start_out[i], length_out[i] = <int32_t>at, digits
        at += digits
    return room[:at], starts, lengths


def bodies(bytes wire, const int32_t[::1] starts, const int32_t[::1] ends):
    """Where the content of length-delimited fields begins, int32[n]; the start where it is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(wire), at
    cdef uint64_t ignored
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef cnp.ndarray result = np.empty(count, np.int32)
    cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(result)
    if ends.shape[0] != count:
        raise ValueError("arrays of different lengths")
    for i in range(count):
        out[i] = starts[i]
        if starts[i] < 0:
            continue
        if ends[i] > size:
            raise ValueError("a slice outside its source")
        at = _varint(data, starts[i], ends[i], &ignored)
        if at >= 0:
            at = _varint(data, at, ends[i], &ignored)
        if at < 0:
            raise ValueError("no length-delimited field")
        out[i] = <int32_t>at
    return result
