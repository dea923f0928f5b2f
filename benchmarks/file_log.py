"""How many MB of log files file_log and the Go collector read per second of processor time, one after the other.

Usage: ``python benchmarks/file_log.py OTELCOL [MEGABYTES]``, where OTELCOL is the program of the Go collector.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
OURS = [sys.executable, "-c", "from collector.cli import main; main()", "run"]
TIME = "2026-12-01T10:00:%02d.%03dZ"
JSON = '{"timestamp":"' + TIME + '","level":"INFO","message":"request %d done","path":"/v1/embed","status":200}'
CASES: dict[str, tuple[str, list[object]]] = {
    "plain": (TIME + " INFO request %d done in 12 ms by worker-3, model bge-m3", []),
    "json": (
        JSON,
        [
            {
                "type": "json_parser",
                "timestamp": {"parse_from": "attributes.timestamp", "layout": "%Y-%m-%dT%H:%M:%S.%LZ"},
                "severity": {"parse_from": "attributes.level"},
            }
        ],
    ),
    "container": ("2026-12-01T10:00:%02d.%03d000000Z stdout F request %d done in 12 ms", [{"type": "container"}]),
}


def config_of(folder: Path, operators: list[object], *, ours: bool) -> dict[str, object]:
    """Reads the files, and drops the records."""
    path = f"{folder}/ns_pod_0/c/0.log"
    file_log = {"include": [path], "start_at": "beginning", "include_file_path": True, "operators": operators}
    metrics = {"address": "127.0.0.1:0"} if ours else {"level": "none"}
    return {
        "receivers": {"filelog": file_log},
        "exporters": {"nop": {}},
        "service": {
            "telemetry": {"metrics": metrics, "logs": {"level": "error"}},
            "pipelines": {"logs": {"receivers": ["filelog"], "exporters": ["nop"]}},
        },
    }


def measure(arguments: list[str], config: dict[str, object], folder: Path) -> tuple[float, float]:
    """Seconds of processor time from the start until it is idle and the peak of its memory in MiB."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(config))
    process = subprocess.Popen(
        [*arguments, f"--config={path}"], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    watched = psutil.Process(process.pid)
    used, idle, peak = 0.0, 0, 0
    while idle < 8:
        time.sleep(0.25)
        times = watched.cpu_times()
        now = times.user + times.system
        idle = idle + 1 if now - used < 0.03 and now > 0.05 else 0
        used, peak = now, max(peak, watched.memory_info().rss)
    process.terminate()
    process.wait()
    return used, peak / 2**20


def main() -> None:
    """Print a line for each case."""
    otelcol, megabytes = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 100
    for name, (line, operators) in CASES.items():
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            path = folder / "ns_pod_0/c/0.log"
            path.parent.mkdir(parents=True)
            text = "".join(line % (n // 1000 % 60, n % 1000, n) + "\n" for n in range(10_000)).encode()
            path.write_bytes(line.replace("%", "").encode() + b"\n")
            started = [
                measure(program, config_of(folder, operators, ours=program is OURS), folder)[0]
                for program in (OURS, [otelcol])
            ]
            with path.open("wb") as file:
                for _ in range(megabytes * 1_000_000 // len(text)):
                    file.write(text)
            size = path.stat().st_size / 1e6
            ours = measure(OURS, config_of(folder, operators, ours=True), folder)
            theirs = measure([otelcol], config_of(folder, operators, ours=False), folder)
            rates = size / (ours[0] - started[0]), size / (theirs[0] - started[1])
            print(
                f"{name}: {rates[0]:.0f} MB per CPU second, {ours[1]:.0f} MiB; the Go collector {rates[1]:.0f}, "
                f"{theirs[1]:.0f} MiB; {rates[0] / rates[1]:.1f} times",
                flush=True,
            )


if __name__ == "__main__":
    main()
