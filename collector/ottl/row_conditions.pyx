"""Conditions evaluated row by row in one pass, without columns: comparisons with constants, patterns, and, or, not.

``direct`` translates the conditions that can be expressed so. A row whose value needs more than that (a list, a pattern
on a number) makes ``RowCondition.mask`` return None, and the batch is evaluated by columns instead.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memset

from collector.wire.layout cimport (
    KIND_ABSENT, KIND_BOOL, KIND_BYTES, KIND_DOUBLE, KIND_EMPTY, KIND_INT, KIND_STRING, AttributeRow,
)

from collector.wire.proto cimport WIRE_FIXED64, WIRE_LEN, WIRE_VARINT, Ptr, read_varint
from collector.wire.splice.values cimport read_value

cnp.import_array()

__all__ = ["RowCondition"]

cdef extern from *:
    """
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <string.h>
    static inline int tailrace_contains(const void *h, size_t n, const void *s, size_t m) {
        const char *at = (const char *)h, *end;
        if (m == 0) return 1;
        if (m > n) return 0;
        end = at + (n - m) + 1;
        while ((at = (const char *)memchr(at, *(const char *)s, (size_t)(end - at))) != NULL) {
            if (memcmp(at, s, m) == 0) return 1;
            if (++at >= end) return 0;
        }
        return 0;
    }
    """
    bint contains "tailrace_contains"(const void* text, size_t size, const void* part, size_t part_size) noexcept nogil

cdef enum:
    MAX_LEVELS = 4
    MEMO = 64                   # texts whose outcome is remembered during one call; a power of two
    UNKNOWN = -1                # the row needs an evaluation by columns
    KIND_OTHER = 254
    KEY_TAG = 0x0A              # KeyValue.key
    VALUE_TAG = 0x12            # KeyValue.value

cdef enum Op:
    OR = 0
    AND = 1
    NOT = 2
    CONSTANT = 3
    COMPARE = 4
    CONTAINS = 5
    PREFIX = 6
    SUFFIX = 7
    EQUALS = 8
    CALL = 9

cdef enum Source:
    NUMBER = 0
    DIFFERENCE = 1
    TEXT = 2
    ATTRIBUTE_VALUE = 3
    BODY = 4

cdef struct Remembered:
    const uint8_t* text
    int32_t size, outcome

cdef struct Node:
    int op
    int first, next             # numbers of other nodes; -1: there is none
    int source, level
    Py_ssize_t at, other_at     # places in the row
    int format                  # of the number: 'i' int32, 'u' uint32, 'q' 64 bits
    int symbol                  # bits: 1 less, 2 equal, 4 greater
    bint unequal                # what values of types that do not compare make of it
    int kind                    # of the constant
    int64_t number
    double real
    const uint8_t* text
    Py_ssize_t size
    const uint8_t* key
    Py_ssize_t key_size
    int code                    # of the key in this batch; -1: no row has it
    Remembered* memo            # of a call, MEMO of them

cdef struct Level:
    const uint8_t* rows
    Py_ssize_t count, row_bytes, count_at
    const AttributeRow* attributes
    Py_ssize_t attribute_count
    uint64_t tag                # of attributes that are read from the bytes
    Py_ssize_t row, begin, end  # the current row and its attributes

cdef struct Value:
    int kind
    int64_t number
    double real
    const uint8_t* text
    Py_ssize_t size

_OPS = {
    "or": OR, "and": AND, "not": NOT, "constant": CONSTANT, "compare": COMPARE, "contains": CONTAINS,
    "prefix": PREFIX, "suffix": SUFFIX, "equals": EQUALS, "call": CALL,
}
_SOURCES = {"number": NUMBER, "difference": DIFFERENCE, "text": TEXT, "attribute": ATTRIBUTE_VALUE, "body": BODY}
_SYMBOLS = {"<": 1, "==": 2, "<=": 3, ">": 4, "!=": 5, ">=": 6}
_FORMATS = {"i4": ord("i"), "u4": ord("u"), "i8": ord("q"), "u8": ord("q")}


@cython.final
cdef class RowCondition:
    """A condition on the rows of one table and of the tables above it."""

    cdef Node* nodes
    cdef int node_count
    cdef Level[MAX_LEVELS] levels
    cdef const uint8_t* wire
    cdef Py_ssize_t wire_size
    cdef list kept, calls
    cdef readonly frozenset attributed
    """The levels whose attributes are needed: 0 is the table itself, 1 the table above it, and so on."""
    cdef readonly int level_count
    """How many levels are needed."""

    def __cinit__(self, list nodes):
        """Checks and stores the condition.

        Args:
            nodes: Tuples, the root first. ``("or" | "and" | "not", numbers of nodes)``, ``("constant", bool)``,
                ``("compare", source, symbol, constant)``, ``("contains" | "prefix" | "suffix" | "equals", source,
                UTF-8)``, ``("call", source, function of UTF-8)``. A source is ``("number", level, place, format)``,
                ``("difference", level, place, other place)`` of times, ``("text", level, place)``, ``("attribute",
                level, key)`` or ``("body", level, place of the kind, place of the text)``. A constant is None, bytes
                (a text), bool, int or float.

        Raises:
            ValueError: a node is not valid.
        """
        cdef int i
        self.node_count = len(nodes)
        self.nodes = <Node*>calloc(self.node_count + 1, sizeof(Node))
        if self.nodes == NULL:
            raise MemoryError
        self.kept, self.calls, self.level_count = [], [None] * self.node_count, 1
        attributed = set()
        for i in range(self.node_count):
            self.set_node(i, nodes[i], attributed)
        self.attributed = frozenset(attributed)

    def __dealloc__(self):
        cdef int i
        for i in range(self.node_count if self.nodes != NULL else 0):
            free(self.nodes[i].memo)
        free(self.nodes)

    cdef int set_node(self, int i, tuple given, set attributed) except -1:
        cdef Node* node = &self.nodes[i]
        cdef int before = -1, child
        name = given[0]
        node.op = _OPS[name]
        node.first = -1
        if not i:
            node.next = -1
        if name in ("or", "and", "not"):
            for child in given[1]:
                if not i < child < self.node_count:
                    raise ValueError(f"node {i}: node {child} does not come after it")
                if before < 0:
                    node.first = child
                else:
                    self.nodes[before].next = child
                self.nodes[child].next = -1
                before = child
            if before < 0:
                raise ValueError(f"node {i}: it has no operand")
            return 0
        if name == "constant":
            node.number = bool(given[1])
            return 0
        source = given[1]
        node.source, node.level = _SOURCES[source[0]], source[1]
        if not 0 <= node.level < MAX_LEVELS:
            raise ValueError(f"node {i}: level {node.level}")
        self.level_count = max(self.level_count, node.level + 1)
        if node.source == ATTRIBUTE_VALUE:
            attributed.add(node.level)
            node.key, node.key_size = self.keep(source[2])
        else:
            node.at = source[2]
            if node.source == NUMBER:
                node.format = _FORMATS[source[3]]
            elif node.source != TEXT:
                node.other_at = source[3]
        if name == "call":
            self.calls[i] = given[2]
            node.memo = <Remembered*>calloc(MEMO, sizeof(Remembered))
            if node.memo == NULL:
                raise MemoryError
        elif name == "compare":
            node.symbol = _SYMBOLS[given[2]]
            node.unequal = given[2] == "!="
            self.set_constant(node, given[3])
        else:
            node.text, node.size = self.keep(given[2])
        return 0

    cdef int set_constant(self, Node* node, value) except -1:
        if value is None:
            node.kind = KIND_EMPTY
        elif isinstance(value, bytes):
            node.kind = KIND_STRING
            node.text, node.size = self.keep(value)
        elif isinstance(value, bool):
            node.kind, node.number = KIND_BOOL, value
        elif isinstance(value, float):
            node.kind, node.real = KIND_DOUBLE, value
        else:
            node.kind, node.number = KIND_INT, value
        return 0

    cdef (const uint8_t*, Py_ssize_t) keep(self, bytes text):
        self.kept.append(text)
        return <const uint8_t*>PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)

    def mask(self, bytes wire not None, list tables not None):
        """(bool[n]: for which rows it holds, their number); None if it has to be evaluated by columns.

        Args:
            wire: The request.
            tables: For each level the rows of the table, and for those in ``attributed`` also the rows of their
                attributes and the keys, else None twice. Instead of both, the tag of the field that attributes are
                in, if they are directly in the messages of the rows: then they are read from the bytes.
        """
        cdef Py_ssize_t row, count, found = 0, i
        cdef int outcome, level
        cdef Node* node
        cdef uint8_t* out
        cdef cnp.ndarray result
        cdef list keys
        if len(tables) != self.level_count:
            raise ValueError(f"expected {self.level_count} tables, got {len(tables)}")
        for level in range(self.level_count):
            rows, attributes, known = tables[level]
            self.levels[level].tag = 0
            if isinstance(known, int):
                self.levels[level].tag = known
            self.open_level(&self.levels[level], rows, attributes)
        for i in range(self.node_count):
            node = &self.nodes[i]
            if node.op >= COMPARE and node.source == ATTRIBUTE_VALUE and not self.levels[node.level].tag:
                keys = tables[node.level][2]
                node.code = code_of(keys, node)
            if node.op == CALL:
                memset(node.memo, 0, MEMO * sizeof(Remembered))
        self.wire, self.wire_size = <const uint8_t*>PyBytes_AS_STRING(wire), PyBytes_GET_SIZE(wire)
        count = self.levels[0].count
        result = cnp.PyArray_EMPTY(1, [count], cnp.NPY_BOOL, 0)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        for row in range(count):
            if not self.move(row):
                return None
            outcome = self.holds(0)
            if outcome == UNKNOWN:
                return None
            out[row] = outcome
            found += outcome
        return result, found

    cdef int open_level(self, Level* level, cnp.ndarray rows, attributes) except -1:
        cdef cnp.ndarray records
        if not cnp.PyArray_IS_C_CONTIGUOUS(rows) or cnp.PyArray_NDIM(rows) != 1:
            raise TypeError("expected a contiguous array of rows")
        level.rows, level.count = <const uint8_t*>cnp.PyArray_DATA(rows), cnp.PyArray_DIM(rows, 0)
        level.row_bytes = cnp.PyArray_ITEMSIZE(rows)
        level.row, level.begin, level.end = -1, 0, 0
        level.attributes, level.attribute_count, level.count_at = NULL, 0, -1
        if attributes is not None:
            records = attributes
            if records.dtype is not ATTRIBUTE and records.dtype != ATTRIBUTE or not cnp.PyArray_IS_C_CONTIGUOUS(records):
                raise TypeError("expected a contiguous array of attribute rows")
            level.attributes = <const AttributeRow*>cnp.PyArray_DATA(records)
            level.attribute_count = cnp.PyArray_DIM(records, 0)
            level.count_at = rows.dtype.fields["attribute_count"][1]
        return 0

    cdef bint move(self, Py_ssize_t row) noexcept:
        """Goes to a row, and to those above it; False if the rows are not in document order."""
        cdef int number
        cdef Level* level
        for number in range(self.level_count):
            level = &self.levels[number]
            if not level.row <= row < level.count:
                return False
            while level.row < row:
                level.row += 1
                if level.count_at >= 0:
                    level.begin = level.end
                    level.end += (<const int32_t*>(level.rows + level.row * level.row_bytes + level.count_at))[0]
                    if level.end < level.begin or level.end > level.attribute_count:
                        return False
            row = (<const int32_t*>(level.rows + row * level.row_bytes))[0]
        return True

    cdef int holds(self, int number) except -2:
        """Whether a node holds for the current row, or UNKNOWN."""
        cdef Node* node = &self.nodes[number]
        cdef int child, outcome
        cdef Value value
        if node.op <= AND:
            child = node.first
            while child >= 0:
                outcome = self.holds(child)
                if outcome != <int>(node.op == AND):        # it decides, or is unknown
                    return outcome
                child = self.nodes[child].next
            return node.op == AND
        if node.op == NOT:
            outcome = self.holds(node.first)
            return outcome if outcome == UNKNOWN else 1 - outcome
        if node.op == CONSTANT:
            return <int>node.number
        if not self.read(node, &value) or value.kind == KIND_OTHER:
            return UNKNOWN
        if node.op == COMPARE:
            return compared(node, &value)
        if value.kind == KIND_EMPTY:                        # nil matches no pattern
            return 0
        if value.kind != KIND_STRING:
            return UNKNOWN
        if node.op == CALL:
            return self.called(number, value.text, value.size)
        if node.op == CONTAINS:
            return contains(value.text, value.size, node.text, node.size)
        if value.size < node.size or (node.op == EQUALS and value.size != node.size):
            return 0
        return memcmp(value.text + (value.size - node.size if node.op == SUFFIX else 0), node.text, node.size) == 0

    cdef int called(self, int number, const uint8_t* text, Py_ssize_t size) except -2:
        """The outcome of a function for a text, which is called once for each text while the memo has room."""
        cdef uint64_t mixed = <uint64_t>size
        cdef Py_ssize_t i
        cdef Remembered* known
        for i in range(min(size, 4)):
            mixed = mixed * 31 + text[i] + (<uint64_t>text[size - 1 - i] << 8)
        mixed += <uint64_t>text[size // 2] if size > 0 else 0
        mixed *= <uint64_t>0x9E3779B97F4A7C15
        known = &self.nodes[number].memo[mixed >> 58]
        if known.text != NULL and known.size == size and memcmp(known.text, text, size) == 0:
            return known.outcome
        known.outcome = bool(self.calls[number](PyBytes_FromStringAndSize(<const char*>text, size)))
        known.text, known.size = text, <int32_t>size
        return known.outcome

    cdef bint read(self, const Node* node, Value* value) noexcept:
        """Reads a source on the current row; False if it is not as the index must be, or needs more than that."""
        cdef const Level* level = &self.levels[node.level]
        cdef const uint8_t* row = level.rows + level.row * level.row_bytes
        cdef const AttributeRow* found = NULL
        cdef Py_ssize_t k
        cdef int64_t first, second
        if node.source == NUMBER:
            value.kind = KIND_INT
            if node.format == c"q":
                value.number = (<const int64_t*>(row + node.at))[0]
            elif node.format == c"i":
                value.number = (<const int32_t*>(row + node.at))[0]
            else:
                value.number = (<const uint32_t*>(row + node.at))[0]
            return True
        if node.source == DIFFERENCE:
            first, second = (<const int64_t*>(row + node.at))[0], (<const int64_t*>(row + node.other_at))[0]
            value.kind, value.number = KIND_INT, 0
            if first < 0 or second < 0:                     # the difference might not fit
                return False
            value.number = first - second
            return True
        if node.source == TEXT:
            value.kind = KIND_STRING
            return self.slice(row + node.at, value)
        if node.source == BODY:
            value.kind = (<const int32_t*>(row + node.at))[0]
            if value.kind == KIND_STRING:
                return self.slice(row + node.other_at, value)
            if value.kind == KIND_ABSENT:
                value.kind = KIND_EMPTY
            return value.kind == KIND_EMPTY
        value.kind = KIND_EMPTY
        if level.tag:
            return self.read_attribute(node, level.tag, row, value)
        if node.code < 0:
            return True
        for k in range(level.end - 1, level.begin - 1, -1):
            if level.attributes[k].key_code == node.code:
                found = &level.attributes[k]
                break
        if found == NULL:
            return True
        return self.attribute(found, value)

    cdef bint read_attribute(self, const Node* node, uint64_t wanted, const uint8_t* row, Value* value) noexcept:
        """Reads an attribute from the bytes of a row, of a repeated key the last one."""
        cdef int32_t body = (<const int32_t*>row)[2], stop = (<const int32_t*>row)[3]
        cdef Ptr p, end, inner, inner_end
        cdef uint64_t tag = 0, size = 0, key_size = 0
        cdef AttributeRow found
        if body < 0 or stop < body or stop > self.wire_size:
            return False
        found.kind = KIND_ABSENT
        p, end = self.wire + body, self.wire + stop
        while p < end:
            p = read_varint(p, end, &tag)
            if p == NULL:
                return False
            if (tag & 7) == WIRE_LEN:
                p = read_varint(p, end, &size)
                if p == NULL or size > <uint64_t>(end - p):
                    return False
                if tag == wanted:
                    inner_end = p + size
                    if size == 0 or p[0] != KEY_TAG:
                        return False                        # without a key, or the value comes first
                    inner = read_varint(p + 1, inner_end, &key_size)
                    if inner == NULL or key_size > <uint64_t>(inner_end - inner):
                        return False
                    if key_size == <uint64_t>node.key_size and memcmp(inner, node.key, key_size) == 0:
                        inner += key_size
                        memset(&found, 0, sizeof(AttributeRow))
                        found.value = found.any = -1
                        if inner < inner_end:
                            if inner[0] != VALUE_TAG:
                                return False
                            inner = read_varint(inner + 1, inner_end, &key_size)
                            if inner == NULL or key_size != <uint64_t>(inner_end - inner):
                                return False
                            read_value(self.wire, inner - self.wire, inner_end - self.wire, &found)
                p += size
            elif (tag & 7) == WIRE_VARINT:
                p = read_varint(p, end, &size)
                if p == NULL:
                    return False
            else:
                p += 8 if (tag & 7) == WIRE_FIXED64 else 4
        return p == end and (found.kind == KIND_ABSENT or self.attribute(&found, value))

    cdef bint attribute(self, const AttributeRow* found, Value* value) noexcept:
        value.kind = found.kind
        if found.kind == KIND_STRING:
            return self.slice(<const uint8_t*>&found.value, value)
        if found.kind == KIND_INT or found.kind == KIND_BOOL:
            value.number = found.int_value
        elif found.kind == KIND_DOUBLE:
            value.real = found.double_value
        elif found.kind != KIND_EMPTY:
            value.kind = KIND_OTHER
        return True

    cdef bint slice(self, const uint8_t* place, Value* value) noexcept:
        cdef int32_t start = (<const int32_t*>place)[0], size = (<const int32_t*>place)[1]
        if start < 0:
            value.text, value.size = self.wire, 0
            return True
        if size < 0 or start > self.wire_size - size:
            return False
        value.text, value.size = self.wire + start, size
        return True


cdef int code_of(list keys, const Node* node) except -2:
    cdef int i
    cdef bytes key
    for i in range(len(keys)):
        key = keys[i]
        if PyBytes_GET_SIZE(key) == node.key_size and memcmp(PyBytes_AS_STRING(key), node.key, node.key_size) == 0:
            return i
    return -1


cdef int compared(const Node* node, const Value* value) noexcept:
    """Whether the comparison of a value with the constant holds. Values of types that do not compare are unequal."""
    cdef int sign
    cdef double left, right
    if value.kind == KIND_EMPTY or node.kind == KIND_EMPTY:
        if value.kind == node.kind:
            return (node.symbol & 2) != 0
        return node.unequal
    if value.kind == KIND_STRING or node.kind == KIND_STRING:
        if value.kind != node.kind:
            return node.unequal
        if node.symbol == 2 or node.unequal:
            return (value.size == node.size and memcmp(value.text, node.text, node.size) == 0) != node.unequal
        sign = memcmp(value.text, node.text, min(value.size, node.size))
        if sign == 0:
            sign = (value.size > node.size) - (value.size < node.size)
    elif value.kind == KIND_DOUBLE and node.kind != KIND_BOOL or node.kind == KIND_DOUBLE and value.kind != KIND_BOOL:
        left = value.real if value.kind == KIND_DOUBLE else <double>value.number
        right = node.real if node.kind == KIND_DOUBLE else <double>node.number
        if left != left or right != right:                  # NaN is unequal to everything and has no order
            return node.unequal
        sign = (left > right) - (left < right)
    elif value.kind != node.kind:
        return node.unequal
    else:
        sign = (value.number > node.number) - (value.number < node.number)
    return (node.symbol & (1 if sign < 0 else 2 if sign == 0 else 4)) != 0
