# The functions that other modules of the scan call.
from collector.wire.layout cimport RecordRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan


cdef int walk_record(Scan* s, Ptr p, Ptr end, RecordRow* row) noexcept nogil
