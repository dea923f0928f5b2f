"""The command of the demo: free ports, gateway, platform, screen, claims."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import click
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

import config
from collector.cli._logs import logging_to
from collector.cli.demo.claims import Claim, claims_of, grouped
from collector.cli.demo.names import GPU_HOST, SERVICES
from collector.cli.demo.output import TraceFile, read_page
from collector.cli.demo.screen import fetch_documents, views
from collector.cli.run import new_event_loop
from collector.registry import Registry
from collector.service import Service
from collector.text.printable import printable
from collector.transport.ports import describe_port_conflict
from config.load import load

__all__ = ["command"]

_DEFAULT_CONFIG: Final = Path(config.__file__).with_name("default.yaml")
_PORTS: Final = {
    "grpc": (4317, "receivers::otlp::protocols::grpc::endpoint"),
    "http": (4318, "receivers::otlp::protocols::http::endpoint"),
    "scrape": (9464, "exporters::prometheus::endpoint"),
    "health": (13133, "extensions::health_check::endpoint"),
    "admin": (8888, "service::telemetry::metrics::address"),
}
_LIVE_INTERVAL_S: Final = 1.0
_LINE_INTERVAL_S: Final = 5.0  # where there is no terminal
_LINE_WIDTH: Final = 150  # where there is no terminal
_SETTLE_S: Final = 3.0  # decision_wait of the default configuration plus one second


def _free_ports(host: str) -> tuple[dict[str, int], list[str]]:
    """A port for each listener: the usual one, or a free one together with a note that says why."""
    ports, notes = {}, []
    for name, (usual, key) in _PORTS.items():
        with socket.socket() as probe:
            try:
                probe.bind((host, usual))
                ports[name] = usual
            except OSError:
                with socket.socket() as other:
                    other.bind((host, 0))
                    ports[name] = other.getsockname()[1]
                notes.append(f"{describe_port_conflict(host, usual, key).partition(';')[0]}; using {ports[name]}")
    return ports, notes


def _curl(host: str, port: int) -> str:
    """A shell command that sends one span with an error over OTLP/JSON."""
    now = time.time_ns()
    span = {
        "traceId": secrets.token_hex(16), "spanId": secrets.token_hex(8), "name": "hello", "kind": 2,
        "startTimeUnixNano": str(now), "endTimeUnixNano": str(now + 1_000_000), "status": {"code": 2},
    }  # fmt: skip
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": "my-service"}}]}
    body = json.dumps(
        {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": [span]}]}]}, separators=(",", ":")
    )
    return f"curl -H 'Content-Type: application/json' http://{host}:{port}/v1/traces -d '{body}'"


class _PlatformProcess:
    """The process of the simulated platform, and what it last reported."""

    def __init__(self, ports: dict[str, int], host: str, duration_s: float, rate: float) -> None:
        self._arguments = [
            sys.executable, "-m", "collector.cli.demo.feed",
            "--grpc", f"{host}:{ports['grpc']}", "--http", f"{host}:{ports['http']}",
            "--duration", str(duration_s), "--rate", str(rate),
        ]  # fmt: skip
        self.totals: dict[str, Any] = {}
        self._process: asyncio.subprocess.Process | None = None

    async def run(self) -> None:
        """Run the process until it ends, keeping ``totals`` up to date."""
        self._process = await asyncio.create_subprocess_exec(
            *self._arguments,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in the terminal reaches only the gateway, which stops the platform
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            self.totals = json.loads(line)
        await self._process.wait()

    def stop(self) -> None:
        """Ask the process to report its totals and end."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()


def _row(service: Service, traces: TraceFile, sent: dict[str, Any]) -> dict[str, Any]:
    """The current numbers, by the heading of their column."""
    return {
        "traces sent": sent.get("traces", 0),
        "traces kept": len(traces.traces),
        "errors kept": f"{traces.count('error')}/{sent.get('error_traces', 0)}",
        "slow kept": f"{traces.count('slow')}/{sent.get('slow_traces', 0)}",
        "GPU spans": traces.gpu_spans,
        "metric points": sent.get("metric_points", 0),
        "series": sent.get("series", 0),
        "logs": sent.get("log_records", 0),
        "memory in use": f"{service.admission.used_bytes / 2**20:.1f} MiB",
    }


def _table(row: dict[str, Any], elapsed_s: float) -> Table:
    table = Table(title=f"tailrace demo, {elapsed_s:.0f} s", show_header=True, header_style="bold")
    for name in row:
        table.add_column(name, justify="right")
    table.add_row(*(grouped(value) if isinstance(value, int) else str(value) for value in row.values()))
    return table


@contextlib.contextmanager
def _working_files() -> Iterator[Path]:
    """The folder that the default configuration writes to, without the files of an earlier demo."""
    folder = Path("tailrace-data")
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.jsonl*"):
        old.unlink()
    yield folder


async def _run_demo(duration_s: float, rate: float, console: Console) -> list[Claim]:
    host = os.environ.get("TAILRACE_LISTEN", "127.0.0.1")
    ports, notes = _free_ports(host)
    for note in notes:
        console.print(printable(note), style="yellow", markup=False)  # names a process of somebody else
    sets = [
        *(f"{key.replace('::', '.')}={host}:{ports[name]}" for name, (_, key) in _PORTS.items()),
        "service.telemetry.logs.level=warn",
    ]
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(_working_files())
        loaded = load((str(_DEFAULT_CONFIG),), sets, Registry())
        stack.enter_context(logging_to(loaded.service.telemetry.logs))
        service = Service(loaded)
        await service.start()
        traces = TraceFile(folder / "traces.jsonl")
        platform = _PlatformProcess(ports, host, duration_s, rate)
        console.print(
            f"Receiving OTLP on {host}:{ports['grpc']} (gRPC) and {host}:{ports['http']} (HTTP).\n"
            f"Metrics for Prometheus: http://{host}:{ports['scrape']}/metrics\n"
            f"Traces and logs: files in ./{folder}\n"
            f"Live view in a browser: [bold]http://{host}:{ports['admin']}/[/bold]\n\n"
            "To send a span of your own (with an error, so that it is kept):\n"
            f"  {_curl(host, ports['http'])}\n"
        )
        running = asyncio.ensure_future(platform.run())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, platform.stop)
        try:
            async with aiohttp.ClientSession() as session:
                admin = f"http://127.0.0.1:{ports['admin']}"
                await _watch(service, traces, platform, running, console, session, admin)
                await running
                await asyncio.sleep(_SETTLE_S)  # until the last traces are decided
                page = await read_page(session, f"http://{host}:{ports['scrape']}/metrics", SERVICES)
                for view in views(await fetch_documents(session, admin)):
                    console.print()
                    console.print(view)
        finally:
            platform.stop()
            await asyncio.gather(running, return_exceptions=True)
            await service.shutdown()
        traces.read()
        if traces.own_spans:
            console.print(f"\nSpans of your own that were kept: {traces.own_spans}, in ./{folder}/traces.jsonl")
        console.print(
            "\nTo run the gateway for your own services: [bold]tailrace run --config config/default.yaml[/bold]\n"
            f"and set [bold]OTEL_EXPORTER_OTLP_ENDPOINT=http://{host}:4318[/bold] for any OpenTelemetry SDK.\n\n"
            "What the platform sent, compared with what the gateway delivered:"
        )
        return claims_of(
            platform.totals, traces, page, service.ledger, float(os.environ.get("TRACE_SAMPLE_RATE", "0.1"))
        )


async def _watch(
    service: Service,
    traces: TraceFile,
    platform: _PlatformProcess,
    running: "asyncio.Future[None]",
    console: Console,
    session: aiohttp.ClientSession,
    admin: str,
) -> None:
    """Show the numbers live, or as a line every few seconds if there is no terminal."""
    started = time.monotonic()
    if not console.is_terminal:
        while not running.done():
            await asyncio.wait({running}, timeout=_LINE_INTERVAL_S)
            traces.read()
            console.print(
                ", ".join(f"{name}: {value}" for name, value in _row(service, traces, platform.totals).items()),
                soft_wrap=True,
            )
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        while not running.done():
            await asyncio.wait({running}, timeout=_LIVE_INTERVAL_S)
            traces.read()
            table = _table(_row(service, traces, platform.totals), time.monotonic() - started)
            live.update(Group(table, *views(await fetch_documents(session, admin))))
    console.print(_table(_row(service, traces, platform.totals), time.monotonic() - started))


@click.command()
@click.option("--duration", type=float, default=0.0, show_default=True, help="Seconds to run. 0: until Ctrl-C.")
@click.option("--rate", type=float, default=80.0, show_default=True, help="Simulated requests per second.")
def command(duration: float, rate: float) -> None:
    """Run a demo with a simulated platform.

    Starts the gateway with its embedded default configuration and sends it the telemetry of a simulated embedding
    platform. At the end, compares what was sent with what was delivered.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
    console = Console(highlight=False, soft_wrap=True)
    if not console.is_terminal:
        console = Console(highlight=False, soft_wrap=True, width=_LINE_WIDTH)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            claims = runner.run(_run_demo(duration, rate, console))
    except (OSError, ValueError) as exc:
        raise click.ClickException(str(exc)) from exc
    for claim in claims:
        outcome = "[green]OK  [/]" if claim.holds else "[red]FAIL[/]"
        console.print(f"  {outcome} {claim.subject:8}  {claim.text}", soft_wrap=True)
    console.print(
        f"\nSimulated GPU data is added only to spans of the host {GPU_HOST}, never to spans of your own services."
    )
    raise SystemExit(0 if all(claim.holds for claim in claims) else 1)
