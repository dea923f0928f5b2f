# The functions that other modules of the scan call.
from collector.wire.layout cimport EventRow, LinkRow, SpanRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan


cdef int walk_event(Scan* s, Ptr p, Ptr end, EventRow* row) noexcept nogil
cdef int walk_link(Scan* s, Ptr p, Ptr end, LinkRow* row) noexcept nogil
cdef int walk_span(Scan* s, Ptr p, Ptr end, SpanRow* row) noexcept nogil
