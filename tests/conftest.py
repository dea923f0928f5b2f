"""Shared by all tests: hypothesis profiles, the gateway as a process, and a load that knows what was acknowledged."""

import collections
import contextlib
import dataclasses
import http.client
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import grpc
import hypothesis
import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from collector.testing import free_port

# In CI the examples are the same every time: what decides whether a change lands is reproducible. Elsewhere they are
# new each run.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
hypothesis.settings.register_profile("default-deadline", deadline=None)
# every access is checked: slow
hypothesis.settings.register_profile("sanitize", derandomize=True, deadline=None, max_examples=15)
hypothesis.settings.load_profile(
    os.environ.get("TAILRACE_HYPOTHESIS") or ("ci" if os.environ.get("CI") else "default-deadline")
)


@contextlib.contextmanager
def running_gateway(config, folder):
    """``tailrace run`` over ``config``, ready; ``{admin}`` in it becomes the port of /ledger."""
    admin = free_port()
    (folder / "tailrace.yaml").write_text(config.replace("{admin}", str(admin)))
    program = [
        sys.executable,
        "-c",
        "from collector.cli import main; main()",
        "run",
        "--config",
        str(folder / "tailrace.yaml"),
    ]
    with (folder / "tailrace.log").open("wb") as log:
        process = subprocess.Popen(
            program, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, cwd=folder, stderr=log, stdout=log
        )
    gateway = Gateway(process, f"http://127.0.0.1:{admin}", folder / "tailrace.log")
    try:
        assert until(lambda: gateway.ready() or process.poll() is not None)
        assert process.poll() is None, gateway.log.read_text()
        yield gateway
    finally:
        process.kill()
        process.wait()


@dataclasses.dataclass
class Gateway:
    """A running one."""

    process: subprocess.Popen
    url: str
    log: Path

    def ready(self):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.url}/health/ready", timeout=2) as answer:
            return answer.status == 200

    def ledger(self):
        with urllib.request.urlopen(f"{self.url}/ledger", timeout=10) as answer:
            return json.load(answer)["nodes"]

    def final_ledger(self):
        """What it logged last: ``(node, signal)`` to its numbers by column. Needs the log at ``info``."""
        text = self.log.read_text()
        assert "the final ledger is not balanced" not in text, text
        found = {}
        for line in re.findall(r"the final ledger +(.*)", text):
            fields = dict(re.findall(r"(\w+)=('[^']*'|\S+)", line))
            key = fields.pop("node"), fields.pop("signal")
            found[key] = {name: int(value) for name, value in fields.items() if value.lstrip("-").isdigit()}
        return found

    def stop(self):
        """SIGTERM; the exit status."""
        self.process.terminate()
        return self.process.wait(60)


def until(check, timeout_s=40):
    """The first truthy answer of ``check``; its last one if there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        found = check()
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


class Load:
    """Threads that send traces over gRPC and logs over HTTP without a pause; what was acknowledged, by id.

    A request whose answer did not come is not repeated: it may have arrived or not.
    """

    def __init__(self, grpc_endpoint, http_endpoint, threads=4):
        self.grpc_endpoint, self.http_endpoint = grpc_endpoint, http_endpoint
        self.acknowledged, self.unknown = collections.Counter(), collections.Counter()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self):
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self._end.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()

    def _run(self, number):
        with contextlib.ExitStack() as stack:
            send = self._over_grpc(stack) if number % 2 else self._over_http(stack)
            for turn in itertools.count():
                if self._end.is_set():
                    return
                ids = [b"%04d%06d%06d" % (number, turn, item) for item in range(50)]
                taken = send(ids)
                with self._lock:
                    (self.acknowledged if taken else self.unknown).update(each.decode() for each in ids)
                if not taken:
                    self._end.wait(0.02)

    def _over_grpc(self, stack):
        channel = stack.enter_context(grpc.insecure_channel(self.grpc_endpoint))
        export = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export", bytes, ExportTraceServiceResponse.FromString
        )

        def send(ids):
            request = ExportTraceServiceRequest()
            scope = request.resource_spans.add().scope_spans.add()
            for each in ids:
                scope.spans.add(
                    trace_id=each, span_id=each[-8:], name="load", start_time_unix_nano=1, end_time_unix_nano=2
                )
            try:
                answer = export(request.SerializeToString(), timeout=10, compression=grpc.Compression.Gzip)
            except grpc.RpcError:
                return False
            assert not answer.partial_success.rejected_spans
            return True

        return send

    def _over_http(self, stack):
        host, _, port = self.http_endpoint.rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=10)
        stack.callback(connection.close)

        def send(ids):
            request = ExportLogsServiceRequest()
            scope = request.resource_logs.add().scope_logs.add()
            for each in ids:
                scope.log_records.add(trace_id=each, span_id=each[-8:], time_unix_nano=1, body={"string_value": "load"})
            try:
                connection.request(
                    "POST", "/v1/logs", request.SerializeToString(), {"Content-Type": "application/x-protobuf"}
                )
                response = connection.getresponse()
                body = response.read()
            except (OSError, http.client.HTTPException):
                connection.close()
                return False
            assert (
                response.status != 200
                or not ExportLogsServiceResponse.FromString(body).partial_success.rejected_log_records
            )
            return response.status == 200

        return send


def ids_in(file):
    """How often each trace id stands in a file of OTLP/JSON lines, as ``Load`` wrote them."""
    found = collections.Counter()
    for line in file.read_text().splitlines():
        batch = json.loads(line)
        for resource in batch.get("resourceSpans", []) + batch.get("resourceLogs", []):
            for scope in resource.get("scopeSpans", []) + resource.get("scopeLogs", []):
                found.update(
                    bytes.fromhex(item["traceId"]).decode()
                    for item in scope.get("spans", []) + scope.get("logRecords", [])
                )
    return found


@pytest.fixture
def gateway(tmp_path):
    """Starts ``tailrace run`` with the given configuration in a process of its own."""
    with contextlib.ExitStack() as stack:
        yield lambda config: stack.enter_context(running_gateway(config, tmp_path))


@pytest.fixture(scope="module")
def module_gateway(tmp_path_factory):
    """The same for a whole module: ``(config, folder)``; ``FOLDER`` in the configuration becomes the folder."""
    with contextlib.ExitStack() as stack:

        def start(config):
            folder = tmp_path_factory.mktemp("gateway")
            return stack.enter_context(running_gateway(config.replace("FOLDER", str(folder)), folder)), folder

        yield start


@pytest.fixture
def gateways():
    """``with gateways(config, folder) as running``: several of them, or one after the other in the same folder."""

    def start(config, folder):
        folder.mkdir(exist_ok=True)
        return running_gateway(config, folder)

    return start


@pytest.fixture
def load():
    """The class of senders, and what reads back what arrived."""
    return Load, ids_in, until
