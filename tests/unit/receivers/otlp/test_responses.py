"""The hand-written messages are compared with the generated classes."""

from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.api import Receipt
from collector.model import Signal
from receivers.otlp.responses import partial_success_json, partial_success_proto


@settings(deadline=None)
@given(rejected=st.integers(0, 2**62), message=st.text(max_size=300))
def test_partial_success_reads_back(rejected, message):
    """As protobuf and as JSON; the field is not set if there is nothing to report."""
    receipt = Receipt(1, rejected, message)
    read = ExportTraceServiceResponse.FromString(partial_success_proto(receipt))
    assert (read.partial_success.rejected_spans, read.partial_success.error_message) == (rejected, message)
    assert read.HasField("partial_success") == bool(rejected or message)
    assert json_format.Parse(partial_success_json(Signal.TRACES, receipt), ExportTraceServiceResponse()) == read
