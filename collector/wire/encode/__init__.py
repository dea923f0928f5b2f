"""Builds protobuf from columns and from Python values.

``rows``    one message per row, from columns: a kernel for ``collector.model.builders``
``values``  AnyValue and KeyValue messages from Python values
``spans``   a request of spans in groups, for the kernels of receivers
"""

from collector.wire.encode.rows import (
    FIXED32,
    FIXED64,
    ID8,
    ID16,
    NUMBER,
    PACKED64,
    PACKED_NUMBER,
    RAW,
    TEXT,
    VALUE64,
    ZIGZAG,
    MessageField,
    Pool,
    encode_rows,
)
from collector.wire.encode.values import encode_attributes, encode_value

__all__ = [
    "FIXED32",
    "FIXED64",
    "ID8",
    "ID16",
    "NUMBER",
    "PACKED64",
    "PACKED_NUMBER",
    "RAW",
    "TEXT",
    "VALUE64",
    "ZIGZAG",
    "MessageField",
    "Pool",
    "encode_attributes",
    "encode_rows",
    "encode_value",
]
