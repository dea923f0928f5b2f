"""What servers answer to an export request, in protobuf and in JSON."""

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.model import Signal
from collector.otlp.responses import partial_success, partial_success_from_json

RESPONSES = {
    Signal.TRACES: (ExportTraceServiceResponse, "rejected_spans"),
    Signal.METRICS: (ExportMetricsServiceResponse, "rejected_data_points"),
    Signal.LOGS: (ExportLogsServiceResponse, "rejected_log_records"),
}


@pytest.mark.parametrize("signal", list(Signal))
def test_rejected_items_and_message_of_each_signal(signal):
    """The responses are those that the official message classes write."""
    message_type, field = RESPONSES[signal]
    response = message_type()
    setattr(response.partial_success, field, 7)
    response.partial_success.error_message = "too old"
    assert partial_success(signal, response.SerializeToString()) == (7, "too old")
    for snake_case in (False, True):
        body = json_format.MessageToJson(response, preserving_proto_field_name=snake_case).encode()
        assert partial_success_from_json(signal, body) == (7, "too old")


@pytest.mark.parametrize("body", [b"", b"\n\x00"])
def test_an_unset_and_an_empty_partial_success_are_full_success(body):
    """The Collector sets the field even if nothing was rejected."""
    assert partial_success(Signal.TRACES, body) == (0, "")


@pytest.mark.parametrize("body", [b"{}", b'{"partialSuccess":{}}', b'{"partialSuccess":{"rejectedSpans":"0"}}'])
def test_an_empty_json_response_is_full_success(body):
    """Protobuf's JSON writes 64-bit integers as strings."""
    assert partial_success_from_json(Signal.TRACES, body) == (0, "")


@pytest.mark.parametrize(
    ("parse", "body"),
    [
        (partial_success, b"\xff\xff\xff"),
        (partial_success_from_json, b"not JSON"),
        (partial_success_from_json, b"[]"),
        (partial_success_from_json, b'{"partialSuccess":{"rejectedSpans":"many"}}'),
    ],
)
def test_a_body_that_is_not_a_response_is_an_error(parse, body):
    """It has an error of its own kind: the server accepted the request, so it is neither refused nor sent again."""
    with pytest.raises(ValueError, match="not a valid OTLP export response for traces"):
        parse(Signal.TRACES, body)
