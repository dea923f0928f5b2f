"""file_log reads what the Go collector's filelog reads, and loses no line when it is killed at any moment."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from logging import INFO, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
ROOT = Path(__file__).parents[2]
_WAIT_S = 30


def records_of(path):
    """Counts of (body, attributes) of a file of OTLP/JSON."""
    found = Counter()
    if not path.exists():
        return found
    for line in path.read_text().splitlines():
        try:
            request = json.loads(line)
        except ValueError:
            continue  # the last line of a process that was killed
        for resource in request["resourceLogs"]:
            for scope in resource["scopeLogs"]:
                for record in scope["logRecords"]:
                    attributes = {pair["key"]: pair["value"] for pair in record.get("attributes", ())}
                    found[json.dumps([record.get("body", {}).get("stringValue", ""), attributes], sort_keys=True)] += 1
    return found


def until(condition, seconds=_WAIT_S):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it takes too long"
        time.sleep(0.05)


def started(folder, name, arguments, config):
    path = folder / f"{name}.yaml"
    path.write_text(json.dumps(config))
    with (folder / f"{name}.err").open("ab") as log:
        return subprocess.Popen([*arguments, f"--config={path}"], stdout=log, stderr=log, cwd=ROOT)


def ended(process):
    process.terminate()
    process.wait(timeout=30)


def config_of(folder, output, receivers, *, storage=False, ours=True):
    names = list(receivers)
    file = {"path": str(folder / output), **({"append": storage} if ours else {"flush_interval": "100ms"})}
    service = {
        "telemetry": {"metrics": {"level": "none"}} if not ours else {"metrics": {"address": "127.0.0.1:0"}},
        "pipelines": {"logs": {"receivers": names, "exporters": ["file"]}},
    }
    config = {"receivers": receivers, "exporters": {"file": file}, "service": service}
    if storage:
        config["extensions"] = {"file_storage": {"directory": str(folder / "state"), "create_directory": True}}
        service["extensions"] = ["file_storage"]
        config["exporters"]["file"]["sending_queue"] = {"storage": "file_storage"}
    return config


OURS = (sys.executable, "-c", "from collector.cli import main; main()", "run")


@pytest.mark.parametrize("rounds", [5])
def test_no_line_is_lost_when_the_process_is_killed(tmp_path, rounds):
    """A writer rotates its files while the process is killed again and again; every line arrives."""
    logs = tmp_path / "logs"
    logs.mkdir()
    receivers = {
        "file_log": {
            "include": [f"{logs}/app.log*"],
            "start_at": "beginning",
            "poll_interval": "20ms",
            "storage": "file_storage",
        }
    }
    config = config_of(tmp_path, "out.jsonl", receivers, storage=True)
    stop, count = threading.Event(), 0

    def write():
        nonlocal count
        handler = RotatingFileHandler(logs / "app.log", maxBytes=100_000, backupCount=500)
        while not stop.is_set():
            for _ in range(200):
                handler.emit(LogRecord("t", INFO, "", 0, f"line {count:08} {'x' * 40}", None, None))
                count += 1
            stop.wait(0.05)
        handler.close()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for number in range(rounds):
            process = started(tmp_path, "ours", OURS, config)
            wanted = sum(records_of(tmp_path / "out.jsonl").values()) + 300 * (number + 1)
            try:
                until(lambda wanted=wanted: sum(records_of(tmp_path / "out.jsonl").values()) > wanted, 20)
            finally:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
    finally:
        stop.set()
        writer.join()
    process = started(tmp_path, "ours", OURS, config)

    def lines():
        return {json.loads(record)[0][:13] for record in records_of(tmp_path / "out.jsonl")}

    try:
        until(lambda: len(lines()) >= count)
    finally:
        ended(process)
    assert lines() == {f"line {number:08}" for number in range(count)}


CASES = {
    "plain": (b"one\n  two \r\n\n\tthree\nincomplete", {}),
    "spaces": (b"  a  \n b\n", {"preserve_leading_whitespaces": True, "preserve_trailing_whitespaces": True}),
    "start": (b"S 1\n more\nS 2\n more\n", {"multiline": {"line_start_pattern": "^S"}}),
    "start_omit": (b"S 1\n more\nS 2\n more\n", {"multiline": {"line_start_pattern": "^S ", "omit_pattern": True}}),
    "end": (b"1 E\n2 E\n3", {"multiline": {"line_end_pattern": "E"}}),
    "utf16": ("é 1\nü 2\n".encode("utf-16-le"), {"encoding": "utf-16le"}),
    "big5": ("中文\n字\n".encode("big5"), {"encoding": "big5"}),
    "path": (b"x\ny\n", {"include_file_path": True, "include_file_name": False}),
    "resolved": (b"x\n", {"include_file_path_resolved": True, "include_file_name_resolved": True}),
    "owner": (b"x\n", {"include_file_owner_name": True, "include_file_owner_group_name": True}),
    "numbers": (b"x\n\nyy\nz\n", {"include_file_record_number": True, "include_file_record_offset": True}),
    "attributes": (b"x\n", {"attributes": {"a": "b"}, "operators": [{"type": "regex_parser", "regex": "(?P<k>.)"}]}),
    "cut": (b"y" * 2500 + b"\nend\n", {"max_log_size": 1000}),
    "junk": (bytes(range(256)) + b"\n\xff\xfe\nend\n", {}),
    "large": (b"".join(b"line %06d\n" % n for n in range(50_000)), {}),
}


def test_the_go_collector_reads_the_same(server, tmp_path):
    """The records of each configuration are those of the Go collector, order aside."""
    receivers = {}
    for name, (content, keys) in CASES.items():
        (tmp_path / f"{name}.log").write_bytes(content)
        receivers[f"filelog/{name}"] = {
            "include": [f"{tmp_path}/{name}.log"],
            "start_at": "beginning",
            **keys,
            "attributes": {"case": name, **keys.get("attributes", {})},
        }
    theirs = started(tmp_path, "go", [server.binary("otelcol")], config_of(tmp_path, "go.jsonl", receivers, ours=False))
    ours = started(tmp_path, "ours", OURS, config_of(tmp_path, "ours.jsonl", receivers))

    def is_there(name):
        last = records_of(tmp_path / name)
        time.sleep(1.5)
        return sum(last.values()) > 50_000 and records_of(tmp_path / name) == last

    try:
        until(lambda: is_there("go.jsonl"))
        until(lambda: is_there("ours.jsonl"))
    finally:
        ended(theirs)
        ended(ours)
    expected, found = records_of(tmp_path / "go.jsonl"), records_of(tmp_path / "ours.jsonl")
    for name in CASES:
        case = f'"case": {{"stringValue": "{name}"}}'
        wanted = {record: count for record, count in expected.items() if case in record}
        assert {record: count for record, count in found.items() if case in record} == wanted, name
