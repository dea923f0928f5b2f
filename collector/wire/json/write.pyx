"""Protobuf to OTLP/JSON in one pass over the bytes of a valid request."""

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.mem cimport PyMem_Free
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from collector.wire.json.schema cimport (
    K_BOOL, K_BYTES, K_DOUBLE, K_FIXED32, K_FIXED64, K_HEX, K_INT64, K_MESSAGE, K_SFIXED64, K_SINT32, K_TEXT, K_UINT32,
    K_UINT64, MAX_FIELDS, MAX_NESTING, JsonField, Message, request_schema,
)
from collector.wire.proto cimport (
    WIRE_FIXED32, WIRE_FIXED64, WIRE_LEN, WIRE_VARINT, Ptr, load_le32, load_le64, read_length, read_tag, read_varint,
)
from collector.wire.writer cimport Writer, close_writer, open_writer, put_byte, put_bytes, take

__all__ = ["to_json"]

cdef extern from "Python.h":
    char* PyOS_double_to_string(double value, char format_code, int precision, int flags, int* kind) except NULL

cdef const char* HEX_DIGITS = b"0123456789abcdef"
cdef const char* BASE64_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

ctypedef struct Value:          # one field as it is in the bytes
    uint32_t number
    int wire_type
    Ptr body                    # after tag and length
    Ptr end
    uint64_t bits               # varint, fixed64, fixed32


def to_json(str signal not None, bytes wire not None):
    """A request as OTLP/JSON on one line.

    Names are in camelCase, zero values are left out, 64-bit integers are text, and ids are lower-case hex.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        wire: A valid request; fields that are not in the schema are left out.

    Raises:
        MalformedBatch: The bytes are not a request of this signal.
    """
    cdef Writer w
    cdef Ptr at = <Ptr>PyBytes_AS_STRING(wire)
    open_writer(&w, 2 * PyBytes_GET_SIZE(wire))
    try:
        put_message(&w, request_schema(signal), at, at + PyBytes_GET_SIZE(wire), 0)
        return take(&w)
    finally:
        close_writer(&w)


cdef int put_message(Writer* w, Message message, Ptr start, Ptr end, int depth) except -1:
    cdef Ptr at = start
    cdef Ptr next_
    cdef Ptr last[MAX_FIELDS]       # the last occurrence of each field, or NULL
    cdef uint64_t scattered = 0     # repeated fields whose elements are not adjacent
    cdef uint64_t done = 0, bit     # repeated fields that were written
    cdef int previous = -1
    cdef bint first = True
    cdef Value value
    cdef JsonField field
    if depth > MAX_NESTING:
        broken()
    memset(last, 0, sizeof(last))
    # The first pass looks at tags only: whether the fields are valid, and where each occurs last.
    while at < end:
        next_ = read_value(at, end, &value)
        if next_ == NULL:
            broken()
        field = field_of(message, value.number)
        if field is not None:
            if value.wire_type != field.wire_type and not (value.wire_type == WIRE_LEN and field.repeated):
                broken()
            if last[field.index] != NULL and previous != field.index:
                scattered |= <uint64_t>1 << field.index
            last[field.index] = at
            previous = field.index
        else:
            previous = -1
        at = next_
    put_byte(w, c'{')
    at = start
    while at < end:
        next_ = read_value(at, end, &value)
        field = field_of(message, value.number)
        if field is not None:
            bit = <uint64_t>1 << field.index
            if field.repeated:
                if not done & bit:
                    done |= bit
                    if not first:
                        put_byte(w, c',')
                    first = False
                    put_bytes(w, PyBytes_AS_STRING(field.key), PyBytes_GET_SIZE(field.key))
                    put_list(w, field, at, end, (scattered & bit) != 0, depth)
            elif last[field.index] == at and (field.presence or is_set(field, &value)):
                if not first:
                    put_byte(w, c',')
                first = False
                put_bytes(w, PyBytes_AS_STRING(field.key), PyBytes_GET_SIZE(field.key))
                put_element(w, field, &value, depth)
        at = next_
    put_byte(w, c'}')
    return 0


cdef int put_packed(Writer* w, JsonField field, const Value* value, bint* first) except -1:
    cdef Ptr at = value.body
    cdef uint64_t bits = 0
    cdef int width = 8 if field.wire_type == WIRE_FIXED64 else 4
    while at < value.end:
        if field.wire_type == WIRE_VARINT:
            at = read_varint(at, value.end, &bits)
            if at == NULL:
                broken()
        else:
            if value.end - at < width:
                broken()
            bits = load_le64(at) if width == 8 else load_le32(at)
            at += width
        if not first[0]:
            put_byte(w, c',')
        first[0] = False
        put_number(w, field, bits)
    return 0


cdef int put_list(Writer* w, JsonField field, Ptr at, Ptr end, bint whole, int depth) except -1:
    """The elements of a repeated field from ``at`` to the next other field, or in the ``whole`` rest of the message."""
    cdef Value value
    cdef bint first = True
    cdef uint32_t number = field.tag >> 3
    put_byte(w, c'[')
    while at < end:
        at = read_value(at, end, &value)
        if value.number != number:
            if whole:
                continue
            break
        if value.wire_type == WIRE_LEN and field.wire_type != WIRE_LEN:
            put_packed(w, field, &value, &first)
            continue
        if not first:
            put_byte(w, c',')
        first = False
        put_element(w, field, &value, depth)
    put_byte(w, c']')
    return 0


cdef int put_element(Writer* w, JsonField field, const Value* value, int depth) except -1:
    """One value of a field."""
    if field.kind == K_MESSAGE:
        put_message(w, field.message, value.body, value.end, depth + 1)
    elif field.kind == K_TEXT:
        put_text(w, value.body, value.end)
    elif field.kind == K_HEX:
        put_hex(w, value.body, value.end)
    elif field.kind == K_BYTES:
        put_base64(w, value.body, value.end)
    else:
        put_number(w, field, value.bits)
    return 0


cdef inline JsonField field_of(Message message, uint32_t number):
    return <JsonField>message.by_number[number] if number < <uint32_t>len(message.by_number) else None


cdef inline bint is_set(JsonField field, const Value* value) noexcept:
    return value.end > value.body if value.wire_type == WIRE_LEN else value.bits != 0


cdef Ptr read_value(Ptr at, Ptr limit, Value* value) noexcept nogil:
    """Reads the field at ``at``; returns its end, or NULL if it is broken."""
    cdef uint32_t tag = 0
    cdef Ptr end = NULL
    at = read_tag(at, limit, &tag)
    if at == NULL:
        return NULL
    value.number = tag >> 3
    value.wire_type = tag & 7
    value.body = at
    if value.wire_type == WIRE_VARINT:
        end = read_varint(at, limit, &value.bits)
    elif value.wire_type == WIRE_FIXED64:
        if limit - at >= 8:
            value.bits = load_le64(at)
            end = at + 8
    elif value.wire_type == WIRE_FIXED32:
        if limit - at >= 4:
            value.bits = load_le32(at)
            end = at + 4
    elif value.wire_type == WIRE_LEN:
        value.body = read_length(at, limit, &end)
        if value.body == NULL:
            return NULL
    value.end = end
    return end


cdef int broken() except -1:
    raise MalformedBatch(path="", offset=-1, reason="the bytes are not a valid request of this signal")


cdef inline void put_digits(Writer* w, uint64_t value, bint negative) noexcept nogil:
    cdef uint8_t[21] digits
    cdef int at = 21
    while True:
        at -= 1
        digits[at] = <uint8_t>(c'0' + value % 10)
        value //= 10
        if value == 0:
            break
    if negative:
        at -= 1
        digits[at] = c'-'
    put_bytes(w, digits + at, 21 - at)


cdef inline void put_signed(Writer* w, int64_t value) noexcept nogil:
    put_digits(w, <uint64_t>0 - <uint64_t>value if value < 0 else <uint64_t>value, value < 0)


cdef void put_text(Writer* w, Ptr at, Ptr end) noexcept nogil:
    """A JSON string, in which quotes, backslashes and control characters are escaped."""
    cdef Ptr plain = at
    cdef uint8_t c
    put_byte(w, c'"')
    while at < end:
        c = at[0]
        if c >= 32 and c != c'"' and c != c'\\':
            at += 1
            continue
        put_bytes(w, plain, at - plain)
        put_byte(w, c'\\')
        if c == c'"' or c == c'\\':
            put_byte(w, c)
        elif c == c'\n':
            put_byte(w, c'n')
        elif c == c'\r':
            put_byte(w, c'r')
        elif c == c'\t':
            put_byte(w, c't')
        else:
            put_bytes(w, b"u00", 3)
            put_byte(w, HEX_DIGITS[c >> 4])
            put_byte(w, HEX_DIGITS[c & 15])
        at += 1
        plain = at
    put_bytes(w, plain, at - plain)
    put_byte(w, c'"')


cdef void put_hex(Writer* w, Ptr at, Ptr end) noexcept nogil:
    put_byte(w, c'"')
    while at < end:
        put_byte(w, HEX_DIGITS[at[0] >> 4])
        put_byte(w, HEX_DIGITS[at[0] & 15])
        at += 1
    put_byte(w, c'"')


cdef void put_base64(Writer* w, Ptr at, Ptr end) noexcept nogil:
    cdef uint32_t three
    cdef Py_ssize_t remaining
    put_byte(w, c'"')
    while at < end:
        remaining = end - at
        three = <uint32_t>at[0] << 16
        if remaining > 1:
            three |= <uint32_t>at[1] << 8
        if remaining > 2:
            three |= at[2]
        put_byte(w, BASE64_DIGITS[three >> 18])
        put_byte(w, BASE64_DIGITS[three >> 12 & 63])
        put_byte(w, BASE64_DIGITS[three >> 6 & 63] if remaining > 1 else c'=')
        put_byte(w, BASE64_DIGITS[three & 63] if remaining > 2 else c'=')
        at += 3 if remaining > 2 else remaining
    put_byte(w, c'"')


cdef int put_double(Writer* w, uint64_t bits) except -1:
    cdef double value
    cdef char* text
    cdef Py_ssize_t length = 0
    memcpy(&value, &bits, 8)
    if value != value:
        put_bytes(w, b'"NaN"', 5)
    elif value - value != 0:
        put_bytes(w, b'"Infinity"' if value > 0 else b'"-Infinity"', 10 if value > 0 else 11)
    elif bits == 0x8000000000000000:
        put_bytes(w, b"-0.0", 4)  # readers take "-0" for the integer 0 and lose the sign
    else:
        text = PyOS_double_to_string(value, c'r', 0, 0, NULL)
        while text[length]:
            length += 1
        put_bytes(w, text, length)
        PyMem_Free(text)
    return 0


cdef int put_number(Writer* w, JsonField field, uint64_t bits) except -1:
    """A number as JSON has it; 64-bit integers are text."""
    cdef int kind = field.kind
    cdef uint32_t half = <uint32_t>bits
    if kind == K_DOUBLE:
        put_double(w, bits)
    elif kind == K_BOOL:
        put_bytes(w, b"true" if bits else b"false", 4 if bits else 5)
    elif kind == K_INT64 or kind == K_SFIXED64:
        put_byte(w, c'"')
        put_signed(w, <int64_t>bits)
        put_byte(w, c'"')
    elif kind == K_UINT64 or kind == K_FIXED64:
        put_byte(w, c'"')
        put_digits(w, bits, False)
        put_byte(w, c'"')
    elif kind == K_UINT32 or kind == K_FIXED32:
        put_digits(w, half, False)
    elif kind == K_SINT32:
        put_signed(w, <int32_t>((half >> 1) ^ (<uint32_t>0 - (half & 1))))
    else:
        put_signed(w, <int32_t>half)
    return 0
