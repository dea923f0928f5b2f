from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from collector.log_operators.nodes cimport Arena, Node

cdef enum Root:
    BODY
    ATTRIBUTES
    RESOURCE

ctypedef struct Row:
    Node* body
    Node* attributes
    Node* resource
    const char* severity_text
    const char* scope
    int64_t time, observed
    uint32_t severity_text_size, scope_size, flags
    uint8_t severity
    bint owns_resource      # the resource is not shared with other rows
    uint8_t trace_id[16]
    uint8_t span_id[8]

cdef class Path:
    cdef readonly int root
    cdef readonly list parts
    cdef readonly str text
    cdef const char** keys
    cdef uint32_t* sizes
    cdef int depth

cdef class Entries:
    cdef Arena arena
    cdef Row* rows
    cdef readonly Py_ssize_t row_count
    cdef Py_ssize_t room
    cdef list kept
    cdef Node* get(self, Row* row, Path path) noexcept nogil
    cdef bint set(self, Row* row, Path path, Node* value) noexcept nogil
    cdef Node* remove(self, Row* row, Path path) noexcept nogil
    cdef Row* new_rows(self, Py_ssize_t count) except NULL
    cdef Node* from_python(self, object value, int depth) except NULL
    cdef Node* mapping(self, object values) except NULL
    cdef int check(self) except -1

cdef object to_python(Node* node)

cdef enum Failure:
    OK
    MISSING             # there is no such field
    WRONG_TYPE
    NOT_PARSED
    CANNOT_SET
    TOO_DEEP
    NO_TIME
    NO_SEVERITY
    NO_TRACE
    NO_SCOPE
    NOT_A_MAP
    WRONG_COUNT
