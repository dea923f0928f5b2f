"""SIGTERM while several clients send: what was acknowledged is in the file exactly once, and the ledger balances."""

import pytest

from collector.testing import free_port

CONFIG = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}, http: {endpoint: "127.0.0.1:HTTP"}}}}
processors: {batch: {timeout: 30s, send_batch_size: 4000}}
exporters: {file: {path: out.jsonl, sending_queue: {block_on_overflow: true}}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [batch], exporters: [file]}
    logs: {receivers: [otlp], processors: [batch], exporters: [file]}
"""


@pytest.mark.timeout(150)
def test_what_was_acknowledged_before_sigterm_is_in_the_file_once(gateway, load, tmp_path):
    """Four senders never pause, and the batch processor holds thousands of items when the signal arrives."""
    senders, ids_in, until = load
    grpc, http = free_port(), free_port()
    running = gateway(CONFIG.replace("GRPC", str(grpc)).replace("HTTP", str(http)))
    with senders(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}") as sent:
        assert until(lambda: len(sent.acknowledged) > 10_000)
        assert running.stop() == 0
    written = ids_in(tmp_path / "out.jsonl")
    assert set(sent.acknowledged.values()) == {1}
    assert sent.acknowledged.keys() - written.keys() == set()
    assert set(written.values()) == {1}
    assert (
        written.keys() - sent.acknowledged.keys() <= sent.unknown.keys()
    )  # the request arrived, but its answer did not
    ledger = running.final_ledger()
    for node in ("receivers/otlp", "exporters/file"):
        rows = [ledger[node, signal] for signal in ("traces", "logs")]
        assert sum(row["received"] for row in rows) == sum(row["out"] for row in rows) == len(written)
    assert all(row["held"] == row["dropped"] == row["refused"] == 0 for row in ledger.values())
