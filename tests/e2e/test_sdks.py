"""The OpenTelemetry SDKs of four languages send into the gateway, and everything arrives as it was recorded."""

import collections
import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port

CONFIG = """
receivers:
  otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"ENGINE}, http: {endpoint: "127.0.0.1:HTTP"}}}
  otlp/tls:
    protocols:
      grpc: {endpoint: "127.0.0.1:SECURE_GRPC", tls: {cert_file: CERTIFICATES/cert.pem, key_file:
          CERTIFICATES/key.pem}ENGINE}
      http: {endpoint: "127.0.0.1:SECURE_HTTP", tls: {cert_file: CERTIFICATES/cert.pem, key_file: CERTIFICATES/key.pem}}
exporters: {file/traces: {path: FOLDER/traces.jsonl}, file/metrics: {path: FOLDER/metrics.jsonl}, file/logs: {path:
    FOLDER/logs.jsonl}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp, otlp/tls], exporters: [file/traces]}
    metrics: {receivers: [otlp, otlp/tls], exporters: [file/metrics]}
    logs: {receivers: [otlp, otlp/tls], exporters: [file/logs]}
"""
NGINX = """
daemon off; master_process off; worker_processes 1; pid FOLDER/nginx.pid; error_log stderr warn;
events {}
http {
  access_log off;
  client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/fastcgi; uwsgi_temp_path
  FOLDER/uwsgi; scgi_temp_path FOLDER/scgi; upstream over_grpc { server 127.0.0.1:GRPC; keepalive 4; } upstream
  over_http { server 127.0.0.1:HTTP; keepalive 4; } server { listen 127.0.0.1:FRONT_GRPC http2; location / { grpc_pass
  grpc://over_grpc; } } server {
    listen 127.0.0.1:FRONT_HTTP;
    location = /ready { return 200; }
    location / { proxy_pass http://over_http; proxy_http_version 1.1; proxy_set_header Connection ""; }
  }
}
"""
CLIENTS = Path(__file__).parent.parent / "backends"
OVER_GRPC = [("go", "grpc"), ("java", "grpc"), ("java", "grpc-java"), ("js", "grpc"), ("python", "grpc")]
OVER_HTTP = [
    ("go", "http/protobuf"), ("java", "http/protobuf"), ("js", "http/protobuf"), ("js", "http/json"), ("python", "http/protobuf"),
]  # fmt: skip
# What the programs record: `record` in tests/backends/sdk_*.
COUNT = 300
KINDS = [1, 2, 3, 4, 5]
UNSET, ERROR = 0, 2
SEVERITY_INFO, SEVERITY_ERROR = 9, 17

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


class Service:
    """A gateway with one engine, and what it wrote."""

    def __init__(self, folder, ports):
        self.folder, self.ports = folder, ports
        self._names = iter(range(1000))

    def emit(self, server, language, protocol, compression, url, ca=None):
        """Run the program of ``language`` and return the service name it used and the ids of its spans."""
        name = f"{language}-{next(self._names)}"
        if language == "java":
            folder = Path(server.binary("sdk_java"))
            program = [
                "java",
                "-XX:TieredStopAtLevel=1",
                "-XX:+UseSerialGC",
                "-Dfile.encoding=UTF-8",
                "-cp",
                f"{folder}/classes:{folder}/lib/*",
            ]
            program += ["tailrace.Emit"]
        else:
            program = {
                "go": lambda: [server.binary("sdk_go"), "emit"],
                "js": lambda: ["node", server.binary("sdk_js") + "/main.mjs"],
                "python": lambda: [sys.executable, str(CLIENTS / "sdk_python" / "main.py")],
            }[language]()
        arguments = [*program, protocol, url, compression, *([str(ca)] if ca else [])]
        # Without settings of the SDKs, and without the authorities of Python's requests, which come before those it is
        # given.
        ignored = ("OTEL_", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
        environment = {key: value for key, value in os.environ.items() if not key.startswith(ignored)} | {
            "OTEL_SERVICE_NAME": name
        }
        done = subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return name, json.loads(done.stdout)["spans"]

    def received(self, signal, name):
        """Return every resource of that service, in order."""
        kind = {
            "traces": ExportTraceServiceRequest,
            "metrics": ExportMetricsServiceRequest,
            "logs": ExportLogsServiceRequest,
        }[signal]
        found = []
        file = self.folder / f"{signal}.jsonl"
        for line in file.read_text().splitlines(keepends=True) if file.exists() else ():
            if line.endswith("\n") and name in line:
                request = json_format.ParseDict(without_ids(json.loads(line)), kind())
                found += [
                    each for each in request.ListFields()[0][1] if attributes(each.resource)["service.name"] == name
                ]
        return found


def without_ids(value):
    """Ids are hexadecimal in OTLP/JSON and base64 in protobuf's JSON: turn them into attributes in hex."""
    if isinstance(value, list):
        return [without_ids(each) for each in value]
    if not isinstance(value, dict):
        return value
    kept = {key: without_ids(each) for key, each in value.items() if key not in {"traceId", "spanId", "parentSpanId"}}
    ids = [
        {"key": key, "value": {"stringValue": value[key]}}
        for key in ("traceId", "spanId", "parentSpanId")
        if value.get(key)
    ]
    if ids:
        kept["attributes"] = kept.get("attributes", []) + ids
    return kept


def plain(value):
    kind = value.WhichOneof("value")
    return [plain(each) for each in value.array_value.values] if kind == "array_value" else getattr(value, kind)


def attributes(item):
    return {each.key: plain(each.value) for each in item.attributes}


def check_spans(service, name, ids, until):
    def spans():
        return [
            span
            for resource in service.received("traces", name)
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    assert until(lambda: len(spans()) >= COUNT)
    found = {attributes(span)["number"]: span for span in spans()}
    assert len(spans()) == COUNT
    for i, (trace_id, span_id) in enumerate(ids):
        span, root = found[i], ids[i // 10 * 10]
        expected = {"number": i, "text": f"värde-{i}", "ratio": i + 0.25, "even": i % 2 == 0, "words": ["a", str(i)]}
        expected |= {"traceId": trace_id, "spanId": span_id} | ({"parentSpanId": root[1]} if i % 10 else {})
        assert attributes(span) == expected
        assert (span.name, span.kind) == (f"op-{i % 7}", KINDS[i % 5])
        assert (span.status.code, span.status.message) == ((UNSET, "") if i % 3 else (ERROR, "failed"))
        assert [(event.name, attributes(event)) for event in span.events] == [("moment", {"number": i})]
        linked = [] if i % 10 or not i else [{"number": i, "traceId": ids[i - 10][0], "spanId": ids[i - 10][1]}]
        assert [attributes(link) for link in span.links] == linked
        assert 0 < span.start_time_unix_nano <= span.end_time_unix_nano
    scopes = {
        (scope.scope.name, scope.scope.version)
        for resource in service.received("traces", name)
        for scope in resource.scope_spans
    }
    assert scopes == {("interop", "1.0")}


def check_logs(service, name, ids, until):
    def lines():
        return [
            line
            for resource in service.received("logs", name)
            for scope in resource.scope_logs
            for line in scope.log_records
        ]

    assert until(lambda: len(lines()) >= COUNT)
    found = {attributes(line)["number"]: line for line in lines()}
    assert len(lines()) == COUNT
    for i, (trace_id, span_id) in enumerate(ids):
        line = found[i]
        assert attributes(line) == {"number": i, "traceId": trace_id, "spanId": span_id}
        assert line.body.string_value == f"rad {i} € väl"
        assert line.severity_number == (SEVERITY_INFO if i % 3 else SEVERITY_ERROR)


def check_metrics(service, name, until):
    def metrics():
        found = collections.defaultdict(list)
        for resource in service.received("metrics", name):
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                found[metric.name].append(metric)
        return found

    assert until(lambda: len(metrics()) == 5)
    found = {each: values[-1] for each, values in metrics().items()}  # cumulative: the last one includes all others
    of_route = {f"r{route}": range(route, COUNT, 5) for route in range(5)}

    def by_route(points):
        return {attributes(point)["route"]: point for point in points}

    requests = found["requests"]
    assert (requests.unit, requests.sum.is_monotonic, requests.sum.aggregation_temporality) == ("1", True, 2)
    assert {route: point.as_int for route, point in by_route(requests.sum.data_points).items()} == {
        route: sum(i + 1 for i in numbers) for route, numbers in of_route.items()
    }
    assert not found["active"].sum.is_monotonic
    assert [point.as_int for point in found["active"].sum.data_points] == [COUNT // 2]
    assert [point.as_double for point in found["temperature"].gauge.data_points] == [(COUNT - 1) / 2]
    assert found["duration"].unit == "ms"
    for route, point in by_route(found["duration"].histogram.data_points).items():
        numbers = of_route[route]
        assert (point.count, point.sum) == (len(numbers), sum(i + 0.25 for i in numbers))
        assert sum(point.bucket_counts) == point.count
    (size,) = found["size"].exponential_histogram.data_points
    assert (size.count, size.sum, size.min, size.max) == (
        COUNT,
        sum(i + 0.25 for i in range(COUNT)),
        0.25,
        COUNT - 0.75,
    )
    assert sum(size.positive.bucket_counts) + size.zero_count == COUNT


def check(service, name, ids, until):
    assert len(ids) == COUNT
    check_spans(service, name, ids, until)
    check_logs(service, name, ids, until)
    check_metrics(service, name, until)


@pytest.fixture(scope="module")
def services(module_gateway, certificates):
    """The gateways by engine, each started on first use."""
    started = {}

    def of(engine=""):
        if engine not in started:
            ports = {word: free_port() for word in ("SECURE_GRPC", "SECURE_HTTP", "GRPC", "HTTP")}
            text = CONFIG.replace("CERTIFICATES", str(certificates)).replace("ENGINE", engine)
            for word, port in ports.items():
                text = text.replace(f":{word}", f":{port}")
            _, folder = module_gateway(text)
            started[engine] = Service(folder, ports)
        return started[engine]

    return of


@pytest.mark.parametrize(
    ("engine", "security"), [("http2", "plaintext"), ("http2", "TLS"), ("grpcio", "plaintext")], indirect=["engine"]
)
@pytest.mark.parametrize(("language", "protocol"), OVER_GRPC)
def test_everything_arrives_over_grpc(language, protocol, security, engine, services, server, certificates, load):
    """Spans, metrics and logs of each language's SDK arrive, compressed without TLS and uncompressed over TLS."""
    service = services(engine.server)
    if security == "TLS":
        url = f"https://localhost:{service.ports['SECURE_GRPC']}"
        sent = service.emit(server, language, protocol, "none", url, certificates / "ca.pem")
    else:
        sent = service.emit(server, language, protocol, "gzip", f"http://127.0.0.1:{service.ports['GRPC']}")
    check(service, *sent, load[2])


@pytest.mark.parametrize("security", ["plaintext", "TLS"])
@pytest.mark.parametrize(("language", "protocol"), OVER_HTTP)
def test_everything_arrives_over_http(language, protocol, security, services, server, certificates, load):
    """Spans, metrics and logs of each language's SDK arrive, compressed without TLS and uncompressed over TLS."""
    service = services()
    if security == "TLS":
        url = f"https://localhost:{service.ports['SECURE_HTTP']}"
        sent = service.emit(server, language, protocol, "none", url, certificates / "ca.pem")
    else:
        sent = service.emit(server, language, protocol, "gzip", f"http://127.0.0.1:{service.ports['HTTP']}")
    check(service, *sent, load[2])


@pytest.fixture
def nginx(nginx_program, server, tmp_path):
    """Starts nginx in front of a service and returns the ports it listens on."""
    with contextlib.ExitStack() as stack:

        def start(service):
            front = {"FRONT_GRPC": free_port(), "FRONT_HTTP": free_port()}
            text = NGINX.replace("FOLDER", str(tmp_path))
            for word, port in {**front, "GRPC": service.ports["GRPC"], "HTTP": service.ports["HTTP"]}.items():
                text = text.replace(f":{word}", f":{port}")
            (tmp_path / "nginx.conf").write_text(text)
            arguments = [nginx_program, "-c", str(tmp_path / "nginx.conf"), "-p", str(tmp_path), "-e", "stderr"]
            stack.enter_context(server.running(arguments, f"http://127.0.0.1:{front['FRONT_HTTP']}/ready", tmp_path))
            return front

        yield start


@pytest.mark.parametrize("language", ["go", "python"])
def test_everything_arrives_through_nginx_over_grpc(language, engine, services, server, nginx, load):
    """With ``grpc_pass`` nginx ends the client's HTTP/2 connection and opens one of its own."""
    service = services(engine.server)
    front = nginx(service)
    check(service, *service.emit(server, language, "grpc", "gzip", f"http://127.0.0.1:{front['FRONT_GRPC']}"), load[2])


@pytest.mark.parametrize("language", ["go", "python"])
def test_everything_arrives_through_nginx_over_http(language, services, server, nginx, load):
    """With ``proxy_pass`` nginx keeps its connections alive."""
    service = services()
    front = nginx(service)
    check(
        service,
        *service.emit(server, language, "http/protobuf", "gzip", f"http://127.0.0.1:{front['FRONT_HTTP']}"),
        load[2],
    )
