"""CPU time of the log operators beside the Go collector's, over the same lines with the same operators.

The Go collector reads a file with ``file_log`` and passes the records to ``nop``; the CPU time of a start without lines
is taken off. Here, the bytes are split, go through the operators, and are encoded as OTLP. Needs ``make backends``.

    python benchmarks/log_operators.py [--lines 300000] [CASE]...
"""

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from pathlib import Path

from collector.log_operators import Block, Pipeline, Splitter, operator_configs

OTELCOL = Path(os.environ.get("TAILRACE_BACKENDS") or Path.home() / ".cache" / "tailrace-backends") / "otelcol"
PIECE_BYTES = 256 * 1024
RANDOM = random.Random(1)
LEVELS = ["INFO", "WARN", "ERROR", "DEBUG"]


def json_line(i):
    return json.dumps(
        {
            "timestamp": f"2024-05-{i % 28 + 1:02d}T07:08:{i % 60:02d}.{i % 1000:03d}Z",
            "severity": LEVELS[i % 4],
            "message": f"request {i} handled by worker {i % 7} in {RANDOM.random() * 100:.3f} ms",
            "source": {"file": "app/server.py", "line": i % 500, "function": "handle"},
            "trace_id": f"{RANDOM.getrandbits(128):032x}",
        }
    )


def access_line(i):
    time_text = f"06/May/2024:07:08:{i % 60:02d} +0200"
    return f'192.168.0.{i % 255} - bob [{time_text}] "GET /a/{i}?b=1 HTTP/1.1" {(200, 404, 500)[i % 3]} {i}'


def cri_line(i):
    return f'2024-05-06T07:08:09.{i:09d}Z stdout F {{"level":"info","msg":"hello {i}"}} and some more text behind it'


def syslog_line(i):
    return f"<165>1 2024-05-06T07:08:09.{i:06d}Z host{i % 9} app {i % 100} ID47 - An application event number {i}"


def stack_line(i):
    return f"ERROR something happened at {i}" if i % 5 == 0 else f"    at java.lang.Foo.bar(Foo.java:{i}) frame"


def pairs_line(i):
    return f'ts=2024-05-06 level=info msg="hello world {i}" duration={i % 100}ms path=/a/b/c/{i} user=bob'


REGEX = (
    r'^(?P<ip>\S+) - (?P<user>\S+) \[(?P<time>[^\]]+)\] "(?P<method>\S+) (?P<target>\S+) [^"]*" '
    r"(?P<status>\d+) (?P<size>\d+)$"
)
CASES = {
    "plain": (access_line, []),
    "json": (
        json_line,
        [
            {
                "type": "json_parser",
                "timestamp": {"parse_from": "attributes.timestamp", "layout": "%Y-%m-%dT%H:%M:%S.%LZ"},
                "severity": {"parse_from": "attributes.severity"},
                "trace": {"trace_id": {"parse_from": "attributes.trace_id"}},
            }
        ],
    ),
    "container": (cri_line, [{"type": "container", "add_metadata_from_filepath": False}]),
    "syslog": (syslog_line, [{"type": "syslog_parser", "protocol": "rfc5424"}]),
    "regex": (
        access_line,
        [
            {
                "type": "regex_parser",
                "regex": REGEX,
                "timestamp": {"parse_from": "attributes.time", "layout": "%d/%b/%Y:%H:%M:%S %z"},
            }
        ],
    ),
    "recombine": (
        stack_line,
        [{"type": "recombine", "combine_field": "body", "is_first_entry": r'body matches "^\\S"'}],
    ),
    "key_value": (pairs_line, [{"type": "key_value_parser"}]),
}


class Silent:
    def failed(self, operator, reason, count, *, is_logged):
        raise AssertionError((operator, reason, count, is_logged))

    def dropped(self, reason, count):
        raise AssertionError((reason, count))


def theirs(operators, text):
    """Seconds of CPU of a Go collector that reads these bytes from a file."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "a.log"
        log.write_bytes(text)
        receiver = {"include": [str(log)], "start_at": "beginning", "operators": operators}
        service = {
            "pipelines": {"logs": {"receivers": ["file_log"], "exporters": ["nop"]}},
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "fatal"}},
        }
        config = {"receivers": {"file_log": receiver}, "exporters": {"nop": {}}, "service": service}
        (Path(folder) / "otelcol.yaml").write_text(json.dumps(config).replace("$", "$$"))
        process = subprocess.Popen([OTELCOL, f"--config={folder}/otelcol.yaml"], env={"TZ": "UTC"})

        def cpu_s():
            fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

        last, idle = -1.0, 0
        while idle < 6:  # it has read everything when it does nothing for a while
            time.sleep(0.25)
            now = cpu_s()
            idle = idle + 1 if now - last < 0.02 else 0
            last = now
        process.kill()
        process.wait()
        return last


def ours(operators, text):
    """Seconds of CPU for splitting, operators and encoding."""
    pipeline, splitter, rest = Pipeline(operator_configs(operators), report=Silent()), Splitter(), b""
    start = time.process_time()
    for at in range(0, len(text), PIECE_BYTES):
        data = rest + text[at : at + PIECE_BYTES]
        split = splitter.split(data, is_end=at + PIECE_BYTES >= len(text))
        rest = data[split.consumed :]
        pipeline.process(Block(split.text, split.starts, split.ends, 1, attributes=[{"log.file.name": "a.log"}]))
    pipeline.flush()
    return time.process_time() - start


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=300_000)
    parser.add_argument("cases", nargs="*", default=list(CASES), metavar="CASE")
    arguments = parser.parse_args()
    start_s = theirs([], b"x\n")
    print(f"{'case':12} {'MB':>6} {'Go MB/s':>9} {'ours MB/s':>10} {'times':>6}")
    for name in arguments.cases:
        line, operators = CASES[name]
        text = "".join(f"{line(i)}\n" for i in range(arguments.lines)).encode()
        go_s, our_s = max(theirs(operators, text) - start_s, 0.01), ours(operators, text)
        megabytes = len(text) / 1e6
        print(
            f"{name:12} {megabytes:6.1f} {megabytes / go_s:9.1f} {megabytes / our_s:10.1f} {go_s / our_s:6.1f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
