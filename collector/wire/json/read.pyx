"""OTLP/JSON to protobuf: orjson parses the body, and a walk over its dictionaries writes protobuf.

What the door repairs or rejects item by item in a protobuf request is passed on to it, so that the two encodings are
treated alike: text that is not valid Unicode (``repair``), and ids of a wrong length.

Source: https://protobuf.dev/programming-guides/json/ for the forms of numbers.
"""

import binascii
import math
import re

import orjson

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.dict cimport PyDict_CheckExact
from cpython.float cimport PyFloat_CheckExact
from cpython.list cimport PyList_CheckExact
from cpython.long cimport PyLong_CheckExact
from cpython.object cimport PyObject
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_CheckExact
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.json.repair cimport repaired
from collector.wire.json.schema cimport (
    K_BOOL, K_BYTES, K_DOUBLE, K_ENUM, K_FIXED32, K_FIXED64, K_HEX, K_INT64, K_MESSAGE, K_SFIXED64, K_SINT32, K_TEXT,
    K_UINT32, K_UINT64, MAX_NESTING, JsonField, Message, request_schema,
)
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_slice, put_varint, take,
)

__all__ = ["from_json"]


# A number in quotes, as protobuf's JSON mapping allows it for integers: digits, a fraction, an exponent.
DECIMAL = re.compile(r"(-?)([0-9]{1,40})(?:\.([0-9]{1,40}))?(?:[eE]([+-]?[0-9]{1,3}))?")


class BadValue(Exception):
    """A value does not fit its field; ``Walker.path`` says where."""


cdef class Walker:
    """Writes one request, and keeps track of its position for error messages."""

    cdef Writer w
    cdef PyObject* fields[MAX_NESTING + 4]    # JsonFields on the way down; the schema keeps them alive
    cdef Py_ssize_t[MAX_NESTING + 4] index    # of the element in each list, -1 = not a list
    cdef int level
    cdef bint repairs                         # the body was repaired, so the door must repair its texts

    def __cinit__(self):
        open_writer(&self.w, 1024)

    def __dealloc__(self):
        close_writer(&self.w)

    def path(self):
        """The current position, such as ``resourceSpans[0].scopeSpans[1].spans[3].traceId``."""
        steps = []
        for i in range(self.level):
            name = (<JsonField>self.fields[i]).key[1:-2].decode()
            steps.append(name if self.index[i] < 0 else f"{name}[{self.index[i]}]")
        return ".".join(steps)

    cdef int write_message(self, Message message, value) except -1:
        """Writes the content of a message."""
        cdef JsonField field
        if not PyDict_CheckExact(value):
            raise BadValue(f"expected an object, got {excerpt(value)}")
        if self.level >= MAX_NESTING:
            raise BadValue(f"nested deeper than {MAX_NESTING}")
        for key, item in (<dict>value).items():
            found = message.by_name.get(key)
            if found is None or item is None:  # unknown fields are ignored, null means not set
                continue
            field = <JsonField>found
            self.fields[self.level] = <PyObject*>field
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
            raise BadValue(f"expected a list, got {excerpt(items)}")
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
        """Writes one field with its tag; a zero is left out unless ``keep_zero``."""
        cdef Py_ssize_t length
        cdef const char* text
        if field.kind == K_TEXT:
            if not PyUnicode_CheckExact(value):
                raise BadValue(f"expected text, got {excerpt(value)}")
            text = PyUnicode_AsUTF8AndSize(value, &length)
            if length or keep_zero:
                if self.repairs:
                    # Each U+FFFD as a byte that is never valid: the door makes it U+FFFD again, and counts the text.
                    marked = value.encode().replace(b"\xef\xbf\xbd", b"\xff")
                    put_slice(&self.w, field.tag, PyBytes_AS_STRING(marked), PyBytes_GET_SIZE(marked))
                else:
                    put_slice(&self.w, field.tag, text, length)
        elif field.kind == K_MESSAGE:
            length = begin(&self.w, field.tag)
            self.write_message(field.message, value)
            end(&self.w, length)
        elif field.kind == K_HEX:
            self.write_hex(field, value)
        elif field.kind == K_BYTES:
            decoded = base64_bytes(value)
            if decoded or keep_zero:
                put_slice(&self.w, field.tag, PyBytes_AS_STRING(decoded), PyBytes_GET_SIZE(decoded))
        else:
            self.write_number(field, value, keep_zero, True)
        return 0

    cdef int write_hex(self, JsonField field, value) except -1:
        cdef Py_ssize_t length, i
        cdef const char* text
        cdef uint8_t[16] raw = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        cdef int high, low
        cdef uint8_t any_bit = 0
        if not PyUnicode_CheckExact(value):
            raise BadValue(f"expected hexadecimal digits, got {excerpt(value)}")
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if length == 0:
            return 0
        if length != 2 * field.id_bytes:
            put_slice(&self.w, field.tag, raw, 1)  # the door rejects the item for an id of a wrong length
            return 0
        for i in range(field.id_bytes):
            high = hex_digit(<uint8_t>text[2 * i])
            low = hex_digit(<uint8_t>text[2 * i + 1])
            if high < 0 or low < 0:
                put_slice(&self.w, field.tag, raw, 1)
                return 0
            raw[i] = <uint8_t>(high << 4 | low)
            any_bit |= raw[i]
        if any_bit:
            put_slice(&self.w, field.tag, raw, field.id_bytes)
        return 0

    cdef int write_number(self, JsonField field, value, bint keep_zero, bint tagged) except -1:
        """Writes a number or bool, with its tag or as part of a packed list."""
        cdef uint64_t bits
        cdef double real
        if field.kind == K_DOUBLE:
            real = double_of(value)
            memcpy(&bits, &real, 8)
        elif field.kind == K_BOOL:
            if value is not True and value is not False:
                raise BadValue(f"expected true or false, got {excerpt(value)}")
            bits = value is True
        else:
            bits = integer_of(field, value)
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


def from_json(str signal not None, bytes body not None):
    """The protobuf bytes of an OTLP/JSON request, which must pass the door: its texts may be ill-formed UTF-8.

    Args:
        signal: ``traces``, ``metrics`` or ``logs``.
        body: One JSON object with nothing after it.

    Raises:
        MalformedBatch: The body is not JSON, or a value does not fit its field; ``path`` names the field, such as
            ``resourceSpans[0].resource``.
    """
    cdef Walker walker
    cdef Message request = request_schema(signal)
    cdef Py_ssize_t too_deep = find_too_deep(<const uint8_t*>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body))
    if too_deep >= 0:
        raise MalformedBatch(path="", offset=too_deep, reason=f"nested deeper than {MAX_NESTING}")
    walker = Walker()
    try:
        parsed = orjson.loads(body)
    except orjson.JSONDecodeError as exc:
        valid = repaired(body)
        if valid is None:
            offset = len(exc.doc[: exc.pos].encode())
            raise MalformedBatch(path="", offset=offset, reason=f"the body is not valid JSON: {exc.msg}") from None
        try:
            parsed = orjson.loads(valid)
        except orjson.JSONDecodeError as other:
            raise MalformedBatch(path="", offset=-1, reason=f"the body is not valid JSON: {other.msg}") from None
        walker.repairs = True
    try:
        walker.write_message(request, parsed)
    except BadValue as exc:
        raise MalformedBatch(path=walker.path(), offset=-1, reason=str(exc)) from None
    return take(&walker.w)


cdef Py_ssize_t find_too_deep(const uint8_t* at, Py_ssize_t size) noexcept nogil:
    """The offset of the first bracket that nests deeper than the limit, or -1."""
    cdef Py_ssize_t i = 0
    cdef int depth = 0
    cdef uint8_t c
    while i < size:
        c = at[i]
        if c == c'"':  # skip the string
            i += 1
            while i < size and at[i] != c'"':
                i += 2 if at[i] == c'\\' else 1
        elif c == c'{' or c == c'[':
            depth += 1
            if depth > MAX_NESTING:
                return i
        elif c == c'}' or c == c']':
            depth -= 1
        i += 1
    return -1


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20  # lower case
    if c'a' <= c <= c'f':
        return c - c'a' + 10
    return -1


cdef str excerpt(value):
    """A bad value as the error message shows it: its beginning only."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    text = orjson.dumps(value).decode()
    return text if len(text) <= 64 else text[:64] + "…"


cdef double double_of(value) except? -1.0:
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
        # float() alone would also accept underscores, white space, "inf" and digits of other scripts.
        if value and not value.strip("0123456789+-.eE"):
            try:
                real = float(value)
            except ValueError:
                raise BadValue(f"expected a number, got {excerpt(value)}") from None
            if not math.isinf(real):
                return real
    raise BadValue(f"expected a number, got {excerpt(value)}")


cdef uint64_t integer_of(JsonField field, value) except? 0:
    """An integer as the 64 bits its field is written with, from a number of any form that has no fraction, or its text.

    ``1e3``, ``1.0`` and ``"1e3"`` are integers in protobuf's JSON mapping.
    """
    cdef int kind = field.kind
    cdef Py_ssize_t length, i
    cdef const char* text
    cdef uint64_t digits = 0
    if PyUnicode_CheckExact(value):
        # Times and counts are by far the most frequent, and up to 18 digits fit into any 64-bit field.
        text = PyUnicode_AsUTF8AndSize(value, &length)
        if 1 <= length <= 18 and (kind == K_FIXED64 or kind == K_INT64 or kind == K_SFIXED64 or kind == K_UINT64):
            for i in range(length):
                if not c'0' <= text[i] <= c'9':
                    break
                digits = digits * 10 + <uint64_t>(text[i] - c'0')
            else:
                return digits
        if kind == K_ENUM and value in field.names:
            value = field.names[value]
        elif value.isascii() and value.removeprefix("-").isdigit() and len(value) <= 20:
            value = int(value)
        elif (exact := exact_integer(value)) is not None:
            value = exact
        elif kind == K_ENUM:
            names = ', '.join(sorted(field.names, key=field.names.get))
            raise BadValue(f"expected one of {names}, got {excerpt(value)}")
    elif PyFloat_CheckExact(value) and value.is_integer():
        value = int(value)
    if not PyLong_CheckExact(value):
        raise BadValue(f"expected an integer, got {excerpt(value)}")
    if kind == K_INT64 or kind == K_SFIXED64:
        if -(2**63) <= value < 2**63:
            return <uint64_t><int64_t>value
        raise BadValue(f"{value} is out of range for a signed 64-bit integer")
    if kind == K_UINT64 or kind == K_FIXED64:
        if 0 <= value < 2**64:
            return <uint64_t>value
        raise BadValue(f"{value} is out of range for an unsigned 64-bit integer")
    if kind == K_UINT32 or kind == K_FIXED32:
        if 0 <= value < 2**32:
            return <uint64_t>value
        raise BadValue(f"{value} is out of range for an unsigned 32-bit integer")
    if not -(2**31) <= value < 2**31:
        raise BadValue(f"{value} is out of range for a signed 32-bit integer")
    if kind == K_SINT32:
        return (<uint32_t><int32_t>value << 1) ^ <uint32_t>(<int32_t>value >> 31)
    return <uint64_t><int64_t>value


cdef object exact_integer(str text):
    """The integer that a decimal text with a fraction or an exponent denotes; None if it is not one."""
    match = DECIMAL.fullmatch(text)
    if match is None:
        return None
    sign, whole, fraction, exponent = match.groups()
    digits = int(whole + (fraction or ""))
    places = int(exponent or 0) - len(fraction or "")
    if digits == 0:
        return 0
    if places > 20:
        return None
    if places < 0:
        digits, remainder = divmod(digits, 10**-places)
        if remainder:
            return None
        places = 0
    digits *= 10**places
    return -digits if sign else digits


cdef bytes base64_bytes(value):
    if not PyUnicode_CheckExact(value):
        raise BadValue(f"expected base64 text, got {excerpt(value)}")
    plain = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return binascii.a2b_base64(plain + "=" * ((4 - len(plain) % 4) % 4), strict_mode=True)
    except ValueError:
        raise BadValue(f"expected base64 text, got {excerpt(value)}") from None
