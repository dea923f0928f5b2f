# Inline readers of Thrift's binary and compact protocol that never leave the buffer and do not need the GIL. Nothing is
# allocated or skipped by a size or count that the sender claims. Each returns False if there is no such value, and at
# the end of a struct; ``Input.problem`` tells the two apart.
# Source: Apache Thrift doc/specs/thrift-{binary,compact}-protocol.md.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from collector.wire.proto cimport Ptr, load_be64, load_le64, read_varint

cdef enum:
    MAX_DEPTH = 64  # of fields that are skipped
    # Types, as the binary protocol numbers them.
    T_STOP = 0
    T_BOOL = 2
    T_BYTE = 3
    T_DOUBLE = 4
    T_I16 = 6
    T_I32 = 8
    T_I64 = 10
    T_TEXT = 11
    T_STRUCT = 12
    T_MAP = 13
    T_SET = 14
    T_LIST = 15
    T_UUID = 16

ctypedef struct Text:
    Ptr data
    Py_ssize_t size

cdef inline int compact_type(int type) noexcept nogil:
    """A type of the compact protocol, of which 1 and 2 are a bool with its value, as the binary protocol has it."""
    if type <= 2:
        return T_BOOL if type else T_STOP
    if type == 3:
        return T_BYTE
    if type == 4:
        return T_I16
    if type == 5:
        return T_I32
    if type == 6:
        return T_I64
    if type == 7:
        return T_DOUBLE
    if type == 8:
        return T_TEXT
    if type == 9:
        return T_LIST
    if type == 10:
        return T_SET
    if type == 11:
        return T_MAP
    if type == 12:
        return T_STRUCT
    return T_UUID


ctypedef struct Input:
    Ptr at
    Ptr end
    bint is_compact
    int bool_value          # the value of a bool that the field's head of the compact protocol holds; -1 = none
    const char* problem     # what is wrong; NULL as long as nothing is
    const char* path        # where

ctypedef struct Field:
    int type
    int32_t id


cdef inline bint fail(Input* inp, const char* problem) noexcept nogil:
    if inp.problem == NULL:
        inp.problem = problem
    return False


cdef inline bint read_unsigned(Input* inp, uint64_t* value) noexcept nogil:
    """A varint."""
    cdef Ptr p = read_varint(inp.at, inp.end, value)
    if p == NULL:
        return fail(inp, "an invalid or truncated number")
    inp.at = p
    return True


cdef inline bint read_integer(Input* inp, int type, int64_t* value) noexcept nogil:
    """An integer of this type."""
    cdef uint64_t raw = 0
    cdef int size = 1 if type == T_BYTE else 2 if type == T_I16 else 4 if type == T_I32 else 8, i
    if inp.is_compact and type != T_BYTE:
        if not read_unsigned(inp, &raw):
            return False
        value[0] = <int64_t>(raw >> 1) ^ -<int64_t>(raw & 1)
        if type == T_I32:
            value[0] = <int32_t>value[0]
        return True
    if inp.end - inp.at < size:
        return fail(inp, "a truncated number")
    for i in range(size):
        raw = raw << 8 | inp.at[i]
    inp.at += size
    if size == 8:
        value[0] = <int64_t>raw
    else:
        value[0] = <int64_t>(raw << (64 - 8 * size)) >> (64 - 8 * size)
    return True


cdef inline bint read_double(Input* inp, double* value) noexcept nogil:
    cdef uint64_t bits
    if inp.end - inp.at < 8:
        return fail(inp, "a truncated number")
    bits = load_le64(inp.at) if inp.is_compact else load_be64(inp.at)
    memcpy(value, &bits, 8)
    inp.at += 8
    return True


cdef inline bint read_bool(Input* inp, bint* value) noexcept nogil:
    if inp.bool_value >= 0:
        value[0] = inp.bool_value
        inp.bool_value = -1
        return True
    if inp.at >= inp.end:
        return fail(inp, "a truncated bool")
    value[0] = inp.at[0] == 1
    inp.at += 1
    return True


cdef inline bint read_text(Input* inp, Text* text) noexcept nogil:
    cdef uint64_t size = 0
    cdef int64_t signed_size
    if inp.is_compact:
        if not read_unsigned(inp, &size):
            return False
    else:
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a text is longer than the rest of the message")
    text.data, text.size = inp.at, <Py_ssize_t>size
    inp.at += size
    return True


cdef inline bint read_field(Input* inp, Field* field) noexcept nogil:
    """The head of the next field; ``field`` holds the one before. False at the end of the struct, and on an error."""
    cdef uint8_t head
    cdef int64_t number
    if inp.at >= inp.end:
        return fail(inp, "a struct is truncated")
    head = inp.at[0]
    inp.at += 1
    if not inp.is_compact:
        field.type = head
        if head == T_STOP:
            return False
        if not read_integer(inp, T_I16, &number):
            return False
        field.id = <int32_t>number
        return True
    inp.bool_value = -1
    if (head & 0x0F) == T_STOP:
        return False
    if (head & 0x0F) > 13:
        return fail(inp, "an unknown field type")
    if head & 0x0F <= 2:
        inp.bool_value = (head & 0x0F) == 1
    field.type = compact_type(head & 0x0F)
    if head >> 4:
        field.id += head >> 4
        return True
    if not read_integer(inp, T_I16, &number):
        return False
    field.id = <int32_t>number
    return True


cdef inline bint read_list(Input* inp, int* type, Py_ssize_t* count) noexcept nogil:
    """The head of a list or set. Each element has at least one byte, so the count is bounded by what is left."""
    cdef uint64_t size = 0
    cdef int64_t signed_size
    if inp.at >= inp.end:
        return fail(inp, "a list is truncated")
    if inp.is_compact:
        if (inp.at[0] & 0x0F) > 13:
            return fail(inp, "an unknown element type")
        type[0] = compact_type(inp.at[0] & 0x0F)
        size = inp.at[0] >> 4
        inp.at += 1
        if size == 15 and not read_unsigned(inp, &size):
            return False
    else:
        type[0] = inp.at[0]
        inp.at += 1
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a list has more elements than the rest of the message has bytes")
    count[0] = <Py_ssize_t>size
    return True


cdef inline bint read_map(Input* inp, int* key_type, int* value_type, Py_ssize_t* count) noexcept nogil:
    cdef uint64_t size = 0
    cdef int64_t signed_size
    count[0] = 0
    if inp.is_compact:
        if not read_unsigned(inp, &size):
            return False
        if size == 0:
            return True
        if inp.at >= inp.end or inp.at[0] >> 4 > 13 or (inp.at[0] & 0x0F) > 13:
            return fail(inp, "a map is truncated or has unknown types")
        key_type[0], value_type[0] = compact_type(inp.at[0] >> 4), compact_type(inp.at[0] & 0x0F)
        inp.at += 1
    else:
        if inp.end - inp.at < 6:
            return fail(inp, "a map is truncated")
        key_type[0], value_type[0] = inp.at[0], inp.at[1]
        inp.at += 2
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a map has more entries than the rest of the message has bytes")
    count[0] = <Py_ssize_t>size
    return True


cdef inline bint skip(Input* inp, int type, int depth) noexcept nogil:
    """Skips a value."""
    cdef int64_t number
    cdef double real
    cdef bint flag
    cdef Text text
    cdef Field field
    cdef int first, second
    cdef Py_ssize_t count, i
    if depth > MAX_DEPTH:
        return fail(inp, "nested too deeply")
    if type == T_BOOL:
        return read_bool(inp, &flag)
    if type == T_BYTE or type == T_I16 or type == T_I32 or type == T_I64:
        return read_integer(inp, type, &number)
    if type == T_DOUBLE:
        return read_double(inp, &real)
    if type == T_TEXT:
        return read_text(inp, &text)
    if type == T_UUID:
        if inp.end - inp.at < 16:
            return fail(inp, "a truncated UUID")
        inp.at += 16
        return True
    if type == T_STRUCT:
        field.id = 0
        while read_field(inp, &field):
            if not skip(inp, field.type, depth + 1):
                return False
        return inp.problem == NULL
    if type == T_LIST or type == T_SET:
        if not read_list(inp, &first, &count):
            return False
        for i in range(count):
            if not skip(inp, first, depth + 1):
                return False
        return True
    if type == T_MAP:
        if not read_map(inp, &first, &second, &count):
            return False
        for i in range(count):
            if not (skip(inp, first, depth + 1) and skip(inp, second, depth + 1)):
                return False
        return True
    return fail(inp, "an unknown field type")


cdef inline bint structs(Input* inp, Field* field, Py_ssize_t* count) noexcept nogil:
    """The head of a list of structs."""
    cdef int type = 0
    if not read_list(inp, &type, count):
        return False
    if count[0] and type != T_STRUCT:
        return fail(inp, "a list has elements of another type")
    return True
