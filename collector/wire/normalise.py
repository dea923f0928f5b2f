"""Re-encodes a request through protobuf, so that all parsers read it in the same way.

This is for encodings that are legal but read differently by different parsers, or awkward to edit in place: a singular
field or member of a oneof that occurs twice, packed fields that are not packed or in pieces, tags and lengths that are
longer than necessary. It is slow, because it decodes whole messages, and used only at the door for requests that need
it. The bytes were validated before; unknown fields survive.

Source: https://protobuf.dev/programming-guides/encoding/ ("Last One Wins", "Packed Repeated Fields").
"""

from typing import Final

from google.protobuf.message import DecodeError, Message
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.wire.errors import MalformedBatch

__all__ = ["reencode"]

_REQUESTS: Final[dict[str, type[Message]]] = {
    "traces": ExportTraceServiceRequest,
    "metrics": ExportMetricsServiceRequest,
    "logs": ExportLogsServiceRequest,
}


def reencode(signal: str, wire: bytes) -> bytes:
    """The same request with each singular field once and repeated numbers packed.

    Raises:
        MalformedBatch: Protobuf does not accept the request.
    """
    try:
        return _REQUESTS[signal].FromString(wire).SerializeToString()
    except DecodeError as exc:
        raise MalformedBatch("", 0, "protobuf cannot parse the request") from exc
