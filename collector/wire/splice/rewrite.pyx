"""Rewrites a request: runs of its bytes are cut, replaced or inserted, the lengths of the messages around them
follow, and the offsets of the index move along. Nothing is parsed again.

Not the index itself (``scan``), not the encoding of what is inserted (``values``).
A *patch* is (offset, bytes deleted there, bytes put there instead). A *frame* is a length-delimited message that may
hold patches. Rules a caller keeps: patches do not overlap; frames
are nested; an insertion stands directly behind its frame's length or behind an attribute of it, so
that the frames which hold a patch are exactly those whose body encloses it.
Offsets are 32-bit, as everywhere in the index: a result of 2 GiB or more is refused.
"""

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc, qsort
from libc.string cimport memcpy

cnp.import_array()

__all__ = ["Shift", "join_rows", "prune", "rewrite", "take_rows"]

cdef enum:
    START = 0          # the first byte of something: what is inserted there comes before it
    CONTENT = 1        # right behind a length: what is inserted there comes after it
    END = 2

cdef enum:
    NOGIL_BYTES = 262144   # below this, letting the GIL go costs more than it gives (design: the GIL)
    MAX_LEVELS = 4
    MAX_BYTES = 0x7fffffff


cdef class _Fields:
    """Which fields of a row are offsets into the request, and of what sort."""

    cdef int count
    cdef int32_t[32] at
    cdef int32_t[32] sort
    cdef readonly int row_bytes

    def __cinit__(self, dtype):
        self.count = 0
        self.row_bytes = dtype.itemsize
        attribute = "owner" in dtype.names
        for name in dtype.names:
            if name.endswith("start"):
                sort = START
            elif name.endswith("body"):
                sort = CONTENT
            elif name == "end" or name.endswith("_end"):
                # An attribute may be followed by one inserted behind it; no other row ends where something is inserted outside it.
                sort = CONTENT if attribute else END
            elif name + "_len" in dtype.names:
                sort = CONTENT
            else:
                continue
            self.at[self.count] = dtype.fields[name][1]
            self.sort[self.count] = sort
            self.count += 1


cdef dict _fields_of = {}


cdef _Fields fields_of(cnp.ndarray rows):
    dtype = rows.dtype
    fields = _fields_of.get(dtype)
    if fields is None:
        fields = _fields_of[dtype] = _Fields(dtype)
    return fields


cdef int32_t* _ints(cnp.ndarray array) except? NULL:
    if array.dtype != np.int32 or not array.flags.c_contiguous:
        raise TypeError("a contiguous int32 array is needed")
    return <int32_t*>cnp.PyArray_DATA(array)


cdef uint8_t* _rows(cnp.ndarray rows) except? NULL:
    if not rows.flags.c_contiguous or rows.ndim != 1:
        raise TypeError("contiguous rows are needed")
    return <uint8_t*>cnp.PyArray_DATA(rows)


cdef class Shift:
    """Where the bytes of the old request went: moves the offsets of rows."""

    # An edge is twice the offset behind a patch's deleted bytes, plus one for a mere insertion: so a deletion that ends at an
    # offset and an insertion at it are told apart, and both sorts of question are one binary search.
    cdef int64_t* edges
    cdef int64_t* moved
    cdef Py_ssize_t count

    def __dealloc__(self):
        free(self.edges)
        free(self.moved)

    cdef int reserve(self, Py_ssize_t count) except -1:
        self.edges = <int64_t*>malloc((count + 1) * sizeof(int64_t))
        self.moved = <int64_t*>malloc((count + 1) * sizeof(int64_t))
        if self.edges == NULL or self.moved == NULL:
            raise MemoryError
        self.count = 0
        return 0

    def relocate(self, cnp.ndarray rows):
        """A copy of ``rows`` (none of which lies in deleted bytes) with the offsets in the new request."""
        return take_rows(rows, None, None, self)[0]


cdef inline Py_ssize_t _below(const int64_t* edges, Py_ssize_t count, int64_t key, Py_ssize_t low) noexcept nogil:
    """How many edges are at most ``key``; ``low`` of them are known to be."""
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= key:
            low = middle + 1
        else:
            high = middle
    return low


cdef void _move(uint8_t* row, Py_ssize_t row_count, _Fields fields, bint attribute, Shift shift) noexcept nogil:
    """Move all offsets of rows. They are in order but for hostile eyes: an edge found for one row is only a hint for the next."""
    cdef const int64_t* edges = shift.edges
    cdef const int64_t* moved = shift.moved
    cdef Py_ssize_t edge_count = shift.count, row_bytes = fields.row_bytes, low = 0, found, i
    cdef int field_count = fields.count, k
    cdef int32_t[32] at
    cdef int64_t key, end
    cdef int32_t before
    cdef int32_t* value
    for k in range(field_count):
        at[k] = fields.at[k]
    for i in range(row_count):
        key = 2 * <int64_t>(<int32_t*>row)[1] + 1
        end = 2 * <int64_t>(<int32_t*>row)[2 if attribute else 3] + 1
        if low > 0 and edges[low - 1] > key:
            low = 0
        while low < edge_count and edges[low] <= key:
            low += 1
        before = <int32_t>moved[low - 1] if low > 0 else 0
        if low >= edge_count or edges[low] > end:      # nothing was changed inside the row
            if before != 0:
                for k in range(field_count):
                    value = <int32_t*>(row + at[k])
                    if value[0] >= 0:
                        value[0] += before
        else:
            for k in range(field_count):
                value = <int32_t*>(row + at[k])
                if value[0] >= 0:
                    found = _below(edges, edge_count, 2 * <int64_t>value[0] + (0 if fields.sort[k] == CONTENT else 1), low)
                    if found > 0:
                        value[0] += <int32_t>moved[found - 1]
        row += row_bytes


cdef struct Frame:
    int64_t start, body, end     # as in the rows
    int64_t length_at            # where its length is written
    int64_t length               # its new length; -1 = unchanged
    int64_t inner                # by how much the lengths written inside it grow
    Py_ssize_t parent


cdef struct Patch:
    int64_t offset, deleted, source, length      # source: offset in the payload
    Py_ssize_t number                            # as the caller counts them


cdef int _varint_size(int64_t value) noexcept nogil:
    cdef int size = 1
    while value >= 0x80:
        value >>= 7
        size += 1
    return size


cdef int64_t _measure(
    const uint8_t* wire, int64_t wire_length, const Patch* patches, Py_ssize_t patch_count, int64_t payload_length,
    Frame* frames, Py_ssize_t frame_count, int64_t* sums,
) noexcept nogil:
    """The new request's length, with every frame's new length noted; -1: patches or frames break the rules."""
    cdef Py_ssize_t i, top = -1, cursor = 0, low, high, middle, step
    cdef int64_t at = 0, total, length, growth
    cdef Frame* frame
    sums[0] = 0
    for i in range(patch_count):
        if patches[i].offset < at or patches[i].deleted < 0 or patches[i].length < 0 or patches[i].source < 0:
            return -1
        at = patches[i].offset + patches[i].deleted
        if at > wire_length or patches[i].source + patches[i].length > payload_length:
            return -1
        sums[i + 1] = sums[i] + patches[i].length - patches[i].deleted
    total = wire_length + sums[patch_count]
    at = -1
    for i in range(frame_count):
        frame = &frames[i]
        if frame.start <= at or frame.body < frame.start + 2 or frame.end < frame.body or frame.end > wire_length:
            return -1
        at = frame.start
        while top >= 0 and frames[top].end <= frame.start:
            top = frames[top].parent
        if top >= 0 and (frame.end > frames[top].end or frame.start < frames[top].body):
            return -1
        frame.parent = top
        top = i
        frame.length_at = frame.start
        while wire[frame.length_at] & 0x80:
            frame.length_at += 1
            if frame.length_at >= frame.body - 1:
                return -1
        frame.length_at += 1
        while cursor < patch_count and patches[cursor].offset < frame.body:
            cursor += 1
        low, high, step = cursor, cursor, 1              # most frames hold few patches: the end is looked for in growing steps
        while high < patch_count and patches[high].offset + patches[high].deleted <= frame.end:
            low = high + 1
            high += step
            step *= 2
        high = min(high, patch_count)
        while low < high:
            middle = (low + high) >> 1
            if patches[middle].offset + patches[middle].deleted <= frame.end:
                low = middle + 1
            else:
                high = middle
        frame.length = frame.end - frame.body + sums[low] - sums[cursor]
        frame.inner = 0
    for i in range(frame_count - 1, -1, -1):
        frame = &frames[i]
        length = frame.length + frame.inner
        if length < 0:
            return -1
        growth = 0
        frame.length = -1
        if length != frame.end - frame.body:
            frame.length = length
            growth = _varint_size(length) - (frame.body - frame.length_at)
        total += growth
        if frame.parent >= 0:
            frames[frame.parent].inner += frame.inner + growth
    return total


cdef int64_t _write(
    const uint8_t* wire, int64_t wire_length, const Patch* patches, Py_ssize_t patch_count, const uint8_t* payload,
    const Frame* frames, Py_ssize_t frame_count, uint8_t* out, int64_t out_length, Shift shift, int32_t* placed,
) noexcept nogil:
    """Write the new request; returns its length, -1 where patches and lengths overlap."""
    cdef Py_ssize_t p = 0, f = 0, k = 0
    cdef int64_t read = 0, written = 0, moved = 0, offset, deleted, length, run
    cdef bint is_length
    while True:
        while f < frame_count and frames[f].length < 0:
            f += 1
        if p >= patch_count and f >= frame_count:
            break
        is_length = p >= patch_count or (f < frame_count and frames[f].length_at < patches[p].offset)
        if is_length:
            offset = frames[f].length_at
            deleted = frames[f].body - offset
            length = _varint_size(frames[f].length)
        else:
            offset, deleted, length = patches[p].offset, patches[p].deleted, patches[p].length
        run = offset - read
        if run < 0 or written + run + length > out_length:
            return -1
        memcpy(out + written, wire + read, run)
        written += run
        if is_length:
            run = frames[f].length
            while run >= 0x80:
                out[written] = <uint8_t>(run | 0x80)
                run >>= 7
                written += 1
            out[written] = <uint8_t>run
            written += 1
            f += 1
        else:
            if length > 0:
                memcpy(out + written, payload + patches[p].source, length)
            if placed != NULL:
                placed[patches[p].number] = <int32_t>written
            written += length
            p += 1
        read = offset + deleted
        moved += length - deleted
        shift.edges[k] = 2 * read + (1 if deleted == 0 else 0)
        shift.moved[k] = moved
        k += 1
    run = wire_length - read
    if written + run != out_length:
        return -1
    memcpy(out + written, wire + read, run)
    shift.count = k
    return out_length


cdef bytes _splice(
    bytes wire, Patch* patches, Py_ssize_t patch_count, const uint8_t* payload, int64_t payload_length,
    Frame* frames, Py_ssize_t frame_count, Shift shift, int32_t* placed,
):
    cdef const uint8_t* source = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef int64_t wire_length = len(wire), total
    cdef int64_t* sums = <int64_t*>malloc((patch_count + 1) * sizeof(int64_t))
    cdef bytes result
    cdef uint8_t* out
    if sums == NULL:
        raise MemoryError
    try:
        with nogil:
            total = _measure(source, wire_length, patches, patch_count, payload_length, frames, frame_count, sums)
    finally:
        free(sums)
    if total < 0:
        raise ValueError("patches or frames are out of order")
    if total >= MAX_BYTES:
        raise ValueError(f"a batch of {total} bytes: the limit is {MAX_BYTES} (32-bit offsets)")
    shift.reserve(patch_count + frame_count)
    result = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t*>PyBytes_AS_STRING(result)
    if wire_length >= NOGIL_BYTES:
        with nogil:
            total = _write(source, wire_length, patches, patch_count, payload, frames, frame_count, out, total, shift, placed)
    else:
        total = _write(source, wire_length, patches, patch_count, payload, frames, frame_count, out, total, shift, placed)
    if total < 0:
        raise ValueError("patches and frames overlap")
    return result


cdef inline void _frame(Frame* frame, int64_t start, int64_t body, int64_t end) noexcept nogil:
    frame.start, frame.body, frame.end = start, body, end


cdef int _by_offset(const void* a, const void* b) noexcept nogil:
    cdef const Patch* one = <const Patch*>a
    cdef const Patch* other = <const Patch*>b
    cdef int64_t by = 2 * one.offset + (one.deleted > 0) - 2 * other.offset - (other.deleted > 0)
    if by == 0:
        by = one.number - other.number
    return (by > 0) - (by < 0)


cdef int _by_start(const void* a, const void* b) noexcept nogil:
    cdef int64_t by = (<const Frame*>a).start - (<const Frame*>b).start
    return (by > 0) - (by < 0)


def rewrite(
    bytes wire, const int64_t[::1] offsets, const int64_t[::1] deleted, const int64_t[::1] sources, const int64_t[::1] lengths, bytes payload,
    list frames,
):
    """Apply patches, in any order: the new request, its :class:`Shift`, and where each patch's bytes now stand (int32[p]).

    Patches at one offset keep their order, insertions come first. ``frames``: (rows, int64[k] which of them, the name of the field
    where start, body and end of the message stand); rows without that message are passed over.
    Raises ``ValueError`` for patches or frames against the rules of this module, and for a result of 2 GiB or more.
    """
    cdef Py_ssize_t patch_count = offsets.shape[0], frame_count = 0, row_count, row_bytes, i, at
    cdef int64_t wire_length = len(wire), payload_length = len(payload)
    cdef Patch* patches = NULL
    cdef Frame* found = NULL
    cdef Shift shift = Shift()
    cdef cnp.ndarray placed = np.empty(patch_count, np.int32)
    cdef const uint8_t* row
    cdef const int32_t* triple
    cdef const int64_t[::1] which
    cdef bint sorted_already = True
    if deleted.shape[0] != patch_count or sources.shape[0] != patch_count or lengths.shape[0] != patch_count:
        raise ValueError("arrays of different lengths")
    for _, held, _ in frames:
        frame_count += len(held)
    try:
        patches = <Patch*>malloc((patch_count + 1) * sizeof(Patch))
        found = <Frame*>malloc((frame_count + 1) * sizeof(Frame))
        if patches == NULL or found == NULL:
            raise MemoryError
        for i in range(patch_count):
            patches[i].offset = offsets[i]
            patches[i].deleted = deleted[i]
            patches[i].source = sources[i]
            patches[i].length = lengths[i]
            patches[i].number = i
            if not 0 <= offsets[i] <= wire_length or not 0 <= deleted[i] <= wire_length - offsets[i]:
                raise ValueError("a patch outside the request")
            if not 0 <= sources[i] <= payload_length or not 0 <= lengths[i] <= payload_length - sources[i]:
                raise ValueError("a patch with bytes from nowhere")
            if i > 0 and sorted_already:
                sorted_already = _by_offset(&patches[i - 1], &patches[i]) < 0
        if not sorted_already:
            qsort(patches, patch_count, sizeof(Patch), _by_offset)
        frame_count = 0
        for rows, held, name in frames:
            which = held
            row = _rows(rows)
            row_count, row_bytes = len(rows), rows.itemsize
            at = rows.dtype.fields[name][1]
            for i in range(which.shape[0]):
                if not 0 <= which[i] < row_count:
                    raise ValueError("no such row")
                triple = <const int32_t*>(row + which[i] * row_bytes + at)
                if triple[0] >= 0:
                    _frame(&found[frame_count], triple[0], triple[1], triple[2])
                    frame_count += 1
        sorted_already = True
        for i in range(1, frame_count):
            if found[i - 1].start > found[i].start:
                sorted_already = False
                break
        if not sorted_already:
            qsort(found, frame_count, sizeof(Frame), _by_start)
        result = _splice(
            wire, patches, patch_count, <const uint8_t*>PyBytes_AS_STRING(payload), payload_length,
            found, frame_count, shift, <int32_t*>cnp.PyArray_DATA(placed),
        )
    finally:
        free(patches)
        free(found)
    return result, shift, placed


cdef struct Level:
    const uint8_t* rows
    Py_ssize_t count, row_bytes
    int32_t* new            # the row's new index, -1 = dropped
    Py_ssize_t data_at      # where data_start stands in a metric's row; 0 = no such frame
    Py_ssize_t cursor


cdef struct Walk:
    Level[4] levels
    int level_count
    Patch* patches
    Py_ssize_t patch_count
    Frame* frames
    Py_ssize_t frame_count


cdef inline const int32_t* _row(const Level* level, Py_ssize_t i) noexcept nogil:
    return <const int32_t*>(level.rows + i * level.row_bytes)


cdef void _walk(Walk* walk, int depth, int32_t parent) noexcept nogil:
    """Note, in document order, what to cut below one kept parent, and the frames around it."""
    cdef Level* level = &walk.levels[depth]
    cdef const int32_t* row
    cdef const int32_t* data
    cdef Patch* patch = NULL           # the cut being made: only neighbours below one parent share one
    while level.cursor < level.count:
        row = _row(level, level.cursor)
        if row[0] > parent:
            return
        if row[0] == parent:
            if level.new[level.cursor] < 0:
                if patch != NULL and patch.offset + patch.deleted == row[1]:
                    patch.deleted += row[3] - row[1]
                else:
                    patch = &walk.patches[walk.patch_count]
                    patch.offset, patch.deleted, patch.source, patch.length = row[1], row[3] - row[1], 0, 0
                    walk.patch_count += 1
            else:
                patch = NULL
                if depth < walk.level_count - 1:
                    _frame(&walk.frames[walk.frame_count], row[1], row[2], row[3])
                    walk.frame_count += 1
                    if level.data_at > 0:
                        data = <const int32_t*>(<const uint8_t*>row + level.data_at)
                        if data[0] >= 0:
                            _frame(&walk.frames[walk.frame_count], data[0], data[1], data[2])
                            walk.frame_count += 1
                    _walk(walk, depth + 1, <int32_t>level.cursor)
        level.cursor += 1


def prune(bytes wire, list tables, int depth, const uint8_t[::1] keep):
    """Cut out whole rows and the parents left without an item.

    ``tables`` are the rows from the resources down to the items, ``keep`` one byte for each row of ``tables[depth]``.
    Returns (new request, :class:`Shift`, [int32 new index of each row, -1 = dropped, for each table]); None when all stays.
    """
    cdef Walk walk
    cdef Level* level
    cdef Level* above
    cdef Py_ssize_t i, total = 0, kept, dropped = 0
    cdef int32_t parent
    cdef int d
    cdef Shift shift = Shift()
    cdef int count = len(tables)
    if not 0 < count <= MAX_LEVELS or not 0 <= depth < count:
        raise ValueError("no such table")
    maps = []
    for d in range(count):
        rows = tables[d]
        level = &walk.levels[d]
        level.rows = _rows(rows)
        level.count = len(rows)
        level.row_bytes = rows.dtype.itemsize
        new = np.full(level.count, -1, np.int32)
        maps.append(new)
        level.new = _ints(new)
        level.data_at = rows.dtype.fields["data_start"][1] if "data_start" in rows.dtype.names else 0
        level.cursor = 0
        total += level.count
        if d > 0:
            for i in range(level.count):
                parent = _row(level, i)[0]
                if not 0 <= parent < walk.levels[d - 1].count:
                    raise ValueError("a row without a parent")
    if keep.shape[0] != walk.levels[depth].count:
        raise ValueError(f"a mask of {keep.shape[0]} for {walk.levels[depth].count} rows")
    walk.level_count, walk.patch_count, walk.frame_count = count, 0, 0
    level = &walk.levels[depth]
    for i in range(level.count):
        if keep[i]:
            level.new[i] = 0
    for d in range(depth + 1, count):
        level, above = &walk.levels[d], &walk.levels[d - 1]
        for i in range(level.count):
            level.new[i] = above.new[_row(level, i)[0]]
    for d in range(count - 1, 0, -1):                   # from the items up: a parent lives by what it holds
        level, above = &walk.levels[d], &walk.levels[d - 1]
        for i in range(above.count):
            above.new[i] = -1
        for i in range(level.count):
            if level.new[i] >= 0:
                above.new[_row(level, i)[0]] = 0
    for d in range(count):
        level = &walk.levels[d]
        kept = 0
        for i in range(level.count):
            if level.new[i] >= 0:
                level.new[i] = <int32_t>kept
                kept += 1
        dropped += level.count - kept
    if dropped == 0:
        return None
    walk.patches = NULL
    walk.frames = NULL
    try:
        walk.patches = <Patch*>malloc((total + 1) * sizeof(Patch))
        walk.frames = <Frame*>malloc((2 * total + 1) * sizeof(Frame))
        if walk.patches == NULL or walk.frames == NULL:
            raise MemoryError
        with nogil:
            _walk(&walk, 0, -1)
        result = _splice(wire, walk.patches, walk.patch_count, NULL, 0, walk.frames, walk.frame_count, shift, NULL)
    finally:
        free(walk.patches)
        free(walk.frames)
    return result, shift, maps


def take_rows(cnp.ndarray rows, new, parents, Shift shift):
    """Copies of the kept rows with new parents and offsets, and the new index of each old row (int32, -1 = dropped).

    ``new``: that index if known; None = a row stays with its parent. ``parents``: the new index of each parent row (None = as
    they are). ``shift`` None = offsets stay.
    """
    cdef _Fields fields = fields_of(rows)
    cdef const uint8_t* source = _rows(rows)
    cdef Py_ssize_t count = len(rows), row_bytes = fields.row_bytes, i, kept = 0, parent_count = 0
    cdef int32_t* map_ = NULL
    cdef const int32_t* parent_map = NULL
    cdef uint8_t* out
    cdef bint attribute = "owner" in rows.dtype.names
    cdef cnp.ndarray result
    if parents is not None:
        parent_map = _ints(parents)
        parent_count = len(parents)
    if new is None and parents is None:
        result = np.empty(count, rows.dtype)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        memcpy(out, source, count * row_bytes)
        kept = count
    else:
        if parents is not None:
            for i in range(count):
                if not 0 <= (<const int32_t*>(source + i * row_bytes))[0] < parent_count:
                    raise ValueError("a row without a parent")
        if new is None:
            new = np.empty(count, np.int32)
            map_ = _ints(new)
            for i in range(count):
                if parent_map[(<const int32_t*>(source + i * row_bytes))[0]] >= 0:
                    map_[i] = <int32_t>kept
                    kept += 1
                else:
                    map_[i] = -1
        else:
            map_ = _ints(new)
            if len(new) != count:
                raise ValueError("an index of another table")
            for i in range(count):
                if map_[i] >= 0:
                    kept += 1
        result = np.empty(kept, rows.dtype)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        kept = 0
        for i in range(count):
            if map_[i] >= 0:
                memcpy(out + kept * row_bytes, source + i * row_bytes, row_bytes)
                if parent_map != NULL:
                    (<int32_t*>(out + kept * row_bytes))[0] = parent_map[(<const int32_t*>(source + i * row_bytes))[0]]
                kept += 1
    if shift is not None and shift.count > 0:
        _move(out, kept, fields, attribute, shift)
    return result, new


def join_rows(list parts, const int64_t[::1] byte_bases, const int64_t[::1] parent_bases, codes=None):
    """The rows of several requests as one table over their joined bytes.

    ``byte_bases`` and ``parent_bases`` are where each request's bytes and parent rows begin; ``codes`` (attributes only) is for
    each request the new code of each of its keys, or None where they are the same.
    """
    cdef Py_ssize_t part, count = len(parts), total = 0, i, n, row_bytes
    cdef _Fields fields
    cdef uint8_t* out
    cdef int32_t* value
    cdef int32_t byte_base, parent_base
    cdef const int32_t* code_map
    cdef Py_ssize_t code_at = 0, code_count
    cdef int k
    cdef cnp.ndarray rows, result
    if count == 0 or byte_bases.shape[0] != count or parent_bases.shape[0] != count:
        raise ValueError("one base for each part is needed")
    rows = parts[0]
    dtype = rows.dtype
    fields = fields_of(rows)
    row_bytes = fields.row_bytes
    if codes is not None:
        code_at = dtype.fields["key_code"][1]
    for part in range(count):
        total += len(parts[part])
    result = np.empty(total, dtype)
    out = <uint8_t*>cnp.PyArray_DATA(result)
    for part in range(count):
        rows = parts[part]
        if rows.dtype is not dtype and rows.dtype != dtype:
            raise TypeError("rows of different tables")
        n = len(rows)
        if not 0 <= byte_bases[part] < MAX_BYTES or not 0 <= parent_bases[part] < MAX_BYTES:
            raise ValueError("more than 2 GiB")
        byte_base, parent_base = <int32_t>byte_bases[part], <int32_t>parent_bases[part]
        code_map = NULL
        code_count = 0
        if codes is not None and codes[part] is not None:
            code_map = _ints(codes[part])
            code_count = len(codes[part])
        memcpy(out, _rows(rows), n * row_bytes)
        for i in range(n):
            value = <int32_t*>out
            if value[0] >= 0:
                value[0] += parent_base
            for k in range(fields.count):
                value = <int32_t*>(out + fields.at[k])
                if value[0] >= 0:
                    value[0] += byte_base
            if code_map != NULL:
                value = <int32_t*>(out + code_at)
                if not 0 <= value[0] < code_count:
                    raise ValueError("an attribute without a key")
                value[0] = code_map[value[0]]
            out += row_bytes
    return result
