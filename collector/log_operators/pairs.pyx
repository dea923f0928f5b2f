"""Pairs of keys and values such as ``level=info msg="a b"``.

Source: opentelemetry-collector-contrib internal/coreinternal/parseutils/parser.go (v0.156).
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, uint8_t
from libc.string cimport memcmp

from collector.log_operators.entries cimport CANNOT_SET, MISSING, NOT_PARSED, WRONG_TYPE, Entries, Path, Row
from collector.log_operators.nodes cimport (
    Arena, K_MAP, K_TEXT, Node, append_member, drop_duplicates, new_node, new_text, take_memory,
)

__all__ = ["parse_pairs"]


cdef inline bint _is_space(char c) noexcept nogil:
    return c == b" " or 9 <= c <= 13


cdef bint _add_pair(Arena* arena, Node* map, const char* text, Py_ssize_t size, const char* delimiter,
                    Py_ssize_t delimiter_size) noexcept nogil:
    """Adds one pair; False if it has no delimiter, or without memory."""
    cdef Py_ssize_t at = 0, start = 0, end = size, key_end
    cdef Node* value
    while at + delimiter_size <= size and memcmp(text + at, delimiter, delimiter_size) != 0:
        at += 1
    if at + delimiter_size > size:
        return False
    key_end = at
    at += delimiter_size
    while start < key_end and _is_space(text[start]):
        start += 1
    while key_end > start and _is_space(text[key_end - 1]):
        key_end -= 1
    while at < end and _is_space(text[at]):
        at += 1
    while end > at and _is_space(text[end - 1]):
        end -= 1
    value = new_text(arena, text + at, end - at)
    if value == NULL:
        return False
    value.key = text + start
    value.key_size = key_end - start
    append_member(map, value)
    return True


cdef bint _parse(Arena* arena, Node* map, const char* text, Py_ssize_t size, const char* pair, Py_ssize_t pair_size,
                 const char* delimiter, Py_ssize_t delimiter_size) noexcept nogil:
    """Adds all pairs. Quotes keep delimiters together and are taken away; a backslash keeps a quote."""
    cdef char* out = <char*>take_memory(arena, size + 1)
    cdef Py_ssize_t at = 0, length = 0, start = 0
    cdef char quote = 0
    cdef bint is_escaped = False
    if out == NULL:
        return False
    while at < size:
        if quote == 0 and text[at] == pair[0] and at + pair_size <= size and memcmp(text + at, pair, pair_size) == 0:
            if length > start:
                if not _add_pair(arena, map, out + start, length - start, delimiter, delimiter_size):
                    return False
                start = length
            at += pair_size
            continue
        if is_escaped:
            is_escaped = False
        else:
            if quote == 0 and (text[at] == b'"' or text[at] == b"'"):
                quote = text[at]
                at += 1
                continue
            if quote and text[at] == quote:
                quote = 0
                at += 1
                continue
            is_escaped = text[at] == b"\\"
        out[length] = text[at]
        length += 1
        at += 1
    if quote:
        return False
    if length > start:
        return _add_pair(arena, map, out + start, length - start, delimiter, delimiter_size)
    return True


def parse_pairs(Entries entries, const int32_t[::1] numbers, Path source, Path target, bytes pair, bytes delimiter):
    """Writes the values by key; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    cdef Node* map
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    entries.kept.append(target)
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, source)
        if node == NULL or node.kind != K_TEXT:
            failed[i] = MISSING if node == NULL else WRONG_TYPE
            continue
        map = new_node(&entries.arena, K_MAP)
        if map == NULL:
            break
        if node.text_size == 0 or not _parse(
            &entries.arena, map, node.text, node.text_size, PyBytes_AS_STRING(pair), PyBytes_GET_SIZE(pair),
            PyBytes_AS_STRING(delimiter), PyBytes_GET_SIZE(delimiter)
        ):
            failed[i] = NOT_PARSED
            continue
        drop_duplicates(map)
        if not entries.set(row, target, map):
            failed[i] = CANNOT_SET
    entries.check()
    return failures
