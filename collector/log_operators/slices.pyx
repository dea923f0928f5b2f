"""Finds the lines in bytes, and takes white space off slices."""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memchr

__all__ = ["find_lines", "frame_ends", "trim_slices", "whole_characters"]


def find_lines(bytes data, int unit, bint is_big_endian):
    """int64[n]: where the line feeds are. ``unit`` is the size of a code unit: 1, 2 or 4 bytes."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef Py_ssize_t size = PyBytes_GET_SIZE(data), count = 0, room
    cdef const char* found
    cdef const char* at = text
    cdef const char* end = text + size
    cdef int64_t[::1] view
    if unit != 1:
        kind = {2: "u2", 4: "u4"}[unit]
        units = np.frombuffer(data, (">" if is_big_endian else "<") + kind, size // unit)
        return np.flatnonzero(units == 10).astype(np.int64) * unit
    room = size // 32 + 16
    made = np.empty(room, np.int64)
    view = made
    while at < end:
        found = <const char*>memchr(at, b"\n", end - at)
        if found == NULL:
            break
        if count == room:
            room *= 2
            made = np.concatenate((made, np.empty(room - count, np.int64)))
            view = made
        view[count] = found - text
        count += 1
        at = found + 1
    return made[:count].copy()


cdef inline bint _is_space(char c) noexcept nogil:
    return c == b" " or c == b"\n" or c == b"\t" or c == b"\r"


def trim_slices(bytes data, int64_t[::1] starts, int64_t[::1] ends, bint leading, bint trailing):
    """Takes spaces, tabs, carriage returns and line feeds off the slices, in place."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t i
    for i in range(starts.shape[0]):
        if not 0 <= starts[i] <= ends[i] <= size:
            raise ValueError("a slice is out of range")
        if trailing:
            while ends[i] > starts[i] and _is_space(text[ends[i] - 1]):
                ends[i] -= 1
        if leading:
            while starts[i] < ends[i] and _is_space(text[starts[i]]):
                starts[i] += 1


def whole_characters(bytes data, const int64_t[::1] starts, const int64_t[::1] ends):
    """Whether no slice of this valid UTF-8 begins or ends within a character."""
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data)
    cdef Py_ssize_t i
    for i in range(starts.shape[0]):
        if not 0 <= starts[i] <= ends[i] <= size:
            raise ValueError("a slice is out of range")
        if starts[i] < ends[i]:
            if (<uint8_t>text[starts[i]] & 0xC0) == 0x80:
                return False
            if ends[i] < size and (<uint8_t>text[ends[i]] & 0xC0) == 0x80:
                return False
    return True


def frame_ends(bytes data, int64_t size_max):
    """``(ends, error)``: where each message ends that has its length in front (RFC 6587), and what is wrong behind them.

    The error is 0 if more bytes may complete the next message, 1 if it does not begin with a length, and 2 if it is
    longer than ``size_max``.
    """
    cdef const char* text = PyBytes_AS_STRING(data)
    cdef int64_t size = PyBytes_GET_SIZE(data), at = 0, start, length
    cdef list ends = []
    while at < size:
        start = at
        length = 0
        while at < size and b"0" <= text[at] <= b"9" and at - start < 12:
            length = length * 10 + (text[at] - 48)
            at += 1
        if at == size and at - start < 12 and at > start and text[start] != b"0":
            return ends, 0
        if at == start or text[start] == b"0" or at == size or text[at] != b" ":
            return ends, 1
        if length > size_max:
            return ends, 2
        at += 1
        if size - at < length:
            return ends, 0
        at += length
        ends.append(at)
    return ends, 0
