# The reader of AnyValues, for other kernels.
from libc.stdint cimport int64_t, uint8_t

from collector.wire.layout cimport AttributeRow


cdef void read_value(const uint8_t* source, int64_t at, int64_t end, AttributeRow* row) noexcept nogil
