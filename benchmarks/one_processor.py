"""What a processor costs from bytes to bytes, beside the Go collector's: CPU time of one request in microseconds.

``one_processor.py [--rounds 5] [--against CHECKOUT] [--only transform] [--json FILE]``

For each line a request is validated and indexed, runs through the processor and becomes bytes again; in Go it is
unmarshalled, runs through the processor and is marshalled. Nothing else is measured: neither a transport nor a
pipeline, and requests are not joined as they are at the door of a service. The requests are the demo platform's, of 512
and of 10 items. The programs take turns, round by round; a round's figure is the lower quartile of its requests (of
short blocks of them in Go), and the table shows the medians of the rounds. glibc's malloc is configured as in the
service. ``--against`` adds another checkout that is built in place. Needs the program ``ottl``: ``make backends``.
"""

import argparse
import base64
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from collector.api import ComponentKind
from collector.cli.demo.platform import Platform
from collector.model import Signal, batch_type
from collector.registry import Registry
from collector.service import process
from collector.testing import make_settings

ROOT: Final = Path(__file__).resolve().parents[1]
_HOME: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
OTTL: Final = Path(os.environ.get("TAILRACE_BACKENDS") or _HOME / "tailrace-backends") / "ottl"
SIZES: Final = (512, 10)
BLOCKS: Final = 8
REQUESTS: Final = {512: 25, 10: 500}
"""Of each block in Go; ours run as many in a round as eight blocks have."""
TRANSFORM_SPANS: Final = [
    'set(span.attributes["deployment.environment.name"], "prod")',
    'delete_key(span.attributes, "user_agent.original")',
    'replace_pattern(span.name, "/[0-9]+", "/{id}")',
    "truncate_all(span.attributes, 4096)",
    'set(span.attributes["slow"], true) where span.end_time - span.start_time > Duration("1s")',
]
TRANSFORM_LOGS: Final = [
    'set(log.attributes["deployment.environment.name"], "prod")',
    'delete_key(log.attributes, "code.filepath")',
    'replace_pattern(log.body, "[0-9]+", "#")',
    "truncate_all(log.attributes, 4096)",
    'set(log.attributes["is_error"], true) where log.severity_number >= SEVERITY_NUMBER_ERROR',
]
NONE_MATCHES: Final = [
    'IsMatch(span.name, "^none")',
    'span.attributes["http.response.status_code"] == 599',
    'span.end_time - span.start_time > Duration("1h")',
]
SOME_MATCH: Final = [
    'IsMatch(span.name, "health|vector_search")',
    'span.attributes["http.response.status_code"] == 404',
    'span.end_time - span.start_time > Duration("1h")',
]
ACTIONS: Final = [
    {"key": "deployment.environment.name", "value": "prod", "action": "insert"},
    {"key": "team", "value": "search", "action": "upsert"},
    {"key": "url.path", "value": "/", "action": "update"},
    {"key": "copy.of.method", "from_attribute": "http.request.method", "action": "upsert"},
    {"key": "user_agent.original", "action": "delete"},
    {"key": "enduser.id", "action": "hash"},
    {"key": "http.response.status_code", "converted_type": "string", "action": "convert"},
    {"key": "http.route", "pattern": "^/(?P<first_segment>[^/]*)", "action": "extract"},
    {"pattern": "^internal[.]", "action": "delete"},
    {"key": "retries", "value": 3, "action": "insert"},
]
LINES: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "transform: five statements, spans": ("transform", "traces", {"trace_statements": TRANSFORM_SPANS}),
    "transform: five statements, logs": ("transform", "logs", {"log_statements": TRANSFORM_LOGS}),
    "filter: three conditions, none holds": ("filter", "traces", {"trace_conditions": NONE_MATCHES}),
    "filter: three conditions, some hold": ("filter", "traces", {"trace_conditions": SOME_MATCH}),
    "attributes: ten actions, spans": ("attributes", "traces", {"actions": ACTIONS}),
    "resource: three actions": ("resource", "traces", {"attributes": [ACTIONS[0], ACTIONS[1], ACTIONS[4]]}),
}


def bodies() -> dict[tuple[str, int], bytes]:
    """A request of each signal and size, the same in every program."""
    platform = Platform(seed=11, users=400)
    made: dict[tuple[str, int], bytes] = {}
    for place, signal in enumerate(("traces", "logs")):
        kind = batch_type(Signal(signal))
        parts: list[Any] = []
        while sum(part.item_count for part in parts) < max(SIZES):
            parts.append(kind.from_wire(platform.requests(100)[place].SerializeToString()))
        joined = kind.concat(parts)
        for size in SIZES:
            made[signal, size] = joined.split(max_items=size)[0].wire
    return made


def measurements() -> Iterator[tuple[str, int, Callable[[], list[int]]]]:
    """Of each line its name, the number of items, and what runs a round: the CPU time of each request in ns."""
    known, registry = bodies(), Registry()
    for name, (component_type, signal_name, config) in LINES.items():
        signal = Signal(signal_name)
        factory = registry.find(ComponentKind.PROCESSOR, component_type)
        assert factory is not None
        processor = factory.create(make_settings(factory, signals={signal}), factory.config_type.model_validate(config))
        kind = batch_type(signal)
        for size in SIZES:

            def once(wire: bytes = known[signal_name, size], run: Any = processor.transform, kind: Any = kind) -> None:
                batch = run(kind.check(wire).batch)
                assert batch is None or batch.wire

            def round_of(count: int = BLOCKS * REQUESTS[size], once: Callable[[], None] = once) -> list[int]:
                times = []
                for _ in range(count):
                    start = time.thread_time_ns()
                    once()
                    times.append(time.thread_time_ns() - start)
                return times

            yield name, size, round_of


def serve() -> None:
    """The measuring process: answers each input line with a round of the measurement of that number."""
    process.raise_malloc_thresholds()
    listed = list(measurements())
    for line in sys.stdin:
        name, size, round_of = listed[int(line)]
        print(json.dumps([name, size, statistics.quantiles(round_of(), n=4)[0] / 1000]), flush=True)


class Go:
    """The Go collector's processors."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([str(OTTL)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._bodies = bodies()

    def round_of(self, name: str, size: int) -> float:
        """The lower quartile of some blocks: CPU µs of a request."""
        component_type, signal, config = LINES[name]
        asked = {
            "processor": component_type,
            "signal": signal,
            "config": config,
            "data": base64.b64encode(self._bodies[signal, size]).decode(),
            "repeat": REQUESTS[size],
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        times = []
        for _ in range(BLOCKS):
            self._process.stdin.write(json.dumps(asked) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
            if "cpu_s" not in answer:
                raise SystemExit(f"{name}: the Go collector answers {answer}")
            times.append(answer["cpu_s"] * 1e6)
        return statistics.quantiles(times, n=4)[0]

    def close(self) -> None:
        """End the process."""
        self._process.terminate()
        self._process.wait()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--against", type=Path, metavar="CHECKOUT", help="another checkout, built in place")
    parser.add_argument("--only", default="", metavar="TEXT", help="only lines that contain this")
    parser.add_argument("--json", type=Path, help="write the figures of all rounds there, too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    trees = [("before", arguments.against.resolve())] if arguments.against else []
    trees.append(("now", ROOT))
    command = [sys.executable, __file__, "--serve"]
    children = {
        name: subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(tree)},
        )
        for name, tree in trees
    }
    peer = Go()
    rows = []
    listed = [(name, size) for name in LINES for size in SIZES]
    for number, (name, size) in enumerate(listed):
        if arguments.only not in name:
            continue
        figures: dict[str, list[float]] = {side: [] for side in (*children, "Go")}
        for _ in range(arguments.rounds):
            for side, child in children.items():
                assert child.stdin is not None
                assert child.stdout is not None
                child.stdin.write(f"{number}\n")
                child.stdin.flush()
                figures[side].append(json.loads(child.stdout.readline())[2])
            figures["Go"].append(peer.round_of(name, size))
        rows.append({"line": name, "items": size, "cpu_us": figures})
    peer.close()
    for child in children.values():
        child.terminate()
        child.wait()
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def show(rows: list[dict[str, Any]]) -> None:
    """The table: the medians, and how many times the Go collector's is ours."""
    table = Table(title="CPU µs of a request, from bytes to bytes (medians)")
    sides = list(rows[0]["cpu_us"]) if rows else []
    for heading in ("processor", "items", *sides, "Go / now", "s per million items"):
        table.add_column(heading, justify="left" if heading == "processor" else "right")
    for row in rows:
        medians = {side: statistics.median(times) for side, times in row["cpu_us"].items()}
        table.add_row(
            row["line"],
            str(row["items"]),
            *(f"{median:,.1f}" for median in medians.values()),
            f"{medians['Go'] / medians['now']:.1f}",
            f"{medians['now'] / row['items']:.2f}",
        )
    Console(width=None if os.isatty(1) else 140).print(table)


if __name__ == "__main__":
    main()
