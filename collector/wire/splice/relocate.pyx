"""Rows of the index moved to another request: selected, joined, and their offsets changed. Nothing is parsed."""

import numpy as np

cimport numpy as cnp
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cnp.import_array()

__all__ = ["OffsetMap", "join_rows", "take_rows"]

cdef enum Edge:         # what an offset points to, which decides where it is after an insertion at the same offset
    START = 0           # the first byte of something: what is inserted there comes before it
    CONTENT = 1         # directly after a length: what is inserted there comes after it
    END = 2

cdef enum:
    MAX_BYTES = 0x7FFFFFFF
    MAX_OFFSETS = 32    # per row


cdef class OffsetFields:
    """The fields of a row that are offsets into the request, and what they point to."""

    cdef int count
    cdef int32_t[MAX_OFFSETS] at
    cdef int32_t[MAX_OFFSETS] edge
    cdef readonly int row_bytes

    def __cinit__(self, dtype):
        self.count = 0
        self.row_bytes = dtype.itemsize
        is_attribute = "owner" in dtype.names
        for name in dtype.names:
            if name.endswith("start"):
                edge = START
            elif name.endswith("body"):
                edge = CONTENT
            elif name == "end" or name.endswith("_end"):
                # Something may be inserted after an attribute; no other row ends where anything is inserted outside it.
                edge = CONTENT if is_attribute else END
            elif name + "_len" in dtype.names:
                edge = CONTENT
            else:
                continue
            self.at[self.count] = dtype.fields[name][1]
            self.edge[self.count] = edge
            self.count += 1


cdef class OffsetMap:
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
        """A copy of ``rows``, none of which is in deleted bytes, with the offsets in the new request."""
        return take_rows(rows, None, None, self)[0]


def take_rows(cnp.ndarray rows, new, parents, OffsetMap offset_map):
    """Copies of the kept rows, with new parents and offsets, and the new index of each old row (I32, -1 = dropped).

    Args:
        rows: The rows of a table.
        new: The new index of each row if it is known; None = a row is kept if its parent is.
        parents: The new index of each parent row; None = parents keep their index.
        offset_map: The map of offsets; None = offsets stay.
    """
    cdef OffsetFields fields = offset_fields(rows)
    cdef const uint8_t* source = row_data(rows)
    cdef Py_ssize_t count = len(rows), row_bytes = fields.row_bytes, i, kept = 0, parent_count = 0
    cdef int32_t* new_index = NULL
    cdef const int32_t* new_parent = NULL
    cdef uint8_t* out
    cdef bint is_attribute = "owner" in rows.dtype.names
    cdef cnp.ndarray result
    if parents is not None:
        new_parent = int32_data(parents)
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
                    raise ValueError(f"row {i} does not have a parent")
        if new is None:
            new = np.empty(count, np.int32)
            new_index = int32_data(new)
            for i in range(count):
                if new_parent[(<const int32_t*>(source + i * row_bytes))[0]] >= 0:
                    new_index[i] = <int32_t>kept
                    kept += 1
                else:
                    new_index[i] = -1
        else:
            new_index = int32_data(new)
            if len(new) != count:
                raise ValueError(f"expected the new index of {count} rows, got {len(new)}")
            for i in range(count):
                if new_index[i] >= 0:
                    kept += 1
        result = np.empty(kept, rows.dtype)
        out = <uint8_t*>cnp.PyArray_DATA(result)
        kept = 0
        for i in range(count):
            if new_index[i] >= 0:
                memcpy(out + kept * row_bytes, source + i * row_bytes, row_bytes)
                if new_parent != NULL:
                    (<int32_t*>(out + kept * row_bytes))[0] = new_parent[(<const int32_t*>(source + i * row_bytes))[0]]
                kept += 1
    if offset_map is not None and offset_map.count > 0:
        move_offsets(out, kept, fields, is_attribute, offset_map)
    return result, new


def join_rows(list parts, const int64_t[::1] byte_bases, const int64_t[::1] parent_bases, codes=None):
    """The rows of one table of several requests as one table over the joined requests.

    Args:
        parts: The rows of each request.
        byte_bases: Where the bytes of each request begin.
        parent_bases: Where the parent rows of each request begin.
        codes: For attributes: the new code of each key of each request, or None where the codes stay.
    """
    cdef Py_ssize_t part, count = len(parts), total = 0, i, n, row_bytes
    cdef OffsetFields fields
    cdef uint8_t* out
    cdef int32_t* value
    cdef int32_t byte_base, parent_base
    cdef const int32_t* new_code
    cdef Py_ssize_t code_at = 0, code_count
    cdef int k
    cdef cnp.ndarray rows, result
    if count == 0 or byte_bases.shape[0] != count or parent_bases.shape[0] != count:
        raise ValueError("expected one byte base and one parent base per part")
    rows = parts[0]
    dtype = rows.dtype
    fields = offset_fields(rows)
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
            raise TypeError("cannot join rows of different tables")
        n = len(rows)
        if not 0 <= byte_bases[part] < MAX_BYTES or not 0 <= parent_bases[part] < MAX_BYTES:
            raise ValueError("the joined requests would reach 2 GiB; the limit is that of 32-bit offsets")
        byte_base, parent_base = <int32_t>byte_bases[part], <int32_t>parent_bases[part]
        new_code = NULL
        code_count = 0
        if codes is not None and codes[part] is not None:
            new_code = int32_data(codes[part])
            code_count = len(codes[part])
        memcpy(out, row_data(rows), n * row_bytes)
        for i in range(n):
            value = <int32_t*>out
            if value[0] >= 0:
                value[0] += parent_base
            for k in range(fields.count):
                value = <int32_t*>(out + fields.at[k])
                if value[0] >= 0:
                    value[0] += byte_base
            if new_code != NULL:
                value = <int32_t*>(out + code_at)
                if not 0 <= value[0] < code_count:
                    raise ValueError(f"key code {value[0]} is out of range")
                value[0] = new_code[value[0]]
            out += row_bytes
    return result


cdef void move_offsets(
    uint8_t* row, Py_ssize_t row_count, OffsetFields fields, bint is_attribute, OffsetMap offset_map
) noexcept nogil:
    """Moves all offsets of rows.

    Rows are in order unless they were forged, so the edge found for one row is only a hint for the next.
    """
    cdef const int64_t* edges = offset_map.edges
    cdef const int64_t* moved = offset_map.moved
    cdef Py_ssize_t edge_count = offset_map.count, row_bytes = fields.row_bytes, low = 0, found, i
    cdef int field_count = fields.count, k
    cdef int32_t[MAX_OFFSETS] at
    cdef int64_t key, end
    cdef int32_t before
    cdef int32_t* value
    for k in range(field_count):
        at[k] = fields.at[k]
    for i in range(row_count):
        key = 2 * <int64_t>(<int32_t*>row)[1] + 1
        end = 2 * <int64_t>(<int32_t*>row)[2 if is_attribute else 3] + 1
        if low > 0 and edges[low - 1] > key:
            low = 0
        while low < edge_count and edges[low] <= key:
            low += 1
        before = <int32_t>moved[low - 1] if low > 0 else 0
        if low >= edge_count or edges[low] > end:      # nothing changed inside the row
            if before != 0:
                for k in range(field_count):
                    value = <int32_t*>(row + at[k])
                    if value[0] >= 0:
                        value[0] += before
        else:
            for k in range(field_count):
                value = <int32_t*>(row + at[k])
                if value[0] >= 0:
                    key = 2 * <int64_t>value[0] + (0 if fields.edge[k] == CONTENT else 1)
                    found = edges_up_to(edges, edge_count, key, low)
                    if found > 0:
                        value[0] += <int32_t>moved[found - 1]
        row += row_bytes


cdef inline Py_ssize_t edges_up_to(const int64_t* edges, Py_ssize_t count, int64_t key, Py_ssize_t low) noexcept nogil:
    """The number of edges that are at most ``key``; at least ``low`` of them are."""
    cdef Py_ssize_t high = count
    cdef Py_ssize_t middle
    while low < high:
        middle = (low + high) >> 1
        if edges[middle] <= key:
            low = middle + 1
        else:
            high = middle
    return low


cdef dict fields_by_dtype = {}


cdef OffsetFields offset_fields(cnp.ndarray rows):
    dtype = rows.dtype
    fields = fields_by_dtype.get(dtype)
    if fields is None:
        fields = fields_by_dtype[dtype] = OffsetFields(dtype)
    return fields


cdef int32_t* int32_data(cnp.ndarray array) except? NULL:
    if array.dtype != np.int32 or not array.flags.c_contiguous:
        raise TypeError(f"expected a contiguous int32 array, got dtype {array.dtype}")
    return <int32_t*>cnp.PyArray_DATA(array)


cdef uint8_t* row_data(cnp.ndarray rows) except? NULL:
    if not rows.flags.c_contiguous or rows.ndim != 1:
        raise TypeError("expected a contiguous array of rows")
    return <uint8_t*>cnp.PyArray_DATA(rows)
