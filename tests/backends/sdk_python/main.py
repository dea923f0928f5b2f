"""The OpenTelemetry SDK's exporters send a fixed set of telemetry: ``main.py PROTOCOL URL COMPRESSION [CA]``.

PROTOCOL: grpc or http/protobuf. COMPRESSION: none or gzip. CA: a PEM file; given: TLS.
The same telemetry in every language: tests/e2e/test_sdks.py knows it by heart.
"""

import importlib
import json
import logging
import os
import sys
import time
from pathlib import Path

from opentelemetry import trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Link, SpanKind, StatusCode

COUNT = 300
KINDS = [SpanKind.INTERNAL, SpanKind.SERVER, SpanKind.CLIENT, SpanKind.PRODUCER, SpanKind.CONSUMER]


class Failures(logging.Handler):
    """What the SDK reports: failed exports to its log alone."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.all = []

    def emit(self, record):
        self.all.append(record.getMessage())


def exporters(protocol, url, compression, ca):
    """Of spans, metrics and logs."""
    names = (
        ("trace_exporter", "OTLPSpanExporter"),
        ("metric_exporter", "OTLPMetricExporter"),
        ("_log_exporter", "OTLPLogExporter"),
    )
    if protocol == "grpc":
        import grpc

        options = {
            "endpoint": url,
            "insecure": ca is None,
            "credentials": grpc.ssl_channel_credentials(Path(ca).read_bytes()) if ca else None,
            "compression": {"none": grpc.Compression.NoCompression, "gzip": grpc.Compression.Gzip}[compression],
        }
        return [
            getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.grpc.{module}"), name)(**options)
            for module, name in names
        ]
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http import Compression

        options = {
            "certificate_file": ca,
            "compression": {"none": Compression.NoCompression, "gzip": Compression.Gzip}[compression],
        }
        return [
            getattr(importlib.import_module(f"opentelemetry.exporter.otlp.proto.http.{module}"), name)(
                endpoint=f"{url}/v1/{path}", **options
            )
            for (module, name), path in zip(names, ("traces", "metrics", "logs"), strict=True)
        ]
    raise SystemExit(f"no protocol {protocol}: grpc or http/protobuf")


def record(tracer, meter, logger):
    """Play the set; the ids of the spans."""
    requests = meter.create_counter("requests", unit="1")
    active = meter.create_up_down_counter("active")
    duration = meter.create_histogram("duration", unit="ms")
    size = meter.create_histogram("size", unit="By")
    temperature = meter.create_gauge("temperature")
    ids, root = [], None
    for i in range(COUNT):
        is_root, failed = i % 10 == 0, i % 3 == 0
        span = tracer.start_span(
            f"op-{i % 7}",
            context=Context() if is_root else trace.set_span_in_context(root, Context()),
            kind=KINDS[i % 5],
            attributes={
                "number": i,
                "text": f"värde-{i}",
                "ratio": i + 0.25,
                "even": i % 2 == 0,
                "words": ["a", str(i)],
            },
            links=[Link(root.get_span_context(), {"number": i})] if is_root and root else None,
        )
        root = span if is_root else root
        span.add_event("moment", {"number": i})
        if failed:
            span.set_status(StatusCode.ERROR, "failed")
        logger.emit(
            LogRecord(
                timestamp=time.time_ns(),
                context=trace.set_span_in_context(span, Context()),
                severity_number=SeverityNumber.ERROR if failed else SeverityNumber.INFO,
                body=f"rad {i} € väl",
                attributes={"number": i},
            )
        )
        route = {"route": f"r{i % 5}"}
        requests.add(i + 1, route)
        active.add(2 - 3 * (i % 2))
        duration.record(i + 0.25, route)
        size.record(i + 0.25)
        temperature.set(i / 2)
        span.end()
        context = span.get_span_context()
        ids.append((f"{context.trace_id:032x}", f"{context.span_id:016x}"))
    return ids


def main(protocol, url, compression, ca=None):
    failures = Failures()
    logging.getLogger("opentelemetry").addHandler(failures)
    spans, metrics, logs = exporters(protocol, url, compression, ca)
    resource = Resource({"service.name": os.environ["OTEL_SERVICE_NAME"]})
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(spans))
    views = [View(instrument_name="size", aggregation=ExponentialBucketHistogramAggregation())]
    meters = MeterProvider([PeriodicExportingMetricReader(metrics)], resource=resource, views=views)
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(BatchLogRecordProcessor(logs))
    ids = record(tracers.get_tracer("interop", "1.0"), meters.get_meter("interop"), loggers.get_logger("interop"))
    for provider in (tracers, meters, loggers):
        provider.shutdown()
    if failures.all:
        raise SystemExit("\n".join(failures.all))
    sys.stdout.write(json.dumps({"spans": ids}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
