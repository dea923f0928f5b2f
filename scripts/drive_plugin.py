"""Runs the example plug-in's pipeline, sends it a span with a prompt, and checks what arrives and what the ledger says.

Usage: drive_plugin.py TAILRACE PIPELINE. Only the standard library is used. Called by ``scripts/check_plugin``.
"""

import json
import signal
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

TIMEOUT_S = 30.0
POLL_S = 0.05
PROMPT = "translate this confidential sentence"
KEY = "embedding.text"
SPAN = {
    "traceId": "5b8efff798038103d269b633813fc60c",
    "spanId": "eee19b7ec3c1b174",
    "name": "embed",
    "kind": 2,
    "startTimeUnixNano": "1",
    "endTimeUnixNano": "2",
    "attributes": [{"key": KEY, "value": {"stringValue": PROMPT}}],
}
REQUEST = {"resourceSpans": [{"resource": {}, "scopeSpans": [{"spans": [SPAN]}]}]}


class Lines(socketserver.ThreadingTCPServer):
    """The server that the exporter sends to."""

    daemon_threads = True

    def __init__(self) -> None:
        self.received: list[str] = []
        received = self.received

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                received.extend(line.decode() for line in self.rfile)

        super().__init__(("127.0.0.1", 0), Handler)


def free_port() -> int:
    """A TCP port of the loopback that is free at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def http(url: str, body: Any = None) -> Any:
    """The JSON document that ``url`` answers with."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})  # noqa: S310 - http, loopback
    with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310 - http, loopback
        return json.load(answer)


def answers(url: str) -> bool:
    """Whether ``url`` answers with success."""
    try:
        http(url)
    except (urllib.error.URLError, OSError):
        return False
    return True


def wait_for(what: str, condition: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    """Return once ``condition`` holds; fail if the process ends or ``TIMEOUT_S`` pass before."""
    deadline_s = time.monotonic() + TIMEOUT_S
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"tailrace ended with exit code {process.returncode} while waiting for: {what}")
        if time.monotonic() > deadline_s:
            raise AssertionError(f"timed out after {TIMEOUT_S:.0f} s while waiting for: {what}")
        time.sleep(POLL_S)


def drive(tailrace: str, pipeline: str, log: Path) -> None:
    """Run the pipeline and check it.

    Raises:
        AssertionError: the message says what does not hold.
    """
    with Lines() as lines:
        threading.Thread(target=lines.serve_forever, daemon=True).start()
        otlp, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        sets = {
            "receivers.otlp.protocols.http.endpoint": otlp,
            "receivers.otlp.protocols.grpc.endpoint": f"127.0.0.1:{free_port()}",
            "receivers.heartbeat.interval": "200ms",
            "exporters.jsonl_tcp.endpoint": f"127.0.0.1:{lines.server_address[1]}",
            "service.telemetry.metrics.address": admin,
        }
        options = [part for key, value in sets.items() for part in ("--set", f"{key}={value}")]
        with log.open("wb") as output:
            command = [tailrace, "run", "--config", pipeline, *options]
            process = subprocess.Popen(command, stdout=output, stderr=output)  # noqa: S603 - the command under test
        try:
            wait_for("readiness", lambda: answers(f"http://{admin}/health/ready"), process)
            http(f"http://{otlp}/v1/traces", REQUEST)
            wait_for("the span", lambda: any("resourceSpans" in line for line in lines.received), process)
            beats = 3
            wait_for("heartbeats", lambda: sum("heartbeat.count" in x for x in lines.received) >= beats, process)
            ledger = http(f"http://{admin}/ledger")
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        lines.shutdown()
    check(lines.received, ledger, process.returncode, log.read_text())


def check(received: list[str], ledger: Any, exit_code: int, log: str) -> None:
    """Compare what arrived and what was accounted for with what was sent."""
    assert exit_code == 0, f"tailrace ended with exit code {exit_code}"
    text = "".join(received)
    assert PROMPT not in text, "the prompt was not redacted"
    assert f"[redacted: {len(PROMPT)} characters]" in text, "the redacted attribute did not arrive"
    assert ledger["balanced"], f"the ledger is not balanced while the pipeline runs: {ledger}"
    nodes = {(row["node"], row["signal"]): row for row in ledger["nodes"]}
    exporter = nodes["exporters/jsonl_tcp", "traces"]
    assert exporter["delivered"] == 1, f"one span was sent, but the ledger says: {exporter}"
    final = log[log.index("the final ledger") :]
    assert "exporters/jsonl_tcp" in final, "the final ledger does not mention the exporter"
    assert "the final ledger is not balanced" not in log, "the final ledger is not balanced"


def main() -> int:
    """Exit code 0 if everything holds; otherwise print what does not, and the log of the service."""
    tailrace, pipeline = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        try:
            drive(tailrace, pipeline, log)
        except AssertionError as error:
            shown = log.read_text() if log.exists() else ""
            sys.stderr.write(f"{shown}\ndrive_plugin: {error}\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
