"""A log of attribute changes, played row by row: which change each row takes the value of a key from.

Rows and attributes (``layout.ATTRIBUTE``) are in document order. The changes of a row are played one after the other.
Of a repeated key the last occurrence counts. ``attributes`` writes the outcome.

Field numbers: ``common.proto`` (AnyValue, KeyValue) of opentelemetry-proto 1.x.
"""

import numpy as np

from collector.wire.layout import ATTRIBUTE

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memset

from collector.wire.layout cimport AttributeRow
from collector.wire.proto cimport Ptr, is_utf8
from collector.wire.writer cimport Writer, close_writer, open_writer, put_slice, put_varint, take, varint_size

cnp.import_array()

__all__ = ["DELETE", "INSERT", "UPDATE", "UPSERT", "AttributeLog"]

cdef enum Mode:
    MODE_UPSERT = 0
    MODE_INSERT = 1
    MODE_UPDATE = 2
    MODE_DELETE = 3

UPSERT, INSERT, UPDATE, DELETE = MODE_UPSERT, MODE_INSERT, MODE_UPDATE, MODE_DELETE

cdef enum:
    KEY_TAG = 0x0A          # KeyValue.key
    VALUE_TAG = 0x12        # KeyValue.value
    STRING_TAG = 0x0A       # AnyValue.string_value


@cython.final
cdef class AttributeLog:
    """Changes to the attributes of one table, in order."""

    def __cinit__(self, cnp.ndarray rows, cnp.ndarray attributes, list known, list keys, list changes):
        """Checks and encodes the changes.

        Args:
            rows: The rows of the table.
            attributes: Their attributes.
            known: The keys that the key codes of ``attributes`` stand for.
            keys: The keys that changes name.
            changes: Tuples of the index of the key in ``keys``; the mode; a U8 mask with one byte per row, or None; and
                the values: None, ``("texts", list of UTF-8, I32 codes or None)``, ``("values", list of AnyValue
                contents, I32 codes or None)``, ``("numbers", I64, F64 or U8 (bools), None)`` or ``("rows", attribute
                rows, their source)``.

        Raises:
            TypeError: An array has another dtype or length.
            ValueError: A change is invalid.
        """
        cdef Py_ssize_t i, slot
        self.kept = [rows, attributes, known, keys]
        self.row_count, self.attribute_count = len(rows), len(attributes)
        self.attributes = attribute_rows(attributes)
        if not rows.flags.c_contiguous or rows.ndim != 1:
            raise TypeError("expected a contiguous array of rows")
        self.table = <const uint8_t*>cnp.PyArray_DATA(rows)
        fields = rows.dtype.fields
        self.row_bytes = rows.dtype.itemsize
        self.count_at = fields["attribute_count"][1]
        self.inner_at = fields["inner_start"][1] if "inner_start" in fields else -1
        self.change_count, self.slot_count, self.key_count = len(changes), len(keys), len(known)
        self.changes = <Change*>calloc(self.change_count + 1, sizeof(Change))
        self.keys = <Key*>calloc(self.slot_count + 1, sizeof(Key))
        self.slot_of = <int32_t*>malloc((self.key_count + 1) * sizeof(int32_t))
        if self.changes == NULL or self.keys == NULL or self.slot_of == NULL:
            raise MemoryError
        for i in range(self.key_count):
            self.slot_of[i] = -1
        self.key_names = known
        codes = {key: i for i, key in enumerate(known)}
        added = []
        for slot in range(self.slot_count):
            self.set_key(&self.keys[slot], keys[slot])
            code = codes.get(keys[slot])
            if code is None:
                code = codes[keys[slot]] = self.key_count + len(added)
                added.append(keys[slot])
            elif code < self.key_count:
                self.slot_of[code] = <int32_t>slot
                self.names_known_keys = True
            self.keys[slot].code = code
        if added:
            self.key_names = known + added
        for i in range(self.change_count):
            number, mode, where, values = changes[i]
            self.set_change(&self.changes[i], number, mode, where, values)

    def __dealloc__(self):
        free(self.changes)
        free(self.keys)
        free(self.slot_of)

    def winners(self, Py_ssize_t slot):
        """I32[n]: the number of the change that each row takes a key's value from; -1 = untouched, -2 = deleted."""
        cdef State state
        cdef Py_ssize_t row
        cdef int result = DONE
        cdef cnp.ndarray winner = np.full(self.row_count, UNTOUCHED, np.int32)
        cdef int32_t* out = <int32_t*>cnp.PyArray_DATA(winner)
        if not 0 <= slot < self.slot_count:
            raise ValueError(f"key {slot} of {self.slot_count} keys does not exist")
        memset(&state, 0, sizeof(State))
        try:
            self.open_state(&state)
            for row in range(self.row_count):
                result = self.play(&state, row)
                if result == FOREIGN:
                    raise ValueError("the attributes belong to another table")
                if result == DONE:
                    out[row] = state.winner[slot]
        finally:
            close_state(&state)
        return winner

    cdef int set_key(self, Key* key, bytes name) except -1:
        cdef Writer w
        open_writer(&w, len(name) + 8)
        try:
            put_slice(&w, KEY_TAG, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            field = take(&w)
        finally:
            close_writer(&w)
        self.kept.append(field)
        key.field, key.size = <const uint8_t*>PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)
        return 0

    cdef int set_change(self, Change* change, int slot, int mode, where, values) except -1:
        cdef Py_ssize_t count = self.row_count
        if not 0 <= slot < self.slot_count or not MODE_UPSERT <= mode <= MODE_DELETE:
            raise ValueError(f"key {slot} of {self.slot_count} keys or mode {mode} does not exist")
        change.slot, change.mode, change.form = slot, mode, NO_VALUES
        change.where = NULL
        if where is not None:
            change.where = <const uint8_t*>column_data(where, np.uint8, count)
            self.kept.append(where)
        if mode == MODE_DELETE:
            return 0
        form, content, extra = values
        self.kept.append(values)
        if form == "texts" or form == "values":
            self.set_dictionary(change, content, extra, form == "texts")
        elif form == "numbers":
            if content.dtype == np.float64:
                change.form, change.numbers = DOUBLES, column_data(content, np.float64, count)
            elif content.dtype == np.uint8:
                change.form, change.numbers = BOOLS, column_data(content, np.uint8, count)
            else:
                change.form, change.numbers = INTS, column_data(content, np.int64, count)
        elif form == "rows":
            if len(content) != count:
                raise ValueError(f"expected {count} values, got {len(content)}")
            change.form, change.rows = ROWS, attribute_rows(content)
            change.source, change.source_size = <const uint8_t*>PyBytes_AS_STRING(extra), PyBytes_GET_SIZE(extra)
        else:
            raise ValueError(f"expected values as texts, values, numbers or rows, got {form!r}")
        return 0

    cdef int set_dictionary(self, Change* change, list values, codes, bint is_text) except -1:
        cdef Py_ssize_t i, value_count = len(values)
        cdef int64_t size
        cdef Writer w
        cdef bytes value
        cdef Ptr data
        cdef cnp.ndarray starts = np.empty(value_count + 1, np.int64)
        cdef int64_t* start = <int64_t*>cnp.PyArray_DATA(starts)
        change.form = CODES
        change.codes = NULL
        if codes is not None:
            change.codes = <const int32_t*>column_data(codes, np.int32, self.row_count)
            for i in range(self.row_count):
                if not -1 <= change.codes[i] < value_count:
                    raise ValueError(f"expected codes from -1 to {value_count - 1}, got {change.codes[i]}")
        elif value_count != 1:
            raise ValueError(f"expected one value for all rows, got {value_count}")
        open_writer(&w, 64 * value_count)
        try:
            for i in range(value_count):
                value = values[i]
                data = <Ptr>PyBytes_AS_STRING(value)
                if is_text and not is_utf8(data, data + PyBytes_GET_SIZE(value)):
                    value = value.decode("utf-8", "replace").encode()
                start[i] = w.size
                size = PyBytes_GET_SIZE(value)
                if is_text:
                    put_varint(&w, VALUE_TAG)
                    put_varint(&w, <uint64_t>(1 + varint_size(size) + size))
                    put_slice(&w, STRING_TAG, PyBytes_AS_STRING(value), size)
                else:
                    put_slice(&w, VALUE_TAG, PyBytes_AS_STRING(value), size)
            start[value_count] = w.size
            blob = take(&w)
        finally:
            close_writer(&w)
        self.kept += [codes, starts, blob]
        change.starts, change.values = start, <const uint8_t*>PyBytes_AS_STRING(blob)
        return 0

    cdef int open_state(self, State* state) except -1:
        """Prepares for the first row; ``close_state`` must follow, even after an error."""
        cdef Py_ssize_t i
        state.last = <int32_t*>malloc((self.key_count + 1) * sizeof(int32_t))
        state.winner = <int32_t*>malloc((self.slot_count + 1) * sizeof(int32_t))
        state.added_by = <int32_t*>malloc((self.slot_count + 1) * sizeof(int32_t))
        if state.last == NULL or state.winner == NULL or state.added_by == NULL:
            raise MemoryError
        for i in range(self.key_count):
            state.last[i] = -1
        state.begin = state.end = 0
        return 0

    cdef int play(self, State* state, Py_ssize_t row) noexcept nogil:
        """Plays the changes of the next row: DONE, UNCHANGED or FOREIGN."""
        cdef const Change* change
        cdef Py_ssize_t i, k, slot
        cdef int32_t count = (<const int32_t*>(self.table + row * self.row_bytes + self.count_at))[0]
        cdef bint is_present
        state.begin = state.end
        if count < 0 or count > self.attribute_count - state.begin:
            return FOREIGN
        state.end = state.begin + count
        for i in range(self.change_count):
            if self.changes[i].where == NULL or self.changes[i].where[row]:
                break
        else:
            return UNCHANGED
        if count > 0 and (self.attributes[state.begin].owner != row or self.attributes[state.end - 1].owner != row):
            return FOREIGN
        if self.names_known_keys:
            for k in range(state.begin, state.end):
                if not 0 <= self.attributes[k].key_code < self.key_count:
                    return FOREIGN
                state.last[self.attributes[k].key_code] = <int32_t>k
        for i in range(self.slot_count):
            state.winner[i] = UNTOUCHED
            state.added_by[i] = -1
        for i in range(self.change_count):
            change = &self.changes[i]
            slot = change.slot
            if change.where != NULL and not change.where[row]:
                continue
            if change.mode == MODE_DELETE:
                state.winner[slot] = DELETED
                state.added_by[slot] = -1
                continue
            if not has_value(change, row):
                continue
            if state.winner[slot] == UNTOUCHED:
                is_present = last_attribute(state, self.keys[slot].code, self.key_count) >= 0
            else:
                is_present = state.winner[slot] >= 0
            if change.mode != MODE_UPSERT and is_present == (change.mode == MODE_INSERT):
                continue
            state.winner[slot] = <int32_t>i
            if not is_present:
                state.added_by[slot] = <int32_t>i
        return DONE


cdef void close_state(State* state) noexcept nogil:
    free(state.last)
    free(state.winner)
    free(state.added_by)


cdef inline bint has_value(const Change* change, Py_ssize_t row) noexcept nogil:
    if change.form == CODES:
        return change.codes == NULL or change.codes[row] >= 0
    return change.form != ROWS or change.rows[row].kind != KIND_ABSENT


cdef const void* column_data(array, dtype, Py_ssize_t count) except? NULL:
    cdef cnp.ndarray column = array
    if column.dtype != dtype or not column.flags.c_contiguous or column.ndim != 1 or len(column) != count:
        raise TypeError(f"expected a contiguous array of {count} {np.dtype(dtype)} values, got {array!r}")
    return cnp.PyArray_DATA(column)


cdef const AttributeRow* attribute_rows(object rows) except? NULL:
    cdef cnp.ndarray array = rows
    if (array.dtype is not ATTRIBUTE and array.dtype != ATTRIBUTE) or not array.flags.c_contiguous or array.ndim != 1:
        raise TypeError("expected a contiguous array of attribute rows")
    return <const AttributeRow*>cnp.PyArray_DATA(array)
