# The log of changes as the writer of patches (``attributes``) reads it.
cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t

from collector.wire.layout cimport KIND_ABSENT, AttributeRow

cdef enum Form:                 # how the values of a change are given
    NO_VALUES = 0
    CODES = 1                   # encoded values and the code of each row; without codes, the first value for all rows
    INTS = 2
    DOUBLES = 3
    BOOLS = 4
    ROWS = 5                    # attribute rows over a source

cdef enum:                      # the change a row takes its value from, if it is not a number
    UNTOUCHED = -1
    DELETED = -2

cdef enum Result:
    DONE = 0
    UNCHANGED = 1
    FOREIGN = 2                 # attribute rows that are not those of the table
    OUTSIDE = 3                 # a slice outside its source
    TOO_LARGE = 4
    NO_MEMORY = 5

cdef struct Change:
    int32_t slot                # the number of the key
    int32_t mode
    int32_t form
    const uint8_t* where        # one byte per row; NULL = all rows
    const int32_t* codes
    const int64_t* starts       # CODES: of each value in ``values``, and the end of the last
    const uint8_t* values       # CODES: value fields of a KeyValue, including tag and length
    const void* numbers
    const AttributeRow* rows
    const uint8_t* source
    int64_t source_size

cdef struct Key:
    const uint8_t* field        # the key field of a KeyValue, including tag and length
    int64_t size
    int32_t code                # in the new attribute table

cdef struct State:              # of the current row
    int32_t* last               # by key code: the last attribute seen with the key, on any row
    int32_t* winner             # by slot: the change the row takes its value from, UNTOUCHED or DELETED
    int32_t* added_by           # by slot: the change that added the key; -1: it has its old place, or is not there
    Py_ssize_t begin, end       # the attributes of the row


@cython.final
cdef class AttributeLog:
    cdef list kept              # the objects that the pointers point into
    cdef Change* changes
    cdef Py_ssize_t change_count, slot_count, key_count, row_count, attribute_count
    cdef Key* keys              # by slot
    cdef int32_t* slot_of       # by key code of the table; -1 = no change names the key
    cdef bint names_known_keys
    cdef const AttributeRow* attributes
    cdef const uint8_t* table
    cdef Py_ssize_t row_bytes, count_at, inner_at
    cdef readonly list key_names

    cdef int set_key(self, Key* key, bytes name) except -1
    cdef int set_change(self, Change* change, int slot, int mode, where, values) except -1
    cdef int set_dictionary(self, Change* change, list values, codes, bint is_text) except -1
    cdef int open_state(self, State* state) except -1
    cdef int play(self, State* state, Py_ssize_t row) noexcept nogil


cdef void close_state(State* state) noexcept nogil
cdef const void* column_data(array, dtype, Py_ssize_t count) except? NULL
cdef const AttributeRow* attribute_rows(object rows) except? NULL


cdef inline int32_t last_attribute(const State* state, int32_t code, Py_ssize_t key_count) noexcept nogil:
    """The row's last attribute with this key code, or -1."""
    return state.last[code] if code < key_count and state.last[code] >= state.begin else -1
