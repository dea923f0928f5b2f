"""Tracers of before OTLP send to the gateway: the OpenTelemetry exporters for Jaeger and Zipkin, and older clients."""

import json
import subprocess
import sys
import time

import pytest

from collector.testing import free_port

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

CONFIG = """
receivers:
  jaeger:
    protocols:
      grpc: {{endpoint: "127.0.0.1:{grpc}"}}
      thrift_http: {{endpoint: "127.0.0.1:{http}"}}
      thrift_compact: {{endpoint: "127.0.0.1:{compact}"}}
  zipkin: {{endpoint: "127.0.0.1:{zipkin}"}}
exporters: {{file: {{path: "{folder}/spans.jsonl", flush_interval: 100ms}}}}
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [jaeger, zipkin], exporters: [file]}}}}
"""
CLIENT, SERVER, ERROR = 3, 2, 2


@pytest.fixture
def gateway(server, tmp_path):
    ports = {name: free_port() for name in ("grpc", "http", "compact", "zipkin", "health")}
    (tmp_path / "gateway.yaml").write_text(CONFIG.format(folder=tmp_path, **ports))
    arguments = [
        sys.executable,
        "-c",
        "from collector.cli import main; main()",
        "run",
        "--config",
        f"{tmp_path}/gateway.yaml",
    ]
    with server.running(arguments, f"http://127.0.0.1:{ports['health']}/", tmp_path):
        yield ports


def attributes(holder):
    return {pair["key"]: next(iter(pair["value"].values())) for pair in holder.get("attributes", ())}


def spans(file):
    """Name → (resource, span) of what has been written."""
    found = {}
    if file.exists():
        for line in file.read_text().split("\n")[:-1]:
            for group in json.loads(line)["resourceSpans"]:
                for scope in group["scopeSpans"]:
                    found |= {span["name"]: (attributes(group["resource"]), span) for span in scope["spans"]}
    return found


@pytest.mark.parametrize(
    ("way", "endpoint"),
    [
        ("jaeger-thrift-udp", "127.0.0.1:{compact}"),
        ("jaeger-thrift-http", "http://127.0.0.1:{http}/api/traces?format=jaeger.thrift"),
        ("jaeger-proto-grpc", "127.0.0.1:{grpc}"),
        ("jaeger-client", "127.0.0.1:{compact}"),
        ("zipkin-json", "http://127.0.0.1:{zipkin}/api/v2/spans"),
        ("zipkin-proto", "http://127.0.0.1:{zipkin}/api/v2/spans"),
        ("py-zipkin-v1-json", "http://127.0.0.1:{zipkin}/api/v1/spans"),
        ("py-zipkin-v2-json", "http://127.0.0.1:{zipkin}/api/v2/spans"),
    ],
)
def test_both_spans_arrive_with_their_meaning(gateway, server, tmp_path, way, endpoint):
    """Names, kinds, parent, status, event, attribute and resource."""
    folder = server.binary("old_tracers")
    arguments = [f"{folder}/bin/python", f"{folder}/main.py", way, endpoint.format(**gateway)]
    subprocess.run(arguments, check=True, timeout=60)
    deadline = time.monotonic() + 20
    while len(found := spans(tmp_path / "spans.jsonl")) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert set(found) == {"parent", "child"}
    (resource, parent), (_, child) = found["parent"], found["child"]
    assert resource["service.name"] == "shop"
    assert (child["traceId"], child["parentSpanId"]) == (parent["traceId"], parent["spanId"])
    assert (parent["kind"], child["kind"]) == (SERVER, CLIENT)
    assert child["status"]["code"] == ERROR
    assert str(attributes(parent)["count"]) == "7"
    (event,) = parent["events"]
    # OpenTelemetry's exporters write it into the field "message" (Thrift) or into JSON (Zipkin).
    assert "cache miss" in event.get("name", "") + attributes(event).get("message", "")
