"""One protobuf message per row, from columns.

This kernel knows the wire format of protobuf only; ``collector.model.builders`` decides which column becomes which
field of which message. Numbers and ids of zero and empty texts are left out, as proto3 serialisers do; values with
presence are always written.

Source: https://protobuf.dev/programming-guides/encoding/
"""

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_fixed32, put_fixed64, put_number, put_slice, reserve,
    set_varint, take, varint_size,
)

cnp.import_array()

__all__ = [
    "FIXED32",
    "FIXED64",
    "ID8",
    "ID16",
    "NUMBER",
    "PACKED64",
    "PACKED_NUMBER",
    "RAW",
    "TEXT",
    "VALUE64",
    "ZIGZAG",
    "MessageField",
    "Pool",
    "encode_rows",
]

cdef enum:
    MAX_FIELDS = 24
    EXPECTED_ROW_BYTES = 64

cdef enum Kind:             # of a MessageField
    K_FIXED64 = 0           # 8-byte values, zero left out
    K_VALUE64 = 1           # 8-byte values with presence: written where the mask says so
    K_FIXED32 = 2
    K_NUMBER = 3            # varint of a 64-bit value
    K_ZIGZAG = 4            # sint32
    K_ID16 = 5              # U64[n,2] as 16 big-endian bytes
    K_ID8 = 6
    K_TEXT = 7              # a pool's bytes as a length-delimited field
    K_RAW = 8               # a pool's bytes, which include their tags
    K_PACKED64 = 9          # several 8-byte values per row
    K_PACKED_NUMBER = 10    # several varints per row

FIXED64, VALUE64, FIXED32, NUMBER, ZIGZAG, ID16, ID8, TEXT, RAW, PACKED64, PACKED_NUMBER = range(11)

cdef int[11] WIRE_TYPES = [1, 1, 5, 0, 0, 2, 2, 2, 2, 2, 2]
cdef dict DTYPES = {
    K_FIXED64: np.uint64,
    K_VALUE64: np.uint64,
    K_FIXED32: np.uint32,
    K_NUMBER: np.uint64,
    K_ZIGZAG: np.int32,
    K_ID16: np.uint64,
    K_ID8: np.uint64,
    K_PACKED64: np.uint64,
    K_PACKED_NUMBER: np.uint64,
}


cdef class Pool:
    """Byte strings for rows: row ``i`` has ``blob[offsets[v]:offsets[v + 1]]`` with ``v = codes[i]``, -1 = none."""

    cdef readonly bytes blob
    cdef readonly object codes, offsets
    cdef const int32_t* _codes
    cdef const int64_t* _offsets
    cdef const uint8_t* _blob

    def __init__(self, codes, bytes blob not None, offsets):
        """Checks the arguments.

        Raises:
            ValueError: A code or an offset is out of range.
        """
        codes = np.ascontiguousarray(codes, np.int32)
        offsets = np.ascontiguousarray(offsets, np.int64)
        if codes.ndim != 1 or offsets.ndim != 1 or not len(offsets):
            raise ValueError("codes must be I32[n] and offsets I64[d + 1]")
        if offsets[0] < 0 or offsets[-1] > len(blob) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("offsets must ascend within the blob")
        if len(codes) and (codes.min() < -1 or codes.max() >= len(offsets) - 1):
            raise ValueError(f"expected codes from -1 to {len(offsets) - 2}, got {codes.min()} to {codes.max()}")
        # The kernel reads these without further checks, so nobody else may be able to write to them.
        self.codes, self.blob, self.offsets = owned(codes), blob, owned(offsets)
        self._codes = <const int32_t*>cnp.PyArray_DATA(<cnp.ndarray>self.codes)
        self._offsets = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>self.offsets)
        self._blob = <const uint8_t*>PyBytes_AS_STRING(blob)

    def __len__(self):
        return len(self.codes)

    def bytes_of(self, Py_ssize_t value):
        """One distinct value."""
        return self.blob[self.offsets[value] : self.offsets[value + 1]]


cdef class MessageField:
    """One field of the message written for each row."""

    cdef int _kind
    cdef uint32_t _tag
    cdef object _values, _extra
    cdef const uint8_t* _data
    cdef const uint8_t* _mask
    cdef const int64_t* _splits
    cdef Pool _pool
    cdef readonly Py_ssize_t row_count

    def __init__(self, int kind, int number, values, extra=None):
        """The field ``number`` with ``values``.

        Args:
            kind: A constant of this module.
            number: The number of the field; ignored for RAW.
            values: A ``Pool`` for TEXT and RAW, otherwise an array: U64[n,2] for ID16, flat for the packed kinds.
                8-byte floats and signed integers are taken by their bits for 8-byte kinds.
            extra: bool[n] for VALUE64: where it is present; None = everywhere. I64[n + 1] row splits for the packed
                kinds.

        Raises:
            ValueError: The shapes do not match, or there is no such kind or number.
        """
        if not 0 <= kind <= K_PACKED_NUMBER or not 1 <= number <= 0xFFFF:
            raise ValueError(f"kind {kind} or field number {number} is out of range")
        self._kind = kind
        self._tag = <uint32_t>(number << 3 | WIRE_TYPES[kind])
        if kind == K_TEXT or kind == K_RAW:
            self._pool = values
            self.row_count = len(values)
            return
        dtype = np.dtype(DTYPES[kind])
        array = np.asarray(values)
        if array.dtype != dtype:
            by_bits = array.dtype.kind == "f" and array.dtype.itemsize == dtype.itemsize
            array = array.view(dtype) if by_bits else array.astype(dtype)
        self._values = array = np.ascontiguousarray(array)
        if array.shape[1:] != ((2,) if kind == K_ID16 else ()) or array.ndim < 1:
            raise ValueError(f"a column of this kind cannot have the shape {array.shape}")
        self._data = <const uint8_t*>cnp.PyArray_DATA(<cnp.ndarray>array)
        self.row_count = len(array)
        if extra is not None and kind == K_VALUE64:
            self._extra = extra = np.ascontiguousarray(extra, np.bool_)
            if extra.shape != (self.row_count,):
                raise ValueError(f"expected a mask of {self.row_count} rows, got shape {extra.shape}")
            self._mask = <const uint8_t*>cnp.PyArray_DATA(<cnp.ndarray>extra)
        elif kind == K_PACKED64 or kind == K_PACKED_NUMBER:
            self._extra = splits = owned(np.ascontiguousarray(extra, np.int64))
            if splits.ndim != 1 or not len(splits):
                raise ValueError("row splits must be I64[n + 1]")
            if splits[0] < 0 or splits[-1] > len(array) or (splits[1:] < splits[:-1]).any():
                raise ValueError("row splits must ascend within the values")
            self._splits = <const int64_t*>cnp.PyArray_DATA(<cnp.ndarray>splits)
            self.row_count = len(splits) - 1


ctypedef struct Part:           # a MessageField as the kernel sees it
    int kind
    uint32_t tag
    const uint8_t* data         # the values, or the pool's blob
    const uint8_t* mask
    const int64_t* splits       # the row splits, or the pool's offsets
    const int32_t* codes


def encode_rows(int number, Py_ssize_t row_count, fields, bint skip_empty=False):
    """A message per row with the given fields in their order, as the length-delimited field ``number`` of another one.

    The result is a ``Pool`` with one value per row; it can be a RAW field of the enclosing message, and its ``blob`` is
    the bytes of all rows.

    Args:
        number: The number of the message in the enclosing message.
        row_count: The number of rows.
        fields: ``MessageField`` objects with as many rows each; None is ignored.
        skip_empty: Whether to write nothing at all for a row whose message would be empty.

    Raises:
        ValueError: A field has another number of rows, or there are more than 24 fields.
    """
    cdef Part[MAX_FIELDS] parts
    cdef int count = 0
    cdef MessageField field
    cdef Writer w
    cdef Pool pool
    cdef uint32_t tag = <uint32_t>(number << 3 | 2)
    if not 1 <= number <= 0xFFFF:
        raise ValueError(f"field number {number} is out of range")
    present = [given for given in fields if given is not None]
    for field in present:
        if field.row_count != row_count:
            raise ValueError(f"expected {row_count} rows in field {field._tag >> 3}, got {field.row_count}")
        if count == MAX_FIELDS:
            raise ValueError(f"a message of more than {MAX_FIELDS} fields is not supported")
        parts[count].kind = field._kind
        parts[count].tag = field._tag
        parts[count].data = field._data
        parts[count].mask = field._mask
        parts[count].splits = field._splits
        if field._pool is not None:
            parts[count].data = field._pool._blob
            parts[count].splits = field._pool._offsets
            parts[count].codes = field._pool._codes
        count += 1
    offsets = np.empty(row_count + 1, np.int64)
    cdef int64_t* marks = <int64_t*>cnp.PyArray_DATA(<cnp.ndarray>offsets)
    open_writer(&w, row_count * EXPECTED_ROW_BYTES)
    try:
        if row_count * EXPECTED_ROW_BYTES > RELEASE_GIL_BYTES:
            with nogil:
                write_rows(&w, tag, row_count, parts, count, skip_empty, marks)
        else:
            write_rows(&w, tag, row_count, parts, count, skip_empty, marks)
        return Pool(np.arange(row_count, dtype=np.int32), take(&w), offsets)
    finally:
        close_writer(&w)


cdef void write_rows(
    Writer* w, uint32_t tag, Py_ssize_t row_count, const Part* parts, int part_count, bint skip_empty, int64_t* offsets
) noexcept nogil:
    cdef Py_ssize_t row, start, mark
    cdef int i
    offsets[0] = 0
    for row in range(row_count):
        start = w.size
        mark = begin(w, tag)
        for i in range(part_count):
            write_part(w, parts + i, row)
        if skip_empty and w.size == mark:
            w.size = start
        else:
            end(w, mark)
        offsets[row + 1] = w.size


cdef void write_part(Writer* w, const Part* part, Py_ssize_t row) noexcept nogil:
    cdef uint64_t[2] words
    cdef uint32_t half
    cdef int32_t small
    cdef int64_t i, length
    if part.kind == K_TEXT or part.kind == K_RAW:
        if part.codes[row] >= 0:
            i = part.splits[part.codes[row]]
            length = part.splits[part.codes[row] + 1] - i
            if part.kind == K_RAW:
                put_bytes(w, part.data + i, length)
            elif length:
                put_slice(w, part.tag, part.data + i, length)
    elif part.kind == K_FIXED64:
        memcpy(words, part.data + 8 * row, 8)
        if words[0]:
            put_fixed64(w, part.tag, words[0])
    elif part.kind == K_VALUE64:
        if part.mask == NULL or part.mask[row]:
            memcpy(words, part.data + 8 * row, 8)
            put_fixed64(w, part.tag, words[0])
    elif part.kind == K_FIXED32:
        memcpy(&half, part.data + 4 * row, 4)
        if half:
            put_fixed32(w, part.tag, half)
    elif part.kind == K_NUMBER:
        memcpy(words, part.data + 8 * row, 8)
        if words[0]:
            put_number(w, part.tag, words[0])
    elif part.kind == K_ZIGZAG:
        memcpy(&small, part.data + 4 * row, 4)
        if small:
            put_number(w, part.tag, (<uint32_t>small << 1) ^ <uint32_t>(small >> 31))
    elif part.kind == K_ID16:
        memcpy(words, part.data + 16 * row, 16)
        if words[0] | words[1]:
            words[0] = big_endian(words[0])
            words[1] = big_endian(words[1])
            put_slice(w, part.tag, words, 16)
    elif part.kind == K_ID8:
        memcpy(words, part.data + 8 * row, 8)
        if words[0]:
            words[0] = big_endian(words[0])
            put_slice(w, part.tag, words, 8)
    elif part.splits[row + 1] > part.splits[row]:
        if part.kind == K_PACKED64:
            put_slice(w, part.tag, part.data + 8 * part.splits[row], 8 * (part.splits[row + 1] - part.splits[row]))
        else:
            length = 0
            for i in range(part.splits[row], part.splits[row + 1]):
                memcpy(words, part.data + 8 * i, 8)
                length += varint_size(words[0])
            if reserve(w, length + 20):
                w.size = set_varint(set_varint(w.data + w.size, part.tag), <uint64_t>length) - w.data
                for i in range(part.splits[row], part.splits[row + 1]):
                    memcpy(words, part.data + 8 * i, 8)
                    w.size = set_varint(w.data + w.size, words[0]) - w.data


cdef inline uint64_t big_endian(uint64_t value) noexcept nogil:
    value = ((value & <uint64_t>0x00FF00FF00FF00FF) << 8) | ((value >> 8) & <uint64_t>0x00FF00FF00FF00FF)
    value = ((value & <uint64_t>0x0000FFFF0000FFFF) << 16) | ((value >> 16) & <uint64_t>0x0000FFFF0000FFFF)
    return (value << 32) | (value >> 32)


cdef object owned(array):
    array = array.copy() if array.flags.writeable or array.base is not None else array
    array.flags.writeable = False
    return array
