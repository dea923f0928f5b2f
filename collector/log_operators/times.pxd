from libc.stdint cimport int32_t, int64_t, uint8_t

from collector.log_operators.nodes cimport Node

cdef enum Zone:
    ZONE_NONE       # the text does not say
    ZONE_OFFSET
    ZONE_NAME

ctypedef struct Parsed:
    int64_t seconds         # of the clock on the wall, as if it were UTC
    int32_t nanoseconds
    int32_t offset
    const char* name
    int name_size
    uint8_t zone

ctypedef struct Element:
    const char* literal
    int literal_size
    int code
    int digits              # of a fraction
    uint8_t is_fixed        # two digits, not one or two
    uint8_t skips_spaces

cdef class TimeLayout:
    cdef Element* elements
    cdef int count
    cdef list kept
    cdef bint read(self, const char* text, Py_ssize_t size, Parsed* parsed) noexcept nogil

cdef class TimeReader:
    cdef list layouts
    cdef int epoch
    cdef object offset_of
    cdef int64_t fixed_offset
    cdef bint has_fixed_offset
    cdef object last_name
    cdef int64_t last_bucket
    cdef int64_t last_offset
    cdef bint read_node(self, Node* node, int64_t* time_unix_nano) except -1
    cdef bint _of_epoch(self, int64_t value, int64_t* time_unix_nano)
    cdef bint _epoch_text(self, const char* text, Py_ssize_t size, int64_t* time_unix_nano)
    cdef bint read_text(self, const char* text, Py_ssize_t size, int64_t* time_unix_nano) except -1

cdef int64_t days_from_civil(int64_t year, int64_t month, int64_t day) noexcept nogil
cdef int64_t with_year(int64_t month, int64_t day, int64_t second_of_day) noexcept nogil
