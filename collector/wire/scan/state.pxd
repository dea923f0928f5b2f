# The state of a scan, which all its modules share: the rows that it fills and its error. Functions return NULL or -1
# after an error, so that callers can pass it on.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from collector.wire.proto cimport Ptr

cdef extern from *:
    bint likely(bint condition) noexcept nogil     # from Cython; moves the other branch out of the way

cdef enum:
    MAX_PATH = 128

cdef enum Signal:
    TRACES = 0
    METRICS = 1
    LOGS = 2

cdef enum Flag:                   # the request is legal but must be rewritten before it may pass
    BAD_TEXT = 1                  # invalid UTF-8
    OLD_FIELD = 2                 # instrumentation-library fields; fields that only old or only new decoders read
    NOT_PLAIN = 4                 # repeated singular field or oneof, unpacked numbers, overlong tag or length

cdef enum ItemError:
    BAD_TRACE_ID = 1
    BAD_SPAN_ID = 2
    NO_NAME = 4

ctypedef struct Rows:
    uint8_t* rows
    Py_ssize_t count, capacity, limit, size

ctypedef struct Scan:
    Ptr base
    Py_ssize_t length
    int signal
    bint deep                     # False: trusted bytes; find the rows and do not validate what is below them
    bint only_frames              # of items only the extent is read, not the contents
    bint lists_unknown            # trusted bytes: ``drops`` gets the fields that no message knows, and no items
    uint32_t flags
    uint32_t item_error           # ItemError of the item being read
    uint32_t item_errors          # ItemErrors of all items
    int64_t rejected
    Rows resources, scopes, metrics, items
    Rows drops                    # Range: items to cut out, in document order
    bint out_of_memory
    const char* reason            # NULL: no error
    Py_ssize_t offset
    uint32_t tag                  # of the invalid field; 0 = none
    const char* path[MAX_PATH]    # innermost first
    int path_length

ctypedef struct Range:
    int32_t start, end


cdef Ptr fail(Scan* s, Ptr p, const char* reason, uint32_t tag=*) noexcept nogil
cdef int within(Scan* s, const char* name) noexcept nogil
cdef int reject(Scan* s, int32_t start, int32_t end, int64_t count) noexcept nogil
cdef void* push_slow(Scan* s, Rows* rows, Ptr p) noexcept nogil
cdef int begin(Scan* s, bytes wire, int signal, bint deep) except -1
cdef void prepare(Rows* rows, Py_ssize_t size, Py_ssize_t length, Py_ssize_t expected, bint from_outside=*)
cdef void finish(Scan* s)
cdef object error(Scan* s, str prefix=*)
cdef object array(Rows* rows, object dtype)


cdef inline void* push(Scan* s, Rows* rows, Ptr p) noexcept nogil:
    if rows.count == rows.capacity:
        return push_slow(s, rows, p)
    rows.count += 1
    return rows.rows + (rows.count - 1) * rows.size
