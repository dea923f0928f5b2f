"""The response to an OTLP export request: how many items the server rejected, and why.

Source: OTLP specification 1.x, "Partial Success"; the Collector's exporter/otlpexporter and exporter/otlphttpexporter.
"""

from typing import Any, Final

import orjson
from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from collector.model import Signal

__all__ = ["partial_success", "partial_success_from_json"]

_RESPONSES: Final[dict[Signal, type[Message]]] = {
    Signal.TRACES: ExportTraceServiceResponse,
    Signal.METRICS: ExportMetricsServiceResponse,
    Signal.LOGS: ExportLogsServiceResponse,
}
_REJECTED_FIELDS: Final = {
    Signal.TRACES: "rejected_spans",
    Signal.METRICS: "rejected_data_points",
    Signal.LOGS: "rejected_log_records",
}
_JSON_REJECTED_FIELDS: Final = {
    Signal.TRACES: "rejectedSpans",
    Signal.METRICS: "rejectedDataPoints",
    Signal.LOGS: "rejectedLogRecords",
}
_FULL_SUCCESS: Final = frozenset({b"", b"\n\x00"})  # partial_success unset, or set but empty as the Collector answers


def partial_success(signal: Signal, body: bytes) -> tuple[int, str]:
    """The number of rejected items and the server's message in a protobuf response; (0, "") is full success.

    Raises:
        ValueError: the body is not a response, although the request was accepted.
    """
    if body in _FULL_SUCCESS:
        return 0, ""
    try:
        response: Any = _RESPONSES[signal].FromString(body)
    except DecodeError as exc:
        raise _bad_response(signal) from exc
    return getattr(response.partial_success, _REJECTED_FIELDS[signal]), response.partial_success.error_message


def partial_success_from_json(signal: Signal, body: bytes) -> tuple[int, str]:
    """:func:`partial_success` of an OTLP/JSON response, whose field names may also be in snake case.

    Raises:
        ValueError: the body is not a response, although the request was accepted.
    """
    try:
        response: Any = orjson.loads(body)
        partial = response.get("partialSuccess") or response.get("partial_success") or {}
        rejected = partial.get(_JSON_REJECTED_FIELDS[signal]) or partial.get(_REJECTED_FIELDS[signal]) or 0
        return int(rejected), str(partial.get("errorMessage") or partial.get("error_message") or "")
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError) as exc:
        raise _bad_response(signal) from exc


def _bad_response(signal: Signal) -> ValueError:
    return ValueError(f"the server's response body is not a valid OTLP export response for {signal}")
