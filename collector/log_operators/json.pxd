from libc.stddef cimport size_t

from collector.log_operators.nodes cimport Arena, Node

cdef enum JsonError:
    JSON_OK
    JSON_NOT_OBJECT
    JSON_INVALID
    JSON_TOO_DEEP
    JSON_NUMBER

cdef int parse_json(Arena* arena, const char* text, size_t size, bint ints, Node** made) noexcept nogil
