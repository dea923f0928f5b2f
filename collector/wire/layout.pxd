# The rows of the index, one C struct per table, and the constants in them. Structs have the same fields in the same
# order as the numpy dtypes in layout.py, and constants the same values; tests compare both. All rows except attributes
# begin with parent, start, body and end, so that kernels which only cut and move can treat all tables alike.
#   parent  row of the parent table (resources: -1)          start  offset of the message's tag in the request
#   body    offset of its first content byte                  end    one past its last byte
# Pairs NAME, NAME_len are slices of the buffer: absent = (-1, 0), present but empty = (offset, 0).
# Ids are big-endian integers, 0 = unset. Unset numbers are 0.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef enum:                             # the kind of an attribute value: its field number in AnyValue
    KIND_EMPTY = 0
    KIND_STRING = 1
    KIND_BOOL = 2
    KIND_INT = 3
    KIND_DOUBLE = 4
    KIND_ARRAY = 5
    KIND_MAP = 6
    KIND_BYTES = 7
    KIND_ABSENT = 255                  # the row has no such attribute

cdef enum:                             # MetricRow.type
    METRIC_NONE = 0
    METRIC_GAUGE = 1
    METRIC_SUM = 2
    METRIC_HISTOGRAM = 3
    METRIC_EXPONENTIAL_HISTOGRAM = 4
    METRIC_SUMMARY = 5

cdef enum:                             # MetricRow.temporality; 0 = unspecified
    TEMPORALITY_DELTA = 1
    TEMPORALITY_CUMULATIVE = 2

cdef enum:                             # value_kind of points and exemplars
    VALUE_NONE = 0
    VALUE_INT = 1
    VALUE_DOUBLE = 2

cdef enum:                             # bits of PointRow.present
    PRESENT_SUM = 1
    PRESENT_MIN = 2
    PRESENT_MAX = 4

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
    int32_t type                                     # METRIC_*
    int32_t temporality                              # TEMPORALITY_*
    int32_t monotonic
    int32_t data_start, data_body, data_end          # the Gauge/Sum/… message inside
    int32_t point_count

ctypedef struct PointRow:
    int32_t parent, start, body, end
    uint64_t start_time, time
    uint64_t count                                   # histograms, summary
    int64_t int_value                                # with VALUE_INT
    double double_value                              # with VALUE_DOUBLE
    double sum, min, max
    uint64_t zero_count                              # exponential
    double zero_threshold
    uint32_t flags
    int32_t value_kind                               # VALUE_*
    int32_t present                                  # PRESENT_*
    int32_t buckets, buckets_len                     # packed little-endian fixed64 (8 bytes per bucket)
    int32_t bounds, bounds_len                       # packed little-endian doubles
    int32_t scale                                    # exponential
    int32_t positive_offset, positive, positive_len  # index of the first bucket; slice of packed varints
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
    int32_t body_kind                                # KIND_*; KIND_ABSENT without a body
    int32_t any, any_len                             # content of the body's AnyValue message
    int32_t text, text_len                           # the string if body_kind is KIND_STRING
    int32_t attribute_count

ctypedef struct AttributeRow:          # one KeyValue of any table, in document order
    int32_t owner                                    # row of the table the attribute belongs to
    int32_t start, end                               # the whole KeyValue field, from its tag on
    int32_t key_code                                 # index into the distinct keys
    int32_t key, key_len
    int32_t kind                                     # KIND_*; KIND_EMPTY for a value without a field
    int32_t any, any_len                             # content of the AnyValue message; absent without a value field
    int32_t value, value_len                         # STRING, BYTES: the bytes; ARRAY, MAP: content of the message
    int64_t int_value                                # INT; BOOL as 0/1
    double double_value                              # DOUBLE
