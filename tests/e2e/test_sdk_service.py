"""A FastAPI service with the real OpenTelemetry SDK sends through the gateway into Prometheus, Loki and Jaeger."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from collector.testing import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_service"
CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}}}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 1024}
  batch: {timeout: 200ms}
  cardinality: {limit: 100, overflow: {flush_interval: 1s}}
  sampling:
    decision_wait: 2s
    rules:
      - {name: errors, any: {status: error, http_status: 5xx}, ratio: 1.0}
      - {name: rest, ratio: 0.5}
exporters:
  prometheus_remote_write: {endpoint: "PROMETHEUS/api/v1/write"}
  loki: {endpoint: "LOKI"}
  jaeger: {endpoint: "JAEGER", tls: {insecure: true}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter, sampling, batch], exporters: [jaeger]}
    metrics: {receivers: [otlp], processors: [memory_limiter, cardinality, batch], exporters: [prometheus_remote_write]}
    logs: {receivers: [otlp], processors: [memory_limiter, batch], exporters: [loki]}
"""
GOOD, FAILING = 40, 3

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def fetch(url, **parameters):
    with urllib.request.urlopen(
        f"{url}?{urllib.parse.urlencode(parameters)}" if parameters else url, timeout=10
    ) as answer:
        return json.load(answer)


def status(url, method="GET"):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code
    except OSError:
        return 0


@pytest.mark.parametrize(
    ("conventions", "histogram"),
    [("", "http_server_duration_milliseconds_bucket"), ("http", "http_server_request_duration_seconds_bucket")],
    ids=["old", "stable"],
)
def test_an_instrumented_service_is_seen_everywhere(
    conventions, histogram, gateway, load, prometheus, loki, jaeger, tmp_path
):
    """Its latency quantile, its log lines with the ids of their traces, and its failing requests are found.

    Half of the rest is sampled away.
    """
    until = load[2]
    grpc, port, name = free_port(), free_port(), f"embedding-api-{conventions or 'old'}"
    config = (
        CONFIG.replace("GRPC", str(grpc))
        .replace("PROMETHEUS", prometheus)
        .replace("LOKI", loki)
        .replace("JAEGER", jaeger[1])
    )
    running = gateway(config)
    environment = {
        **os.environ, "OTEL_SERVICE_NAME": name, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{grpc}",
        "OTEL_METRIC_EXPORT_INTERVAL": "500", "OTEL_SEMCONV_STABILITY_OPT_IN": conventions,
    }  # fmt: skip
    program = [
        sys.executable,
        "-m",
        "uvicorn",
        "--app-dir",
        str(EXAMPLE),
        "--port",
        str(port),
        "--log-level",
        "warning",
        "app:app",
    ]
    with (tmp_path / "service.log").open("wb") as log:
        service = subprocess.Popen(program, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    try:
        base = f"http://127.0.0.1:{port}/v1"
        assert until(lambda: status(f"{base}/documents/1") == 200), (tmp_path / "service.log").read_text()
        assert [status(f"{base}/embeddings?text={'x' * number}", "POST") for number in range(1, GOOD + 1)] == [
            200
        ] * GOOD
        assert [status(f"{base}/documents/{500 + number}") for number in range(FAILING)] == [500] * FAILING
        seen_by_prometheus(prometheus, name, histogram, until)
        failed_lines = seen_by_loki(loki, name, until)
        seen_by_jaeger(jaeger[0], name, failed_lines, until)
        service.terminate()
        service.wait(30)
        assert all(row["imbalance"] == 0 for row in running.ledger())
        assert running.stop() == 0
        assert "error" not in running.log.read_text().lower()
    finally:
        service.kill()
        service.wait()


def seen_by_prometheus(prometheus, name, histogram, until):
    def instant(query):
        found = fetch(f"{prometheus}/api/v1/query", query=query)["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    count = histogram.replace("_bucket", "_count")
    assert until(lambda: instant(f'sum({count}{{job="{name}"}})') >= GOOD + FAILING)
    longest = 10 if "seconds" in histogram and "milli" not in histogram else 10_000
    assert 0 < instant(f'histogram_quantile(0.95, sum by (le) ({histogram}{{job="{name}"}}))') < longest
    assert instant(f'count(target_info{{job="{name}"}})') == 1


def seen_by_loki(loki, name, until):
    """Return the trace ids of the log lines about failures."""

    def lines():
        now = time.time_ns()
        query = f'{{service="{name}"}}'
        found = fetch(
            f"{loki}/loki/api/v1/query_range", query=query, limit=5000, start=now - 600 * 10**9, end=now + 60 * 10**9
        )
        return [(stream["stream"], line) for stream in found["data"]["result"] for _, line in stream["values"]]

    assert until(lambda: len(lines()) == GOOD + FAILING), lines()
    found = lines()
    assert sorted(line for _, line in found if "shard" in line) == [
        f"the shard of document {500 + each} is unavailable" for each in range(FAILING)
    ]
    assert sum(line.startswith("embedded ") for _, line in found) == GOOD
    assert len({labels["trace_id"] for labels, _ in found}) == GOOD + FAILING
    return {labels["trace_id"] for labels, line in found if "shard" in line}


def seen_by_jaeger(query, name, failed_ids, until):
    def traces(operation):
        return {
            trace["traceID"]
            for trace in fetch(f"{query}/api/traces", service=name, operation=operation, limit=500, lookback="1h")[
                "data"
            ]
        }

    assert until(lambda: failed_ids <= traces("GET /v1/documents/{number}")), (
        failed_ids,
        traces("GET /v1/documents/{number}"),
    )
    assert until(lambda: traces("encode"))
    assert 1 <= len(traces("POST /v1/embeddings")) < GOOD
