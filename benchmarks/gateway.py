"""Tailrace and the Go collector as OTLP gateways: whole programs, one configuration, alternating rounds in one run.

- ``gateway.py``: CPU time for each span, requests of 512 and of 10 spans, gRPC→gRPC and HTTP→HTTP;
- ``gateway.py --processors memory_limiter,batch``: the same behind these;
- ``gateway.py --latency``: p50 and p99 at half of what the Go collector takes at most (or at ``--rate``), an open loop;
- ``gateway.py --disk``: with queues in memory and in ``file_storage``, synced before a request is answered;
- ``gateway.py --idle 5000``: memory for each idle connection, in plaintext and with TLS.

``--engine`` chooses Tailrace's gRPC; ``--beside`` adds another Tailrace that differs in one thing: its gRPC or its
event loop; ``--before CHECKOUT`` adds that of another checkout, built in place. ``--json FILE`` has the figures of
every round.

Only the gateway's own CPU time and memory count, user and system, all threads. Loopback only; every round has an end.
Without the Go collector (``make backends``) its side is left out.
"""

import argparse
import dataclasses
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from kernels import traces
from rich.console import Console
from rich.table import Table
from sides import OTELCOL, OURS_ON_ASYNCIO, ROUND_MAX_S, Bench, Running, Setting, Side, cpu_s

Row = dict[str, Any]
PROCESSORS: Final = ("memory_limiter", "batch", "filter", "transform")
"""Those that ``sides.CONFIG`` has."""
IDLE_WARM_UP: Final = 100
SETTLED_S: Final = 1.0
# Of the tables: heading, name among a side's figures, divisor.
CPU_COLUMNS: Final = (
    ("CPU s/million spans", "cpu_s_per_million_spans", 1),
    ("CPU µs/request", "cpu_us_per_request", 1),
    ("requests/s", "requests_per_s", 1),
    ("p50, ms", "p50_us", 1000),
    ("refused", "refused", 1),
    ("load µs/request", "load_cpu_us_per_request", 1),
    ("sink µs/request", "sink_cpu_us_per_request", 1),
    ("RSS, MiB", "rss_mib", 1),
)
LATENCY_COLUMNS: Final = (
    ("p50, ms", "p50_us", 1000),
    ("p90, ms", "p90_us", 1000),
    ("p99, ms", "p99_us", 1000),
    ("requests/s", "requests_per_s", 1),
    ("refused", "refused", 1),
    ("CPU µs/request", "cpu_us_per_request", 1),
)
IDLE_COLUMNS: Final = (("KB each", "bytes_per_connection", 1000), ("RSS, MiB", "rss_mib", 1))


@dataclasses.dataclass(frozen=True)
class Case:
    """What is sent, and how."""

    protocol: str
    span_count: int

    @property
    def title(self) -> str:
        """For the table."""
        return f"{'gRPC' if self.protocol == 'grpc' else 'HTTP'}, {self.span_count} spans"


class Runner:
    """One run of the benchmark: its options, its sides and its processes."""

    def __init__(self, bench: Bench, sides: Sequence[Side], options: argparse.Namespace) -> None:
        self._bench, self._sides, self._options = bench, sides, options

    def throughput(self, cases: Iterable[Case]) -> list[Row]:
        """CPU time for each span, as fast as ``in_flight`` requests at a time go through."""
        return [self._case(case, self._closed_loop) for case in cases]

    def latency(self, cases: Iterable[Case]) -> list[Row]:
        """p50 and p99 at a fixed rate."""
        return [self._case(case, self._open_loop) for case in cases]

    def idle(self, protocols: Iterable[str], count: int) -> list[Row]:
        """Memory of ``count`` connections that have sent one request each and now send nothing.

        A fresh process for each figure.
        """
        body = self._body(Case("", 10))
        rows = []
        for setting in (Setting(protocol, tls=tls) for protocol in protocols for tls in (False, True)):
            row: Row = {
                "case": f"{setting.protocol}{' with TLS' if setting.tls else ''}",
                "connections": count,
                "sides": {},
            }
            for side in self._sides:
                with self._bench.gateways([side], setting) as (gateway,):
                    order = {"protocol": setting.protocol, "port": gateway.port, "body": body}
                    if setting.tls:
                        order["ca"] = str(self._bench.folder / "ca.pem")
                    self._bench.order(**order, idle=IDLE_WARM_UP)
                    before, files = settled(gateway), gateway.process.num_fds()
                    self._bench.order(**order, idle=count)
                    after = settled(gateway)
                    if gateway.process.num_fds() < files + count - IDLE_WARM_UP - 10:
                        raise SystemExit(f"{side.name}: it does not hold {count} connections")
                    row["sides"][side.name] = {
                        "bytes_per_connection": round((after - before) / (count - IDLE_WARM_UP)),
                        "rss_mib": round(after / 2**20, 1),
                    }
            rows.append(row)
        return rows

    def _case(self, case: Case, measure: Callable[[Case, list[Running], str], Row]) -> Row:
        setting = Setting(case.protocol, self._options.processors, self._options.compression)
        body = self._body(case)
        with self._bench.gateways(self._sides, setting) as gateways:
            for gateway in gateways:
                self._round(case, gateway, body, seconds=min(self._options.seconds, 2.0))
            return {
                "case": case.title,
                **dataclasses.asdict(case),
                "request_bytes": Path(body).stat().st_size,
                **measure(case, gateways, body),
            }

    def _closed_loop(self, case: Case, gateways: list[Running], body: str) -> Row:
        rounds: dict[str, list[Row]] = {gateway.side.name: [] for gateway in gateways}
        for _ in range(self._options.rounds):
            for gateway in gateways:
                rounds[gateway.side.name].append(self._round(case, gateway, body, seconds=self._options.seconds))
        row: Row = {"sides": {name: summary(each) for name, each in rounds.items()}}
        for gateway in gateways:
            row["sides"][gateway.side.name]["rss_mib"] = round(gateway.rss_bytes() / 2**20, 1)
        return row

    def _open_loop(self, case: Case, gateways: list[Running], body: str) -> Row:
        rate = self._options.rate or self._half_of_otelcol(case, gateways, body)
        rounds: dict[str, list[Row]] = {gateway.side.name: [] for gateway in gateways}
        for _ in range(self._options.rounds):
            for gateway in gateways:
                rounds[gateway.side.name].append(
                    self._round(case, gateway, body, seconds=self._options.seconds, rate=rate, in_flight=256)
                )
        return {"requests_per_s": round(rate), "sides": {name: summary(each) for name, each in rounds.items()}}

    def _half_of_otelcol(self, case: Case, gateways: list[Running], body: str) -> float:
        for gateway in gateways:
            if gateway.side.name == "otelcol":
                return float(self._round(case, gateway, body, seconds=self._options.seconds)["requests_per_s"]) / 2
        raise SystemExit("--latency takes half of what the Go collector can: `make backends` builds it; or say --rate")

    def _round(
        self, case: Case, gateway: Running, body: str, *, seconds: float, rate: float = 0.0, in_flight: int = 0
    ) -> Row:
        """From the first request until the sink has the last span."""
        bench = self._bench
        before_items, before_s = bench.arrived()["items"], gateway.cpu_s()
        load_s, sink_s = cpu_s(bench.load), cpu_s(bench.sink)
        told = bench.order(
            protocol=case.protocol,
            port=gateway.port,
            body=body,
            seconds=seconds,
            rate=rate,
            connections=self._options.connections,
            in_flight=in_flight or self._options.in_flight,
        )
        expected = before_items + told["requests"] * case.span_count
        deadline = time.monotonic() + ROUND_MAX_S
        while bench.arrived()["items"] < expected:
            if time.monotonic() > deadline:
                raise SystemExit(
                    f"{gateway.side.name}: {case.title}: not everything came out within {ROUND_MAX_S:.0f} s"
                )
            time.sleep(0.02)
        spent_s = gateway.cpu_s() - before_s
        requests = max(told["requests"], 1)
        return {
            **told,
            "requests_per_s": round(told["requests"] / told["seconds"], 1),
            "cpu_s_per_million_spans": spent_s / (case.span_count * requests) * 1e6,
            "cpu_us_per_request": spent_s / requests * 1e6,
            "load_cpu_us_per_request": (cpu_s(bench.load) - load_s) / requests * 1e6,
            "sink_cpu_us_per_request": (cpu_s(bench.sink) - sink_s) / requests * 1e6,
        }

    def _body(self, case: Case) -> str:
        file = self._bench.folder / f"{case.span_count}.bin"
        if not file.exists():
            file.write_bytes(traces(case.span_count).SerializeToString())
        return str(file)


def summary(rounds: Sequence[Row]) -> Row:
    """Medians over the rounds, and the rounds' own CPU figures; what was refused in all."""
    medians = {
        name: round(statistics.median(each[name] for each in rounds), 3)
        for name in rounds[0]
        if name not in {"requests", "refused"}
    }
    return {
        **medians,
        "spans_per_cpu_s": round(1e6 / max(medians["cpu_s_per_million_spans"], 1e-9)),
        "refused": sum(each["refused"] for each in rounds),
        "rounds": [{name: round(value, 3) for name, value in each.items()} for each in rounds],
    }


def settled(gateway: Running) -> int:
    """Resident bytes once they stay within one per cent for a second."""
    deadline = time.monotonic() + ROUND_MAX_S
    last = gateway.rss_bytes()
    while True:
        time.sleep(SETTLED_S)
        now = gateway.rss_bytes()
        if abs(now - last) <= last / 100 or time.monotonic() > deadline:
            return now
        last = now


def show(title: str, rows: Sequence[Row], columns: Sequence[tuple[str, str, float]], compared: str) -> None:
    """A table of ``columns`` (heading, name in a side's figures, divisor).

    Last, how many times the Go collector's ``compared`` is ours.
    """
    table = Table(title=title)
    for name in ("case", "side", *(heading for heading, _, _ in columns), "otelcol / this"):
        table.add_column(name, justify="left" if name in {"case", "side"} else "right")
    for row in rows:
        theirs = row["sides"].get("otelcol")
        for name, side in row["sides"].items():
            cells = [
                f"{side[key] / divisor:,.{1 if side[key] / divisor >= 100 else 2}f}" for _, key, divisor in columns
            ]
            ratio = "-"
            if theirs and name != "otelcol" and side[compared] > 0 and theirs[compared] > 0:
                ratio = f"{theirs[compared] / side[compared]:.2f}"
            table.add_row(row["case"], name, *cells, ratio)
        table.add_section()
    Console(width=None if os.isatty(1) else 160).print(table)


def the_sides(options: argparse.Namespace) -> list[Side]:
    """Tailrace first, the Go collector last."""
    sides = [Side("tailrace", options.engine)]
    for each in options.beside:
        sides.append(Side(each, options.engine, OURS_ON_ASYNCIO) if each == "asyncio" else Side(each, each))
    if options.disk:
        sides.append(Side("tailrace disk", options.engine, on_disk=True))
    if options.before:
        sides.append(Side("before", checkout=options.before.resolve()))
    if options.alone:
        return sides
    if OTELCOL.exists():
        if options.disk:
            sides.append(Side("otelcol memory", code=""))
        sides.append(Side("otelcol", code="", on_disk=options.disk))
    else:
        Console(stderr=True).print(
            f"no Go collector at {OTELCOL} (`make backends` builds it): only Tailrace is measured"
        )
    return sides


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--latency", action="store_true", help="latencies at a fixed rate")
    mode.add_argument(
        "--idle", type=int, default=0, metavar="N", help=f"memory of N idle connections; more than {IDLE_WARM_UP}"
    )
    parser.add_argument("--alone", action="store_true", help="without the Go collector")
    parser.add_argument("--disk", action="store_true", help="also with queues on disk; otelcol is then the one on disk")
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument(
        "--engine", default="", choices=("http2", "grpcio"), help="Tailrace's gRPC, both directions (default: its own)"
    )
    parser.add_argument(
        "--beside",
        default=[],
        action="append",
        choices=("http2", "grpcio", "asyncio"),
        help="one more Tailrace: that gRPC or loop",
    )
    parser.add_argument("--protocol", choices=("grpc", "http"), help="only this one")
    parser.add_argument("--spans", type=int, choices=(10, 512), help="only requests of this size")
    parser.add_argument("--processors", default="", help=f"comma-separated, of {', '.join(PROCESSORS)}")
    parser.add_argument("--compression", default="none", choices=("none", "gzip"), help="of all gateways' exporters")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each side and case")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a round sends")
    parser.add_argument("--rate", type=float, default=0.0, help="requests a second with --latency")
    parser.add_argument(
        "--connections", type=int, default=4, help="of the load over gRPC; over HTTP each request in flight has its own"
    )
    parser.add_argument("--in-flight", type=int, default=8, help="requests at a time, over all connections")
    options = parser.parse_args()
    if options.idle and options.idle <= IDLE_WARM_UP:
        parser.error(f"--idle must be more than {IDLE_WARM_UP}, which are opened before to warm up")
    if unknown := set(filter(None, options.processors.split(","))) - set(PROCESSORS):
        parser.error(f"--processors: no {', '.join(sorted(unknown))} here, only {', '.join(PROCESSORS)}")
    if min(options.rounds, options.connections, options.in_flight) < 1 or options.seconds <= 0:
        parser.error("--rounds, --connections, --in-flight and --seconds must be positive")
    return options


def main() -> None:
    """See the module."""
    options = parsed()
    protocols = [each for each in ("grpc", "http") if options.protocol in {None, each}]
    cases = [Case(protocol, spans) for protocol in protocols for spans in (512, 10) if options.spans in {None, spans}]
    pipeline = options.processors.replace(",", ", ") or "no processors"
    with Bench.open() as bench:
        runner = Runner(bench, the_sides(options), options)
        if options.idle:
            rows = runner.idle(protocols, options.idle)
            show(f"Memory of {options.idle} idle connections", rows, IDLE_COLUMNS, "bytes_per_connection")
        elif options.latency:
            rows = runner.latency(cases)
            show(f"Latency, {pipeline}", rows, LATENCY_COLUMNS, "p99_us")
        else:
            rows = runner.throughput(cases)
            title = f"CPU of the gateway, {pipeline}, exporter's compression {options.compression}"
            show(title, rows, CPU_COLUMNS, "cpu_s_per_million_spans")
    if options.json:
        facts = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "cpus": os.cpu_count(),
            "python": platform.python_version(),
        }
        asked = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
        options.json.write_text(json.dumps({**facts, "options": asked, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
