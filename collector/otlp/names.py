"""The names of OTLP's services, for those that receive and those that send.

Source: opentelemetry-proto collector/{trace,metrics,logs}/v1/*_service.proto; OTLP specification 1.x.
"""

from typing import Final

from collector.model import Signal

__all__ = ["GRPC_METHODS", "HTTP_PATHS"]

GRPC_METHODS: Final = {
    Signal.TRACES: "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    Signal.METRICS: "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
    Signal.LOGS: "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
}
HTTP_PATHS: Final = {Signal.TRACES: "v1/traces", Signal.METRICS: "v1/metrics", Signal.LOGS: "v1/logs"}
"""Relative to the endpoint."""
