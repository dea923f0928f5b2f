"""The log operators of the Go collector and ours make the same records of the same lines."""

import json
import subprocess
import time

import pytest
from log_operator_cases import CASES

from collector.log_operators import Block, Pipeline, operator_configs
from collector.model import to_json

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
_WAIT_S = 30


class Silent:
    def failed(self, operator, reason, count, *, is_logged):
        pass

    def dropped(self, reason, count):
        pass


def records_of(texts):
    """The records of OTLP/JSON requests, in an order that does not depend on that of the input."""
    found = []
    for text in texts:
        for resource in json.loads(text).get("resourceLogs", ()):
            for scope in resource.get("scopeLogs", ()):
                for record in scope.get("logRecords", ()):
                    record.pop("observedTimeUnixNano", None)
                    if not record.get("body"):
                        record.pop("body", None)
                    record = plain(record)
                    record["resource"] = plain(resource.get("resource", {}))
                    record["scope"] = scope.get("scope", {}).get("name", "")
                    found.append(json.dumps(record, sort_keys=True))
    return sorted(found)


def plain(value):
    """A value of OTLP/JSON with its attributes as a mapping."""
    if isinstance(value, list):
        if value and all(isinstance(item, dict) and set(item) <= {"key", "value"} and "key" in item for item in value):
            return {item["key"]: plain(item.get("value", {})) for item in value}
        return [plain(item) for item in value]
    if isinstance(value, dict):
        if set(value) == {"doubleValue"}:
            return {"doubleValue": float(value["doubleValue"])}
        return {key: plain(item) for key, item in value.items() if item not in ([], {}, None)} or None
    return value


def ours(name, folder):
    operators, lines, file_log = CASES[name]
    attributes = {"log.file.name": f"{name}.log"}
    if file_log.get("include_file_path"):
        attributes["log.file.path"] = str(folder / f"{name}.log")
    pipeline = Pipeline(operator_configs(operators), report=Silent())
    texts = [text for line in lines if (text := line.encode().strip())]  # as file_log reads them
    made = pipeline.process(Block.of_texts(texts, observed_time_unix_nano=1, attributes=[attributes]))
    return records_of(to_json(logs) for logs in (*made, *pipeline.flush()))


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
    config = {
        "receivers": receivers,
        "exporters": exporters,
        "service": {"pipelines": pipelines, "telemetry": telemetry},
    }
    (folder / "otelcol.yaml").write_text(json.dumps(config).replace("$", "$$"))
    expected = {name: ours(name, folder) for name in CASES}
    process = subprocess.Popen(
        [server.binary("otelcol"), f"--config={folder}/otelcol.yaml"], stderr=subprocess.PIPE, env={"TZ": "UTC"}
    )

    def found(name):
        path = folder / f"{name}.json"
        return records_of(path.read_text().splitlines()) if path.exists() else []

    try:
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline and any(len(found(name)) < len(expected[name]) for name in CASES):
            assert process.poll() is None, process.stderr.read().decode()[:4000]
            time.sleep(0.2)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    return folder, {name: found(name) for name in CASES}


@pytest.mark.parametrize("name", CASES)
def test_the_records_are_the_same(name, theirs):
    """Each configuration makes the records of the Go collector, order and observed times aside."""
    folder, records = theirs
    assert ours(name, folder) == records[name]
