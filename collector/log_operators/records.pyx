"""Steps that fill the fields of log records, and the encoding of records as OTLP.

Source: opentelemetry-collector-contrib pkg/stanza/operator/helper and adapter/converter.go (v0.156); ``logs.proto``.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, memset

from collector.log_operators.entries cimport (
    MISSING, NO_SCOPE, NO_SEVERITY, NO_TIME, NO_TRACE, NOT_PARSED, Entries, Path, Row, to_python,
)
from collector.log_operators.nodes cimport (
    K_BOOL, K_BYTES, K_DOUBLE, K_INT, K_LIST, K_MAP, K_NIL, K_TEXT, Node, find_member, keep_text, put_named,
    remove_member,
)
from collector.log_operators.times cimport TimeReader
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_fixed32, put_fixed64, put_number, put_slice, reserve, set_varint, take,
    varint_size,
)

__all__ = [
    "SEVERITY_TEXTS", "SeverityTable", "encode_records", "group_records", "read_container", "read_scope",
    "read_severity", "read_time", "read_trace",
]

SEVERITY_TEXTS = ("DEFAULT", *(
    f"{name}{number if number > 1 else ''}"
    for name in ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
    for number in range(1, 5)
))
_KEPT_TEXTS = [text.encode() for text in SEVERITY_TEXTS]

cdef enum:
    TEXT_MAX = 64       # longer texts are no severity
    NESTING_MAX = 30    # of AnyValue, the limit at the door

ctypedef struct Slot:
    const char* text
    uint32_t size
    uint8_t severity


cdef class SeverityTable:
    """Severities by the lower-case texts that stand for them."""

    cdef Slot* slots
    cdef uint64_t mask
    cdef list kept
    cdef bint overwrites_text
    cdef dict others        # texts that are not ASCII or are long

    def __cinit__(self, severities, bint overwrites_text):
        cdef uint64_t place
        self.kept = []
        self.others = {}
        self.overwrites_text = overwrites_text
        self.mask = 1
        while self.mask < 3 * <uint64_t>len(severities) + 1:
            self.mask <<= 1
        self.slots = <Slot*>calloc(self.mask, sizeof(Slot))
        if self.slots == NULL:
            raise MemoryError
        self.mask -= 1
        for text, severity in severities.items():
            raw = text.encode()
            if not text.isascii() or len(raw) > TEXT_MAX:
                self.others[text] = severity
                continue
            self.kept.append(raw)
            place = _hashed(PyBytes_AS_STRING(raw), <uint32_t>len(raw)) & self.mask
            while self.slots[place].text != NULL:
                place = (place + 1) & self.mask
            self.slots[place].text = PyBytes_AS_STRING(raw)
            self.slots[place].size = <uint32_t>len(raw)
            self.slots[place].severity = severity

    def __dealloc__(self):
        free(self.slots)

    cdef int find(self, const char* text, uint32_t size):
        """The severity of a text in any case; 0 if there is none."""
        cdef char[TEXT_MAX] lower
        cdef uint32_t i
        cdef uint64_t place
        cdef bint is_ascii = True
        if size <= TEXT_MAX:
            for i in range(size):
                lower[i] = text[i] + 32 if b"A" <= text[i] <= b"Z" else text[i]
                if <uint8_t>text[i] >= 128:
                    is_ascii = False
            if is_ascii:
                place = _hashed(lower, size) & self.mask
                while self.slots[place].text != NULL:
                    if self.slots[place].size == size and memcmp(self.slots[place].text, lower, size) == 0:
                        return self.slots[place].severity
                    place = (place + 1) & self.mask
                if not self.others:
                    return 0
        if self.others and size < 4096:
            return self.others.get(text[:size].decode("utf-8", "replace").lower(), 0)
        return 0


cdef inline uint64_t _hashed(const char* text, uint32_t size) noexcept nogil:
    cdef uint64_t value = 14695981039346656037ULL
    cdef uint32_t i
    for i in range(size):
        value = (value ^ <uint8_t>text[i]) * 1099511628211ULL
    return value ^ value >> 29


def read_severity(Entries entries, const int32_t[::1] numbers, Path path, SeverityTable table):
    """Sets severity number and text; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    cdef const char* text
    cdef uint32_t size
    cdef int severity
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, path)
        if node == NULL:
            failed[i] = NO_SEVERITY
            continue
        if node.kind == K_TEXT or node.kind == K_BYTES:
            text, size = node.text, node.text_size
        elif node.kind == K_INT or (node.kind == K_DOUBLE and node.real == <double><int64_t>node.real):
            made = b"%d" % (node.number if node.kind == K_INT else <int64_t>node.real)
            text = keep_text(&entries.arena, made, len(made))
            size = <uint32_t>len(made)
        else:
            failed[i] = NO_SEVERITY
            continue
        severity = table.find(text, size)
        row.severity = severity
        row.severity_text, row.severity_text_size = text, size
        if severity and table.overwrites_text:
            row.severity_text = _KEPT_TEXTS[severity]
            row.severity_text_size = <uint32_t>len(_KEPT_TEXTS[severity])
    entries.check()
    return failures


def read_time(Entries entries, const int32_t[::1] numbers, Path path, TimeReader reader):
    """Sets the time; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, path)
        if node == NULL or not reader.read_node(node, &row.time):
            failed[i] = NO_TIME
    return failures


def read_scope(Entries entries, const int32_t[::1] numbers, Path path):
    """Sets the name of the scope; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Node* node
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    for i in range(numbers.shape[0]):
        node = entries.get(&entries.rows[numbers[i]], path)
        if node == NULL or node.kind != K_TEXT:
            failed[i] = NO_SCOPE
        else:
            entries.rows[numbers[i]].scope = node.text
            entries.rows[numbers[i]].scope_size = node.text_size
    return failures


cdef int8_t[256] DIGITS     # the value of a hexadecimal digit; -1 for other characters
for _byte in range(256):
    DIGITS[_byte] = b"0123456789abcdef".find(bytes([_byte]).lower())


cdef bint _hexadecimal(Node* node, int digit_count, uint8_t* made) noexcept nogil:
    """Reads this many hexadecimal digits, between which there may be dashes."""
    cdef uint32_t i
    cdef int found = 0, digit
    if node.kind != K_TEXT or node.text_size > 64:
        return False
    memset(made, 0, digit_count // 2)
    for i in range(node.text_size):
        digit = DIGITS[<uint8_t>node.text[i]]
        if digit < 0:
            if node.text[i] == b"-" and found:
                continue
            return False
        if found >= digit_count:
            return False
        made[found >> 1] |= digit << 4 * (not found & 1)
        found += 1
    return found == digit_count


def read_trace(Entries entries, const int32_t[::1] numbers, Path trace_id, Path span_id, Path flags):
    """Sets trace id, span id and flags from the fields that are there and not empty; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    cdef uint8_t[16] found
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, trace_id)
        if node != NULL and node.kind != K_NIL and not (node.kind == K_TEXT and node.text_size == 0):
            if _hexadecimal(node, 32, found):
                memcpy(row.trace_id, found, 16)
            else:
                failed[i] = NO_TRACE
        node = entries.get(row, span_id)
        if node != NULL and node.kind != K_NIL and not (node.kind == K_TEXT and node.text_size == 0):
            if _hexadecimal(node, 16, found):
                memcpy(row.span_id, found, 8)
            else:
                failed[i] = NO_TRACE
        node = entries.get(row, flags)
        if node != NULL and node.kind != K_NIL and not (node.kind == K_TEXT and node.text_size == 0):
            if _hexadecimal(node, 2, found):
                row.flags = found[0]
            else:
                failed[i] = NO_TRACE
    return failures


def read_container(Entries entries, const int32_t[::1] numbers, TimeReader reader):
    """Takes time, log and stream out of the attributes of a container's log line; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = find_member(row.attributes, b"time", 4)
        if node == NULL or not reader.read_node(node, &row.time):
            failed[i] = NO_TIME
            continue
        remove_member(row.attributes, b"time", 4)
        node = remove_member(row.attributes, b"log", 3)
        if node == NULL:
            failed[i] = MISSING
            continue
        row.body = node
        node = remove_member(row.attributes, b"stream", 6)
        if node == NULL:
            failed[i] = MISSING
            continue
        put_named(row.attributes, b"log.iostream", 12, node)
    return failures


# Encoding.


cdef void _put_value(Writer* w, Node* node, int depth) noexcept nogil:
    """Writes the content of an AnyValue."""
    cdef Py_ssize_t mark, inner
    cdef Node* member
    cdef uint64_t bits
    if node.kind == K_TEXT:
        put_slice(w, 1 << 3 | 2, node.text, node.text_size)
    elif node.kind == K_BOOL:
        put_number(w, 2 << 3, <uint64_t>(node.number != 0))
    elif node.kind == K_INT:
        put_number(w, 3 << 3, <uint64_t>node.number)
    elif node.kind == K_DOUBLE:
        memcpy(&bits, &node.real, 8)
        put_fixed64(w, 4 << 3 | 1, bits)
    elif node.kind == K_BYTES:
        put_slice(w, 7 << 3 | 2, node.text, node.text_size)
    elif node.kind == K_LIST and depth < NESTING_MAX:
        mark = begin(w, 5 << 3 | 2)
        member = node.first
        while member != NULL:
            inner = begin(w, 1 << 3 | 2)
            _put_value(w, member, depth + 1)
            end(w, inner)
            member = member.next
        end(w, mark)
    elif node.kind == K_MAP and depth < NESTING_MAX:
        mark = begin(w, 6 << 3 | 2)
        _put_members(w, 1, node, depth + 1)
        end(w, mark)


cdef inline int _size_of(Node* node, uint64_t* bits) noexcept nogil:
    """The size of the content of the AnyValue of a number or truth value, and what its field holds; -1 for others."""
    if node.kind == K_INT:
        bits[0] = <uint64_t>node.number
        return 1 + varint_size(bits[0])
    if node.kind == K_DOUBLE:
        memcpy(bits, &node.real, 8)
        return 9
    if node.kind == K_BOOL:
        bits[0] = node.number != 0
        return 2
    return -1


cdef void _put_members(Writer* w, int number, Node* map, int depth) noexcept nogil:
    """Writes the members of a map as KeyValue messages. Those of texts and numbers are written at once."""
    cdef Node* member = map.first
    cdef Py_ssize_t mark, inner, text_size = 0, content, size
    cdef uint64_t bits = 0
    cdef uint8_t* at
    while member != NULL:
        content = -1
        if member.kind == K_TEXT:
            text_size = member.text_size
            content = 1 + varint_size(<uint64_t>text_size) + text_size
        else:
            content = _size_of(member, &bits)
        if content >= 0:
            size = 2 + varint_size(member.key_size) + member.key_size + varint_size(<uint64_t>content) + content
            if not reserve(w, size + 16):
                return
            at = w.data + w.size
            at[0] = number << 3 | 2
            at = set_varint(at + 1, <uint64_t>size)
            at[0] = 1 << 3 | 2
            at = set_varint(at + 1, member.key_size)
            memcpy(at, member.key, member.key_size)
            at += member.key_size
            at[0] = 2 << 3 | 2
            at = set_varint(at + 1, <uint64_t>content)
            if member.kind == K_TEXT:
                at[0] = 1 << 3 | 2
                at = set_varint(at + 1, <uint64_t>text_size)
                memcpy(at, member.text, text_size)
                at += text_size
            elif member.kind == K_DOUBLE:
                at[0] = 4 << 3 | 1
                memcpy(at + 1, &bits, 8)
                at += 9
            else:
                at[0] = 3 << 3 if member.kind == K_INT else 2 << 3
                at = set_varint(at + 1, bits)
            w.size = at - w.data
        else:
            mark = begin(w, number << 3 | 2)
            put_slice(w, 1 << 3 | 2, member.key, member.key_size)
            inner = begin(w, 2 << 3 | 2)
            _put_value(w, member, depth)
            end(w, inner)
            end(w, mark)
        member = member.next


cdef bint _any_set(const uint8_t* id, int size) noexcept nogil:
    cdef int i
    for i in range(size):
        if id[i]:
            return True
    return False


def encode_records(Entries entries, const int32_t[::1] numbers):
    """The rows as the log records of a ScopeLogs."""
    cdef Writer w
    cdef Py_ssize_t i, mark, inner
    cdef Row* row
    cdef const char** texts = <const char**>calloc(25, sizeof(char*))
    cdef uint32_t[25] sizes
    if texts == NULL:
        raise MemoryError
    for i in range(25):
        texts[i], sizes[i] = PyBytes_AS_STRING(_KEPT_TEXTS[i]), <uint32_t>PyBytes_GET_SIZE(_KEPT_TEXTS[i])
    open_writer(&w, 256 * numbers.shape[0])
    try:
        with nogil:
            for i in range(numbers.shape[0]):
                row = &entries.rows[numbers[i]]
                mark = begin(&w, 2 << 3 | 2)
                if row.time:
                    put_fixed64(&w, 1 << 3 | 1, <uint64_t>row.time)
                if row.severity:
                    put_number(&w, 2 << 3, row.severity)
                if row.severity_text_size:
                    put_slice(&w, 3 << 3 | 2, row.severity_text, row.severity_text_size)
                elif row.severity:
                    put_slice(&w, 3 << 3 | 2, texts[row.severity], sizes[row.severity])
                inner = begin(&w, 5 << 3 | 2)
                _put_value(&w, row.body, 1)
                end(&w, inner)
                _put_members(&w, 6, row.attributes, 1)
                if row.flags:
                    put_fixed32(&w, 8 << 3 | 5, row.flags)
                if _any_set(row.trace_id, 16):
                    put_slice(&w, 9 << 3 | 2, row.trace_id, 16)
                if _any_set(row.span_id, 8):
                    put_slice(&w, 10 << 3 | 2, row.span_id, 8)
                if row.observed:
                    put_fixed64(&w, 11 << 3 | 1, <uint64_t>row.observed)
                end(&w, mark)
        return take(&w)
    finally:
        close_writer(&w)
        free(texts)


def group_records(Entries entries, const int32_t[::1] numbers):
    """``(codes, groups)``: the resource and scope of each row, as int32[n] into pairs of encoded Resource and name."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Row* before = NULL
    cdef Writer w
    cdef dict found = {}
    cdef dict resources = {}
    codes = np.zeros(numbers.shape[0], np.int32)
    cdef int32_t[::1] view = codes
    cdef int32_t code = 0
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        if before == NULL or row.resource != before.resource or row.scope_size != before.scope_size or (
            row.scope_size and memcmp(row.scope, before.scope, row.scope_size) != 0
        ):
            place = <size_t>row.resource
            resource = resources.get(place)
            if resource is None:
                open_writer(&w, 256)
                try:
                    _put_members(&w, 1, row.resource, 1)
                    resource = resources[place] = take(&w)
                finally:
                    close_writer(&w)
            key = (resource, row.scope[: row.scope_size] if row.scope_size else b"")
            code = found.setdefault(key, len(found))
            before = row
        view[i] = code
    return codes, list(found)
