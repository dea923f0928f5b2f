"""The rows of the index as numpy dtypes, one per table, with the same fields as the structs of ``layout.pxd``.

A table is one record array and a column is one of its fields. Offsets point into the request's bytes.

Source of field numbers: opentelemetry-proto 1.x (``trace.proto``, ``metrics.proto``, ``logs.proto``, ``common.proto``).
"""

from typing import Final

import numpy as np

__all__ = [
    "ATTRIBUTE",
    "EVENT",
    "EXEMPLAR",
    "FRAME",
    "KIND_ABSENT",
    "KIND_ARRAY",
    "KIND_BOOL",
    "KIND_BYTES",
    "KIND_DOUBLE",
    "KIND_EMPTY",
    "KIND_INT",
    "KIND_MAP",
    "KIND_STRING",
    "LINK",
    "METRIC",
    "METRIC_EXPONENTIAL_HISTOGRAM",
    "METRIC_GAUGE",
    "METRIC_HISTOGRAM",
    "METRIC_NONE",
    "METRIC_SUM",
    "METRIC_SUMMARY",
    "POINT",
    "PRESENT_MAX",
    "PRESENT_MIN",
    "PRESENT_SUM",
    "QUANTILE",
    "RECORD",
    "RESOURCE",
    "SCOPE",
    "SPAN",
    "TEMPORALITY_CUMULATIVE",
    "TEMPORALITY_DELTA",
    "VALUE_DOUBLE",
    "VALUE_INT",
    "VALUE_NONE",
]

# The kind of an attribute value: its field number in AnyValue.
KIND_EMPTY: Final = 0
KIND_STRING: Final = 1
KIND_BOOL: Final = 2
KIND_INT: Final = 3
KIND_DOUBLE: Final = 4
KIND_ARRAY: Final = 5
KIND_MAP: Final = 6
KIND_BYTES: Final = 7
KIND_ABSENT: Final = 255  # the row has no such attribute

# MetricRow.type.
METRIC_NONE: Final = 0
METRIC_GAUGE: Final = 1
METRIC_SUM: Final = 2
METRIC_HISTOGRAM: Final = 3
METRIC_EXPONENTIAL_HISTOGRAM: Final = 4
METRIC_SUMMARY: Final = 5

# MetricRow.temporality; 0 = unspecified.
TEMPORALITY_DELTA: Final = 1
TEMPORALITY_CUMULATIVE: Final = 2

# value_kind of points and exemplars.
VALUE_NONE: Final = 0
VALUE_INT: Final = 1
VALUE_DOUBLE: Final = 2

# Bits of PointRow.present.
PRESENT_SUM: Final = 1
PRESENT_MIN: Final = 2
PRESENT_MAX: Final = 4

_FRAME = "parent:i4 start:i4 body:i4 end:i4 "


def _record(fields: str) -> np.dtype[np.void]:
    """A C-aligned record dtype from ``name:format`` words."""
    return np.dtype([(name, "<" + form) for name, form in (word.split(":") for word in fields.split())], align=True)


FRAME: Final = _record(_FRAME)
"""The common beginning of the rows of all tables."""
RESOURCE: Final = _record(
    _FRAME + "inner_start:i4 inner_body:i4 inner_end:i4 schema_url:i4 schema_url_len:i4 attribute_count:i4"
)
SCOPE: Final = _record(
    _FRAME + "inner_start:i4 inner_body:i4 inner_end:i4 schema_url:i4 schema_url_len:i4 attribute_count:i4 "
    "name:i4 name_len:i4 version:i4 version_len:i4"
)
SPAN: Final = _record(
    _FRAME + "trace_id_hi:u8 trace_id_lo:u8 span_id:u8 parent_span_id:u8 start_time:u8 end_time:u8 flags:u4 kind:i4 "
    "status_code:i4 name:i4 name_len:i4 trace_state:i4 trace_state_len:i4 status_message:i4 status_message_len:i4 "
    "attribute_count:i4 event_count:i4 link_count:i4"
)
EVENT: Final = _record(_FRAME + "time:u8 name:i4 name_len:i4 attribute_count:i4")
LINK: Final = _record(
    _FRAME + "trace_id_hi:u8 trace_id_lo:u8 span_id:u8 flags:u4 trace_state:i4 trace_state_len:i4 attribute_count:i4"
)
METRIC: Final = _record(
    _FRAME
    + "name:i4 name_len:i4 description:i4 description_len:i4 unit:i4 unit_len:i4 type:i4 temporality:i4 monotonic:i4 "
    "data_start:i4 data_body:i4 data_end:i4 point_count:i4"
)
POINT: Final = _record(
    _FRAME + "start_time:u8 time:u8 count:u8 int_value:i8 double_value:f8 sum:f8 min:f8 max:f8 zero_count:u8 "
    "zero_threshold:f8 flags:u4 value_kind:i4 present:i4 buckets:i4 buckets_len:i4 bounds:i4 bounds_len:i4 scale:i4 "
    "positive_offset:i4 positive:i4 positive_len:i4 negative_offset:i4 negative:i4 negative_len:i4 "
    "quantile_count:i4 attribute_count:i4 exemplar_count:i4"
)
QUANTILE: Final = _record(_FRAME + "quantile:f8 value:f8")
EXEMPLAR: Final = _record(
    _FRAME
    + "trace_id_hi:u8 trace_id_lo:u8 span_id:u8 time:u8 int_value:i8 double_value:f8 value_kind:i4 attribute_count:i4"
)
RECORD: Final = _record(
    _FRAME + "trace_id_hi:u8 trace_id_lo:u8 span_id:u8 time:u8 observed_time:u8 flags:u4 severity_number:i4 "
    "severity_text:i4 severity_text_len:i4 event_name:i4 event_name_len:i4 body_kind:i4 any:i4 any_len:i4 "
    "text:i4 text_len:i4 attribute_count:i4"
)
ATTRIBUTE: Final = _record(
    "owner:i4 start:i4 end:i4 key_code:i4 key:i4 key_len:i4 kind:i4 any:i4 any_len:i4 value:i4 value_len:i4 "
    "int_value:i8 double_value:f8"
)
