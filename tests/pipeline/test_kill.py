"""Signals while several clients send: what was acknowledged is in the file exactly once, and the ledger balances."""

import re
import signal
import urllib.error
import urllib.request

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


@pytest.mark.timeout(150)
def test_reloads_of_the_process_refuse_nothing(gateway, load, tmp_path):
    """Twelve changed files, by SIGHUP and over HTTP, and one bad file: the file exporter, its queue and the receiver."""
    senders, ids_in, until = load
    grpc, http = free_port(), free_port()
    text = CONFIG.replace("GRPC", str(grpc)).replace("HTTP", str(http)).replace("timeout: 30s", "timeout: 100ms")
    running = gateway(text)
    file = tmp_path / "tailrace.yaml"
    text = file.read_text()
    reload = urllib.request.Request(f"{running.url}/-/reload", method="POST")

    def started_at():
        page = urllib.request.urlopen(f"{running.url}/metrics").read().decode()
        return re.search(r"^tailrace_config_last_reload_success_timestamp_seconds (.*)$", page, re.MULTILINE)[1]

    with senders(f"127.0.0.1:{grpc}", f"127.0.0.1:{http}") as sent:
        for number in range(12):
            before, previous = sum(sent.acknowledged.values()), started_at()
            assert until(lambda before=before: sum(sent.acknowledged.values()) > before + 500)
            receiver = f'endpoint: "127.0.0.1:{grpc}", max_recv_msg_size_mib: {number // 2 + 5}'
            changed = text.replace(f'endpoint: "127.0.0.1:{grpc}"', receiver)
            file.write_text(
                changed.replace("block_on_overflow: true", f"block_on_overflow: true, queue_size: {2000 + number}")
            )
            if number % 2:
                running.process.send_signal(signal.SIGHUP)
            else:
                assert urllib.request.urlopen(reload).status == 200
            assert until(lambda previous=previous: started_at() != previous)
            assert running.ready()
        file.write_text(text.replace("[otlp]", "[nothing]"))
        with pytest.raises(urllib.error.HTTPError) as failure:
            urllib.request.urlopen(reload)
        assert "nothing" in failure.value.read().decode()
        before = sum(sent.acknowledged.values())
        assert until(lambda: sum(sent.acknowledged.values()) > before + 500)
    assert running.stop() == 0
    assert not sent.unknown
    assert sent.acknowledged == ids_in(tmp_path / "out.jsonl")
    ledger = running.final_ledger()
    assert all(row["held"] == row["dropped"] == row["refused"] == 0 for row in ledger.values())
