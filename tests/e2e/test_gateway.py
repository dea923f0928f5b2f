"""The simulated platform through the gateway into real Prometheus, Loki and Jaeger.

Asserted through their own query APIs.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from collector.cli.demo.platform import Platform
from collector.cli.demo.sender import Sender
from collector.testing import free_port

CONFIG = """
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{grpc}"}}, http: {{endpoint: "127.0.0.1:{http}"}}}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 1024}}
  batch: {{timeout: 200ms}}
  cardinality: {{limit: 100, overflow: {{flush_interval: 1s}}}}
  gpu: {{backend: simulated, simulated: {{gpus: 1, host_name: tailrace-demo-gpu}}}}
  sampling:
    decision_wait: 2s
    rules:
      - {{name: errors, any: {{status: error, http_status: 5xx}}, ratio: 1.0}}
      - {{name: slow, root_duration: 2s, ratio: 1.0}}
      - {{name: rest, ratio: 0.2}}
exporters:
  prometheus_remote_write: {{endpoint: "{prometheus}/api/v1/write"}}
  loki: {{endpoint: "{loki}"}}
  jaeger: {{endpoint: "{jaeger}", tls: {{insecure: true}}}}
service:
  telemetry: {{logs: {{level: warn}}, metrics: {{address: "127.0.0.1:{admin}"}}}}
  pipelines:
    traces: {{receivers: [otlp], processors: [memory_limiter, gpu, sampling, batch], exporters: [jaeger]}}
    metrics: {{receivers: [otlp], processors: [memory_limiter, cardinality, batch], exporters:
        [prometheus_remote_write]}}
    logs: {{receivers: [otlp], processors: [memory_limiter, gpu, batch], exporters: [loki]}}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def fetch(url, **parameters):
    with urllib.request.urlopen(
        f"{url}?{urllib.parse.urlencode(parameters)}" if parameters else url, timeout=10
    ) as answer:
        return json.load(answer)


def eventually(check, timeout_s=40):
    """Return the first truthy answer, or the last answer if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.3)


@pytest.fixture(scope="module")
def fed(prometheus, loki, jaeger, tmp_path_factory):
    """What was sent to the gateway, which has run and has ended on SIGTERM."""
    folder = tmp_path_factory.mktemp("gateway")
    grpc, http, admin = free_port(), free_port(), free_port()
    file = folder / "gateway.yaml"
    file.write_text(
        CONFIG.format(grpc=grpc, http=http, admin=admin, prometheus=prometheus, loki=loki, jaeger=jaeger[1])
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, "-c", "from collector.cli import main; main()", "run", "--config", str(file)]
    process = subprocess.Popen(program, env=environment, cwd=folder)
    try:
        assert eventually(lambda: ready(admin)), "the gateway did not become ready"
        platform = Platform(seed=11, users=300)
        sender = Sender(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}")
        for _ in range(10):
            traces, logs = platform.requests(40)
            sender.traces(traces)
            sender.logs(logs)
            sender.metrics(platform.metrics())
        ledger = fetch(f"http://127.0.0.1:{admin}/ledger")
        sender.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        yield platform.totals, ledger
    finally:
        process.kill()
        process.wait()


def ready(admin):
    try:
        return bool(fetch(f"http://127.0.0.1:{admin}/health/ready"))
    except OSError:
        return False


def instant(prometheus, query):
    found = fetch(f"{prometheus}/api/v1/query", query=query)["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def test_prometheus_has_every_request_under_the_cap_and_answers_quantiles(fed, prometheus):
    """The limit holds; the sum of the last values is exactly what was sent; histogram_quantile answers.

    The series target_info is there. The gateway has stopped and so ended the overflow series, which only
    ``last_over_time`` still shows; otherwise it would count beside that of the next gateway for five minutes.
    """
    totals, _ = fed
    requests = 'http_requests_total{job="backend-api"}'
    overflow = 'http_requests_total{job="backend-api", otel_metric_overflow="true"}'
    assert eventually(lambda: instant(prometheus, f"sum(last_over_time({requests}[1h]))") == totals.requests_value)
    assert instant(prometheus, f"count(last_over_time({requests}[1h]))") == 101
    assert instant(prometheus, f"sum(last_over_time({overflow}[1h]))") > 0
    assert eventually(lambda: instant(prometheus, f"count({overflow})") is None)
    quantile = instant(prometheus, "histogram_quantile(0.95, sum by (le) (http_request_duration_seconds_bucket))")
    assert 0.001 < quantile < 30
    assert instant(prometheus, "sum(http_request_duration_seconds_count)") == totals.requests_value
    assert instant(prometheus, 'count(target_info{job="backend-api"})') == 1


def test_loki_answers_by_service_with_trace_ids(fed, loki):
    """Logs are found by our label and by the one Loki adds; all lines arrived; ids are structured metadata."""
    totals, _ = fed

    def lines(query):
        now = time.time_ns()
        found = fetch(
            f"{loki}/loki/api/v1/query_range", query=query, limit=5000, start=now - 600 * 10**9, end=now + 60 * 10**9
        )
        return [(stream["stream"], value) for stream in found["data"]["result"] for value in stream["values"]]

    assert eventually(lambda: len(lines('{environment="demo"}')) == totals.log_records)
    by_service = lines('{service="backend-api"}')
    assert by_service
    assert len(lines('{service_name="backend-api"}')) == len(by_service)
    assert all(len(labels["trace_id"]) == 32 and labels["environment"] == "demo" for labels, _ in by_service)
    assert lines('{service="backend-api", level="info"} | tenant_id=~"tenant-.*"')


def test_jaeger_finds_traces_with_gpu_attributes_and_every_error(fed, jaeger):
    """All errors and the right share of the rest are kept; only spans of the embedding server have GPU attributes."""
    totals, _ = fed
    query, _ = jaeger

    def traces(service):
        found = fetch(f"{query}/api/traces", service=service, limit=2000, lookback="1h")["data"]
        return {trace["traceID"]: trace for trace in found}

    def failed(found):
        return {
            key
            for key, trace in found.items()
            if any(tag["key"] == "error" for span in trace["spans"] for tag in span["tags"])
        }

    assert eventually(lambda: len(failed(traces("backend-api"))) == totals.error_traces)
    kept = traces("backend-api")
    special = totals.error_traces + totals.slow_traces
    rest = totals.traces - special
    assert abs(len(kept) - special - 0.2 * rest) <= 4 * (rest * 0.2 * 0.8) ** 0.5 + 1
    tags = [
        (trace["processes"][span["processID"]]["serviceName"], {tag["key"]: tag["value"] for tag in span["tags"]})
        for trace in traces("embedding-server").values()
        for span in trace["spans"]
    ]
    assert {service for service, found in tags if found.get("gpu.source") == "simulated"} == {"embedding-server"}


def test_the_door_took_exactly_what_was_sent(fed):
    """Compared with the first line of the ledger."""
    totals, ledger = fed
    rows = (
        ledger["rows"]
        if isinstance(ledger, dict) and "rows" in ledger
        else ledger["nodes"]
        if isinstance(ledger, dict)
        else ledger
    )
    received = {row["signal"]: row["received"] for row in rows if row["node"] == "receivers/otlp"}
    assert received == {"traces": totals.spans, "metrics": totals.metric_points, "logs": totals.log_records}
    assert all(row["imbalance"] == 0 for row in rows)
