# Attributes and events from text, for the Zipkin decoders.
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from collector.wire.writer cimport Writer, begin, end, put_fixed64, put_number, put_slice

cdef enum:
    PAIR_KEY = 0x0A
    PAIR_VALUE = 0x12
    VALUE_TEXT = 0x0A
    VALUE_BOOL = 0x10
    VALUE_INT = 0x18
    VALUE_DOUBLE = 0x21


cdef inline int put_text(Writer* w, uint32_t tag, str text) except -1:
    """Writes a field of text."""
    cdef Py_ssize_t size
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    put_slice(w, tag, data, size)
    return 0


cdef inline int put_text_pair(Writer* w, uint32_t tag, str key, str text) except -1:
    """Writes a KeyValue with a text."""
    cdef Py_ssize_t pair = begin(w, tag), value
    put_text(w, PAIR_KEY, key)
    value = begin(w, PAIR_VALUE)
    put_text(w, VALUE_TEXT, text)
    end(w, value)
    end(w, pair)
    return 0


cdef inline int put_int_pair(Writer* w, uint32_t tag, str key, int64_t number) except -1:
    cdef Py_ssize_t pair = begin(w, tag), value
    put_text(w, PAIR_KEY, key)
    value = begin(w, PAIR_VALUE)
    put_number(w, VALUE_INT, <uint64_t>number)
    end(w, value)
    end(w, pair)
    return 0


cdef inline int put_bool_pair(Writer* w, uint32_t tag, str key, bint flag) except -1:
    cdef Py_ssize_t pair = begin(w, tag), value
    put_text(w, PAIR_KEY, key)
    value = begin(w, PAIR_VALUE)
    put_number(w, VALUE_BOOL, flag)
    end(w, value)
    end(w, pair)
    return 0


cdef inline int put_double_pair(Writer* w, uint32_t tag, str key, double real) except -1:
    cdef Py_ssize_t pair = begin(w, tag), value
    cdef uint64_t bits
    memcpy(&bits, &real, 8)
    put_text(w, PAIR_KEY, key)
    value = begin(w, PAIR_VALUE)
    put_fixed64(w, VALUE_DOUBLE, bits)
    end(w, value)
    end(w, pair)
    return 0


cdef inline int put_value_pair(Writer* w, uint32_t tag, str key, value) except -1:
    """Writes a KeyValue with a str, bool, int of 64 bits, or float."""
    if type(value) is str:
        return put_text_pair(w, tag, key, value)
    if type(value) is bool:
        return put_bool_pair(w, tag, key, value)
    if type(value) is int:
        return put_int_pair(w, tag, key, value)
    return put_double_pair(w, tag, key, value)


cdef inline object parsed(str text):
    """The number or bool that a text is; otherwise the text. Numbers that do not fit into 64 bits stay text."""
    cdef Py_ssize_t size, i = 0, digits = 0
    cdef const char* data = PyUnicode_AsUTF8AndSize(text, &size)
    if size == 0:
        return text
    if data[0] == c"t" or data[0] == c"f":
        if size == 4 and memcmp(data, b"true", 4) == 0:
            return True
        if size == 5 and memcmp(data, b"false", 5) == 0:
            return False
        return text
    if data[0] == c"-":
        i = 1
    while i < size and c"0" <= data[i] <= c"9":
        i += 1
        digits += 1
    if not digits:
        return text
    if i == size:
        if digits > 19:
            return text
        number = int(text)
        return number if -(1 << 63) <= number < 1 << 63 else text
    if data[i] != c"." or i + 1 == size:
        return text
    i += 1
    while i < size:
        if not c"0" <= data[i] <= c"9":
            return text
        i += 1
    return float(text)
