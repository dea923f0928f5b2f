"""CPU seconds per million spans of OTLP in, OTLP out: Tailrace beside the Go collector, interleaved in one run.

``python benchmarks/gateway.py [--json FILE] [--before CHECKOUT]``; ``--before`` measures the Tailrace of another checkout (built
in place) as well, so that a change shows its before and after in one run.

Three kinds of process: this one starts everything and reads the clocks, a load generator sends requests that were encoded
beforehand, a sink takes what comes out and counts. Only the gateway's own CPU time and memory are reported. Loopback only; the
number of requests is fixed and so is the longest time a round may take. Without the Go collector (``make backends``) its side is
left out.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, Final, cast

import aiohttp
import grpc
import psutil
from aiohttp import web
from kernels import traces
from rich.console import Console
from rich.table import Table

from collector.testing import free_port

METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
ROOT: Final = Path(__file__).resolve().parent.parent
OTELCOL: Final = Path(os.environ.get("TAILRACE_BACKENDS") or Path.home() / ".cache" / "tailrace-backends") / "otelcol"
IN_FLIGHT: Final = 8
ROUND_MAX_S: Final = 60.0
START_MAX_S: Final = 30.0
MESSAGE_OPTIONS: Final = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
CONFIG: Final = """
receivers: {{otlp: {{protocols: {{{protocol}: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{otlp_{protocol}: {{endpoint: "{endpoint}", compression: {compression}, tls: {{insecure: true}}}}}}
service:
  telemetry: {{logs: {{level: warn}}, metrics: {{level: none}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [otlp_{protocol}]}}}}
"""


@dataclasses.dataclass(frozen=True)
class Case:
    """What is sent, and how."""

    protocol: str
    span_count: int
    request_count: int

    @property
    def title(self) -> str:
        """For the table."""
        return f"{'gRPC' if self.protocol == 'grpc' else 'HTTP'}, {self.span_count} spans"


@dataclasses.dataclass
class Side:
    """One gateway that runs."""

    name: str
    process: psutil.Process
    port: int
    cpu_s_per_million: list[float] = dataclasses.field(default_factory=list)
    rss_bytes: int = 0

    def cpu_s(self) -> float:
        """User and system time so far, of all threads."""
        times = self.process.cpu_times()
        return float(times.user + times.system)


# The sink process.


async def serve_sink() -> None:
    """Take every OTLP request, count requests and bytes; ``GET /count`` tells, a closed stdin ends it."""
    seen = {"requests": 0, "bytes": 0}

    def count(body: bytes) -> bytes:
        seen["requests"] += 1
        seen["bytes"] += len(body)
        return b""

    async def over_grpc(body: bytes, _: Any) -> bytes:
        return count(body)

    async def over_http(incoming: web.BaseRequest) -> web.StreamResponse:
        if incoming.method == "GET":
            return web.json_response(seen)
        return web.Response(body=count(await incoming.content.read()), content_type="application/x-protobuf")

    server = grpc.aio.server(options=MESSAGE_OPTIONS)
    handlers = {"Export": grpc.unary_unary_rpc_method_handler(over_grpc)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(METHOD.split("/")[1], handlers),))
    grpc_port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    runner = web.ServerRunner(web.Server(over_http, access_log=None))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    say({"grpc": grpc_port, "http": cast("list[tuple[str, int]]", runner.addresses)[0][1]})
    await asyncio.to_thread(sys.stdin.read)
    await runner.cleanup()
    await server.stop(None)


# The load process.


async def serve_load() -> None:
    """For each line on stdin, a round: that many requests, ``IN_FLIGHT`` at a time; then a line on what came of them."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        order = json.loads(line)
        body = await asyncio.to_thread(Path(order["body"]).read_bytes)
        async with asyncio.timeout(ROUND_MAX_S):
            say(await send_round(order["protocol"], order["port"], body, order["requests"]))


async def send_round(protocol: str, port: int, body: bytes, request_count: int) -> dict[str, float]:
    """Send all; what is refused is sent again, as every OTLP client does."""
    left, refused = request_count, 0
    async with contextlib.AsyncExitStack() as stack:
        if protocol == "grpc":
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=MESSAGE_OPTIONS))
            call = channel.unary_unary(METHOD)

            async def send() -> bool:
                try:
                    await call(body, timeout=ROUND_MAX_S)
                except grpc.aio.AioRpcError as error:
                    if error.code() not in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED}:
                        raise
                    return False
                return True

        else:
            session = await stack.enter_async_context(aiohttp.ClientSession(headers={"Content-Type": "application/x-protobuf"}))

            async def send() -> bool:
                async with session.post(f"http://127.0.0.1:{port}/v1/traces", data=body) as answer:
                    await answer.read()
                    if answer.status not in {200, 429, 503}:
                        raise RuntimeError(f"answered {answer.status}")
                    return answer.status == 200

        async def sender() -> None:
            nonlocal left, refused
            while left > 0:
                left -= 1
                while not await send():
                    refused += 1
                    await asyncio.sleep(0.05)

        started = time.perf_counter()
        await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    return {"seconds": time.perf_counter() - started, "refused": refused}


def say(what: Any) -> None:
    """One line to the parent."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


# The process that measures.


@contextlib.contextmanager
def running(arguments: Sequence[str], checkout: Path = ROOT, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A child that ends with the block."""
    environment = {**os.environ, "PYTHONPATH": str(checkout)}
    process = subprocess.Popen(list(arguments), env=environment, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def own_role(role: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
    """This program as the sink or the load generator."""
    return running([sys.executable, __file__, "--role", role], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def heard(process: subprocess.Popen[bytes]) -> Any:
    """The child's next line."""
    line = cast("IO[bytes]", process.stdout).readline()
    if not line:
        raise SystemExit("a process of the benchmark ended; its message is above")
    return json.loads(line)


def seen_by_sink(port: int) -> dict[str, int]:
    """What the sink counted so far."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        return cast("dict[str, int]", json.load(answer))


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody listens there."""
    import socket

    deadline = time.monotonic() + START_MAX_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def start_sides(
    stack: contextlib.ExitStack, folder: Path, protocol: str, endpoint: str, *, compression: str, before: Path | None
) -> list[Side]:
    """Tailrace and, if it is there, the Go collector, of one configuration."""
    tailrace = [sys.executable, "-c", "from collector.cli import main; main()", "run"]
    programs = {"tailrace": tailrace}
    if before is not None:
        programs["before"] = tailrace
    if OTELCOL.exists():
        programs["otelcol"] = [str(OTELCOL)]
    sides = []
    for name, program in programs.items():
        port = free_port()
        config, log = folder / f"{name}-{protocol}.yaml", folder / f"{name}-{protocol}.log"
        config.write_text(CONFIG.format(protocol=protocol, port=port, endpoint=endpoint, compression=compression))
        output = stack.enter_context(log.open("wb"))
        checkout = before if name == "before" and before is not None else ROOT
        process = stack.enter_context(
            running([*program, "--config", str(config)], checkout, stdout=output, stderr=subprocess.STDOUT, cwd=folder)
        )
        wait_for_port(port, process, log)
        sides.append(Side(name, psutil.Process(process.pid), port))
    return sides


def measure(case: Case, side: Side, load: subprocess.Popen[bytes], body: Path, sink_port: int) -> tuple[float, dict[str, float]]:
    """One round: CPU seconds per million spans from the first request until the sink has the last, and the load's words."""
    # Bytes, not requests: a gateway may join requests. What one writes differently (an empty field more or less) is far below 1 %.
    expected = seen_by_sink(sink_port)["bytes"] + 0.99 * case.request_count * body.stat().st_size
    before_s = side.cpu_s()
    order = {"protocol": case.protocol, "port": side.port, "body": str(body), "requests": case.request_count}
    stdin = cast("IO[bytes]", load.stdin)
    stdin.write(json.dumps(order).encode() + b"\n")
    stdin.flush()
    told = heard(load)
    deadline = time.monotonic() + ROUND_MAX_S
    while seen_by_sink(sink_port)["bytes"] < expected:
        if time.monotonic() > deadline:
            raise SystemExit(f"{side.name}: {case.title}: not everything came out within {ROUND_MAX_S:.0f} s")
        time.sleep(0.02)
    spent_s = side.cpu_s() - before_s
    return spent_s / (case.span_count * case.request_count) * 1e6, told


def run(cases: Sequence[Case], rounds: int, compression: str, before: Path | None) -> list[dict[str, Any]]:
    """All cases; one row for each."""
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sink, load = stack.enter_context(own_role("sink")), stack.enter_context(own_role("load"))
        ports = heard(sink)
        endpoints = {"grpc": f"127.0.0.1:{ports['grpc']}", "http": f"http://127.0.0.1:{ports['http']}"}
        for protocol in dict.fromkeys(case.protocol for case in cases):
            with contextlib.ExitStack() as sides_stack:
                sides = start_sides(sides_stack, folder, protocol, endpoints[protocol], compression=compression, before=before)
                for case in (case for case in cases if case.protocol == protocol):
                    rows.append(run_case(case, sides, rounds, load, folder, ports["http"]))
    return rows


def run_case(case: Case, sides: Sequence[Side], rounds: int, load: subprocess.Popen[bytes], folder: Path, sink_port: int) -> dict[str, Any]:
    """Warm each side up, then measure in turn."""
    body = folder / f"{case.span_count}.bin"
    body.write_bytes(traces(case.span_count).SerializeToString())
    row: dict[str, Any] = {"case": case.title, **dataclasses.asdict(case), "request_bytes": body.stat().st_size, "sides": {}}
    warm = dataclasses.replace(case, request_count=max(case.request_count // 4, 50))
    results: dict[str, list[float]] = {side.name: [] for side in sides}
    seconds: dict[str, list[float]] = {side.name: [] for side in sides}
    refused = dict.fromkeys(results, 0)
    for side in sides:
        measure(warm, side, load, body, sink_port)
    for _ in range(rounds):
        for side in sides:
            cpu_s, told = measure(case, side, load, body, sink_port)
            results[side.name].append(cpu_s)
            seconds[side.name].append(told["seconds"])
            refused[side.name] += int(told["refused"])
    for side in sides:
        row["sides"][side.name] = {
            "cpu_s_per_million_spans": round(statistics.median(results[side.name]), 3),
            "rounds": [round(value, 3) for value in results[side.name]],
            "spans_per_s": round(case.span_count * case.request_count / statistics.median(seconds[side.name])),
            "rss_mib": round(side.process.memory_info().rss / 2**20, 1),
            "refused_requests": refused[side.name],
        }
    ours = row["sides"]["tailrace"]["cpu_s_per_million_spans"]
    if "otelcol" in row["sides"] and ours:
        row["ratio"] = round(row["sides"]["otelcol"]["cpu_s_per_million_spans"] / ours, 2)
    return row


def show(rows: Sequence[dict[str, Any]], compression: str) -> None:
    """The table."""
    table = Table(title=f"CPU seconds of the gateway per million spans (medians; compression of the exporter: {compression})")
    for name in ("OTLP in and out", "request", "Tailrace", "otelcol", "otelcol / Tailrace", "before", "RSS Tailrace", "RSS otelcol"):
        table.add_column(name, justify="left" if name.startswith("OTLP") else "right")
    for row in rows:
        ours, theirs, before = row["sides"]["tailrace"], row["sides"].get("otelcol"), row["sides"].get("before")
        table.add_row(
            row["case"],
            f"{row['request_bytes'] / 1000:.1f} KB",
            f"{ours['cpu_s_per_million_spans']:.2f}",
            f"{theirs['cpu_s_per_million_spans']:.2f}" if theirs else "-",
            f"{row['ratio']:.2f} x" if row.get("ratio") else "-",
            f"{before['cpu_s_per_million_spans']:.2f}" if before else "-",
            f"{ours['rss_mib']:.0f} MiB",
            f"{theirs['rss_mib']:.0f} MiB" if theirs else "-",
        )
    Console(width=None if sys.stdout.isatty() else 140).print(table)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--role", choices=("sink", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--json", type=Path, help="write the figures there, too")
    parser.add_argument("--before", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds of each side and case")
    parser.add_argument("--compression", default="none", choices=("none", "gzip"), help="of both gateways' exporters")
    parser.add_argument("--protocol", choices=("grpc", "http"), help="only this one")
    parser.add_argument("--spans", type=int, choices=(10, 512), help="only requests of this size")
    arguments = parser.parse_args()
    if arguments.role:
        asyncio.run(serve_sink() if arguments.role == "sink" else serve_load())
        return
    if not OTELCOL.exists():
        Console(stderr=True).print(f"no Go collector at {OTELCOL} (`make backends` builds it): only Tailrace is measured")
    cases = [Case(protocol, spans, requests) for protocol in ("grpc", "http") for spans, requests in ((512, 400), (10, 3000))]
    cases = [case for case in cases if arguments.protocol in {None, case.protocol} and arguments.spans in {None, case.span_count}]
    rows = run(cases, max(arguments.rounds, 1), arguments.compression, arguments.before and arguments.before.resolve())
    show(rows, arguments.compression)
    if arguments.json:
        facts = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "cpus": os.cpu_count(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({**facts, "compression": arguments.compression, "cases": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
