"""Sends the same two spans with a tracer of before OpenTelemetry's own protocol: main.py WAY ENDPOINT.

WAY: jaeger-thrift-udp, jaeger-thrift-http, jaeger-proto-grpc (OpenTelemetry's exporters), jaeger-client, zipkin-json,
zipkin-proto (OpenTelemetry's exporters), py-zipkin-v1-json, py-zipkin-v2-json. ENDPOINT: host:port,
or a URL for what goes over HTTP.
"""

import sys
import time
import urllib.request


def opentelemetry(exporter):
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.trace import SpanKind, Status, StatusCode

    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "host.name": "h1"}))
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("lib", "1.0")
    with tracer.start_as_current_span("parent", kind=SpanKind.SERVER) as span:
        span.set_attribute("count", 7)
        span.add_event("cache miss", {"key": "a"})
        with tracer.start_as_current_span("child", kind=SpanKind.CLIENT) as child:
            child.set_status(Status(StatusCode.ERROR, "no stock"))
    assert provider.force_flush()
    provider.shutdown()


def jaeger_client(host, port):
    from jaeger_client import Config

    config = {"sampler": {"type": "const", "param": 1}, "local_agent": {"reporting_host": host, "reporting_port": port}}
    tracer = Config(config=config, service_name="shop", validate=True).initialize_tracer()
    with tracer.start_span("parent", tags={"span.kind": "server", "count": 7}) as span:
        span.log_kv({"event": "cache miss", "key": "a"})
        with tracer.start_span("child", child_of=span, tags={"span.kind": "client", "error": True}):
            pass
    time.sleep(2)  # the reporter has no call that waits
    tracer.close()
    time.sleep(1)


def py_zipkin(encoding, url):
    from py_zipkin import Encoding, Kind
    from py_zipkin.zipkin import zipkin_client_span, zipkin_span

    def transport(payload):
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, payload if isinstance(payload, bytes) else payload.encode(), headers)
        assert urllib.request.urlopen(request, timeout=30).status == 202

    with zipkin_span(
        service_name="shop",
        span_name="parent",
        transport_handler=transport,
        sample_rate=100,
        encoding={"v1-json": Encoding.V1_JSON, "v2-json": Encoding.V2_JSON}[encoding],
        kind=Kind.SERVER,
        binary_annotations={"count": "7"},
    ) as span:
        span.add_annotation("cache miss")
        with zipkin_client_span(service_name="shop", span_name="child", binary_annotations={"error": "no stock"}):
            pass


def main(way, endpoint):
    host, _, port = endpoint.rpartition(":")
    if way == "jaeger-client":
        jaeger_client(host, int(port))
    elif way.startswith("py-zipkin"):
        py_zipkin(way.removeprefix("py-zipkin-"), endpoint)
    elif way == "jaeger-thrift-udp":
        from opentelemetry.exporter.jaeger.thrift import JaegerExporter

        opentelemetry(JaegerExporter(agent_host_name=host, agent_port=int(port)))
    elif way == "jaeger-thrift-http":
        from opentelemetry.exporter.jaeger.thrift import JaegerExporter

        opentelemetry(JaegerExporter(collector_endpoint=endpoint))
    elif way == "jaeger-proto-grpc":
        from opentelemetry.exporter.jaeger.proto.grpc import JaegerExporter

        opentelemetry(JaegerExporter(collector_endpoint=endpoint, insecure=True))
    elif way == "zipkin-json":
        from opentelemetry.exporter.zipkin.json import ZipkinExporter

        opentelemetry(ZipkinExporter(endpoint=endpoint))
    elif way == "zipkin-proto":
        from opentelemetry.exporter.zipkin.proto.http import ZipkinExporter

        opentelemetry(ZipkinExporter(endpoint=endpoint))
    else:
        sys.exit(f"unknown way: {way}")


if __name__ == "__main__":
    main(*sys.argv[1:])
