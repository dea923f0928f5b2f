"""The log operators of the Go collector and ours make the same records of the same lines.

``TAILRACE_WRITE_GOLDEN=1`` writes its records to the golden file of the unit test.
"""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from log_operator_cases import CASES
from log_operator_rig import comparable, run_case

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
_WAIT_S = 30
_GOLDEN = Path(__file__).parents[1] / "data" / "log_operators.json"


@pytest.fixture(scope="module")
def theirs(server, tmp_path_factory):
    """The records of the Go collector by case: one process reads the files of all of them."""
    folder = tmp_path_factory.mktemp("operators")
    receivers, exporters, pipelines = {}, {}, {}
    for name, (operators, lines, file_log) in CASES.items():
        (folder / f"{name}.log").write_bytes("".join(f"{line}\n" for line in lines).encode())
        receivers[f"file_log/{name}"] = {
            "include": [str(folder / f"{name}.log")],
            "start_at": "beginning",
            "operators": operators,
            **file_log,
        }
        exporters[f"file/{name}"] = {"path": str(folder / f"{name}.json"), "flush_interval": "100ms"}
        pipelines[f"logs/{name}"] = {"receivers": [f"file_log/{name}"], "exporters": [f"file/{name}"]}
    telemetry = {"metrics": {"level": "none"}, "logs": {"level": "fatal"}}
    service = {"pipelines": pipelines, "telemetry": telemetry}
    config = json.dumps({"receivers": receivers, "exporters": exporters, "service": service})
    (folder / "otelcol.yaml").write_text(config.replace("$", "$$"))
    expected = {name: len(comparable(run_case(name, folder), name)) for name in CASES}
    process = subprocess.Popen(
        [server.binary("otelcol"), f"--config={folder}/otelcol.yaml"], stderr=subprocess.PIPE, env={"TZ": "UTC"}
    )

    def found(name):
        path = folder / f"{name}.json"
        return comparable(path.read_text().splitlines(), name) if path.exists() else []

    try:
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline and any(len(found(name)) < expected[name] for name in CASES):
            assert process.poll() is None, process.stderr.read().decode()[:4000]
            time.sleep(0.2)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    records = {name: found(name) for name in CASES}
    if os.environ.get("TAILRACE_WRITE_GOLDEN"):
        _GOLDEN.write_text(json.dumps(records, indent=1, ensure_ascii=False) + "\n")
    return records


@pytest.mark.parametrize("name", CASES)
def test_the_records_are_the_same(name, theirs, monkeypatch):
    """Each configuration makes the records of the Go collector, order and observed times aside."""
    monkeypatch.setenv("TZ", "UTC")  # of times without a zone, as for the Go collector
    assert comparable(run_case(name), name) == theirs[name]
