"""Rewrites a request: runs of its bytes are cut, replaced or inserted, and the lengths of the messages around follow.

A *patch* is an offset, the number of bytes deleted there, and the bytes written instead. A *frame* is a
length-delimited message that may hold patches. The caller must ensure that patches do not overlap, that frames are
nested, and that an insertion is directly after its frame's length or after an attribute of the frame, so that the
frames of a patch are exactly those whose body encloses it. Offsets are 32-bit, as everywhere in the index: a result of
2 GiB or more is refused.

Nothing is parsed again: ``relocate`` moves the index along. ``values`` encodes what is inserted.
"""

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.splice.relocate cimport OffsetMap, row_data
from collector.wire.writer cimport set_varint, varint_size

cnp.import_array()

__all__ = ["prune", "rewrite"]

cdef enum:
    MAX_LEVELS = 4
    MAX_BYTES = 0x7FFFFFFF


cdef struct Frame:
    int64_t start, body, end     # as in the rows
    int64_t length_at            # of its length
    int64_t length               # the new length; -1 = unchanged
    int64_t inner                # how much the lengths inside it grow
    Py_ssize_t parent


cdef struct Patch:
    int64_t offset, deleted, source, length      # source: offset in the payload
    Py_ssize_t number                            # in the order of the caller


cdef struct Level:
    const uint8_t* rows
    Py_ssize_t count, row_bytes
    int32_t* new            # the new index of each row, -1 = removed
    Py_ssize_t data_at      # the place of data_start in a metric's row; 0 = no such frame
    Py_ssize_t cursor


cdef struct Walk:
    Level[MAX_LEVELS] levels
    int level_count
    Patch* patches
    Py_ssize_t patch_count
    Frame* frames
    Py_ssize_t frame_count


def rewrite(
    bytes wire,
    const int64_t[::1] offsets,
    const int64_t[::1] deleted,
    const int64_t[::1] sources,
    const int64_t[::1] lengths,
    bytes payload,
    list frames,
):
    """Applies patches: (the new request, its ``OffsetMap``, the new offset of each patch's bytes I32[p]).

    Patches may be in any order. At the same offset insertions come first, and otherwise the order is kept.

    Args:
        wire: The request.
        offsets: Where each patch is.
        deleted: How many bytes it deletes.
        sources: Where the bytes it writes begin in ``payload``.
        lengths: How many bytes it writes.
        payload: The bytes that patches write.
        frames: Tuples of rows, I64[k] which of them are frames, and the name of the field with the message's start;
            its body and end follow. Rows without that message are ignored.

    Raises:
        ValueError: Patches or frames violate the rules of this module, or the result would reach 2 GiB.
    """
    cdef Py_ssize_t patch_count = offsets.shape[0], frame_count = 0, row_count, row_bytes, i, at
    cdef int64_t wire_length = len(wire), payload_length = len(payload)
    cdef Patch* patches = NULL
    cdef Frame* found = NULL
    cdef OffsetMap offset_map = OffsetMap()
    cdef cnp.ndarray placed = np.empty(patch_count, np.int32)
    cdef const uint8_t* row
    cdef const int32_t* extent          # start, body, end
    cdef const int64_t[::1] which
    cdef bint is_sorted = True
    if deleted.shape[0] != patch_count or sources.shape[0] != patch_count or lengths.shape[0] != patch_count:
        raise ValueError("the arrays of patches differ in length")
    for _, selected, _ in frames:
        frame_count += len(selected)
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
                raise ValueError(f"patch {i} is outside the request")
            if not 0 <= sources[i] <= payload_length or not 0 <= lengths[i] <= payload_length - sources[i]:
                raise ValueError(f"the bytes of patch {i} are outside the payload")
            if i > 0 and is_sorted:
                is_sorted = by_offset(&patches[i - 1], &patches[i]) < 0
        if not is_sorted and not merge_runs(<uint8_t*>patches, patch_count, sizeof(Patch), by_offset):
            raise MemoryError
        frame_count = 0
        for rows, selected, name in frames:
            which = selected
            row = row_data(rows)
            row_count, row_bytes = len(rows), rows.itemsize
            at = rows.dtype.fields[name][1]
            for i in range(which.shape[0]):
                if not 0 <= which[i] < row_count:
                    raise ValueError(f"row {which[i]} of {row_count} rows does not exist")
                extent = <const int32_t*>(row + which[i] * row_bytes + at)
                if extent[0] >= 0:
                    set_frame(&found[frame_count], extent[0], extent[1], extent[2])
                    frame_count += 1
        is_sorted = True
        for i in range(1, frame_count):
            if found[i - 1].start > found[i].start:
                is_sorted = False
                break
        if not is_sorted and not merge_runs(<uint8_t*>found, frame_count, sizeof(Frame), by_start):
            raise MemoryError
        result = splice(
            wire, patches, patch_count, <const uint8_t*>PyBytes_AS_STRING(payload), payload_length,
            found, frame_count, offset_map, <int32_t*>cnp.PyArray_DATA(placed),
        )
    finally:
        free(patches)
        free(found)
    return result, offset_map, placed


def prune(bytes wire, list tables, int depth, const uint8_t[::1] keep):
    """Removes whole rows, and parents left without items.

    Args:
        wire: The request.
        tables: The rows from the resources down to the items.
        depth: The table that ``keep`` is about.
        keep: One byte per row of ``tables[depth]``.

    Returns:
        The new request, its ``OffsetMap`` and, for each table, the new index of each row (I32, -1 = removed), or None
        if nothing is removed.
    """
    cdef Walk walk
    cdef Level* level
    cdef Level* above
    cdef Py_ssize_t i, total = 0, kept, dropped = 0
    cdef int32_t parent
    cdef int d
    cdef OffsetMap offset_map = OffsetMap()
    cdef int count = len(tables)
    if not 0 < count <= MAX_LEVELS or not 0 <= depth < count:
        raise ValueError(f"there is no table at depth {depth} of {count} tables")
    maps = []
    for d in range(count):
        rows = tables[d]
        level = &walk.levels[d]
        level.rows = row_data(rows)
        level.count = len(rows)
        level.row_bytes = rows.dtype.itemsize
        new = np.full(level.count, -1, np.int32)
        maps.append(new)
        level.new = <int32_t*>cnp.PyArray_DATA(<cnp.ndarray>new)
        level.data_at = rows.dtype.fields["data_start"][1] if "data_start" in rows.dtype.names else 0
        level.cursor = 0
        total += level.count
        if d > 0:
            for i in range(level.count):
                parent = row_at(level, i)[0]
                if not 0 <= parent < walk.levels[d - 1].count:
                    raise ValueError(f"row {i} does not have a parent")
    if keep.shape[0] != walk.levels[depth].count:
        raise ValueError(f"expected a mask of {walk.levels[depth].count} rows, got {keep.shape[0]}")
    walk.level_count, walk.patch_count, walk.frame_count = count, 0, 0
    level = &walk.levels[depth]
    for i in range(level.count):
        if keep[i]:
            level.new[i] = 0
    for d in range(depth + 1, count):
        level, above = &walk.levels[d], &walk.levels[d - 1]
        for i in range(level.count):
            level.new[i] = above.new[row_at(level, i)[0]]
    for d in range(count - 1, 0, -1):                   # from the items up: a parent stays if a child does
        level, above = &walk.levels[d], &walk.levels[d - 1]
        for i in range(above.count):
            above.new[i] = -1
        for i in range(level.count):
            if level.new[i] >= 0:
                above.new[row_at(level, i)[0]] = 0
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
        if len(wire) >= RELEASE_GIL_BYTES:
            with nogil:
                walk_below(&walk, 0, -1)
        else:
            walk_below(&walk, 0, -1)
        result = splice(wire, walk.patches, walk.patch_count, NULL, 0, walk.frames, walk.frame_count, offset_map, NULL)
    finally:
        free(walk.patches)
        free(walk.frames)
    return result, offset_map, maps


cdef void walk_below(Walk* walk, int depth, int32_t parent) noexcept nogil:
    """Collects, in document order, what to cut below one kept parent and the frames around it."""
    cdef Level* level = &walk.levels[depth]
    cdef const int32_t* row
    cdef const int32_t* data
    cdef Patch* patch = NULL           # the current cut, shared by adjacent rows of one parent
    while level.cursor < level.count:
        row = row_at(level, level.cursor)
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
                    set_frame(&walk.frames[walk.frame_count], row[1], row[2], row[3])
                    walk.frame_count += 1
                    if level.data_at > 0:
                        data = <const int32_t*>(<const uint8_t*>row + level.data_at)
                        if data[0] >= 0:
                            set_frame(&walk.frames[walk.frame_count], data[0], data[1], data[2])
                            walk.frame_count += 1
                    walk_below(walk, depth + 1, <int32_t>level.cursor)
        level.cursor += 1


cdef inline const int32_t* row_at(const Level* level, Py_ssize_t i) noexcept nogil:
    return <const int32_t*>(level.rows + i * level.row_bytes)


cdef bytes splice(
    bytes wire,
    Patch* patches,
    Py_ssize_t patch_count,
    const uint8_t* payload,
    int64_t payload_length,
    Frame* frames,
    Py_ssize_t frame_count,
    OffsetMap offset_map,
    int32_t* placed,
):
    cdef const uint8_t* source = <const uint8_t*>PyBytes_AS_STRING(wire)
    cdef int64_t wire_length = len(wire), total
    cdef int64_t* sums = <int64_t*>malloc((patch_count + 1) * sizeof(int64_t))
    cdef bint release = wire_length >= RELEASE_GIL_BYTES
    cdef bytes result
    cdef uint8_t* out
    if sums == NULL:
        raise MemoryError
    if release:
        with nogil:
            total = measure(source, wire_length, patches, patch_count, payload_length, frames, frame_count, sums)
    else:
        total = measure(source, wire_length, patches, patch_count, payload_length, frames, frame_count, sums)
    free(sums)
    if total < 0:
        raise ValueError("patches overlap, or frames are not nested messages")
    if total >= MAX_BYTES:
        raise ValueError(f"the batch would have {total} bytes; the limit is {MAX_BYTES} (32-bit offsets)")
    offset_map.reserve(patch_count + frame_count)
    result = PyBytes_FromStringAndSize(NULL, total)
    out = <uint8_t*>PyBytes_AS_STRING(result)
    if release:
        with nogil:
            total = write(
                source, wire_length, patches, patch_count, payload, frames, frame_count, out, total, offset_map, placed
            )
    else:
        total = write(
            source, wire_length, patches, patch_count, payload, frames, frame_count, out, total, offset_map, placed
        )
    if total < 0:
        raise ValueError("a patch overlaps the length of a frame")
    return result


cdef int64_t measure(
    const uint8_t* wire,
    int64_t wire_length,
    const Patch* patches,
    Py_ssize_t patch_count,
    int64_t payload_length,
    Frame* frames,
    Py_ssize_t frame_count,
    int64_t* sums,
) noexcept nogil:
    """The length of the new request, or -1 if patches or frames break the rules. Also sets the length of each frame."""
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
        low, high, step = cursor, cursor, 1              # most frames hold few patches: search the end in growing steps
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
            growth = varint_size(<uint64_t>length) - (frame.body - frame.length_at)
        total += growth
        if frame.parent >= 0:
            frames[frame.parent].inner += frame.inner + growth
    return total


cdef int64_t write(
    const uint8_t* wire,
    int64_t wire_length,
    const Patch* patches,
    Py_ssize_t patch_count,
    const uint8_t* payload,
    const Frame* frames,
    Py_ssize_t frame_count,
    uint8_t* out,
    int64_t out_length,
    OffsetMap offset_map,
    int32_t* placed,
) noexcept nogil:
    """Writes the new request; returns its length, or -1 if patches and lengths overlap."""
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
            length = varint_size(<uint64_t>frames[f].length)
        else:
            offset, deleted, length = patches[p].offset, patches[p].deleted, patches[p].length
        run = offset - read
        if run < 0 or written + run + length > out_length:
            return -1
        memcpy(out + written, wire + read, run)
        written += run
        if is_length:
            set_varint(out + written, <uint64_t>frames[f].length)
            written += length
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
        offset_map.edges[k] = 2 * read + (1 if deleted == 0 else 0)
        offset_map.moved[k] = moved
        k += 1
    run = wire_length - read
    if written + run != out_length:
        return -1
    memcpy(out + written, wire + read, run)
    offset_map.count = k
    return out_length


cdef inline void set_frame(Frame* frame, int64_t start, int64_t body, int64_t end) noexcept nogil:
    frame.start, frame.body, frame.end = start, body, end


ctypedef int (*Order)(const void*, const void*) noexcept nogil


cdef bint merge_runs(uint8_t* items, Py_ssize_t count, size_t size, Order order) noexcept nogil:
    """Sorts what consists of a few sorted runs: the patches of each field, the frames of each table. It is stable.

    Returns False without memory.
    """
    cdef uint8_t* other = <uint8_t*>malloc(count * size)
    cdef uint8_t* source = items
    cdef uint8_t* target = other
    cdef uint8_t* out
    cdef Py_ssize_t left, middle, right, i, j, runs = 2
    if other == NULL:
        return False
    while runs > 1:
        left, runs, out = 0, 0, target
        while left < count:
            middle = run_end(source, left, count, size, order)
            right = run_end(source, middle, count, size, order)
            i, j = left, middle
            while i < middle and j < right:
                if order(source + i * size, source + j * size) <= 0:
                    memcpy(out, source + i * size, size)
                    i += 1
                else:
                    memcpy(out, source + j * size, size)
                    j += 1
                out += size
            memcpy(out, source + i * size, (middle - i) * size)
            out += (middle - i) * size
            memcpy(out, source + j * size, (right - j) * size)
            out += (right - j) * size
            left = right
            runs += 1
        out = source
        source = target
        target = out
    if source != items:
        memcpy(items, source, count * size)
    free(other)
    return True


cdef Py_ssize_t run_end(
    const uint8_t* items, Py_ssize_t first, Py_ssize_t count, size_t size, Order order
) noexcept nogil:
    """The end of the sorted run that begins at ``first``."""
    if first >= count:
        return count
    first += 1
    while first < count and order(items + (first - 1) * size, items + first * size) <= 0:
        first += 1
    return first


cdef int by_offset(const void* a, const void* b) noexcept nogil:
    cdef const Patch* one = <const Patch*>a
    cdef const Patch* other = <const Patch*>b
    cdef int64_t by = 2 * one.offset + (one.deleted > 0) - 2 * other.offset - (other.deleted > 0)
    if by == 0:
        by = one.number - other.number
    return (by > 0) - (by < 0)


cdef int by_start(const void* a, const void* b) noexcept nogil:
    cdef int64_t by = (<const Frame*>a).start - (<const Frame*>b).start
    return (by > 0) - (by < 0)
