"""The service's own log must not affect the data: whatever its output does, requests are answered and delivered."""

import os
import subprocess
import sys
import urllib.request

import pytest

from collector.testing import free_port, traces_request

CONFIG = """
receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:HTTP"}}}}
exporters: {debug: {verbosity: detailed, sampling_initial: 100000}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:ADMIN"}}
  pipelines: {traces: {receivers: [otlp], exporters: [debug]}}
"""


@pytest.mark.parametrize("output", ["its reader is gone", "its reader is asleep", "its disk is full"])
def test_an_output_of_the_log_that_cannot_be_written_stops_nothing(load, tmp_path, output):
    """Every request is delivered, and the process ends as usual, whatever the output does."""
    _, _, until = load
    http, admin = free_port(), free_port()
    config = CONFIG.replace("HTTP", str(http)).replace("ADMIN", str(admin))
    if output == "its disk is full":
        config = config.replace("level: info}", "level: info, output_paths: [/dev/full]}")
    (tmp_path / "tailrace.yaml").write_text(config)
    read_end, write_end = os.pipe()
    program = [sys.executable, "-c", "from collector.cli import main; main()", "run", "--config", "tailrace.yaml"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(program, env=environment, cwd=tmp_path, stdout=write_end, stderr=write_end)
    os.close(write_end)

    def get(path):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{admin}{path}", timeout=5) as answer:
                return answer.read().decode()
        except OSError:
            return ""

    try:
        assert until(lambda: get("/health/ready"))
        if output == "its reader is gone":
            os.close(read_end)
        body = traces_request(spans=100).SerializeToString()
        for _ in range(50):
            request = urllib.request.Request(f"http://127.0.0.1:{http}/v1/traces", body)
            request.add_header("Content-Type", "application/x-protobuf")
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        assert until(lambda: '"delivered":5000' in get("/ledger"))
        assert get("/health/ready")
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
        if output != "its reader is gone":
            os.close(read_end)
