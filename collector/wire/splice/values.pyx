"""Attribute rows found and gathered, values read, fields encoded for a rewrite, and numbers as text.

Rows are ``layout.ATTRIBUTE`` records; their slices point into a *source*, which is the request or bytes made for it.

Field numbers: ``common.proto`` (AnyValue, KeyValue) of opentelemetry-proto 1.x.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from collector.wire.layout cimport (
    KIND_ABSENT, KIND_BOOL, KIND_DOUBLE, KIND_EMPTY, KIND_INT, KIND_STRING, AttributeRow,
)
from collector.wire.proto cimport (
    WIRE_FIXED32, WIRE_FIXED64, WIRE_LEN, WIRE_VARINT, Ptr, load_le64, read_length, read_tag, read_varint,
)
from collector.wire.writer cimport set_varint, varint_size

cnp.import_array()

__all__ = [
    "compact_values",
    "content_starts",
    "decimal_texts",
    "encode_length_delimited",
    "encode_varints",
    "encode_texts",
    "find_key",
    "find_texts",
    "gather_rows",
    "overlay_rows",
    "read_values",
    "slice_bytes",
]

cdef enum:
    MAX_BYTES = 0x7FFFFFFF
    MAX_DIGITS = 20         # of -9223372036854775808


def find_key(cnp.ndarray rows, int32_t code, Py_ssize_t owner_count):
    """I32[owner_count]: the last attribute with this key of each owner, or -1."""
    cdef const AttributeRow* attributes = attribute_rows(rows)
    cdef Py_ssize_t count = len(rows)
    cdef cnp.ndarray result = np.full(owner_count, -1, np.int32)
    find_last(attributes, count, code, owner_count, <int32_t*>cnp.PyArray_DATA(result))
    return result


def find_texts(cnp.ndarray rows, int32_t min_size):
    """I64[k]: which attributes have a text of at least ``min_size`` bytes."""
    cdef const AttributeRow* attributes = attribute_rows(rows)
    cdef Py_ssize_t i, count = len(rows), found = 0
    cdef cnp.ndarray result
    cdef int64_t* out
    for i in range(count):
        found += attributes[i].kind == KIND_STRING and attributes[i].value_len >= min_size
    result = np.empty(found, np.int64)
    out = <int64_t*>cnp.PyArray_DATA(result)
    found = 0
    for i in range(count if len(result) else 0):
        if attributes[i].kind == KIND_STRING and attributes[i].value_len >= min_size:
            out[found] = i
            found += 1
    return result


def gather_rows(cnp.ndarray rows, const int32_t[::1] index):
    """``rows[index]``, with an absent row where the index is -1."""
    cdef const AttributeRow* row = attribute_rows(rows)
    cdef Py_ssize_t i, count = index.shape[0], row_count = len(rows)
    cdef cnp.ndarray result = np.empty(count, ATTRIBUTE)
    cdef AttributeRow* out = <AttributeRow*>cnp.PyArray_DATA(result)
    for i in range(count):
        if 0 <= index[i] < row_count:
            out[i] = row[index[i]]
        else:
            set_absent(&out[i])
        out[i].owner = <int32_t>i
    return result


def overlay_rows(cnp.ndarray rows, cnp.ndarray others, const int32_t[::1] index):
    """``rows``, with ``others[index]`` where a row is absent and its index is not -1."""
    cdef const AttributeRow* other = attribute_rows(others)
    cdef Py_ssize_t i, count = len(rows), other_count = len(others)
    cdef cnp.ndarray result
    cdef AttributeRow* out
    if index.shape[0] != count:
        raise ValueError("the arrays differ in length")
    attribute_rows(rows)
    result = np.empty(count, ATTRIBUTE)
    out = <AttributeRow*>cnp.PyArray_DATA(result)
    memcpy(out, cnp.PyArray_DATA(rows), count * sizeof(AttributeRow))
    for i in range(count):
        if out[i].kind == KIND_ABSENT and 0 <= index[i] < other_count:
            out[i] = other[index[i]]
            out[i].owner = <int32_t>i
    return result


def read_values(bytes source, const int32_t[::1] starts, const int32_t[::1] lengths):
    """Attribute rows without keys for the contents of AnyValues; absent where the start is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(source)
    cdef cnp.ndarray result = np.empty(count, ATTRIBUTE)
    cdef AttributeRow* out = <AttributeRow*>cnp.PyArray_DATA(result)
    cdef const uint8_t* data = <const uint8_t*>PyBytes_AS_STRING(source)
    if lengths.shape[0] != count:
        raise ValueError("the arrays differ in length")
    for i in range(count):
        set_absent(&out[i])
        out[i].owner = <int32_t>i
        if starts[i] < 0:
            continue
        if lengths[i] < 0 or starts[i] + <int64_t>lengths[i] > size:
            raise ValueError(f"slice {i} is outside its source")
        out[i].any, out[i].any_len = starts[i], lengths[i]
        read_value(data, starts[i], starts[i] + <int64_t>lengths[i], &out[i])
    return result


def encode_length_delimited(bytes tag, bytes source, const int32_t[::1] offsets, const int32_t[::1] sizes):
    """Fields with one tag and slices of ``source`` as content: (bytes, starts I64[k], lengths I64[k])."""
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
        raise ValueError("the arrays differ in length")
    for i in range(count):
        if offsets[i] < 0 or sizes[i] < 0 or offsets[i] + <int64_t>sizes[i] > size:
            raise ValueError(f"slice {i} is outside its source")
        total += tag_length + varint_size(sizes[i]) + sizes[i]
    result = PyBytes_FromStringAndSize(NULL, total)
    start = out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count):
        start_out[i] = out - start
        memcpy(out, tag_data, tag_length)
        out = set_varint(out + tag_length, sizes[i])
        memcpy(out, data + offsets[i], sizes[i])
        out += sizes[i]
        length_out[i] = out - start - start_out[i]
    return result, starts, lengths


def encode_texts(bytes tag, bytes inner_tag, list texts, const int32_t[::1] codes):
    """Fields with a text, or with a message whose only field is that text, for each code; a text is encoded once.

    Args:
        tag: The tag of the field.
        inner_tag: The tag of the text in the message; empty: the field is the text itself.
        texts: The texts as UTF-8.
        codes: Which of them each field has.

    Returns:
        (bytes, starts I64[k], lengths I64[k], lengths of the texts I32[k]).
    """
    cdef Py_ssize_t i, count = codes.shape[0], text_count = len(texts)
    cdef int64_t total = 0, size, content, tag_length = len(tag), inner_length = len(inner_tag)
    cdef const uint8_t* tag_data = <const uint8_t*>PyBytes_AS_STRING(tag)
    cdef const uint8_t* inner_data = <const uint8_t*>PyBytes_AS_STRING(inner_tag)
    cdef bytes text, result
    cdef uint8_t* out
    cdef uint8_t* first
    cdef cnp.ndarray starts = np.empty(count, np.int64), lengths = np.empty(count, np.int64)
    cdef cnp.ndarray sizes = np.empty(count, np.int32), places = np.full(text_count, -1, np.int64)
    cdef int64_t* start_out = <int64_t*>cnp.PyArray_DATA(starts)
    cdef int64_t* length_out = <int64_t*>cnp.PyArray_DATA(lengths)
    cdef int32_t* size_out = <int32_t*>cnp.PyArray_DATA(sizes)
    cdef int64_t* place = <int64_t*>cnp.PyArray_DATA(places)
    for i in range(count):
        if not 0 <= codes[i] < text_count:
            raise ValueError(f"expected codes from 0 to {text_count - 1}, got {codes[i]}")
        if place[codes[i]] < 0:
            place[codes[i]] = 0
            size = len(<bytes?>texts[codes[i]])
            if inner_length:
                size += inner_length + varint_size(size)
            total += tag_length + varint_size(size) + size
            if total >= MAX_BYTES:
                raise ValueError(f"the texts would reach the limit of {MAX_BYTES} bytes (32-bit offsets)")
    places.fill(-1)
    result = PyBytes_FromStringAndSize(NULL, total)
    first = out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count):
        text = texts[codes[i]]
        size = content = len(text)
        if inner_length:
            content += inner_length + varint_size(size)
        if place[codes[i]] < 0:
            place[codes[i]] = out - first
            memcpy(out, tag_data, tag_length)
            out = set_varint(out + tag_length, <uint64_t>content)
            if inner_length:
                memcpy(out, inner_data, inner_length)
                out = set_varint(out + inner_length, <uint64_t>size)
            memcpy(out, PyBytes_AS_STRING(text), size)
            out += size
        start_out[i] = place[codes[i]]
        length_out[i] = tag_length + varint_size(<uint64_t>content) + content
        size_out[i] = <int32_t>size
    return result, starts, lengths, sizes


def encode_varints(bytes tag, const uint64_t[::1] values):
    """Varint fields with one tag: (bytes, starts I64[k], lengths I64[k])."""
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
        total += tag_length + varint_size(values[i])
    result = PyBytes_FromStringAndSize(NULL, total)
    start = out = <uint8_t*>PyBytes_AS_STRING(result)
    for i in range(count):
        start_out[i] = out - start
        memcpy(out, tag_data, tag_length)
        out = set_varint(out + tag_length, values[i])
        length_out[i] = out - start - start_out[i]
    return result, starts, lengths


def compact_values(cnp.ndarray rows, bytes source, int64_t base):
    """(The AnyValue contents of the rows joined, the rows pointing into them at ``base``)."""
    cdef const AttributeRow* row = attribute_rows(rows)
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
            raise ValueError(f"slice {i} is outside its source")
        total += row[i].any_len
    if base < 0 or base + total >= MAX_BYTES:
        raise ValueError("the values would reach 2 GiB; the limit is that of 32-bit offsets")
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


def slice_bytes(bytes source, const int32_t[::1] starts, const int32_t[::1] lengths):
    """A list of the slices; ``b""`` where the start is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(source)
    cdef const char* data = PyBytes_AS_STRING(source)
    cdef list result = [b""] * count
    if lengths.shape[0] != count:
        raise ValueError("the arrays differ in length")
    for i in range(count):
        if starts[i] < 0:
            continue
        if lengths[i] < 0 or starts[i] + <int64_t>lengths[i] > size:
            raise ValueError(f"slice {i} is outside its source")
        result[i] = PyBytes_FromStringAndSize(data + starts[i], lengths[i])
    return result


def decimal_texts(const int64_t[::1] values):
    """The decimal text of each value: (bytes, starts I32[n], lengths I32[n])."""
    cdef Py_ssize_t i, count = values.shape[0]
    cdef int digits
    cdef uint64_t magnitude
    cdef uint8_t[24] text
    cdef cnp.ndarray starts = np.empty(count, np.int32), lengths = np.empty(count, np.int32)
    cdef int32_t* start_out = <int32_t*>cnp.PyArray_DATA(starts)
    cdef int32_t* length_out = <int32_t*>cnp.PyArray_DATA(lengths)
    cdef bytes room = PyBytes_FromStringAndSize(NULL, MAX_DIGITS * count)
    cdef uint8_t* out = <uint8_t*>PyBytes_AS_STRING(room)
    cdef int64_t at = 0
    if MAX_DIGITS * count >= MAX_BYTES:
        raise ValueError("the values would reach 2 GiB; the limit is that of 32-bit offsets")
    for i in range(count):
        digits = 0
        magnitude = 0 - <uint64_t>values[i] if values[i] < 0 else <uint64_t>values[i]
        while True:
            digits += 1
            text[24 - digits] = c'0' + <uint8_t>(magnitude % 10)
            magnitude //= 10
            if magnitude == 0:
                break
        if values[i] < 0:
            digits += 1
            text[24 - digits] = c'-'
        memcpy(out + at, &text[24 - digits], digits)
        start_out[i], length_out[i] = <int32_t>at, digits
        at += digits
    return room[:at], starts, lengths


def content_starts(bytes wire, const int32_t[::1] starts, const int32_t[::1] ends):
    """I32[n]: where the content of length-delimited fields begins; the start itself where it is negative."""
    cdef Py_ssize_t i, count = starts.shape[0]
    cdef int64_t size = len(wire)
    cdef uint32_t tag = 0
    cdef Ptr data = <Ptr>PyBytes_AS_STRING(wire)
    cdef Ptr at
    cdef Ptr stop = NULL
    cdef cnp.ndarray result = np.empty(count, np.int32)
    cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(result)
    if ends.shape[0] != count:
        raise ValueError("the arrays differ in length")
    for i in range(count):
        out[i] = starts[i]
        if starts[i] < 0:
            continue
        if ends[i] > size:
            raise ValueError(f"slice {i} is outside its source")
        at = read_tag(data + starts[i], data + ends[i], &tag)
        if at != NULL:
            at = read_length(at, data + ends[i], &stop)
        if at == NULL:
            raise ValueError(f"message {i} is not a length-delimited field")
        out[i] = <int32_t>(at - data)
    return result


cdef void find_last(
    const AttributeRow* attributes, Py_ssize_t count, int32_t code, Py_ssize_t owner_count, int32_t* last
) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        if attributes[i].key_code == code and 0 <= attributes[i].owner < owner_count:
            last[attributes[i].owner] = <int32_t>i


cdef void read_value(const uint8_t* source, int64_t at, int64_t end, AttributeRow* row) noexcept nogil:
    """Fills the kind and value of a row from an AnyValue's content, ``source[at:end]``; stops at an invalid field."""
    cdef Ptr p = source + at
    cdef Ptr limit = source + end
    cdef Ptr stop = NULL
    cdef uint32_t tag = 0
    cdef uint64_t number = 0
    row.kind = KIND_EMPTY
    while p < limit:
        p = read_tag(p, limit, &tag)
        if p == NULL:
            return
        if tag & 7 == WIRE_VARINT:
            p = read_varint(p, limit, &number)
            if p == NULL:
                return
            if tag == 0x10:
                row.kind, row.int_value = KIND_BOOL, 1 if number else 0
            elif tag == 0x18:
                row.kind, row.int_value = KIND_INT, <int64_t>number
        elif tag & 7 == WIRE_FIXED64:
            if limit - p < 8:
                return
            if tag == 0x21:
                row.kind = KIND_DOUBLE
                number = load_le64(p)
                memcpy(&row.double_value, &number, 8)
            p += 8
        elif tag & 7 == WIRE_LEN:
            p = read_length(p, limit, &stop)
            if p == NULL:
                return
            if tag == 0x0A or tag == 0x2A or tag == 0x32 or tag == 0x3A:
                row.kind, row.value, row.value_len = <int32_t>(tag >> 3), <int32_t>(p - source), <int32_t>(stop - p)
            p = stop
        elif tag & 7 == WIRE_FIXED32:
            p += 4
        else:
            return


cdef void set_absent(AttributeRow* row) noexcept nogil:
    memset(row, 0, sizeof(AttributeRow))
    row.start = row.end = row.key = row.any = row.value = -1
    row.key_code = -1
    row.kind = KIND_ABSENT


cdef AttributeRow* attribute_rows(cnp.ndarray rows) except? NULL:
    if rows.dtype is not ATTRIBUTE and rows.dtype != ATTRIBUTE:
        raise TypeError(f"expected attribute rows, got dtype {rows.dtype}")
    if not rows.flags.c_contiguous:
        raise TypeError("expected a contiguous array of rows")
    return <AttributeRow*>cnp.PyArray_DATA(rows)
