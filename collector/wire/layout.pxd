# The rows of the index, one C struct a table. The same fields in the same order as the numpy dtypes in layout.py
# (a test compares sizes and offsets). Every row starts with parent, start, body, end, so that kernels which only
# cut and move can treat all tables alike through the row size.
#   parent  row of the parent table (resources: -1)          start  offset of the message's tag in the request
#   body    offset of its first content byte                  end    one past its last byte
# Pairs NAME, NAME_len are slices of the buffer; absent = (-1, 0). Present and empty = (offset, 0).
# Ids are big-endian integers, 0 = unset. Unset numbers are 0.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

ctypedef struct FrameRow:              # the common prefix of all rows
    int32_t parent, start, body, end

ctypedef struct ResourceRow:           # ResourceSpans | ResourceMetrics | ResourceLogs
    int32_t parent, start, body, end
    int32_t inner_start, inner_body, inner_end       # the Resource message inside; inner_start = -1: absent
    int32_t schema_url, schema_url_len
    int32_t attribute_count

ctypedef struct ScopeRow:              # ScopeSpans | ScopeMetrics | ScopeLogs
    int32_t parent, start, body, end
    int32_t inner_start, inner_body, inner_end       # the InstrumentationScope message inside
    int32_t schema_url, schema_url_len
    int32_t attribute_count
    int32_t name, name_len, version, version_len

ctypedef struct SpanRow:
    int32_t parent, start, body, end
    uint64_t trace_id_hi, trace_id_lo, span_id, parent_span_id
    uint64_t start_time, end_time                    # ns since 1970
    uint32_t flags
    int32_t kind, status_code
    int32_t name, name_len, trace_state, trace_state_len, status_message, status_message_len
    int32_t attribute_count, event_count, link_count

ctypedef struct EventRow:
    int32_t parent, start, body, end
    uint64_t time
    int32_t name, name_len, attribute_count

ctypedef struct LinkRow:
    int32_t parent, start, body, end
    uint64_t trace_id_hi, trace_id_lo, span_id
    uint32_t flags
    int32_t trace_state, trace_state_len, attribute_count

ctypedef struct MetricRow:
    int32_t parent, start, body, end
    int32_t name, name_len, description, description_len, unit, unit_len
    int32_t type                                     # METRIC_* of layout.py
    int32_t temporality                              # 0 unspecified 1 delta 2 cumulative
    int32_t monotonic
    int32_t data_start, data_body, data_end          # the Gauge/Sum/… message inside
    int32_t point_count

ctypedef struct PointRow:
    int32_t parent, start, body, end
    uint64_t start_time, time
    uint64_t count                                   # histograms, summary
    int64_t int_value                                # number points with value_kind 1
    double double_value                              # number points with value_kind 2
    double sum, min, max
    uint64_t zero_count                              # exponential
    double zero_threshold
    uint32_t flags
    int32_t value_kind                               # 0 none, 1 int, 2 double
    int32_t present                                  # bits: 1 sum, 2 min, 4 max
    int32_t buckets, buckets_len                     # packed little-endian fixed64 (8 bytes a bucket)
    int32_t bounds, bounds_len                       # packed little-endian doubles
    int32_t scale                                    # exponential
    int32_t positive_offset, positive, positive_len  # bucket offset (index of the first bucket); slice of packed varints
    int32_t negative_offset, negative, negative_len
    int32_t quantile_count                           # summary
    int32_t attribute_count, exemplar_count

ctypedef struct QuantileRow:           # SummaryDataPoint.ValueAtQuantile
    int32_t parent, start, body, end
    double quantile, value

ctypedef struct ExemplarRow:
    int32_t parent, start, body, end
    uint64_t trace_id_hi, trace_id_lo, span_id, time
    int64_t int_value
    double double_value
    int32_t value_kind, attribute_count

ctypedef struct RecordRow:             # LogRecord
    int32_t parent, start, body, end
    uint64_t trace_id_hi, trace_id_lo, span_id
    uint64_t time, observed_time
    uint32_t flags
    int32_t severity_number
    int32_t severity_text, severity_text_len, event_name, event_name_len
    int32_t body_kind                                # KIND_*; KIND_ABSENT when there is no body
    int32_t any, any_len                             # content of the body's AnyValue message
    int32_t text, text_len                           # the string itself when body_kind is KIND_STRING
    int32_t attribute_count

ctypedef struct AttributeRow:          # one KeyValue of any table, in document order
    int32_t owner                                    # row of the owning table
    int32_t start, end                               # the whole KeyValue field: tag offset, one past its end
    int32_t key_code                                 # into the index's distinct keys
    int32_t key, key_len
    int32_t kind                                     # KIND_* = field number in AnyValue; KIND_EMPTY for a value with no field
    int32_t any, any_len                             # content of the AnyValue message ((-1, 0) when the value field is absent)
    int32_t value, value_len                         # STRING/BYTES: the bytes; ARRAY/MAP: content of the sub-message
    int64_t int_value                                # INT; BOOL as 0/1
    double double_value                              # DOUBLE
