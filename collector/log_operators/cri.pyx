"""Lines of the Container Runtime Interface: ``2024-04-13T07:59:37.505201169Z stdout F a message``."""

import numpy as np

from libc.stdint cimport int32_t, uint8_t, uint32_t
from libc.string cimport memchr, memcmp

from collector.log_operators.entries cimport CANNOT_SET, MISSING, NOT_PARSED, WRONG_TYPE, Entries, Path, Row
from collector.log_operators.nodes cimport K_MAP, K_TEXT, Node, new_node, new_text, put_named

__all__ = ["container_formats", "parse_cri"]

cdef enum:
    DOCKER = 1
    CRIO = 2
    CONTAINERD = 3

ctypedef struct Line:
    uint32_t time_size, stream_start, stream_size, tag_start, tag_size, log_start
    bint is_utc


cdef bint _split(const char* text, uint32_t size, Line* line) noexcept nogil:
    cdef const char* space = <const char*>memchr(text, b" ", size)
    cdef uint32_t at
    cdef const char* marked
    if space == NULL or space == text:
        return False
    line.time_size = <uint32_t>(space - text)
    marked = <const char*>memchr(text, b"Z", line.time_size)
    if marked != NULL and marked != space - 1:
        return False
    line.is_utc = marked != NULL
    if line.is_utc and (line.time_size < 2 or memchr(text, b"^", line.time_size) != NULL):
        return False
    at = line.time_size + 1
    if size - at < 7 or text[at + 6] != b" " or memcmp(text + at, b"std", 3) != 0:
        return False
    if memcmp(text + at + 3, b"out", 3) != 0 and memcmp(text + at + 3, b"err", 3) != 0:
        return False
    line.stream_start, line.stream_size = at, 6
    at += 7
    line.tag_start = at
    while at < size and text[at] != b" ":
        at += 1
    line.tag_size = at - line.tag_start
    line.log_start = at + 1 if at < size else at
    return memchr(text + line.log_start, b"\n", size - line.log_start) == NULL


def container_formats(Entries entries, const int32_t[::1] numbers, Path source):
    """uint8[n]: 1 for lines of Docker, 2 of CRI-O, 3 of containerd, 0 for others."""
    cdef Py_ssize_t i
    cdef Node* node
    cdef Line line
    made = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] view = made
    for i in range(numbers.shape[0]):
        node = entries.get(&entries.rows[numbers[i]], source)
        if node == NULL or node.kind != K_TEXT or node.text_size == 0:
            continue
        if node.text[0] == b"{":
            view[i] = DOCKER
        elif _split(node.text, node.text_size, &line):
            view[i] = CONTAINERD if line.is_utc else CRIO
    return made


def parse_cri(Entries entries, const int32_t[::1] numbers, Path source, Path target, bint is_utc):
    """Parses lines to the fields time, stream, logtag and log; uint8[n]: failures."""
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    cdef Node* map
    cdef Line line
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    entries.kept.append(target)
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, source)
        if node == NULL or node.kind != K_TEXT:
            failed[i] = MISSING if node == NULL else WRONG_TYPE
            continue
        if not _split(node.text, node.text_size, &line) or line.is_utc != is_utc:
            failed[i] = NOT_PARSED
            continue
        map = new_node(&entries.arena, K_MAP)
        if map == NULL:
            break
        put_named(map, b"time", 4, new_text(&entries.arena, node.text, line.time_size))
        put_named(map, b"stream", 6, new_text(&entries.arena, node.text + line.stream_start, line.stream_size))
        put_named(map, b"logtag", 6, new_text(&entries.arena, node.text + line.tag_start, line.tag_size))
        put_named(map, b"log", 3, new_text(
            &entries.arena, node.text + line.log_start, node.text_size - line.log_start
        ))
        if not entries.set(row, target, map):
            failed[i] = CANNOT_SET
    entries.check()
    return failures
