# The functions that other modules of the scan call.
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan


cdef int walk_request(Scan* s, Ptr p, Ptr end) noexcept nogil
