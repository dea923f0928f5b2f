"""AnyValue and KeyValue messages from Python values.

Source: ``common/v1/common.proto`` of opentelemetry-proto.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_fixed64, put_number, put_slice, take,
)

__all__ = ["encode_attributes", "encode_value"]

cdef enum:
    MAX_DEPTH = 30      # of nested AnyValues, the limit at the door; Go's and upb's parsers stop at 100 messages

cdef enum:              # tags
    TAG_FIRST = 1 << 3 | 2      # field 1, length-delimited: a set of attributes, elements, entries and keys
    TAG_VALUE = 2 << 3 | 2      # KeyValue.value
    TAG_STRING = 1 << 3 | 2     # the members of AnyValue
    TAG_BOOL = 2 << 3
    TAG_INT = 3 << 3
    TAG_DOUBLE = 4 << 3 | 1
    TAG_ARRAY = 5 << 3 | 2
    TAG_MAP = 6 << 3 | 2
    TAG_BYTES = 7 << 3 | 2


def encode_value(value):
    """The content of an AnyValue for a Python value.

    Raises:
        TypeError: The value's type does not fit any kind of attribute value.
        ValueError: An integer does not fit into 64 bits, or the value nests deeper than 30.
    """
    cdef Writer w
    open_writer(&w, 64)
    try:
        put_any(&w, value, 1)
        return take(&w)
    finally:
        close_writer(&w)


def encode_attributes(values):
    """The items of a mapping as KeyValue fields with the number 1, and the start of each: ``(bytes, starts)``.

    The first byte of a field is its tag, so a set can be renumbered (up to 15) by replacing the bytes at ``starts``.

    Raises:
        TypeError: A key is not text, or a value's type does not fit any kind of attribute value.
        ValueError: An integer does not fit into 64 bits, or a value nests deeper than 30.
    """
    cdef Writer w
    cdef Py_ssize_t mark
    starts = []
    open_writer(&w, 64 * len(values))
    try:
        for key, value in values.items():
            starts.append(w.size)
            mark = begin(&w, TAG_FIRST)
            put_key_value(&w, key, value, 1)
            end(&w, mark)
        return take(&w), starts
    finally:
        close_writer(&w)


cdef int put_any(Writer* w, value, int depth) except -1:
    """Writes the content of an AnyValue."""
    cdef Py_ssize_t outer, inner
    cdef double number
    cdef uint64_t bits
    if depth > MAX_DEPTH:
        raise ValueError(f"an attribute value nests deeper than {MAX_DEPTH}")
    if value is None:
        return 0
    if isinstance(value, str):
        put_text(w, TAG_STRING, value)
    elif isinstance(value, (bool, np.bool_)):
        put_number(w, TAG_BOOL, 1 if value else 0)
    elif isinstance(value, (int, np.integer)):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"integer attributes are signed 64-bit: {value} is out of range")
        put_number(w, TAG_INT, <uint64_t><int64_t>value)
    elif isinstance(value, (float, np.floating)):
        number = value
        memcpy(&bits, &number, 8)
        put_fixed64(w, TAG_DOUBLE, bits)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        put_slice(w, TAG_BYTES, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif isinstance(value, Mapping):
        outer = begin(w, TAG_MAP)
        for key, item in value.items():
            inner = begin(w, TAG_FIRST)
            put_key_value(w, key, item, depth + 1)
            end(w, inner)
        end(w, outer)
    elif isinstance(value, (Sequence, np.ndarray)):
        outer = begin(w, TAG_ARRAY)
        for item in value:
            inner = begin(w, TAG_FIRST)
            put_any(w, item, depth + 1)
            end(w, inner)
        end(w, outer)
    else:
        raise TypeError(f"an attribute cannot have a value of type {type(value).__name__}")
    return 0


cdef int put_key_value(Writer* w, key, value, int depth) except -1:
    """Writes the content of a KeyValue."""
    cdef Py_ssize_t mark
    if not isinstance(key, str):
        raise TypeError(f"an attribute key must be text, got {type(key).__name__}")
    put_text(w, TAG_FIRST, key)
    mark = begin(w, TAG_VALUE)
    put_any(w, value, depth)
    end(w, mark)
    return 0


cdef int put_text(Writer* w, uint32_t tag, text) except -1:
    cdef Py_ssize_t length
    cdef const char* data
    try:
        data = PyUnicode_AsUTF8AndSize(text, &length)
    except UnicodeEncodeError:
        # A lone surrogate cannot be encoded; like invalid UTF-8 at the door it becomes U+FFFD.
        replaced = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        data = PyUnicode_AsUTF8AndSize(replaced, &length)
        put_slice(w, tag, data, length)
        return 0
    put_slice(w, tag, data, length)
    return 0
