# What other modules of the scan call of it.
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan


cdef int walk_request(Scan* s, Ptr p, Ptr end) noexcept nogil
