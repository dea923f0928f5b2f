"""The enumerations agree with those of opentelemetry-proto."""

import pytest
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality, DataPointFlags
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from collector.otlp import semantics


@pytest.mark.parametrize(
    ("names", "enum", "prefix"),
    [
        (semantics.SPAN_KINDS, Span.SpanKind, "SPAN_KIND_"),
        (semantics.STATUS_CODES, Status.StatusCode, "STATUS_CODE_"),
        (semantics.SEVERITIES, SeverityNumber, "SEVERITY_NUMBER_"),
        (semantics.TEMPORALITIES, AggregationTemporality, "AGGREGATION_TEMPORALITY_"),
    ],
)
def test_names_are_indexed_by_the_value_on_the_wire(names, enum, prefix):
    """Each tuple holds all names of its enumeration, in the order of their numbers."""
    assert {f"{prefix}{name}": number for number, name in enumerate(names)} == dict(enum.items())


def test_single_values():
    """The constants for single values are those of opentelemetry-proto."""
    for name in ("SPAN_KIND_SERVER", "SPAN_KIND_CLIENT", "SPAN_KIND_PRODUCER", "SPAN_KIND_CONSUMER"):
        assert getattr(semantics, name) == Span.SpanKind.Value(name)
    assert Status.STATUS_CODE_ERROR == semantics.STATUS_CODE_ERROR
    assert DataPointFlags.DATA_POINT_FLAGS_NO_RECORDED_VALUE_MASK == semantics.NO_RECORDED_VALUE


@pytest.mark.parametrize(
    ("text", "number"),
    [("warn", 13), (" Warning ", 13), ("INFO", 9), ("Crit", 21), ("emerg", 21), ("loud", 0), ("", 0)],
)
def test_severity_texts(text, number):
    """Well-known words are recognised in upper and lower case; others have no number."""
    assert semantics.severity_number_of(text) == number
