"""Attributes changed: what a log of changes makes of the attributes of each row, as patches of the request, in one pass.

Not the splicing of the patches (``splice``). Rows are those of a table and its attributes (``layout.ATTRIBUTE``), in document order.
Each row's changes are played one after the other; its new attributes then stand behind its last one, or first in its message. Of a key
that is repeated on a row the last counts: setting it replaces that and cuts the others.
Field numbers: ``common.proto`` (AnyValue, KeyValue) of opentelemetry-proto 1.x.
"""

import numpy as np

cimport cython
cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy, memset

from collector.wire.layout import ATTRIBUTE
from collector.wire.layout cimport AttributeRow
from collector.wire.proto cimport is_utf8
from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.splice.values cimport read_value
from collector.wire.writer cimport Writer, close_writer, open_writer, put_bytes, put_varint, reserve, set_varint, take, varint_size

cnp.import_array()

__all__ = ["DELETE", "INSERT", "UPDATE", "UPSERT", "AttributeLog", "AttributePatches"]

cdef enum:
    UPSERT_ = 0
    INSERT_ = 1
    UPDATE_ = 2
    DELETE_ = 3

UPSERT, INSERT, UPDATE, DELETE = UPSERT_, INSERT_, UPDATE_, DELETE_

cdef enum:
    NOTHING = 0
    CODES = 1             # encoded values, and which of them each row has; no codes: the first everywhere
    INTS = 2
    DOUBLES = 3
    BOOLS = 4
    ROWS = 5              # attribute rows over a source

cdef enum:
    UNTOUCHED = -1
    DELETED = -2

cdef enum:
    KEPT = 0
    GONE = 1
    REPLACED = 2

cdef enum:
    DONE = 0
    FOREIGN = 1           # attribute rows that are not those of the table
    OUTSIDE = 2           # a slice outside its source
    TOO_LARGE = 3
    NO_MEMORY = 4

cdef enum:
    KIND_ABSENT = 255
    MAX_BYTES = 0x7fffffff
    INNER_TAG = 0x0a      # Resource and InstrumentationScope are field 1 of what holds them


cdef struct Change:
    int32_t slot                  # which key; -1 = the attributes of a mask
    int32_t mode
    int32_t form
    const uint8_t* where          # one byte for each row (or attribute); NULL = all
    const int32_t* codes
    const int64_t* starts         # CODES: of each value in ``values``, and the end of the last
    const uint8_t* values         # CODES: field 2 of a KeyValue, tag and length included
    const void* numbers
    const AttributeRow* rows
    const uint8_t* source
    int64_t source_size


cdef struct Key:
    const uint8_t* field          # field 1 of a KeyValue, tag and length included
    int64_t size
    int32_t code                  # in the new table


cdef struct Patch:
    int64_t offset, deleted, source, length


cdef struct Made:                 # one attribute written
    int32_t code
    int32_t key_size              # of field 1 with its tag and length
    int64_t at                    # of its tag in the payload


cdef struct State:                # of the row at hand
    int32_t* last                 # of each key code the last attribute seen, of any row
    int32_t* winner               # of each slot: the change it takes its value from, UNTOUCHED or DELETED
    int32_t* at                   # of each slot: the row of that change's values
    int32_t* by_row               # of each attribute, as winner; NULL = no change by attribute
    Py_ssize_t begin, end         # its attributes


cdef inline const int32_t* _ints(array, Py_ssize_t count) except? NULL:
    cdef cnp.ndarray found = array
    if found.dtype != np.int32 or not found.flags.c_contiguous or found.ndim != 1 or len(found) != count:
        raise TypeError("a contiguous int32 array with one value a row is needed")
    return <const int32_t*>cnp.PyArray_DATA(found)


cdef inline const void* _numbers(array, dtype, Py_ssize_t count) except? NULL:
    cdef cnp.ndarray found = array
    if found.dtype != dtype or not found.flags.c_contiguous or found.ndim != 1 or len(found) != count:
        raise TypeError("a contiguous array with one value a row is needed")
    return cnp.PyArray_DATA(found)


cdef const AttributeRow* _attributes(cnp.ndarray rows) except? NULL:
    if (rows.dtype is not ATTRIBUTE and rows.dtype != ATTRIBUTE) or not rows.flags.c_contiguous or rows.ndim != 1:
        raise TypeError("contiguous attribute rows are needed")
    return <const AttributeRow*>cnp.PyArray_DATA(rows)


@cython.final
cdef class AttributeLog:
    """Changes to the attributes of one table, in order."""

    cdef list held                # what the pointers point into
    cdef Change* changes
    cdef Py_ssize_t change_count, slot_count, key_count, row_count, attribute_count
    cdef Key* keys                # by slot
    cdef Key* known               # by key code of the table; without changes by attribute: empty
    cdef int32_t* slot_of         # by key code of the table; -1 = not changed by key
    cdef bint by_attribute, is_known_key
    cdef const AttributeRow* attributes
    cdef const uint8_t* table
    cdef Py_ssize_t row_bytes, count_at, inner_at
    cdef readonly list key_names

    def __cinit__(self, cnp.ndarray rows, cnp.ndarray attributes, list known, list keys, list changes):
        """``rows`` of the table and its ``attributes``, whose key codes mean ``known``; ``keys`` are those that changes name.

        A change is (slot of its key, -1 = by attribute; mode; uint8 mask or None; values). With a key, mask and values have one
        value a row of the table, by attribute one a row of ``attributes``. Values are None, ("texts", list of UTF-8, int32 codes
        or None), ("values", list of AnyValue contents, the same), ("numbers", int64, float64 or uint8 (bool)) or ("rows",
        attribute rows, their source).
        """
        cdef Py_ssize_t i, slot
        self.held = [rows, attributes, known, keys]
        self.row_count, self.attribute_count = len(rows), len(attributes)
        self.attributes = _attributes(attributes)
        if not rows.flags.c_contiguous or rows.ndim != 1:
            raise TypeError("contiguous rows are needed")
        self.table = <const uint8_t*>cnp.PyArray_DATA(rows)
        fields = rows.dtype.fields
        self.row_bytes = rows.dtype.itemsize
        self.count_at = fields["attribute_count"][1]
        self.inner_at = fields["inner_start"][1] if "inner_start" in fields else -1
        self.change_count, self.slot_count, self.key_count = len(changes), len(keys), len(known)
        self.changes = <Change*>calloc(self.change_count + 1, sizeof(Change))
        self.keys = <Key*>calloc(self.slot_count + 1, sizeof(Key))
        self.known = <Key*>calloc(self.key_count + 1, sizeof(Key))
        self.slot_of = <int32_t*>malloc((self.key_count + 1) * sizeof(int32_t))
        if self.changes == NULL or self.keys == NULL or self.known == NULL or self.slot_of == NULL:
            raise MemoryError
        for i in range(self.key_count):
            self.slot_of[i] = -1
        self.key_names = known
        codes = {key: i for i, key in enumerate(known)}
        added = []
        for slot in range(self.slot_count):
            self._key(&self.keys[slot], keys[slot])
            code = codes.get(keys[slot])
            if code is None:
                code = codes[keys[slot]] = self.key_count + len(added)
                added.append(keys[slot])
            elif code < self.key_count:
                self.slot_of[code] = <int32_t>slot
                self.is_known_key = True
            self.keys[slot].code = code
        if added:
            self.key_names = known + added
        for i in range(self.change_count):
            slot_, mode, where, values = changes[i]
            self._change(&self.changes[i], slot_, mode, where, values)
        if self.by_attribute:
            for i in range(self.key_count):
                self._key(&self.known[i], known[i])
                self.known[i].code = <int32_t>i

    def __dealloc__(self):
        free(self.changes)
        free(self.keys)
        free(self.known)
        free(self.slot_of)

    cdef int _key(self, Key* key, bytes name) except -1:
        cdef Writer w
        open_writer(&w, len(name) + 8)
        try:
            put_varint(&w, 0x0a)
            put_varint(&w, <uint64_t>PyBytes_GET_SIZE(name))
            put_bytes(&w, PyBytes_AS_STRING(name), PyBytes_GET_SIZE(name))
            field = take(&w)
        finally:
            close_writer(&w)
        self.held.append(field)
        key.field, key.size = <const uint8_t*>PyBytes_AS_STRING(field), PyBytes_GET_SIZE(field)
        return 0

    cdef int _change(self, Change* change, int slot, int mode, where, values) except -1:
        cdef Py_ssize_t count = self.row_count if slot >= 0 else self.attribute_count
        if not -1 <= slot < self.slot_count or not UPSERT_ <= mode <= DELETE_ or (slot < 0 and mode not in (UPSERT_, DELETE_)):
            raise ValueError("no such change")
        change.slot, change.mode, change.form = slot, mode, NOTHING
        change.where = NULL
        if slot < 0:
            self.by_attribute = True
        if where is not None:
            change.where = <const uint8_t*>_numbers(where, np.uint8, count)
            self.held.append(where)
        if mode == DELETE_:
            return 0
        form, given, more = values
        self.held.append(values)
        if form == "texts" or form == "values":
            self._dictionary(change, given, more, form == "texts", count)
        elif form == "numbers":
            if given.dtype == np.float64:
                change.form, change.numbers = DOUBLES, _numbers(given, np.float64, count)
            elif given.dtype == np.uint8:
                change.form, change.numbers = BOOLS, _numbers(given, np.uint8, count)
            else:
                change.form, change.numbers = INTS, _numbers(given, np.int64, count)
        elif form == "rows":
            if len(given) != count:
                raise ValueError("one value a row is needed")
            change.form, change.rows = ROWS, _attributes(given)
            change.source, change.source_size = <const uint8_t*>PyBytes_AS_STRING(more), PyBytes_GET_SIZE(more)
        else:
            raise ValueError(f"no such values: {form}")
        return 0

    cdef int _dictionary(self, Change* change, list given, codes, bint is_text, Py_ssize_t count) except -1:
        cdef Py_ssize_t i, value_count = len(given)
        cdef int64_t size
        cdef Writer w
        cdef bytes value
        cdef cnp.ndarray starts = np.empty(value_count + 1, np.int64)
        cdef int64_t* start = <int64_t*>cnp.PyArray_DATA(starts)
        change.form = CODES
        change.codes = NULL
        if codes is not None:
            change.codes = _ints(codes, count)
            for i in range(count):
                if not -1 <= change.codes[i] < value_count:
                    raise ValueError("a code without a value")
        elif value_count != 1:
            raise ValueError("one value for all rows is needed")
        open_writer(&w, 64 * value_count)
        try:
            for i in range(value_count):
                value = given[i]
                if is_text and not is_utf8(
                    <const uint8_t*>PyBytes_AS_STRING(value), <const uint8_t*>PyBytes_AS_STRING(value) + PyBytes_GET_SIZE(value)
                ):
                    value = value.decode("utf-8", "replace").encode()
                start[i] = w.size
                size = PyBytes_GET_SIZE(value)
                put_varint(&w, 0x12)
                if is_text:
                    put_varint(&w, <uint64_t>(1 + varint_size(size) + size))
                    put_varint(&w, 0x0a)
                put_varint(&w, <uint64_t>size)
                put_bytes(&w, PyBytes_AS_STRING(value), size)
            start[value_count] = w.size
            blob = take(&w)
        finally:
            close_writer(&w)
        self.held += [codes, starts, blob]
        change.starts, change.values = start, <const uint8_t*>PyBytes_AS_STRING(blob)
        return 0

    cdef int _open(self, State* state) except -1:
        cdef Py_ssize_t i
        state.last = <int32_t*>malloc((self.key_count + 1) * sizeof(int32_t))
        state.winner = <int32_t*>malloc((self.slot_count + 1) * sizeof(int32_t))
        state.at = <int32_t*>malloc((self.slot_count + 1) * sizeof(int32_t))
        state.by_row = <int32_t*>malloc((self.attribute_count + 1) * sizeof(int32_t)) if self.by_attribute else NULL
        if state.last == NULL or state.winner == NULL or state.at == NULL or (self.by_attribute and state.by_row == NULL):
            raise MemoryError
        for i in range(self.key_count):
            state.last[i] = -1
        state.begin = state.end = 0
        return 0

    cdef bint _has_value(self, const Change* change, Py_ssize_t i) noexcept nogil:
        if change.form == CODES:
            return change.codes == NULL or change.codes[i] >= 0
        return change.form != ROWS or change.rows[i].kind != KIND_ABSENT

    cdef int _play(self, State* state, Py_ssize_t row) noexcept nogil:
        """Play the changes of one row; the rows are taken in order. -1: nothing is changed, -2: these are not its attributes."""
        cdef const Change* change
        cdef Py_ssize_t i, k, slot
        cdef int32_t count = (<const int32_t*>(self.table + row * self.row_bytes + self.count_at))[0], last, by_row
        cdef bint any_ = False, is_there
        state.begin = state.end
        if count < 0 or count > self.attribute_count - state.begin:
            return -2
        state.end = state.begin + count
        for i in range(self.change_count):
            change = &self.changes[i]
            if change.slot < 0:
                any_ = any_ or count > 0
            elif change.where == NULL or change.where[row]:
                any_ = True
            if any_:
                break
        if not any_:
            return -1
        if count > 0 and (self.attributes[state.begin].owner != row or self.attributes[state.end - 1].owner != row):
            return -2
        if self.is_known_key or self.by_attribute:
            for k in range(state.begin, state.end):
                if not 0 <= self.attributes[k].key_code < self.key_count:
                    return -2
                state.last[self.attributes[k].key_code] = <int32_t>k
                if state.by_row != NULL:
                    state.by_row[k] = UNTOUCHED
        for i in range(self.slot_count):
            state.winner[i] = UNTOUCHED
        for i in range(self.change_count):
            change = &self.changes[i]
            slot = change.slot
            if slot < 0:
                for k in range(state.begin, state.end):
                    if (change.where != NULL and not change.where[k]) or (change.mode != DELETE_ and not self._has_value(change, k)):
                        continue
                    state.by_row[k] = DELETED if change.mode == DELETE_ else <int32_t>i
                    slot = self.slot_of[self.attributes[k].key_code]
                    if slot >= 0 and state.winner[slot] != UNTOUCHED and state.last[self.attributes[k].key_code] == k:
                        state.winner[slot], state.at[slot] = state.by_row[k], <int32_t>k
                continue
            if change.where != NULL and not change.where[row]:
                continue
            if change.mode != DELETE_ and not self._has_value(change, row):
                continue
            if change.mode != UPSERT_:
                if state.winner[slot] == UNTOUCHED:
                    last = self._last(state, self.keys[slot].code)
                    by_row = state.by_row[last] if last >= 0 and state.by_row != NULL else UNTOUCHED
                    is_there = last >= 0 and by_row != DELETED
                else:
                    is_there = state.winner[slot] >= 0
                if is_there == (change.mode == INSERT_):
                    continue
            state.winner[slot] = DELETED if change.mode == DELETE_ else <int32_t>i
            state.at[slot] = <int32_t>row
        return 0

    cdef int32_t _last(self, const State* state, int32_t code) noexcept nogil:
        """The last attribute of the row with this key, -1 = none."""
        return state.last[code] if code < self.key_count and state.last[code] >= state.begin else -1

    def resolve(self, Py_ssize_t slot):
        """Where each row takes a key's value from: (int32[n] the change, -1 = untouched, -2 = deleted; int32[n] the row of its values)."""
        cdef State state
        cdef Py_ssize_t row
        cdef int32_t last
        cdef int found = DONE
        cdef cnp.ndarray winner = np.full(self.row_count, UNTOUCHED, np.int32), at = np.zeros(self.row_count, np.int32)
        cdef int32_t* winner_out = <int32_t*>cnp.PyArray_DATA(winner)
        cdef int32_t* at_out = <int32_t*>cnp.PyArray_DATA(at)
        if not 0 <= slot < self.slot_count:
            raise ValueError("no such key")
        memset(&state, 0, sizeof(State))
        try:
            self._open(&state)
            for row in range(self.row_count):
                found = self._play(&state, row)
                if found == -2:
                    raise ValueError("attributes of another table")
                if found == -1:
                    continue
                winner_out[row], at_out[row] = state.winner[slot], state.at[slot]
                if state.winner[slot] == UNTOUCHED and state.by_row != NULL:
                    last = self._last(&state, self.keys[slot].code)
                    if last >= 0:
                        winner_out[row], at_out[row] = state.by_row[last], last
        finally:
            _close(&state)
        return winner, at

    def patches(self, tags):
        """What the changes come to: :class:`AttributePatches`; None where they change nothing.

        ``tags``: the attribute field's tag, one for all rows or uint8[n].
        """
        cdef AttributePatches made = AttributePatches()
        cdef const uint8_t* tag_of = NULL
        cdef uint8_t tag = 0
        cdef State state
        cdef int found
        cdef bint release = self.row_count * self.row_bytes + self.attribute_count * <Py_ssize_t>sizeof(AttributeRow) >= 4 * RELEASE_GIL_BYTES
        if isinstance(tags, int):
            tag = tags
        else:
            tag_of = <const uint8_t*>_numbers(tags, np.uint8, self.row_count)
        memset(&state, 0, sizeof(State))
        made._open(self)
        try:
            self._open(&state)
            if release:
                with nogil:
                    found = self._write(made, &state, tag_of, tag)
            else:
                found = self._write(made, &state, tag_of, tag)
        finally:
            _close(&state)
        if found == FOREIGN:
            raise ValueError("attributes of another table")
        if found == OUTSIDE:
            raise ValueError("a slice outside its source")
        if found == TOO_LARGE:
            raise ValueError(f"attributes of more bytes than the limit of {MAX_BYTES} (32-bit offsets)")
        if found == NO_MEMORY:
            raise MemoryError
        return made if made.patch_count else None

    cdef int _write(self, AttributePatches made, State* state, const uint8_t* tag_of, uint8_t tag) noexcept nogil:
        cdef Py_ssize_t row, k, slot, first_made, mark
        cdef int found
        cdef int32_t code, last, winner, appended, cut
        cdef const int32_t* frame
        cdef const int32_t* inner
        cdef int64_t at
        cdef bint is_touched, wrap
        for row in range(self.row_count):
            frame = <const int32_t*>(self.table + row * self.row_bytes)
            found = self._play(state, row)
            if found == -2:
                return FOREIGN
            made.counts_out[row] = <int32_t>(state.end - state.begin)
            if found == -1:
                continue
            if tag_of != NULL:
                tag = tag_of[row]
            is_touched, cut, appended = False, 0, 0
            if self.is_known_key or self.by_attribute:
                for k in range(state.begin, state.end):
                    code = self.attributes[k].key_code
                    last = state.last[code]
                    slot = self.slot_of[code]
                    winner = state.winner[slot] if slot >= 0 else UNTOUCHED
                    if winner != UNTOUCHED:
                        if k != last:
                            winner = DELETED
                        at = state.at[slot]
                    elif state.by_row != NULL:
                        winner = state.by_row[k]
                        if k != last and state.by_row[last] != UNTOUCHED:
                            winner = DELETED
                        at = k
                    if winner == UNTOUCHED:
                        continue
                    is_touched = True
                    made.fate[k] = GONE if winner == DELETED else REPLACED
                    made._begin(self.attributes[k].start, self.attributes[k].end - self.attributes[k].start)
                    if winner == DELETED:
                        cut += 1
                    else:
                        found = made._attribute(&self.changes[winner], at, tag, &self.keys[slot] if slot >= 0 else &self.known[code])
                        if found != DONE:
                            return found
                    made._finish()
            wrap = False
            first_made = made.made_count
            for slot in range(self.slot_count):
                if state.winner[slot] < 0 or self._last(state, self.keys[slot].code) >= 0:
                    continue
                if appended == 0:
                    if state.end > state.begin:
                        at = self.attributes[state.end - 1].end
                    else:
                        at = frame[2]
                        if self.inner_at >= 0:
                            inner = <const int32_t*>(<const uint8_t*>frame + self.inner_at)
                            wrap = inner[0] < 0
                            if not wrap:
                                at = inner[1]
                    made._begin(at, 0)
                    if wrap:
                        put_varint(&made.payload, INNER_TAG)
                        mark = made.payload.size
                appended += 1
                found = made._attribute(&self.changes[state.winner[slot]], state.at[slot], tag, &self.keys[slot])
                if found != DONE:
                    return found
            if appended:
                is_touched = True
                if wrap and not made._wrap(row, mark, first_made):
                    return NO_MEMORY
                made._finish()
            made.counts_out[row] += appended - cut
            made.touched_out[row] = is_touched
            if made.payload.failed:
                return NO_MEMORY
        if state.end != self.attribute_count:
            return FOREIGN
        return DONE


cdef void _close(State* state) noexcept nogil:
    free(state.last)
    free(state.winner)
    free(state.at)
    free(state.by_row)


@cython.final
cdef class AttributePatches:
    """Patches of attributes, ascending, and what the index of the attributes becomes once it is known where they stand."""

    cdef AttributeLog log
    cdef Writer payload
    cdef Patch* list_
    cdef Made* made
    cdef uint8_t* fate            # of each old attribute
    cdef int32_t* counts_out
    cdef uint8_t* touched_out
    cdef readonly Py_ssize_t patch_count
    cdef Py_ssize_t made_count
    cdef bytes taken
    cdef int32_t* wrapped
    cdef Py_ssize_t wrapped_count
    cdef readonly object counts
    """int32[n]: how many attributes each row has now."""
    cdef readonly object touched
    """bool[n]: which rows are changed."""

    cdef int _open(self, AttributeLog log) except -1:
        cdef cnp.ndarray counts = np.empty(log.row_count, np.int32), touched = np.zeros(log.row_count, np.bool_)
        self.log = log
        self.counts, self.touched = counts, touched
        self.counts_out, self.touched_out = <int32_t*>cnp.PyArray_DATA(counts), <uint8_t*>cnp.PyArray_DATA(touched)
        open_writer(&self.payload, 256 + 16 * log.row_count)
        self.list_ = <Patch*>malloc((log.attribute_count + log.row_count + 1) * sizeof(Patch))
        self.made = <Made*>malloc((log.attribute_count + log.row_count * log.slot_count + 1) * sizeof(Made))
        self.fate = <uint8_t*>calloc(log.attribute_count + 1, 1)
        self.wrapped = <int32_t*>malloc((3 * log.row_count + 1) * sizeof(int32_t)) if log.inner_at >= 0 else NULL
        if (
            self.list_ == NULL or self.made == NULL or self.fate == NULL or self.payload.failed
            or (log.inner_at >= 0 and self.wrapped == NULL)
        ):
            raise MemoryError
        return 0

    def __dealloc__(self):
        close_writer(&self.payload)
        free(self.list_)
        free(self.made)
        free(self.fate)
        free(self.wrapped)

    cdef void _begin(self, int64_t offset, int64_t deleted) noexcept nogil:
        """A patch here; it goes on from the one before where they touch."""
        cdef Patch* patch
        if self.patch_count > 0:
            patch = &self.list_[self.patch_count - 1]
            if patch.offset + patch.deleted == offset and patch.deleted > 0:
                patch.deleted += deleted
                return
        patch = &self.list_[self.patch_count]
        patch.offset, patch.deleted, patch.source, patch.length = offset, deleted, self.payload.size, 0
        self.patch_count += 1

    cdef void _finish(self) noexcept nogil:
        cdef Patch* patch = &self.list_[self.patch_count - 1]
        patch.length = self.payload.size - patch.source

    cdef int _attribute(self, const Change* change, int64_t at, uint8_t tag, const Key* key) noexcept nogil:
        """One KeyValue field."""
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
            number[0] = 0x12
            value = number
            if change.form == INTS:
                number[2] = 0x18
                size = set_varint(&number[3], <uint64_t>(<const int64_t*>change.numbers)[at]) - number
            elif change.form == DOUBLES:
                number[2] = 0x21
                memcpy(&number[3], <const double*>change.numbers + at, 8)
                size = 11
            else:
                number[2] = 0x10
                number[3] = 1 if (<const uint8_t*>change.numbers)[at] else 0
                size = 4
            number[1] = <uint8_t>(size - 2)
        content = key.size + size
        if self.payload.size + content + 11 >= MAX_BYTES:
            return TOO_LARGE
        if not reserve(&self.payload, content + 11):
            return NO_MEMORY
        self.made[self.made_count].code = key.code
        self.made[self.made_count].key_size = <int32_t>key.size
        self.made[self.made_count].at = self.payload.size
        self.made_count += 1
        out = self.payload.data + self.payload.size
        out[0] = tag
        out = set_varint(out + 1, <uint64_t>content)
        memcpy(out, key.field, key.size)
        out += key.size
        if is_slice:
            out[0] = 0x12
            out = set_varint(out + 1, <uint64_t>row.any_len)
            size = row.any_len
        if size > 0:
            memcpy(out, value, size)
            out += size
        self.payload.size = out - self.payload.data
        return DONE

    cdef bint _wrap(self, Py_ssize_t row, Py_ssize_t mark, Py_ssize_t first_made) noexcept nogil:
        """Put the length of the message made at ``mark`` before its content."""
        cdef int64_t length = self.payload.size - mark
        cdef int size = varint_size(<uint64_t>length)
        cdef Py_ssize_t i
        if not reserve(&self.payload, size):
            return False
        for i in range(length - 1, -1, -1):
            self.payload.data[mark + i + size] = self.payload.data[mark + i]
        set_varint(self.payload.data + mark, <uint64_t>length)
        self.payload.size += size
        for i in range(first_made, self.made_count):
            self.made[i].at += size
        self.wrapped[3 * self.wrapped_count] = <int32_t>row
        self.wrapped[3 * self.wrapped_count + 1] = <int32_t>(self.patch_count - 1)
        self.wrapped[3 * self.wrapped_count + 2] = 1 + size
        self.wrapped_count += 1
        return True

    def columns(self):
        """What ``splice.rewrite`` wants: (int64 offsets, bytes deleted, sources, lengths, payload)."""
        cdef Py_ssize_t i
        cdef cnp.ndarray out = np.empty((4, self.patch_count), np.int64)
        cdef int64_t* value = <int64_t*>cnp.PyArray_DATA(out)
        for i in range(self.patch_count):
            value[i] = self.list_[i].offset
            value[self.patch_count + i] = self.list_[i].deleted
            value[2 * self.patch_count + i] = self.list_[i].source
            value[3 * self.patch_count + i] = self.list_[i].length
        if self.taken is None:
            self.taken = take(&self.payload)
            close_writer(&self.payload)
            self.log.held = self.log.held[:2]  # the values are written: no one reads them again
            self.log.change_count = 0
        return out[0], out[1], out[2], out[3], self.taken

    def inner_messages(self):
        """int32[k, 3]: row, patch and bytes before the content of each Resource or InstrumentationScope that had to be made."""
        cdef cnp.ndarray out = np.empty((self.wrapped_count, 3), np.int32)
        if self.wrapped_count:
            memcpy(cnp.PyArray_DATA(out), self.wrapped, self.wrapped_count * 3 * sizeof(int32_t))
        return out

    @property
    def nbytes(self):
        """About what is held."""
        return (
            (0 if self.taken is None else len(self.taken)) + self.patch_count * sizeof(Patch) + self.made_count * sizeof(Made)
            + self.log.attribute_count * (1 + sizeof(AttributeRow)) + self.log.row_count * 4
        )

    def carried(self, shift, placed):
        """(The attribute rows of the new request, its keys). ``placed``: where each patch's bytes stand, int32[patches]."""
        cdef const int32_t* place = _ints(placed, self.patch_count)
        cdef AttributeLog log = self.log
        cdef Py_ssize_t row, k, begin, end = 0, patch = 0, done = 0, kept_count = 0, taken = 0, made = 0, total = 0, held
        cdef cnp.ndarray kept, result
        cdef AttributeRow* out
        cdef const AttributeRow* moved
        cdef const uint8_t* data
        if self.taken is None:
            raise ValueError("nothing was placed yet")
        data = <const uint8_t*>PyBytes_AS_STRING(self.taken)
        for k in range(log.attribute_count):
            kept_count += self.fate[k] == KEPT
        kept = np.empty(kept_count, ATTRIBUTE)
        out = <AttributeRow*>cnp.PyArray_DATA(kept)
        for k in range(log.attribute_count):
            if self.fate[k] == KEPT:
                out[done] = log.attributes[k]
                done += 1
        kept = shift.relocate(kept)
        moved = _attributes(kept)
        for row in range(log.row_count):
            total += self.counts_out[row]
        result = np.empty(total, ATTRIBUTE)
        out = <AttributeRow*>cnp.PyArray_DATA(result)
        done = 0
        for row in range(log.row_count):
            held = done + self.counts_out[row]
            begin = end
            end += (<const int32_t*>(log.table + row * log.row_bytes + log.count_at))[0]
            for k in range(begin, end):
                if self.fate[k] == KEPT:
                    out[done] = moved[taken]
                    taken += 1
                    done += 1
                elif self.fate[k] == REPLACED:
                    patch = self._read(data, &out[done], <int32_t>row, made, patch, place)
                    made += 1
                    done += 1
            while done < held:
                patch = self._read(data, &out[done], <int32_t>row, made, patch, place)
                made += 1
                done += 1
        return result, log.key_names

    cdef Py_ssize_t _read(
        self, const uint8_t* data, AttributeRow* row, int32_t owner, Py_ssize_t number, Py_ssize_t patch, const int32_t* place,
    ) noexcept nogil:
        """The row of an attribute that was written here, by this module: what it reads is what it wrote. Returns its patch."""
        cdef const Made* made = &self.made[number]
        cdef int64_t at = made.at, end, delta
        cdef uint64_t size = 0
        while made.at >= self.list_[patch].source + self.list_[patch].length:
            patch += 1
        delta = place[patch] - self.list_[patch].source
        memset(row, 0, sizeof(AttributeRow))
        row.owner, row.key_code = owner, made.code
        row.start = <int32_t>(at + delta)
        at = _number(data, at + 1, &size)
        end = at + <int64_t>size
        row.end = <int32_t>(end + delta)
        row.key = <int32_t>(_number(data, at + 1, &size) + delta)
        row.key_len = <int32_t>size
        at += made.key_size
        row.any = row.value = -1
        if at < end:
            at = _number(data, at + 1, &size)
            row.any, row.any_len = <int32_t>at, <int32_t>size
            read_value(data, at, end, row)
            row.any += <int32_t>delta
            if row.value >= 0:
                row.value += <int32_t>delta
        return patch


cdef int64_t _number(const uint8_t* data, int64_t at, uint64_t* value) noexcept nogil:
    """One past a varint that was written here."""
    cdef int shift = 0
    value[0] = 0
    while data[at] & 0x80:
        value[0] |= <uint64_t>(data[at] & 0x7f) << shift
        shift += 7
        at += 1
    value[0] |= <uint64_t>data[at] << shift
    return at + 1
