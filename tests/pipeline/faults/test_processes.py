"""Faults of the process and its surroundings, on ``tailrace run`` itself: signals, descriptors, memory, its own log.

``kill -9`` in ten random moments is in ``test_kill_with_storage.py``; a log that cannot be written, in
``test_own_log.py``.
"""

import contextlib
import resource
import socket
import urllib.error
import urllib.request

import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port, traces_request

CONFIG = """
receivers:
  otlp:
    protocols:
      grpc: {endpoint: "127.0.0.1:GRPC"}
      http: {endpoint: "127.0.0.1:HTTP", max_request_body_size: 200000000}
processors: {memory_limiter: {check_interval: 100ms, limit_mib: LIMIT}}
exporters: {file: {path: out.jsonl, sending_queue: {queue_size: 100000}}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter], exporters: [file]}
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [file]}
"""


class Surroundings:
    """The ports of a gateway, and requests to it."""

    def __init__(self, limit_mib=2000):
        self.grpc, self.http = free_port(), free_port()
        self.config = (
            CONFIG.replace("GRPC", str(self.grpc)).replace("HTTP", str(self.http)).replace("LIMIT", str(limit_mib))
        )

    def post(self, wire):
        """The status of the answer and its Retry-After; 0 if there is no answer."""
        url = f"http://127.0.0.1:{self.http}/v1/traces"
        request = urllib.request.Request(url, wire, {"Content-Type": "application/x-protobuf"})
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, None
        except urllib.error.HTTPError as error:
            return error.code, error.headers["Retry-After"]
        except OSError:
            return 0, None


def rows(ledger):
    """The exporter's lines, by signal."""
    return {row["signal"]: row for row in ledger if row["node"] == "exporters/file"}


def test_sigterm_under_load(gateway, load, tmp_path):
    """What was acknowledged is in the file; what is in the ledger is in the file."""
    senders, ids_in, until = load
    here = Surroundings()
    running = gateway(here.config)
    with senders(f"127.0.0.1:{here.grpc}", f"127.0.0.1:{here.http}") as sent:
        assert until(lambda: len(sent.acknowledged) > 2000)
        assert running.stop() == 0
    written = ids_in(tmp_path / "out.jsonl")
    assert sent.acknowledged.keys() - written.keys() == set()
    ledger = running.final_ledger()
    assert sum(ledger["exporters/file", name]["out"] for name in ("traces", "logs")) == sum(written.values())


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit, which Linux has")
def test_no_file_descriptors_are_left(gateway, load, tmp_path):
    """Connections that exist are served; new ones are served once there are descriptors again."""
    senders, ids_in, until = load
    here = Surroundings()
    running = gateway(here.config)
    process = psutil.Process(running.process.pid)
    with senders(f"127.0.0.1:{here.grpc}", f"127.0.0.1:{here.http}") as sent, contextlib.ExitStack() as stack:
        assert until(lambda: len(sent.acknowledged) > 500)
        _, hard = resource.prlimit(process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (process.num_fds() + 5, hard))
        for _ in range(20):
            stack.enter_context(socket.create_connection(("127.0.0.1", here.http)))
        before = len(sent.acknowledged)
        assert until(lambda: len(sent.acknowledged) > before + 1000)
        resource.prlimit(process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        stack.close()
        wire = traces_request(spans=1).SerializeToString()
        assert until(lambda: here.post(wire)[0] == 200)
    assert running.stop() == 0
    written = ids_in_own(ids_in, tmp_path, wire)
    assert sent.acknowledged.keys() - written.keys() == set()
    running.final_ledger()


def ids_in_own(ids_in, folder, wire):
    """The ids of the load: the lines of other requests are removed first."""
    own = [
        span.trace_id.hex()
        for resource_spans in ExportTraceServiceRequest.FromString(wire).resource_spans
        for scope in resource_spans.scope_spans
        for span in scope.spans
    ]
    path = folder / "out.jsonl"
    lines = [line for line in path.read_text().splitlines() if not any(each in line for each in own)]
    path.write_text("\n".join(lines))
    return ids_in(path)


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit, which Linux has")
def test_too_little_memory_for_what_arrives(gateway, load):
    """Under an address-space limit large requests are not accepted, the process lives, and small requests go on."""
    _, _, until = load
    here = Surroundings()
    running = gateway(here.config)
    process = psutil.Process(running.process.pid)
    _, hard = resource.prlimit(process.pid, resource.RLIMIT_AS)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (process.memory_info().vms + 100 * 1024 * 1024, hard))
    large = traces_request(spans=1).SerializeToString() * 300_000  # repeated fields of messages add up
    answers = [here.post(large) for _ in range(3)]
    assert all(status in {0, 503} for status, _ in answers), answers
    assert all(retry_after for status, retry_after in answers if status == 503)
    assert running.process.poll() is None
    wire = traces_request(spans=1).SerializeToString()
    assert until(lambda: here.post(wire)[0] == 200)
    resource.prlimit(process.pid, resource.RLIMIT_AS, (hard, hard))
    assert until(lambda: not rows(running.ledger())["traces"]["held"])
    assert not any(row["imbalance"] for row in running.ledger())
    assert running.stop() == 0
    running.final_ledger()
