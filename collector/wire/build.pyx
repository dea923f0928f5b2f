"""Columns to protobuf messages: one kernel that writes a message a row from a list of fields, and the encoder of attribute sets.

It knows the protobuf wire format and ``AnyValue``; which field of which message takes which column is ``collector.model.builders``'
business. Zero numbers, ids and texts are left out, as proto3 serialisers do; values with presence are written whatever they are.

Source: the protobuf encoding specification; ``AnyValue``, ``KeyValue`` of opentelemetry-proto ``common/v1/common.proto``.
"""

from collections.abc import Mapping, Sequence

import numpy as np

cimport numpy as cnp
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_fixed32, put_fixed64, put_number, put_slice, reserve, set_varint, take,
    varint_size,
)

cnp.import_array()

# What AnyValue may nest, this product's limit at the door (Go's and upb's parsers stop at 100 messages).
DEPTH_MAX = 30
cdef int _DEPTH_MAX = DEPTH_MAX
cdef Py_ssize_t RELEASE_BYTES = 256 * 1024

# Kinds of a Field.
cdef enum:
    K_FIXED64 = 0           # 8-byte values, zero left out
    K_VALUE64 = 1           # 8-byte values with presence: written where the mask says so
    K_FIXED32 = 2
    K_NUMBER = 3            # varint of a 64-bit value
    K_ZIGZAG = 4            # sint32
    K_ID16 = 5              # U64[n,2] as 16 big-endian bytes
    K_ID8 = 6
    K_TEXT = 7              # a pool's bytes as a length-delimited field
    K_RAW = 8               # a pool's bytes as they are: they carry their tags
    K_PACKED64 = 9          # some 8-byte values a row
    K_PACKED_NUMBER = 10    # some varints a row

FIXED64, VALUE64, FIXED32, NUMBER, ZIGZAG, ID16, ID8, TEXT, RAW, PACKED64, PACKED_NUMBER = range(11)

cdef int[11] WIRE_TYPES = [1, 1, 5, 0, 0, 2, 2, 2, 2, 2, 2]
DTYPES = {
    K_FIXED64: np.uint64, K_VALUE64: np.uint64, K_FIXED32: np.uint32, K_NUMBER: np.uint64, K_ZIGZAG: np.int32, K_ID16: np.uint64,
    K_ID8: np.uint64, K_PACKED64: np.uint64, K_PACKED_NUMBER: np.uint64,
}


cdef class Pool:
    """Byte strings for rows: row ``i`` has value ``codes[i]`` (-1 = none) of ``blob[offsets[v]:offsets[v + 1]]``."""

    cdef readonly bytes blob
    cdef readonly object codes, offsets
    cdef const int32_t *_codes
    cdef const int64_t *_offsets
    cdef const uint8_t *_blob

    def __init__(self, codes, bytes blob not None, offsets):
        """Raises ValueError when a code or an offset points at nothing."""
        codes = np.ascontiguousarray(codes, np.int32)
        offsets = np.ascontiguousarray(offsets, np.int64)
        if codes.ndim != 1 or offsets.ndim != 1 or not len(offsets):
            raise ValueError("codes must be I32[n] and offsets I64[d+1]")
        if offsets[0] < 0 or offsets[-1] > len(blob) or (offsets[1:] < offsets[:-1]).any():
            raise ValueError("offsets must ascend within the blob")
        if len(codes) and (codes.min() < -1 or codes.max() >= len(offsets) - 1):
            raise ValueError(f"codes must be -1 to {len(offsets) - 2}")
        # The kernel reads these without asking again: they must be ours alone.
        self.codes, self.blob, self.offsets = _owned(codes), blob, _owned(offsets)
        self._codes = <const int32_t *>cnp.PyArray_DATA(<cnp.ndarray>self.codes)
        self._offsets = <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>self.offsets)
        self._blob = <const uint8_t *>PyBytes_AS_STRING(blob)

    def __len__(self):
        return len(self.codes)

    def bytes_of(self, Py_ssize_t value):
        """One distinct value."""
        return self.blob[self.offsets[value] : self.offsets[value + 1]]


cdef object _owned(array):
    array = array.copy() if array.flags.writeable or array.base is not None else array
    array.flags.writeable = False
    return array


cdef class Field:
    """One field of the message written a row."""

    cdef int _kind
    cdef uint32_t _tag
    cdef object _values, _extra
    cdef const uint8_t *_data
    cdef const uint8_t *_mask
    cdef const int64_t *_splits
    cdef Pool _pool
    cdef readonly Py_ssize_t row_count

    def __init__(self, int kind, int number, values, extra=None):
        """Field ``number`` from ``values``.

        Args:
            kind: A constant of this module.
            number: The field's number; of no account for RAW.
            values: A ``Pool`` for TEXT and RAW, else an array: of U64[n,2] for ID16, flat for the packed kinds; 8-byte floats and signed
                integers are taken by their bits for 8-byte kinds.
            extra: bool[n] for VALUE64: where it is present; None = everywhere. I64[n+1] row splits for the packed kinds.

        Raises:
            ValueError: the shapes do not fit.
        """
        if not 0 <= kind <= K_PACKED_NUMBER or not 1 <= number <= 0xFFFF:
            raise ValueError("no such kind of field, or number")
        self._kind = kind
        self._tag = <uint32_t>(number << 3 | WIRE_TYPES[kind])
        if kind == K_TEXT or kind == K_RAW:
            self._pool = values
            self.row_count = len(values)
            return
        dtype = np.dtype(DTYPES[kind])
        array = np.asarray(values)
        if array.dtype != dtype:
            array = array.view(dtype) if array.dtype.kind == "f" and array.dtype.itemsize == dtype.itemsize else array.astype(dtype)
        self._values = array = np.ascontiguousarray(array)
        if array.shape[1:] != ((2,) if kind == K_ID16 else ()) or array.ndim < 1:
            raise ValueError(f"a column of this kind cannot have shape {array.shape}")
        self._data = <const uint8_t *>cnp.PyArray_DATA(<cnp.ndarray>array)
        self.row_count = len(array)
        if extra is not None and kind == K_VALUE64:
            self._extra = extra = np.ascontiguousarray(extra, np.bool_)
            if extra.shape != (self.row_count,):
                raise ValueError("the mask of presence has another length")
            self._mask = <const uint8_t *>cnp.PyArray_DATA(<cnp.ndarray>extra)
        elif kind == K_PACKED64 or kind == K_PACKED_NUMBER:
            self._extra = splits = _owned(np.ascontiguousarray(extra, np.int64))
            if splits.ndim != 1 or not len(splits) or splits[0] < 0 or splits[-1] > len(array) or (splits[1:] < splits[:-1]).any():
                raise ValueError("row splits must ascend within the values")
            self._splits = <const int64_t *>cnp.PyArray_DATA(<cnp.ndarray>splits)
            self.row_count = len(splits) - 1


ctypedef struct Part:           # a Field as the kernel sees it
    int kind
    uint32_t tag
    const uint8_t *data         # or the pool's blob
    const uint8_t *mask
    const int64_t *splits       # or the pool's offsets
    const int32_t *codes


cdef inline uint64_t _big_endian(uint64_t value) noexcept nogil:
    value = ((value & <uint64_t>0x00FF00FF00FF00FF) << 8) | ((value >> 8) & <uint64_t>0x00FF00FF00FF00FF)
    value = ((value & <uint64_t>0x0000FFFF0000FFFF) << 16) | ((value >> 16) & <uint64_t>0x0000FFFF0000FFFF)
    return (value << 32) | (value >> 32)


cdef void _write_part(Writer *w, const Part *part, Py_ssize_t row) noexcept nogil:
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
            words[0] = _big_endian(words[0])
            words[1] = _big_endian(words[1])
            put_slice(w, part.tag, words, 16)
    elif part.kind == K_ID8:
        memcpy(words, part.data + 8 * row, 8)
        if words[0]:
            words[0] = _big_endian(words[0])
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


cdef void _write_rows(
    Writer *w, uint32_t tag, Py_ssize_t row_count, const Part *parts, int part_count, bint skip_empty, int64_t *offsets
) noexcept nogil:
    cdef Py_ssize_t row, start, mark
    cdef int i
    offsets[0] = 0
    for row in range(row_count):
        start = w.size
        mark = begin(w, tag)
        for i in range(part_count):
            _write_part(w, parts + i, row)
        if skip_empty and w.size == mark:
            w.size = start
        else:
            end(w, mark)
        offsets[row + 1] = w.size


def encode_rows(int number, Py_ssize_t row_count, fields, bint skip_empty=False):
    """A length-delimited field ``number`` for each row, holding its fields in the order given: a ``Pool`` with one value a row.

    Its ``blob`` is all rows' bytes one after the other; the pool itself is a RAW field of the message around.

    Args:
        number: The field number of the message in the one around it.
        row_count: How many rows.
        fields: ``Field``s, each with as many rows; None among them is passed over.
        skip_empty: Write nothing at all for a row whose message would be empty.

    Raises:
        ValueError: a field has another number of rows, or there are more than 24.
    """
    cdef Part[24] parts
    cdef int count = 0
    cdef Field field
    cdef Writer w
    cdef Pool pool
    cdef uint32_t tag = <uint32_t>(number << 3 | 2)
    if not 1 <= number <= 0xFFFF:
        raise ValueError("no such field number")
    present = [field_ for field_ in fields if field_ is not None]
    for field in present:
        if field.row_count != row_count:
            raise ValueError(f"field {field._tag >> 3} has {field.row_count} rows, not {row_count}")
        if count == 24:
            raise ValueError("more than 24 fields")
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
    cdef int64_t *marks = <int64_t *>cnp.PyArray_DATA(<cnp.ndarray>offsets)
    open_writer(&w, row_count * 64)
    try:
        if row_count * 64 > RELEASE_BYTES:
            with nogil:
                _write_rows(&w, tag, row_count, parts, count, skip_empty, marks)
        else:
            _write_rows(&w, tag, row_count, parts, count, skip_empty, marks)
        return Pool(np.arange(row_count, dtype=np.int32), take(&w), offsets)
    finally:
        close_writer(&w)


# --- attribute sets ---------------------------------------------------------------------------------------------------

cdef int _put_text(Writer *w, uint32_t tag, text) except -1:
    cdef Py_ssize_t length
    cdef const char *data
    try:
        data = PyUnicode_AsUTF8AndSize(text, &length)
    except UnicodeEncodeError:
        # A lone surrogate has no UTF-8; like invalid UTF-8 at the door it becomes U+FFFD.
        replaced = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        data = PyUnicode_AsUTF8AndSize(replaced, &length)
        put_slice(w, tag, data, length)
        return 0
    put_slice(w, tag, data, length)
    return 0


cdef int _put_any(Writer *w, value, int depth) except -1:
    """The content of an AnyValue."""
    cdef Py_ssize_t outer, inner
    cdef double number
    cdef uint64_t bits
    if depth > _DEPTH_MAX:
        raise ValueError(f"an attribute value nests deeper than {_DEPTH_MAX}")
    if value is None:
        return 0
    if isinstance(value, str):
        _put_text(w, 1 << 3 | 2, value)
    elif isinstance(value, (bool, np.bool_)):
        put_number(w, 2 << 3, 1 if value else 0)
    elif isinstance(value, (int, np.integer)):
        if not -(2**63) <= value < 2**63:
            raise ValueError(f"an attribute value is outside 64 bits: {value}")
        put_number(w, 3 << 3, <uint64_t><int64_t>value)
    elif isinstance(value, (float, np.floating)):
        number = value
        memcpy(&bits, &number, 8)
        put_fixed64(w, 4 << 3 | 1, bits)
    elif isinstance(value, (bytes, bytearray, memoryview)):
        value = bytes(value)
        put_slice(w, 7 << 3 | 2, PyBytes_AS_STRING(value), PyBytes_GET_SIZE(value))
    elif isinstance(value, Mapping):
        outer = begin(w, 6 << 3 | 2)
        for key, item in value.items():
            inner = begin(w, 1 << 3 | 2)
            _put_key_value(w, key, item, depth + 1)
            end(w, inner)
        end(w, outer)
    elif isinstance(value, (Sequence, np.ndarray)):
        outer = begin(w, 5 << 3 | 2)
        for item in value:
            inner = begin(w, 1 << 3 | 2)
            _put_any(w, item, depth + 1)
            end(w, inner)
        end(w, outer)
    else:
        raise TypeError(f"no attribute value can be made of {type(value).__name__}")
    return 0


cdef int _put_key_value(Writer *w, key, value, int depth) except -1:
    """The content of a KeyValue."""
    cdef Py_ssize_t mark
    if not isinstance(key, str):
        raise TypeError(f"an attribute key is text, not {type(key).__name__}")
    _put_text(w, 1 << 3 | 2, key)
    mark = begin(w, 2 << 3 | 2)
    _put_any(w, value, depth)
    end(w, mark)
    return 0


def encode_value(value):
    """The content of an AnyValue for a Python value.

    Raises:
        TypeError: nothing fits the value's type.
        ValueError: an integer is outside 64 bits, or the value nests deeper than DEPTH_MAX.
    """
    cdef Writer w
    open_writer(&w, 64)
    try:
        _put_any(&w, value, 1)
        return take(&w)
    finally:
        close_writer(&w)


def encode_attributes(values, int number=1):
    """KeyValue fields ``number`` (1 to 15) for a mapping, one after the other, and where each starts: ``(bytes, starts)``.

    The first byte of each field is its tag, so a set is put under another number by writing other bytes at ``starts``.

    Raises:
        TypeError: a key is no text, or nothing fits a value's type.
        ValueError: an integer is outside 64 bits, or a value nests deeper than DEPTH_MAX.
    """
    cdef Writer w
    cdef Py_ssize_t mark
    if not 1 <= number <= 15:
        raise ValueError("the field number must be 1 to 15")
    starts = []
    open_writer(&w, 64 * len(values))
    try:
        for key, value in values.items():
            starts.append(w.size)
            mark = begin(&w, <uint32_t>(number << 3 | 2))
            _put_key_value(&w, key, value, 1)
            end(&w, mark)
        return take(&w), starts
    finally:
        close_writer(&w)
