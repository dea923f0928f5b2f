# The functions that other modules of the scan call.
from libc.stdint cimport int32_t

from collector.wire.layout cimport ExemplarRow, MetricRow, QuantileRow
from collector.wire.proto cimport Ptr
from collector.wire.scan.state cimport Scan


cdef int walk_exemplar(Scan* s, Ptr p, Ptr end, ExemplarRow* row) noexcept nogil
cdef int walk_quantile(Scan* s, Ptr p, Ptr end, QuantileRow* row) noexcept nogil
# ``index`` is the number of the row.
cdef int walk_metric(Scan* s, Ptr p, Ptr end, MetricRow* row, int32_t index) noexcept nogil
