"""A counter pushed ten times: Prometheus computes the correct rate from it."""

import json
import time
import urllib.parse
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AGGREGATION_TEMPORALITY_CUMULATIVE

from collector.testing import free_port

CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:HTTP"}}}}
processors: {cardinality: {limit: 5, overflow: {flush_interval: 1s}}, batch: {timeout: 200ms}}
exporters: {prometheus_remote_write: {endpoint: "PROMETHEUS/api/v1/write"}}
service:
  telemetry: {logs: {level: warn}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines: {metrics: {receivers: [otlp], processors: [CAP batch], exporters: [prometheus_remote_write]}}
"""
PUSHES, INTERVAL_S, SERIES, PER_SECOND = 10, 15, 4, 3
"""Each of the series grows by 45 a push."""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(150)]


def push(url, service, start, now, value):
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name", value={"string_value": service})
    metric = resource.scope_metrics.add().metrics.add(name="http_requests_total")
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, AGGREGATION_TEMPORALITY_CUMULATIVE
    for series in range(SERIES):
        point = metric.sum.data_points.add(start_time_unix_nano=start, time_unix_nano=now, as_int=value)
        point.attributes.add(key="endpoint", value={"string_value": f"/v1/{series}"})
    headers = {"Content-Type": "application/x-protobuf"}
    with urllib.request.urlopen(
        urllib.request.Request(url, request.SerializeToString(), headers), timeout=10
    ) as answer:
        assert answer.status == 200


def asked(prometheus, query):
    with urllib.request.urlopen(
        f"{prometheus}/api/v1/query?{urllib.parse.urlencode({'query': query})}", timeout=10
    ) as answer:
        found = json.load(answer)["data"]["result"]
    return float(found[0]["value"][1]) if found else 0.0


@pytest.mark.parametrize("cap", ["", "cardinality,"])
def test_rate_after_ten_pushes(cap, gateway, load, prometheus):
    """Pushes every fifteen seconds for two and a half minutes, as an SDK would; with and without the limit."""
    until = load[2]
    http = free_port()
    running = gateway(CONFIG.replace("HTTP", str(http)).replace("PROMETHEUS", prometheus).replace("CAP", cap))
    service = f"rate-{'capped' if cap else 'plain'}"
    now = time.time_ns()
    start = now - PUSHES * INTERVAL_S * 10**9
    for turn in range(1, PUSHES + 1):
        push(
            f"http://127.0.0.1:{http}/v1/metrics",
            service,
            start,
            start + turn * INTERVAL_S * 10**9,
            turn * INTERVAL_S * PER_SECOND,
        )
    mine = f'http_requests_total{{job="{service}"}}'
    assert until(lambda: asked(prometheus, f"sum({mine})") == SERIES * PUSHES * INTERVAL_S * PER_SECOND)
    assert asked(prometheus, f"sum(count_over_time({mine}[5m]))") >= SERIES * PUSHES
    assert asked(prometheus, f"sum(rate({mine}[2m]))") == pytest.approx(SERIES * PER_SECOND, rel=0.1)
    assert all(row["imbalance"] == 0 for row in running.ledger())
    assert running.stop() == 0
