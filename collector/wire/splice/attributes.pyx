"""Patches for the outcome of a log of attribute changes, written in one pass over the rows of a table.

New attributes are written after the last attribute of their row, or first in its message, in the order in which they
were added; one that was deleted before it was set is new. Setting a repeated key replaces its last occurrence and
deletes the others. ``attribute_log`` decides what changes, ``rewrite`` applies the
patches.

Field numbers: ``common.proto`` (AnyValue, KeyValue) of opentelemetry-proto 1.x.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memmove, memset

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.layout cimport AttributeRow
from collector.wire.proto cimport Ptr, read_varint
from collector.wire.splice.attribute_log cimport (
    CODES, DELETED, DONE, DOUBLES, FOREIGN, INTS, NO_MEMORY, OUTSIDE, ROWS, TOO_LARGE, UNCHANGED, UNTOUCHED,
    AttributeLog, Change, Key, State, attribute_rows, close_state, column_data,
)
from collector.wire.splice.relocate cimport OffsetMap
from collector.wire.splice.values cimport read_value
from collector.wire.writer cimport (
    Writer, close_writer, open_writer, put_varint, reserve, set_varint, take, varint_size,
)

cnp.import_array()

__all__ = ["AttributePatches", "attribute_patches"]

cdef enum:
    MAX_BYTES = 0x7FFFFFFF
    VALUE_TAG = 0x12            # KeyValue.value
    BOOL_TAG = 0x10             # the members of AnyValue
    INT_TAG = 0x18
    DOUBLE_TAG = 0x21
    INNER_TAG = 0x0A            # Resource and InstrumentationScope are field 1 of the enclosing message

cdef enum Fate:                 # of an old attribute
    KEPT = 0
    REMOVED = 1
    REPLACED = 2

cdef struct Patch:
    int64_t offset, deleted, source, length

cdef struct WrittenAttribute:       # one attribute that was written
    int32_t code
    int32_t key_size            # of the key field with its tag and length
    int64_t at                  # of its tag in the payload


def attribute_patches(AttributeLog log not None, tags):
    """The ``AttributePatches`` of a log, or None if it changes nothing.

    Args:
        log: The changes.
        tags: The tag of the attribute field: one for all rows, or U8[n].

    Raises:
        ValueError: The attributes belong to another table, a value is outside its source, or the attributes would reach
            2 GiB.
    """
    cdef AttributePatches patches = AttributePatches()
    cdef const uint8_t* tag_of = NULL
    cdef uint8_t tag = 0
    cdef State state
    cdef int result
    cdef Py_ssize_t size = log.row_count * log.row_bytes + log.attribute_count * <Py_ssize_t>sizeof(AttributeRow)
    if isinstance(tags, int):
        tag = tags
    else:
        tag_of = <const uint8_t*>column_data(tags, np.uint8, log.row_count)
    memset(&state, 0, sizeof(State))
    patches.open(log)
    try:
        log.open_state(&state)
        if size >= 4 * RELEASE_GIL_BYTES:
            with nogil:
                result = write_rows(log, patches, &state, tag_of, tag)
        else:
            result = write_rows(log, patches, &state, tag_of, tag)
    finally:
        close_state(&state)
    if result == FOREIGN:
        raise ValueError("the attributes belong to another table")
    if result == OUTSIDE:
        raise ValueError("a value is outside its source")
    if result == TOO_LARGE:
        raise ValueError(f"the attributes would reach the limit of {MAX_BYTES} bytes (32-bit offsets)")
    if result == NO_MEMORY:
        raise MemoryError
    return patches if patches.patch_count else None


@cython.final
cdef class AttributePatches:
    """Patches of attributes in ascending order, and the way to the index of the attributes after the rewrite."""

    cdef AttributeLog log
    cdef Writer payload
    cdef Patch* patches
    cdef WrittenAttribute* written
    cdef uint8_t* fate          # of each old attribute
    cdef int32_t* counts_out
    cdef uint8_t* touched_out
    cdef readonly Py_ssize_t patch_count
    cdef Py_ssize_t written_count
    cdef bytes payload_bytes    # once ``columns`` was called
    cdef int32_t* wrapped
    cdef Py_ssize_t wrapped_count
    cdef readonly object counts
    """I32[n]: how many attributes each row has after the rewrite."""
    cdef readonly object touched
    """bool[n]: which rows change."""

    cdef int open(self, AttributeLog log) except -1:
        cdef cnp.ndarray counts = np.empty(log.row_count, np.int32), touched = np.zeros(log.row_count, np.bool_)
        self.log = log
        self.counts, self.touched = counts, touched
        self.counts_out, self.touched_out = <int32_t*>cnp.PyArray_DATA(counts), <uint8_t*>cnp.PyArray_DATA(touched)
        open_writer(&self.payload, 256 + 16 * log.row_count)
        self.patches = <Patch*>malloc((log.attribute_count + log.row_count + 1) * sizeof(Patch))
        self.written = <WrittenAttribute*>malloc(
            (log.attribute_count + log.row_count * log.slot_count + 1) * sizeof(WrittenAttribute)
        )
        self.fate = <uint8_t*>calloc(log.attribute_count + 1, 1)
        if self.patches == NULL or self.written == NULL or self.fate == NULL or self.payload.failed:
            raise MemoryError
        if log.inner_at >= 0:
            self.wrapped = <int32_t*>malloc((3 * log.row_count + 1) * sizeof(int32_t))
            if self.wrapped == NULL:
                raise MemoryError
        return 0

    def __dealloc__(self):
        close_writer(&self.payload)
        free(self.patches)
        free(self.written)
        free(self.fate)
        free(self.wrapped)

    def columns(self):
        """The patches as ``rewrite`` takes them: offsets, deleted, sources and lengths, all I64, and the payload."""
        cdef Py_ssize_t i
        cdef cnp.ndarray out = np.empty((4, self.patch_count), np.int64)
        cdef int64_t* value = <int64_t*>cnp.PyArray_DATA(out)
        for i in range(self.patch_count):
            value[i] = self.patches[i].offset
            value[self.patch_count + i] = self.patches[i].deleted
            value[2 * self.patch_count + i] = self.patches[i].source
            value[3 * self.patch_count + i] = self.patches[i].length
        if self.payload_bytes is None:
            self.payload_bytes = take(&self.payload)
            close_writer(&self.payload)
            self.log.kept = self.log.kept[:2]  # the values are written and not needed any more
            self.log.change_count = 0
        return out[0], out[1], out[2], out[3], self.payload_bytes

    def inner_messages(self):
        """I32[k, 3]: row, patch and size of the head of each Resource or InstrumentationScope that had to be added."""
        cdef cnp.ndarray out = np.empty((self.wrapped_count, 3), np.int32)
        if self.wrapped_count:
            memcpy(cnp.PyArray_DATA(out), self.wrapped, self.wrapped_count * 3 * sizeof(int32_t))
        return out

    @property
    def nbytes(self):
        """The approximate size of what is kept."""
        cdef Py_ssize_t size = 0 if self.payload_bytes is None else len(self.payload_bytes)
        size += self.patch_count * sizeof(Patch) + self.written_count * sizeof(WrittenAttribute)
        return size + self.log.attribute_count * (1 + sizeof(AttributeRow)) + self.log.row_count * 4

    def relocated(self, OffsetMap offset_map not None, placed):
        """(The attribute rows of the new request, their keys); ``placed`` is I32, where each patch's bytes are."""
        cdef const int32_t* new_offsets = <const int32_t*>column_data(placed, np.int32, self.patch_count)
        cdef AttributeLog log = self.log
        cdef Py_ssize_t row, k, begin, end = 0, row_end, patch = 0, number = 0
        cdef Py_ssize_t done = 0, kept_count = 0, taken = 0, total = 0
        cdef cnp.ndarray kept, result
        cdef AttributeRow* out
        cdef const AttributeRow* moved
        cdef Ptr data, data_end
        if self.payload_bytes is None:
            raise ValueError("columns() must be called first")
        data = <Ptr>PyBytes_AS_STRING(self.payload_bytes)
        data_end = data + len(self.payload_bytes)
        for k in range(log.attribute_count):
            kept_count += self.fate[k] == KEPT
        kept = np.empty(kept_count, ATTRIBUTE)
        out = <AttributeRow*>cnp.PyArray_DATA(kept)
        for k in range(log.attribute_count):
            if self.fate[k] == KEPT:
                out[done] = log.attributes[k]
                done += 1
        kept = offset_map.relocate(kept)
        moved = attribute_rows(kept)
        for row in range(log.row_count):
            total += self.counts_out[row]
        result = np.empty(total, ATTRIBUTE)
        out = <AttributeRow*>cnp.PyArray_DATA(result)
        done = 0
        for row in range(log.row_count):
            row_end = done + self.counts_out[row]
            begin = end
            end += (<const int32_t*>(log.table + row * log.row_bytes + log.count_at))[0]
            for k in range(begin, end):
                if self.fate[k] == KEPT:
                    out[done] = moved[taken]
                    taken += 1
                    done += 1
                elif self.fate[k] == REPLACED:
                    patch = self.read_written(data, data_end, &out[done], <int32_t>row, number, patch, new_offsets)
                    number += 1
                    done += 1
            while done < row_end:
                patch = self.read_written(data, data_end, &out[done], <int32_t>row, number, patch, new_offsets)
                number += 1
                done += 1
        return result, log.key_names

    cdef Py_ssize_t read_written(
        self,
        Ptr data,
        Ptr data_end,
        AttributeRow* row,
        int32_t owner,
        Py_ssize_t number,
        Py_ssize_t patch,
        const int32_t* new_offsets,
    ) noexcept nogil:
        """Fills the row of an attribute that was written here, so it is known to be valid. Returns its patch."""
        cdef const WrittenAttribute* attribute = &self.written[number]
        cdef Ptr at = data + attribute.at
        cdef Ptr end
        cdef int64_t delta
        cdef uint64_t size = 0
        while attribute.at >= self.patches[patch].source + self.patches[patch].length:
            patch += 1
        delta = new_offsets[patch] - self.patches[patch].source
        memset(row, 0, sizeof(AttributeRow))
        row.owner, row.key_code = owner, attribute.code
        row.start = <int32_t>(attribute.at + delta)
        at = read_varint(at + 1, data_end, &size)
        end = at + size
        row.end = <int32_t>(end - data + delta)
        row.key = <int32_t>(read_varint(at + 1, end, &size) - data + delta)
        row.key_len = <int32_t>size
        at += attribute.key_size
        row.any = row.value = -1
        if at < end:
            at = read_varint(at + 1, end, &size)
            row.any, row.any_len = <int32_t>(at - data), <int32_t>size
            read_value(data, row.any, end - data, row)
            row.any += <int32_t>delta
            if row.value >= 0:
                row.value += <int32_t>delta
        return patch

    cdef void begin(self, int64_t offset, int64_t deleted) noexcept nogil:
        """Starts a patch at ``offset``, or continues the previous one if they touch."""
        cdef Patch* patch
        if self.patch_count > 0:
            patch = &self.patches[self.patch_count - 1]
            if patch.offset + patch.deleted == offset and patch.deleted > 0:
                patch.deleted += deleted
                return
        patch = &self.patches[self.patch_count]
        patch.offset, patch.deleted, patch.source, patch.length = offset, deleted, self.payload.size, 0
        self.patch_count += 1

    cdef void finish(self) noexcept nogil:
        cdef Patch* patch = &self.patches[self.patch_count - 1]
        patch.length = self.payload.size - patch.source

    cdef int write_attribute(self, const Change* change, Py_ssize_t at, uint8_t tag, const Key* key) noexcept nogil:
        """Writes one KeyValue field with the value of row ``at``."""
        cdef const uint8_t* value = NULL
        cdef int64_t size = 0, content
        cdef uint8_t[16] number
        cdef const AttributeRow* row
        cdef int32_t code
        cdef uint8_t* out
        cdef bint is_slice = False
        if change.form == CODES:
            code = change.codes[at] if change.codes != NULL else 0
            value = change.values + change.starts[code]
            size = change.starts[code + 1] - change.starts[code]
        elif change.form == ROWS:
            row = &change.rows[at]
            if row.any >= 0:
                if row.any_len < 0 or row.any + <int64_t>row.any_len > change.source_size:
                    return OUTSIDE
                value, is_slice = change.source + row.any, True
                size = 1 + varint_size(row.any_len) + row.any_len
        else:
            number[0] = VALUE_TAG
            value = number
            if change.form == INTS:
                number[2] = INT_TAG
                size = set_varint(&number[3], <uint64_t>(<const int64_t*>change.numbers)[at]) - number
            elif change.form == DOUBLES:
                number[2] = DOUBLE_TAG
                memcpy(&number[3], <const double*>change.numbers + at, 8)
                size = 11
            else:
                number[2] = BOOL_TAG
                number[3] = 1 if (<const uint8_t*>change.numbers)[at] else 0
                size = 4
            number[1] = <uint8_t>(size - 2)
        content = key.size + size
        if self.payload.size + content + 11 >= MAX_BYTES:
            return TOO_LARGE
        if not reserve(&self.payload, content + 11):
            return NO_MEMORY
        self.written[self.written_count].code = key.code
        self.written[self.written_count].key_size = <int32_t>key.size
        self.written[self.written_count].at = self.payload.size
        self.written_count += 1
        out = self.payload.data + self.payload.size
        out[0] = tag
        out = set_varint(out + 1, <uint64_t>content)
        memcpy(out, key.field, key.size)
        out += key.size
        if is_slice:
            out[0] = VALUE_TAG
            out = set_varint(out + 1, <uint64_t>row.any_len)
            size = row.any_len
        if size > 0:
            memcpy(out, value, size)
            out += size
        self.payload.size = out - self.payload.data
        return DONE

    cdef bint wrap(self, Py_ssize_t row, Py_ssize_t mark, Py_ssize_t first_written) noexcept nogil:
        """Inserts the length of the message begun at ``mark``; False without memory."""
        cdef int64_t length = self.payload.size - mark
        cdef int size = varint_size(<uint64_t>length)
        cdef Py_ssize_t i
        if not reserve(&self.payload, size):
            return False
        memmove(self.payload.data + mark + size, self.payload.data + mark, length)
        set_varint(self.payload.data + mark, <uint64_t>length)
        self.payload.size += size
        for i in range(first_written, self.written_count):
            self.written[i].at += size
        self.wrapped[3 * self.wrapped_count] = <int32_t>row
        self.wrapped[3 * self.wrapped_count + 1] = <int32_t>(self.patch_count - 1)
        self.wrapped[3 * self.wrapped_count + 2] = 1 + size
        self.wrapped_count += 1
        return True


cdef int write_rows(
    AttributeLog log, AttributePatches patches, State* state, const uint8_t* tag_of, uint8_t tag
) noexcept nogil:
    """Plays the log and writes the patches of all rows."""
    cdef Py_ssize_t row, i, k, slot, first_written, mark
    cdef int result
    cdef int32_t code, winner, appended, removed
    cdef const int32_t* frame
    cdef const int32_t* inner
    cdef int64_t at
    cdef bint is_touched, wrap
    for row in range(log.row_count):
        frame = <const int32_t*>(log.table + row * log.row_bytes)
        result = log.play(state, row)
        if result == FOREIGN:
            return FOREIGN
        patches.counts_out[row] = <int32_t>(state.end - state.begin)
        if result == UNCHANGED:
            continue
        if tag_of != NULL:
            tag = tag_of[row]
        is_touched, removed, appended = False, 0, 0
        if log.names_known_keys:
            for k in range(state.begin, state.end):
                code = log.attributes[k].key_code
                slot = log.slot_of[code]
                winner = state.winner[slot] if slot >= 0 else UNTOUCHED
                if winner == UNTOUCHED:
                    continue
                if k != state.last[code] or state.added_by[slot] >= 0:
                    winner = DELETED
                is_touched = True
                patches.fate[k] = REMOVED if winner == DELETED else REPLACED
                patches.begin(log.attributes[k].start, log.attributes[k].end - log.attributes[k].start)
                if winner == DELETED:
                    removed += 1
                else:
                    result = patches.write_attribute(&log.changes[winner], row, tag, &log.keys[slot])
                    if result != DONE:
                        return result
                patches.finish()
        wrap = False
        first_written = patches.written_count
        for i in range(log.change_count):               # in the order in which the keys were added
            slot = log.changes[i].slot
            if state.added_by[slot] != i:
                continue
            if appended == 0:
                if state.end > state.begin:
                    at = log.attributes[state.end - 1].end
                else:
                    at = frame[2]
                    if log.inner_at >= 0:
                        inner = <const int32_t*>(<const uint8_t*>frame + log.inner_at)
                        wrap = inner[0] < 0
                        if not wrap:
                            at = inner[1]
                patches.begin(at, 0)
                if wrap:
                    put_varint(&patches.payload, INNER_TAG)
                    mark = patches.payload.size
            appended += 1
            result = patches.write_attribute(&log.changes[state.winner[slot]], row, tag, &log.keys[slot])
            if result != DONE:
                return result
        if appended:
            is_touched = True
            if wrap and not patches.wrap(row, mark, first_written):
                return NO_MEMORY
            patches.finish()
        patches.counts_out[row] += appended - removed
        patches.touched_out[row] = is_touched
        if patches.payload.failed:
            return NO_MEMORY
    return DONE if state.end == log.attribute_count else FOREIGN
