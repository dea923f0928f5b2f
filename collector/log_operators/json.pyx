"""A JSON text as a tree of nodes. Numbers are doubles, as in Go's ``map[string]any``, unless integers are asked for.

Invalid surrogates become U+FFFD; of equal keys, the last counts. Texts without escapes stay where they are.
Source: RFC 8259; Go's encoding/json for what that leaves open.
"""

from libc.math cimport isinf
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport strtod
from libc.string cimport memchr, memcmp, memcpy

from collector.log_operators.nodes cimport (
    Arena, K_BOOL, K_DOUBLE, K_INT, K_LIST, K_MAP, K_NIL, K_TEXT, Node, append_member, drop_duplicates, keep_text,
    new_node, take_memory,
)

cdef enum:
    DEPTH_MAX = 24      # an attribute value of OTLP may nest 30 deep, and a field to parse to adds a few

cdef double* POWERS = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
]

ctypedef struct Reader:
    const char* at
    const char* end
    Arena* arena
    bint ints
    int error


cdef int parse_json(Arena* arena, const char* text, size_t size, bint ints, Node** made) noexcept nogil:
    """Parses one value with nothing but white space around it."""
    cdef Reader reader
    reader.at, reader.end, reader.arena, reader.ints, reader.error = text, text + size, arena, ints, JSON_OK
    made[0] = _value(&reader, 1)
    if reader.error == JSON_OK:
        _skip(&reader)
        if reader.at != reader.end:
            reader.error = JSON_INVALID
    return reader.error


cdef inline void _skip(Reader* r) noexcept nogil:
    while r.at < r.end and (r.at[0] == b" " or r.at[0] == b"\n" or r.at[0] == b"\t" or r.at[0] == b"\r"):
        r.at += 1


cdef Node* _fail(Reader* r, int error) noexcept nogil:
    if r.error == JSON_OK:
        r.error = error
    return NULL


cdef Node* _value(Reader* r, int depth) noexcept nogil:
    cdef char first
    cdef Node* node
    _skip(r)
    if r.at >= r.end:
        return _fail(r, JSON_INVALID)
    first = r.at[0]
    if first == b'"':
        node = new_node(r.arena, K_TEXT)
        if node == NULL or not _text(r, &node.text, &node.text_size):
            return _fail(r, JSON_INVALID)
        return node
    if first == b"{":
        return _object(r, depth)
    if first == b"[":
        return _array(r, depth)
    if first == b"-" or b"0" <= first <= b"9":
        return _number(r)
    if r.end - r.at >= 4 and memcmp(r.at, b"true", 4) == 0:
        r.at += 4
        node = new_node(r.arena, K_BOOL)
        if node != NULL:
            node.number = 1
        return node if node != NULL else _fail(r, JSON_INVALID)
    if r.end - r.at >= 5 and memcmp(r.at, b"false", 5) == 0:
        r.at += 5
        node = new_node(r.arena, K_BOOL)
        return node if node != NULL else _fail(r, JSON_INVALID)
    if r.end - r.at >= 4 and memcmp(r.at, b"null", 4) == 0:
        r.at += 4
        node = new_node(r.arena, K_NIL)
        return node if node != NULL else _fail(r, JSON_INVALID)
    return _fail(r, JSON_INVALID)


cdef Node* _object(Reader* r, int depth) noexcept nogil:
    cdef Node* map
    cdef Node* member
    cdef const char* key
    cdef uint32_t key_size
    if depth > DEPTH_MAX:
        return _fail(r, JSON_TOO_DEEP)
    map = new_node(r.arena, K_MAP)
    if map == NULL:
        return _fail(r, JSON_INVALID)
    r.at += 1
    _skip(r)
    if r.at < r.end and r.at[0] == b"}":
        r.at += 1
        return map
    while True:
        _skip(r)
        if r.at >= r.end or r.at[0] != b'"' or not _text(r, &key, &key_size):
            return _fail(r, JSON_INVALID)
        _skip(r)
        if r.at >= r.end or r.at[0] != b":":
            return _fail(r, JSON_INVALID)
        r.at += 1
        member = _value(r, depth + 1)
        if member == NULL:
            return NULL
        member.key = key
        member.key_size = key_size
        append_member(map, member)
        _skip(r)
        if r.at >= r.end:
            return _fail(r, JSON_INVALID)
        if r.at[0] == b"}":
            r.at += 1
            drop_duplicates(map)
            return map
        if r.at[0] != b",":
            return _fail(r, JSON_INVALID)
        r.at += 1


cdef Node* _array(Reader* r, int depth) noexcept nogil:
    cdef Node* made
    cdef Node* member
    if depth > DEPTH_MAX:
        return _fail(r, JSON_TOO_DEEP)
    made = new_node(r.arena, K_LIST)
    if made == NULL:
        return _fail(r, JSON_INVALID)
    r.at += 1
    _skip(r)
    if r.at < r.end and r.at[0] == b"]":
        r.at += 1
        return made
    while True:
        member = _value(r, depth + 1)
        if member == NULL:
            return NULL
        append_member(made, member)
        _skip(r)
        if r.at >= r.end:
            return _fail(r, JSON_INVALID)
        if r.at[0] == b"]":
            r.at += 1
            return made
        if r.at[0] != b",":
            return _fail(r, JSON_INVALID)
        r.at += 1


cdef Node* _number(Reader* r) noexcept nogil:
    cdef const char* start = r.at
    cdef const char* p = r.at
    cdef const char* end = r.end
    cdef bint negative = False, is_int = True, exponent_negative = False
    cdef uint64_t mantissa = 0
    cdef int digits = 0, scale = 0, exponent = 0
    cdef double real
    cdef Node* node
    cdef char[64] short_text
    cdef const char* text
    if p[0] == b"-":
        negative = True
        p += 1
    if p >= end or not (b"0" <= p[0] <= b"9"):
        return _fail(r, JSON_INVALID)
    if p[0] == b"0":
        p += 1
        if p < end and b"0" <= p[0] <= b"9":
            return _fail(r, JSON_INVALID)
    else:
        while p < end and b"0" <= p[0] <= b"9":
            if digits < 19:
                mantissa = mantissa * 10 + <uint64_t>(p[0] - 48)
            digits += 1
            p += 1
    if p < end and p[0] == b".":
        is_int = False
        p += 1
        if p >= end or not (b"0" <= p[0] <= b"9"):
            return _fail(r, JSON_INVALID)
        while p < end and b"0" <= p[0] <= b"9":
            if digits < 19:
                mantissa = mantissa * 10 + <uint64_t>(p[0] - 48)
                scale -= 1
            if digits or mantissa:
                digits += 1
            p += 1
    if p < end and (p[0] == b"e" or p[0] == b"E"):
        is_int = False
        p += 1
        if p < end and (p[0] == b"+" or p[0] == b"-"):
            exponent_negative = p[0] == b"-"
            p += 1
        if p >= end or not (b"0" <= p[0] <= b"9"):
            return _fail(r, JSON_INVALID)
        while p < end and b"0" <= p[0] <= b"9":
            if exponent < 100_000:
                exponent = exponent * 10 + (p[0] - 48)
            p += 1
    r.at = p
    if r.ints and is_int and digits <= 19 and (mantissa < (<uint64_t>1 << 63) or (negative and mantissa == <uint64_t>1 << 63)):
        node = new_node(r.arena, K_INT)
        if node == NULL:
            return _fail(r, JSON_INVALID)
        node.number = <int64_t>(0 - mantissa) if negative else <int64_t>mantissa
        return node
    scale += -exponent if exponent_negative else exponent
    if digits <= 15 and -22 <= scale <= 22:
        real = <double>mantissa
        real = real / POWERS[-scale] if scale < 0 else real * POWERS[scale]
        if negative:
            real = -real
    else:
        if p - start < 64:
            memcpy(short_text, start, p - start)
            short_text[p - start] = 0
            text = short_text
        else:
            text = keep_text(r.arena, start, p - start)
        real = strtod(text, NULL)
        if isinf(real):
            if not r.ints:
                return _fail(r, JSON_NUMBER)
            node = new_node(r.arena, K_TEXT)
            if node != NULL:
                node.text, node.text_size = start, <uint32_t>(p - start)
            return node if node != NULL else _fail(r, JSON_INVALID)
    node = new_node(r.arena, K_DOUBLE)
    if node == NULL:
        return _fail(r, JSON_INVALID)
    node.real = real
    return node


cdef inline uint64_t _zero_byte(uint64_t word) noexcept nogil:
    """Not 0 if a byte of the word is 0."""
    return (word - 0x0101010101010101ULL) & ~word & 0x8080808080808080ULL


cdef bint _text(Reader* r, const char** text, uint32_t* size) noexcept nogil:
    """Reads a string. Without escapes it stays where it is; else it is written to the arena."""
    cdef const char* start = r.at + 1
    cdef const char* p = start
    cdef const char* end = r.end
    cdef uint64_t word
    while end - p >= 8:     # eight bytes at a time as long as none of them is a quote, a backslash or a control character
        memcpy(&word, p, 8)
        if (
            _zero_byte(word ^ 0x2222222222222222ULL)
            | _zero_byte(word ^ 0x5C5C5C5C5C5C5C5CULL)
            | ((word - 0x2020202020202020ULL) & ~word & 0x8080808080808080ULL)
        ):
            break
        p += 8
    while p < end and p[0] != b'"' and p[0] != b"\\" and <uint8_t>p[0] >= 32:
        p += 1
    if p >= end or <uint8_t>p[0] < 32:
        return False
    if p[0] == b'"':
        text[0] = start
        size[0] = <uint32_t>(p - start)
        r.at = p + 1
        return True
    return _escaped(r, start, p, text, size)


cdef inline int _hex(const char* p) noexcept nogil:
    """The value of four hexadecimal digits; -1 if they are not."""
    cdef int value = 0, i
    cdef char c
    for i in range(4):
        c = p[i]
        if b"0" <= c <= b"9":
            value = value * 16 + (c - 48)
        elif b"a" <= c <= b"f":
            value = value * 16 + c - 97 + 10
        elif b"A" <= c <= b"F":
            value = value * 16 + c - 65 + 10
        else:
            return -1
    return value


cdef bint _escaped(Reader* r, const char* start, const char* p, const char** text, uint32_t* size) noexcept nogil:
    cdef const char* end = r.end
    cdef const char* closing = p
    cdef char* out
    cdef char* made
    cdef char c
    cdef int code, low
    while True:     # where the string ends: its content is not longer than its text
        closing = <const char*>memchr(closing, b'"', end - closing)
        if closing == NULL:
            return False
        c = 0
        made = <char*>closing - 1
        while made >= start and made[0] == b"\\":
            c ^= 1
            made -= 1
        if not c:
            break
        closing += 1
    out = <char*>take_memory(r.arena, closing - start + 1)
    if out == NULL:
        return False
    memcpy(out, start, p - start)
    made = out + (p - start)
    while p < closing:
        c = p[0]
        if <uint8_t>c < 32:
            return False
        if c != b"\\":
            made[0] = c
            made += 1
            p += 1
            continue
        c = p[1]
        p += 2
        if c == b"n":
            made[0] = b"\n"
        elif c == b"t":
            made[0] = b"\t"
        elif c == b"r":
            made[0] = b"\r"
        elif c == b"b":
            made[0] = 8
        elif c == b"f":
            made[0] = 12
        elif c == b'"' or c == b"\\" or c == b"/":
            made[0] = c
        elif c == b"u":
            code = _hex(p) if closing - p >= 4 else -1
            if code < 0:
                return False
            p += 4
            if 0xD800 <= code < 0xE000:
                low = _hex(p + 2) if closing - p >= 6 and p[0] == b"\\" and p[1] == b"u" else -1
                if code < 0xDC00 and 0xDC00 <= low < 0xE000:
                    code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
                    p += 6
                else:
                    code = 0xFFFD
            if code < 0x80:
                made[0] = <char>code
            elif code < 0x800:
                made[0] = <char>(0xC0 | code >> 6)
                made[1] = <char>(0x80 | code & 63)
                made += 1
            elif code < 0x10000:
                made[0] = <char>(0xE0 | code >> 12)
                made[1] = <char>(0x80 | code >> 6 & 63)
                made[2] = <char>(0x80 | code & 63)
                made += 2
            else:
                made[0] = <char>(0xF0 | code >> 18)
                made[1] = <char>(0x80 | code >> 12 & 63)
                made[2] = <char>(0x80 | code >> 6 & 63)
                made[3] = <char>(0x80 | code & 63)
                made += 3
        else:
            return False
        made += 1
    made[0] = 0
    text[0] = out
    size[0] = <uint32_t>(made - out)
    r.at = closing + 1
    return True
