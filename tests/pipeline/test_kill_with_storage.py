"""kill -9 while several clients send, with a queue on disk: what was acknowledged arrives, whenever the process dies."""

import contextlib
import random
import signal

import pytest

from collector.testing import free_port

KILLS = 10
CONFIG = """
extensions: {file_storage: {directory: STORAGE, create_directory: true}}
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:GRPC"}, http: {endpoint: "127.0.0.1:HTTP"}}}}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:SINK"
    tls: {insecure: true}
    retry_on_failure: {initial_interval: 100ms, max_interval: 200ms}
    sending_queue: {storage: file_storage, queue_size: 100000, num_consumers: 2}
service:
  extensions: [file_storage]
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], exporters: [otlp_grpc]}
    logs: {receivers: [otlp], exporters: [otlp_grpc]}
"""
SINK = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:SINK"}}}}
exporters: {file: {path: out.jsonl}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    logs: {receivers: [otlp], exporters: [file]}
"""


@pytest.mark.timeout(240)
def test_what_was_acknowledged_survives_kill_9_in_ten_random_moments(gateways, load, tmp_path):
    """The backend is down for the first half of them, so that the queue is long, and up for the rest."""
    senders, ids_in, until = load
    rng = random.Random(1)
    ports = {name: str(free_port()) for name in ("GRPC", "HTTP", "SINK")}

    def filled_in(text):
        for name, port in ports.items():
            text = text.replace(name, port)
        return text.replace("STORAGE", str(tmp_path / "storage"))

    sink_folder, folder = tmp_path / "sink", tmp_path / "gateway"
    with contextlib.ExitStack() as stack:
        with senders(f"127.0.0.1:{ports['GRPC']}", f"127.0.0.1:{ports['HTTP']}") as sent:
            for kill in range(KILLS):
                if kill == KILLS // 2:
                    sink = stack.enter_context(gateways(filled_in(SINK), sink_folder))
                with gateways(filled_in(CONFIG), folder) as running:
                    enough = len(sent.acknowledged) + rng.randrange(100, 3000)
                    assert until(lambda enough=enough: len(sent.acknowledged) > enough)
                    running.process.send_signal(signal.SIGKILL)
                    running.process.wait()
        with gateways(filled_in(CONFIG), folder) as running:

            def is_empty():
                rows = [row for row in running.ledger() if row["node"] == "exporters/otlp_grpc"]
                return rows and not any(row["held"] for row in rows)

            assert until(is_empty)
            assert running.stop() == 0
            ledger = running.final_ledger()
        assert sink.stop() == 0
    written = ids_in(sink_folder / "out.jsonl")
    assert sent.acknowledged.keys() - written.keys() == set()
    assert written.keys() - sent.acknowledged.keys() <= sent.unknown.keys()
    # What is sent again was in flight when the process died, or settled within the last moments.
    assert max(written.values()) <= 1 + KILLS - KILLS // 2
    assert sum(written.values()) - len(written) < len(written) / 2
    rows = [ledger["exporters/otlp_grpc", name] for name in ("traces", "logs")]
    assert all(row["received"] + row["created"] == row["out"] for row in rows)
    assert not any(row["dropped"] or row["refused"] or row["held"] for row in rows)
    assert not [path for path in (tmp_path / "storage").rglob("*") if path.suffix in {".corrupt", ".seg"}]
