"""OTLP/JSON to protobuf bytes and back, without message objects between.

In: orjson parses, a walker over its dictionaries writes protobuf as it goes. Out: one pass over the protobuf bytes writes JSON. Both go by
one schema, which is read from the message descriptors of opentelemetry-proto at the first use, so the two directions cannot disagree.

Not validation of what the request says (ids all zero, metric names, AnyValue depth): the bytes made here go through the door as all others.

Source: opentelemetry-proto docs/specification.md, "JSON Protobuf Encoding" (ids are hex, enums integers, unknown fields ignored); the
protobuf JSON mapping for the rest. Where the Collector reads more (snake_case keys, enum names, null), so does this.
"""

import binascii
import math

import orjson

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.dict cimport PyDict_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.mem cimport PyMem_Free
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_byte, put_bytes, put_slice, put_varint, take,
)

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char format_code, int precision, int flags, int *kind) except NULL

# Brackets a body may nest. 30 nested AnyValues take four each; what is deeper is refused before a parser recurses into it.
NESTING_MAX = 256
cdef enum:
    C_NESTING_MAX = 256
    FIELDS_MAX = 64

cdef enum:
    K_TEXT
    K_BYTES
    K_HEX
    K_INT64         # varint, signed
    K_UINT64
    K_INT32
    K_UINT32
    K_SINT32
    K_FIXED64
    K_SFIXED64
    K_FIXED32
    K_ENUM
    K_BOOL
    K_DOUBLE
    K_MESSAGE

cdef int[15] WIRE_TYPES = [2, 2, 2, 0, 0, 0, 0, 0, 1, 1, 5, 0, 0, 1, 2]
cdef const char *HEX_DIGITS = b"0123456789abcdef"
cdef const char *BASE64_DIGITS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

# FieldDescriptor.type, protobuf descriptor.proto.
_KINDS = {
    1: K_DOUBLE, 3: K_INT64, 4: K_UINT64, 5: K_INT32, 6: K_FIXED64, 7: K_FIXED32, 8: K_BOOL, 9: K_TEXT, 11: K_MESSAGE, 12: K_BYTES,
    13: K_UINT32, 14: K_ENUM, 16: K_SFIXED64, 17: K_SINT32,
}
# Fields whose bytes are ids: hex in JSON, of this many bytes.
_ID_BYTES = {"trace_id": 16, "span_id": 8, "parent_span_id": 8}


# --- the schema -------------------------------------------------------------------------------------------------------

cdef class Message:
    """A message type: its fields by name (both spellings) and by number."""

    cdef dict by_name
    cdef list by_number


cdef class JsonField:
    cdef int kind, index, id_bytes
    cdef uint32_t tag           # of one value
    cdef uint32_t packed_tag    # of a packed list of numbers
    cdef bint repeated, presence
    cdef Message message
    cdef dict names             # of an enum
    cdef bytes key              # '"name":'


cdef dict _requests = {}


cdef Message _request(str signal):
    """The schema of a signal's request, read from the descriptors once."""
    if not _requests:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        seen = {}
        _requests["logs"] = _read_message(ExportLogsServiceRequest.DESCRIPTOR, seen)
        _requests["metrics"] = _read_message(ExportMetricsServiceRequest.DESCRIPTOR, seen)
        _requests["traces"] = _read_message(ExportTraceServiceRequest.DESCRIPTOR, seen)
    return _requests[signal]


cdef Message _read_message(descriptor, dict seen):
    cdef Message message
    cdef JsonField field
    if descriptor.full_name in seen:
        return seen[descriptor.full_name]
    message = seen[descriptor.full_name] = Message()
    message.by_name = {}
    message.by_number = [None] * (max([entry.number for entry in descriptor.fields], default=0) + 1)
    if len(descriptor.fields) > FIELDS_MAX:
        raise RuntimeError(f"{descriptor.full_name} has more than {FIELDS_MAX} fields")
    for index, entry in enumerate(descriptor.fields):
        field = JsonField()
        field.index = index
        field.kind = _KINDS[entry.type]
        field.id_bytes = 0
        if field.kind == K_BYTES and entry.name in _ID_BYTES:
            field.kind = K_HEX
            field.id_bytes = _ID_BYTES[entry.name]
        field.tag = entry.number << 3 | WIRE_TYPES[field.kind]
        field.packed_tag = entry.number << 3 | 2
        field.repeated = entry.is_repeated
        field.presence = entry.has_presence
        field.key = b'"' + entry.json_name.encode() + b'":'
        if field.kind == K_ENUM:
            field.names = {name: value.number for name, value in entry.enum_type.values_by_name.items()}
        if field.kind == K_MESSAGE:
            field.message = _read_message(entry.message_type, seen)
        message.by_number[entry.number] = field
        message.by_name[entry.name] = message.by_name[entry.json_name] = field
    return message


# --- JSON in ----------------------------------------------------------------------------------------------------------

cdef Py_ssize_t _too_deep(const uint8_t *at, Py_ssize_t size) noexcept nogil:
    """Where brackets nest deeper than the limit; -1 = nowhere."""
    cdef Py_ssize_t i = 0
    cdef int depth = 0
    cdef uint8_t c
    while i < size:
        c = at[i]
        if c == 34:  # a string: on to its closing quote
            i += 1
            while i < size and at[i] != 34:
                i += 2 if at[i] == 92 else 1
        elif c == 123 or c == 91:
            depth += 1
            if depth > C_NESTING_MAX:
                return i
        elif c == 125 or c == 93:
            depth -= 1
        i += 1
    return -1


class _Bad(Exception):
    """A value that does not fit its field; the walker knows where it stands."""


cdef class Walker:
    """Writes one request; remembers the way down for the message of an error."""

    cdef Writer w
    cdef PyObject *way[C_NESTING_MAX + 4]       # JsonField; the schema keeps them alive
    cdef Py_ssize_t[C_NESTING_MAX + 4] index    # of the element in a list, -1 = no list
    cdef int level

    def __cinit__(self):
        open_writer(&self.w, 1024)

    def __dealloc__(self):
        close_writer(&self.w)

    def path(self):
        """Where the walker stands: ``resourceSpans[0].scopeSpans[1].spans[3].traceId``."""
        steps = []
        for i in range(self.level):
            name = (<JsonField>self.way[i]).key[1:-2].decode()
            steps.append(name if self.index[i] < 0 else f"{name}[{self.index[i]}]")
        return ".".join(steps)

    cdef int write_message(self, Message message, value) except -1:
        """The content of a message."""
        cdef JsonField field
        if not PyDict_CheckExact(value):
            raise _Bad(f"an object is expected, not {_shown(value)}")
        if self.level >= C_NESTING_MAX:
            raise _Bad(f"nested deeper than {C_NESTING_MAX}")
        for key, item in (<dict>value).items():
            found = message.by_name.get(key)
            if found is None or item is None:  # unknown fields are ignored, null is "not set"
                continue
            field = <JsonField>found
            self.way[self.level] = <PyObject *>field
            self.index[self.level] = -1
            self.level += 1
            if field.repeated:
                self.write_list(field, item)
            else:
                self.write_value(field, item, field.presence)
            self.level -= 1
        return 0

    cdef int write_list(self, JsonField field, items) except -1:
        cdef Py_ssize_t mark, i
        if not PyList_CheckExact(items):
            raise _Bad(f"a list is expected, not {_shown(items)}")
        if field.kind == K_MESSAGE or field.kind == K_TEXT or field.kind == K_BYTES or field.kind == K_HEX:
            for i in range(len(<list>items)):
                self.index[self.level - 1] = i
                item = (<list>items)[i]
                if item is None and field.kind == K_MESSAGE:
                    item = {}
                self.write_value(field, item, True)
            return 0
        if not (<list>items):
            return 0
        mark = begin(&self.w, field.packed_tag)
        for i in range(len(<list>items)):
            self.index[self.level - 1] = i
            self.write_number(field, (<list>items)[i], True, False)
        end(&self.w, mark)
        return 0

    cdef int write_value(self, JsonField field, value, bint keep_zero) except -1:
        """One field with its tag; a zero is left out unless kept."""
        cdef Py_ssize_t length
        cdef const char *text
        if field.kind == K_TEXT:
            if not PyUnicode_CheckExact(value):
                raise _Bad(f"text is expected, not {_shown(value)}")
            text = PyUnicode_AsUTF8AndSize(value, &length)
            if length or keep_zero:
                put_slice(&self.w, field.tag, text, length)
        elif field.kind == K_MESSAGE:
            length = begin(&self.w, field.tag)
            self.write_message(field.message, value)
            end(&self.w, length)
        elif field.kind == K_HEX:
            self.write_hex(field, value)
        elif field.kind == K_BYTES:
            decoded = _from_base64(value)
            if decoded or keep_zero:
                put_slice(&self.w, field.tag, PyBytes_AS_STRING(decoded), PyBytes_GET_SIZE(decoded))
        else:
            self.write_number(field, value, keep_zero, True)
        return 0

    cdef int write_hex(self, JsonField field, value) except -1:
        cdef Py_ssize_t length, i
        cdef const char *text
        cdef uint8_t[16] raw
        cdef int high, low
        cdef uint8_t any_bit = 0
        if not PyUnicode_CheckExact(value):
            raise _Bad(f"hexadecimal digits are expected, not {_shown(value)}")
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if length == 0:
            return 0
        if length != 2 * field.id_bytes:
            raise _Bad(f"{2 * field.id_bytes} hexadecimal digits are expected, not {length} characters: {_shown(value)}")
        for i in range(field.id_bytes):
            high = _hex_digit(<uint8_t>text[2 * i])
            low = _hex_digit(<uint8_t>text[2 * i + 1])
            if high < 0 or low < 0:
                raise _Bad(f"hexadecimal digits are expected, not {_shown(value)}")
            raw[i] = <uint8_t>(high << 4 | low)
            any_bit |= raw[i]
        if any_bit:
            put_slice(&self.w, field.tag, raw, field.id_bytes)
        return 0

    cdef int write_number(self, JsonField field, value, bint keep_zero, bint tagged) except -1:
        """A number or bool, with its tag or as part of a packed list."""
        cdef uint64_t bits
        cdef double real
        if field.kind == K_DOUBLE:
            real = _real(value)
            memcpy(&bits, &real, 8)
        elif field.kind == K_BOOL:
            if value is not True and value is not False:
                raise _Bad(f"true or false is expected, not {_shown(value)}")
            bits = value is True
        else:
            bits = _whole(field, value)
        if tagged:
            if not bits and not keep_zero:
                return 0
            put_varint(&self.w, field.tag)
        if field.kind == K_FIXED64 or field.kind == K_SFIXED64 or field.kind == K_DOUBLE:
            put_bytes(&self.w, &bits, 8)
        elif field.kind == K_FIXED32:
            put_bytes(&self.w, &bits, 4)
        else:
            put_varint(&self.w, bits)
        return 0


cdef inline int _hex_digit(uint8_t c) noexcept nogil:
    if 48 <= c <= 57:
        return c - 48
    c |= 32
    if 97 <= c <= 102:
        return c - 87
    return -1


cdef str _shown(value):
    """A bad value as the message shows it: its beginning only."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 64 else text[:64] + "…"


cdef double _real(value) except? -1.0:
    cdef double real
    if PyFloat_CheckExact(value):
        return value
    if PyLong_CheckExact(value):
        return <double>value
    if PyUnicode_CheckExact(value):
        if value == "NaN":
            return math.nan
        if value == "Infinity":
            return math.inf
        if value == "-Infinity":
            return -math.inf
        # float() itself would also take underscores, white space, "inf" and digits of other scripts.
        if value and not value.strip("0123456789+-.eE"):
            try:
                real = float(value)
            except ValueError:
                raise _Bad(f"a number is expected, not {_shown(value)}") from None
            if not math.isinf(real):
                return real
    raise _Bad(f"a number is expected, not {_shown(value)}")


cdef uint64_t _whole(JsonField field, value) except? 0:
    """An integer as the 64 bits its field is written with; a number or its digits as text, never a float."""
    cdef int kind = field.kind
    cdef Py_ssize_t length, i
    cdef const char *text
    cdef uint64_t digits = 0
    if PyUnicode_CheckExact(value):
        # Times and counts, by far the most: up to 18 digits fit in every 64-bit field.
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if 1 <= length <= 18 and (kind == K_FIXED64 or kind == K_INT64 or kind == K_SFIXED64 or kind == K_UINT64):
            for i in range(length):
                if not 48 <= text[i] <= 57:
                    break
                digits = digits * 10 + <uint64_t>(text[i] - 48)
            else:
                return digits
        if kind == K_ENUM and value in field.names:
            value = field.names[value]
        elif value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20:
            value = int(value)
        elif kind == K_ENUM:
            raise _Bad(f"{_shown(value)} is none of {', '.join(sorted(field.names, key=field.names.get))}")
    if not PyLong_CheckExact(value):
        raise _Bad(f"an integer is expected, not {_shown(value)}")
    if kind == K_INT64 or kind == K_SFIXED64:
        if -(2**63) <= value < 2**63:
            return <uint64_t><int64_t>value
        raise _Bad(f"{value} does not fit in 64 bits with sign")
    if kind == K_UINT64 or kind == K_FIXED64:
        if 0 <= value < 2**64:
            return <uint64_t>value
        raise _Bad(f"{value} does not fit in 64 bits without sign")
    if kind == K_UINT32 or kind == K_FIXED32:
        if 0 <= value < 2**32:
            return <uint64_t>value
        raise _Bad(f"{value} does not fit in 32 bits without sign")
    if not -(2**31) <= value < 2**31:
        raise _Bad(f"{value} does not fit in 32 bits with sign")
    if kind == K_SINT32:
        return (<uint32_t><int32_t>value << 1) ^ <uint32_t>(<int32_t>value >> 31)
    return <uint64_t><int64_t>value


cdef bytes _from_base64(value):
    if not PyUnicode_CheckExact(value):
        raise _Bad(f"base64 text is expected, not {_shown(value)}")
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * ((4 - len(plain) % 4) % 4), strict_mode=True)
    except ValueError:
        raise _Bad(f"base64 text is expected, not {_shown(value)}") from None


def from_json(str signal not None, bytes body not None):
    """The protobuf bytes of an OTLP/JSON request.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        body: One JSON object; what follows it is an error.

    Raises:
        MalformedBatch: the body is no JSON, or a value does not fit its field; ``path`` says which (``resourceSpans[0].resource``).
    """
    cdef Walker walker
    cdef Message request = _request(signal)
    cdef Py_ssize_t deep = _too_deep(<const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    if deep >= 0:
        raise MalformedBatch(path="", offset=deep, reason=f"nested deeper than {NESTING_MAX}")
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        raise MalformedBatch(path="", offset=len(exc.doc[: exc.pos].encode()), reason=f"no JSON: {exc.msg}") from None
    walker = Walker()
    try:
        walker.write_message(request, parsed)
    except _Bad as exc:
        raise MalformedBatch(path=walker.path(), offset=-1, reason=str(exc)) from None
    return take(&walker.w)


# --- JSON out ---------------------------------------------------------------------------------------------------------

cdef struct Tag:                # one field as it stands in the bytes
    uint32_t number
    int wire_type
    const uint8_t *body         # after tag and length
    const uint8_t *end
    uint64_t number_value       # varint, fixed64, fixed32


cdef inline const uint8_t *_read_varint(const uint8_t *at, const uint8_t *limit, uint64_t *value) noexcept nogil:
    cdef int shift = 0
    cdef uint64_t result = 0
    while at < limit and shift < 70:
        result |= <uint64_t>(at[0] & 127) << shift
        at += 1
        if at[-1] < 128:
            value[0] = result
            return at
        shift += 7
    return NULL


cdef const uint8_t *_read_tag(const uint8_t *at, const uint8_t *limit, Tag *tag) noexcept nogil:
    """Reads the field at ``at``; its end, or NULL when it is broken."""
    cdef uint64_t value
    cdef uint32_t half
    at = _read_varint(at, limit, &value)
    if at == NULL or value >> 3 == 0 or value >> 32:
        return NULL
    tag.number = <uint32_t>(value >> 3)
    tag.wire_type = <int>(value & 7)
    tag.body = at
    if tag.wire_type == 0:
        at = _read_varint(at, limit, &tag.number_value)
    elif tag.wire_type == 1:
        if limit - at < 8:
            return NULL
        memcpy(&tag.number_value, at, 8)
        at += 8
    elif tag.wire_type == 5:
        if limit - at < 4:
            return NULL
        memcpy(&half, at, 4)
        tag.number_value = half
        at += 4
    elif tag.wire_type == 2:
        at = _read_varint(at, limit, &value)
        if at == NULL or value > <uint64_t>(limit - at):
            return NULL
        tag.body = at
        at += value
    else:
        return NULL
    tag.end = at
    return at


cdef inline void _put_digits(Writer *w, uint64_t value, bint negative) noexcept nogil:
    cdef uint8_t[21] digits
    cdef int at = 21
    while True:
        at -= 1
        digits[at] = <uint8_t>(48 + value % 10)
        value //= 10
        if value == 0:
            break
    if negative:
        at -= 1
        digits[at] = 45
    put_bytes(w, digits + at, 21 - at)


cdef inline void _put_signed(Writer *w, int64_t value) noexcept nogil:
    _put_digits(w, <uint64_t>0 - <uint64_t>value if value < 0 else <uint64_t>value, value < 0)


cdef void _put_text(Writer *w, const uint8_t *at, const uint8_t *end) noexcept nogil:
    """A JSON string: quotes, backslashes and control characters escaped, all else as it is."""
    cdef const uint8_t *plain = at
    cdef uint8_t c
    put_byte(w, 34)
    while at < end:
        c = at[0]
        if c >= 32 and c != 34 and c != 92:
            at += 1
            continue
        put_bytes(w, plain, at - plain)
        put_byte(w, 92)
        if c == 34 or c == 92:
            put_byte(w, c)
        elif c == 10:
            put_byte(w, 110)
        elif c == 13:
            put_byte(w, 114)
        elif c == 9:
            put_byte(w, 116)
        else:
            put_bytes(w, b"u00", 3)
            put_byte(w, HEX_DIGITS[c >> 4])
            put_byte(w, HEX_DIGITS[c & 15])
        at += 1
        plain = at
    put_bytes(w, plain, at - plain)
    put_byte(w, 34)


cdef void _put_hex(Writer *w, const uint8_t *at, const uint8_t *end) noexcept nogil:
    put_byte(w, 34)
    while at < end:
        put_byte(w, HEX_DIGITS[at[0] >> 4])
        put_byte(w, HEX_DIGITS[at[0] & 15])
        at += 1
    put_byte(w, 34)


cdef void _put_base64(Writer *w, const uint8_t *at, const uint8_t *end) noexcept nogil:
    cdef uint32_t three
    cdef Py_ssize_t left
    put_byte(w, 34)
    while at < end:
        left = end - at
        three = <uint32_t>at[0] << 16
        if left > 1:
            three |= <uint32_t>at[1] << 8
        if left > 2:
            three |= at[2]
        put_byte(w, BASE64_DIGITS[three >> 18])
        put_byte(w, BASE64_DIGITS[three >> 12 & 63])
        put_byte(w, BASE64_DIGITS[three >> 6 & 63] if left > 1 else 61)
        put_byte(w, BASE64_DIGITS[three & 63] if left > 2 else 61)
        at += 3 if left > 2 else left
    put_byte(w, 34)


cdef int _put_real(Writer *w, uint64_t bits) except -1:
    cdef double value
    cdef char *text
    cdef Py_ssize_t length = 0
    memcpy(&value, &bits, 8)
    if value != value:
        put_bytes(w, b'"NaN"', 5)
    elif value - value != 0:
        put_bytes(w, b'"Infinity"' if value > 0 else b'"-Infinity"', 10 if value > 0 else 11)
    else:
        text = PyOS_double_to_string(value, 114, 0, 0, NULL)
        while text[length]:
            length += 1
        put_bytes(w, text, length)
        PyMem_Free(text)
    return 0


cdef int _put_number(Writer *w, JsonField field, uint64_t bits) except -1:
    """A number as JSON has it; 64-bit integers as text."""
    cdef int kind = field.kind
    cdef uint32_t half = <uint32_t>bits
    if kind == K_DOUBLE:
        _put_real(w, bits)
    elif kind == K_BOOL:
        put_bytes(w, b"true" if bits else b"false", 4 if bits else 5)
    elif kind == K_INT64 or kind == K_SFIXED64:
        put_byte(w, 34)
        _put_signed(w, <int64_t>bits)
        put_byte(w, 34)
    elif kind == K_UINT64 or kind == K_FIXED64:
        put_byte(w, 34)
        _put_digits(w, bits, False)
        put_byte(w, 34)
    elif kind == K_UINT32 or kind == K_FIXED32:
        _put_digits(w, half, False)
    elif kind == K_SINT32:
        _put_signed(w, <int32_t>((half >> 1) ^ (<uint32_t>0 - (half & 1))))
    else:
        _put_signed(w, <int32_t>half)
    return 0


cdef int _broken() except -1:
    raise MalformedBatch(path="", offset=-1, reason="the bytes are no request of this signal")


cdef inline JsonField _field_of(Message message, uint32_t number):
    return <JsonField>message.by_number[number] if number < <uint32_t>len(message.by_number) else None


cdef int _put_element(Writer *w, JsonField field, const Tag *tag, int depth) except -1:
    """One value of a field that is length-delimited, or one number."""
    if field.kind == K_MESSAGE:
        _put_message(w, field.message, tag.body, tag.end, depth + 1)
    elif field.kind == K_TEXT:
        _put_text(w, tag.body, tag.end)
    elif field.kind == K_HEX:
        _put_hex(w, tag.body, tag.end)
    elif field.kind == K_BYTES:
        _put_base64(w, tag.body, tag.end)
    else:
        _put_number(w, field, tag.number_value)
    return 0


cdef int _put_packed(Writer *w, JsonField field, const Tag *tag, bint *first) except -1:
    cdef const uint8_t *at = tag.body
    cdef int wire_type = WIRE_TYPES[field.kind]
    cdef uint64_t bits = 0
    cdef int width = 8 if wire_type == 1 else 4
    while at < tag.end:
        if wire_type == 0:
            at = _read_varint(at, tag.end, &bits)
            if at == NULL:
                _broken()
        else:
            if tag.end - at < width:
                _broken()
            memcpy(&bits, at, width)
            at += width
        if not first[0]:
            put_byte(w, 44)
        first[0] = False
        _put_number(w, field, bits)
    return 0


cdef int _put_list(Writer *w, JsonField field, const uint8_t *at, const uint8_t *end, bint whole, int depth) except -1:
    """The elements from the field at ``at`` on: up to the next other field, or, if they do not stand together, of the whole message."""
    cdef Tag tag
    cdef bint first = True
    cdef uint32_t number = field.tag >> 3
    put_byte(w, 91)
    while at < end:
        at = _read_tag(at, end, &tag)
        if tag.number != number:
            if whole:
                continue
            break
        if tag.wire_type == 2 and WIRE_TYPES[field.kind] != 2:
            _put_packed(w, field, &tag, &first)
            continue
        if not first:
            put_byte(w, 44)
        first = False
        _put_element(w, field, &tag, depth)
    put_byte(w, 93)
    return 0


cdef int _put_message(Writer *w, Message message, const uint8_t *start, const uint8_t *end, int depth) except -1:
    cdef const uint8_t *at = start
    cdef const uint8_t *next_
    cdef const uint8_t *last[FIELDS_MAX]       # a field's last occurrence; NULL = not there
    cdef uint64_t apart = 0, done = 0, bit      # repeated fields whose elements do not stand together; fields written
    cdef int previous = -1
    cdef bint first = True
    cdef Tag tag
    cdef JsonField field
    if depth > C_NESTING_MAX:
        _broken()
    memset(last, 0, sizeof(last))
    # Tags only: is every field whole, of the right type, and where does it stand last?
    while at < end:
        next_ = _read_tag(at, end, &tag)
        if next_ == NULL:
            _broken()
        field = _field_of(message, tag.number)
        if field is not None:
            if tag.wire_type != WIRE_TYPES[field.kind] and not (tag.wire_type == 2 and field.repeated):
                _broken()
            if last[field.index] != NULL and previous != field.index:
                apart |= <uint64_t>1 << field.index
            last[field.index] = at
            previous = field.index
        else:
            previous = -1
        at = next_
    put_byte(w, 123)
    at = start
    while at < end:
        next_ = _read_tag(at, end, &tag)
        field = _field_of(message, tag.number)
        if field is not None:
            bit = <uint64_t>1 << field.index
            if field.repeated:
                if not done & bit:
                    done |= bit
                    if not first:
                        put_byte(w, 44)
                    first = False
                    put_bytes(w, PyBytes_AS_STRING(field.key), PyBytes_GET_SIZE(field.key))
                    _put_list(w, field, at, end, (apart & bit) != 0, depth)
            elif last[field.index] == at and (field.presence or _is_set(field, &tag)):
                if not first:
                    put_byte(w, 44)
                first = False
                put_bytes(w, PyBytes_AS_STRING(field.key), PyBytes_GET_SIZE(field.key))
                _put_element(w, field, &tag, depth)
        at = next_
    put_byte(w, 125)
    return 0


cdef inline bint _is_set(JsonField field, const Tag *tag) noexcept:
    return tag.end > tag.body if tag.wire_type == 2 else tag.number_value != 0


def to_json(str signal not None, bytes wire not None):
    """A request as OTLP/JSON on one line: camelCase, zero values left out, 64-bit integers as text, ids in lower-case hex.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        wire: A valid request; fields that the schema does not know are left out.

    Raises:
        MalformedBatch: the bytes are no request.
    """
    cdef Writer w
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(wire)
    open_writer(&w, 2 * PyBytes_GET_SIZE(wire))
    try:
        _put_message(&w, _request(signal), at, at + PyBytes_GET_SIZE(wire), 0)
        return take(&w)
    finally:
        close_writer(&w)
