"""SIGTERM while several clients send, with the Go collector as backend: what was acknowledged arrives exactly once."""

import pytest

from collector.testing import free_port

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}, http: {endpoint: "127.0.0.1:HTTP"}}}}
processors: {batch: {timeout: 30s, send_batch_size: 4000}}
exporters:
  otlp_grpc: {endpoint: "127.0.0.1:TARGET", tls: {insecure: true}, sending_queue: {block_on_overflow: true}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], processors: [batch], exporters: [otlp_grpc]}
"""
GO = """
extensions: {health_check: {endpoint: "127.0.0.1:HEALTH"}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:TARGET"}}}}
exporters: {file/traces: {path: FOLDER/traces.jsonl}, file/logs: {path: FOLDER/logs.jsonl}}
service:
  extensions: [health_check]
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [file/traces]}
    logs: {receivers: [otlp], exporters: [file/logs]}
"""

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]


def test_what_was_acknowledged_before_sigterm_reaches_the_collector_once(gateway, load, server, tmp_path):
    """The collector ends after the gateway, so its files are complete."""
    senders, ids_in, until = load
    grpc, http, target, health = (free_port() for _ in range(4))
    folder = tmp_path / "go"
    folder.mkdir()
    (folder / "otelcol.yaml").write_text(
        GO.replace("TARGET", str(target)).replace("HEALTH", str(health)).replace("FOLDER", str(folder))
    )
    arguments = [server.binary("otelcol"), f"--config={folder}/otelcol.yaml"]
    with server.running(arguments, f"http://127.0.0.1:{health}/", folder):
        running = gateway(CONFIG.replace("GRPC", str(grpc)).replace("HTTP", str(http)).replace("TARGET", str(target)))
        with senders(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}") as sent:
            assert until(lambda: len(sent.acknowledged) > 10_000)
            assert running.stop() == 0
    written = ids_in(folder / "traces.jsonl") + ids_in(folder / "logs.jsonl")
    assert sent.acknowledged.keys() - written.keys() == set()
    assert set(written.values()) == {1}
    assert written.keys() - sent.acknowledged.keys() <= sent.unknown.keys()
    ledger = running.final_ledger()
    for node in ("receivers/otlp", "exporters/otlp_grpc"):
        rows = [ledger[node, signal] for signal in ("traces", "logs")]
        assert sum(row["received"] for row in rows) == sum(row["out"] for row in rows) == len(written)
    assert all(row["held"] == row["dropped"] == row["refused"] == 0 for row in ledger.values())
