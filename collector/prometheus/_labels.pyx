"""Writes the label bytes of new series: sorts the labels of each point, adds those of its resource and scope, encodes.

The rules of names and precedence are in ``labels.py``; here they arrive as numbers. A name's number is its place in the
order of the bytes of all names. Points with several attributes of one label name, or with very many, are left to
:class:`collector.prometheus.labels.SeriesLabels`.
"""

import os

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from collector.wire.hash.siphash cimport Sip, sip_end, sip_padded, sip_start
from collector.wire.writer cimport (
    Writer, close_writer, open_writer, put_byte, put_bytes, put_varint, take, varint_size,
)

cdef enum:
    ATTRIBUTES_MAX = 64    # sorting by insertion takes quadratic time
    IS_WRITTEN = 0
    IS_LEFT = 1

WRITTEN, LEFT = IS_WRITTEN, IS_LEFT

cdef uint64_t[2] SECRET
for _i in range(2):
    SECRET[_i] = int.from_bytes(os.urandom(8), "little")


cdef void _identify(
    const uint8_t *labels, Py_ssize_t length, const uint8_t *name, Py_ssize_t name_length, uint64_t *out
) noexcept nogil:
    cdef Sip sip
    sip_start(&sip, SECRET)
    sip_padded(&sip, labels, length)
    sip_padded(&sip, name, name_length)
    sip_end(&sip, <uint64_t>length << 32 | <uint64_t>name_length, out)


def identity(const uint8_t[::1] labels not None, bytes name not None):
    """The key of the series with these labels and this name, both encoded: U64[2]. It is secret to the process."""
    result = np.empty(2, np.uint64)
    cdef uint64_t[::1] out = result
    cdef const uint8_t *at = name
    _identify(&labels[0] if labels.shape[0] else NULL, labels.shape[0], at, len(name), &out[0])
    return result


cdef void _put_text(Writer *out, const uint8_t *value, int64_t length) noexcept nogil:
    """A quoted value as in the exposition format, without the quote before it."""
    cdef int64_t i, begin = 0
    for i in range(length):
        if value[i] == c"\\" or value[i] == c'"' or value[i] == c"\n":
            put_bytes(out, value + begin, i - begin)
            put_byte(out, c"\\")
            put_byte(out, c"n" if value[i] == c"\n" else value[i])
            begin = i + 1
    put_bytes(out, value + begin, length - begin)
    put_byte(out, c'"')
    put_byte(out, c",")


cdef void _put_label(
    Writer *out, const uint8_t *name, int64_t name_length, const uint8_t *value, int64_t length, bint is_text
) noexcept nogil:
    """A label, whose name is encoded up to where the value begins."""
    if not is_text:
        put_byte(out, 0x0A)
        put_varint(out, name_length + varint_size(length) + length)
    put_bytes(out, name, name_length)
    if is_text:
        _put_text(out, value, length)
    else:
        put_varint(out, length)
        put_bytes(out, value, length)


def write_labels(
    const int64_t[::1] first not None,            # (rows,) first attribute of each point
    const int64_t[::1] last not None,             # (rows,) the one after the last
    const int32_t[::1] key_codes not None,        # (attributes,)
    const int32_t[::1] text_codes not None,       # (attributes,) row of ``value_ends``; negative: empty
    const int32_t[::1] key_names not None,        # (keys,) number of the label name; negative: no label
    const int32_t[::1] parent not None,           # (rows,) which labels of a resource and scope are added
    const int32_t[::1] parent_first not None,     # (parents + 1,)
    const int32_t[:, ::1] parent_labels not None, # (labels, 3): name, in ascending order; value; whether it overrides
    const uint8_t[::1] names not None,            # encoded names, up to where the value begins
    const int64_t[::1] name_ends not None,        # (names + 1,) from 0 on
    const uint8_t[::1] values not None,
    const int64_t[::1] value_ends not None,       # (values + 1,) from 0 on
    int32_t metric_name,                          # the number of ``__name__``
    const int32_t[::1] split not None,            # (rows,) number of the name that the encoder adds: ``le``, ``quantile``
    const uint8_t[::1] is_sampled not None,       # (rows,) whether the encoder adds it
    const int32_t[::1] family not None,           # (rows,)
    const uint8_t[::1] family_names not None,
    const int32_t[:, :, ::1] family_slices not None,
    bint is_text,                                 # the exposition format instead of protobuf
):
    """``(bytes, pieces int64 (rows, 4), identities uint64 (rows, 2), states uint8 (rows,))``.

    Pieces are the start in the bytes, and the sizes of the labels before ``__name__``, up to ``split``, and after it.
    Those of rows whose state is ``LEFT`` are empty.
    """
    cdef Py_ssize_t row_count = first.shape[0], r
    cdef Py_ssize_t attribute_count = key_codes.shape[0], key_count = key_names.shape[0]
    cdef Py_ssize_t value_count = value_ends.shape[0] - 1, name_count = name_ends.shape[0] - 1
    cdef int32_t[ATTRIBUTES_MAX] found_name
    cdef int32_t[ATTRIBUTES_MAX] found_value
    cdef int32_t count, i, j, name, value, at, parent_at, parent_end, piece
    cdef int64_t begin, before, a
    cdef Writer out
    cdef const uint8_t *name_base = &names[0] if names.shape[0] else NULL
    cdef const uint8_t *value_base = &values[0] if values.shape[0] else NULL
    pieces = np.zeros((row_count, 4), np.int64)
    identities = np.zeros((row_count, 2), np.uint64)
    states = np.zeros(row_count, np.uint8)
    cdef int64_t[:, ::1] piece_of = pieces
    cdef uint64_t[:, ::1] identity_of = identities
    cdef uint8_t[::1] state = states
    _check(key_names, name_count, "a key has no such name")
    _check(key_codes, key_count, "an attribute has no such key")
    _check(text_codes, value_count, "an attribute has no such value")
    for r in range(parent_labels.shape[0]):
        if parent_labels[r, 0] >= name_count or parent_labels[r, 1] >= value_count or parent_labels[r, 0] < 0:
            raise IndexError("a label has no such name or value")
    _check(parent, parent_first.shape[0] - 1, "a row has no such parent")
    _check(family, family_slices.shape[0], "a row has no such family")
    for r in range(row_count):
        if first[r] < 0 or last[r] > attribute_count or parent[r] < 0 or family[r] < 0:
            raise IndexError("a row is outside of its table")
    open_writer(&out, 96 * row_count)
    try:
        with nogil:
            for r in range(row_count):
                count = 0
                if last[r] - first[r] > ATTRIBUTES_MAX:
                    state[r] = IS_LEFT
                for a in range(first[r], last[r]):
                    if state[r]:
                        break
                    name = key_names[key_codes[a]]
                    if name < 0:
                        continue
                    i = count
                    while i > 0 and found_name[i - 1] > name:
                        found_name[i] = found_name[i - 1]
                        found_value[i] = found_value[i - 1]
                        i -= 1
                    if i > 0 and found_name[i - 1] == name:
                        state[r] = IS_LEFT
                        break
                    found_name[i] = name
                    found_value[i] = text_codes[a]
                    count += 1
                if state[r]:
                    continue
                begin = out.size
                piece_of[r, 0] = begin
                at = 0
                parent_at, parent_end = parent_first[parent[r]], parent_first[parent[r] + 1]
                while at < count or parent_at < parent_end:
                    if at == count or (parent_at < parent_end and parent_labels[parent_at, 0] < found_name[at]):
                        name, value = parent_labels[parent_at, 0], parent_labels[parent_at, 1]
                        parent_at += 1
                    else:
                        name, value = found_name[at], found_value[at]
                        if parent_at < parent_end and parent_labels[parent_at, 0] == name:
                            if parent_labels[parent_at, 2]:
                                value = parent_labels[parent_at, 1]
                            parent_at += 1
                        at += 1
                    if name == metric_name or (is_sampled[r] and name == split[r]):
                        continue
                    if value < 0 or value_ends[value + 1] == value_ends[value]:
                        continue
                    before = out.size
                    _put_label(
                        &out, name_base + name_ends[name], name_ends[name + 1] - name_ends[name],
                        value_base + value_ends[value], value_ends[value + 1] - value_ends[value], is_text,
                    )
                    piece = 1 if name < metric_name else 2 if name < split[r] else 3
                    piece_of[r, piece] += out.size - before
                if out.failed:
                    break
                _identify(
                    out.data + begin, out.size - begin, &family_names[family_slices[family[r], 0, 0]],
                    family_slices[family[r], 0, 1], &identity_of[r, 0],
                )
        return take(&out), pieces, identities, states
    finally:
        close_writer(&out)


def gather(const uint8_t[::1] arena not None, const int64_t[:, ::1] slices not None):
    """The slices (rows, 2: start, size) one after the other, and where each begins (rows,)."""
    cdef Py_ssize_t r
    cdef Writer out
    starts = np.empty(slices.shape[0], np.int64)
    cdef int64_t[::1] start = starts
    for r in range(slices.shape[0]):
        if slices[r, 0] < 0 or slices[r, 1] < 0 or slices[r, 0] + slices[r, 1] > arena.shape[0]:
            raise IndexError("a slice is outside of the arena")
    open_writer(&out, np.asarray(slices)[:, 1].sum())
    try:
        with nogil:
            for r in range(slices.shape[0]):
                start[r] = out.size
                if slices[r, 1]:
                    put_bytes(&out, &arena[slices[r, 0]], slices[r, 1])
        return bytearray(take(&out)), starts
    finally:
        close_writer(&out)


cdef int _check(const int32_t[::1] numbers, Py_ssize_t limit, str message) except -1:
    """Raise IndexError if a number is not below the limit."""
    cdef Py_ssize_t i
    for i in range(numbers.shape[0]):
        if numbers[i] >= limit:
            raise IndexError(message)
    return 0
