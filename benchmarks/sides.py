"""The processes of ``gateway.py``: the gateways that are compared, the sink behind them and the load before them.

Sink and load are one Go program (tests/backends/otlpload), the same for every side and cheap: a request costs it a few
microseconds.
"""

import contextlib
import dataclasses
import json
import os
import resource
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Final, Self, cast

import psutil
import trustme

from collector.testing import free_port

ROOT: Final = Path(__file__).resolve().parent.parent
_HOME: Final = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
CACHE: Final = Path(os.environ.get("TAILRACE_BACKENDS") or _HOME / "tailrace-backends")
OTELCOL: Final = CACHE / "otelcol"
OTLPLOAD: Final = CACHE / "otlpload"
ROUND_MAX_S: Final = 120.0
START_MAX_S: Final = 30.0
# The same for every side, but for ports and who speaks gRPC. Our own metrics are on at their default level.
CONFIG: Final = """{extensions}
receivers: {{otlp: {{protocols: {{{protocol}: {{endpoint: "127.0.0.1:{port}"{receiver}}}}}}}}}
processors:
  memory_limiter: {{check_interval: 1s, limit_mib: 2048, spike_limit_mib: 512}}
  batch: {{}}
  filter:
    trace_conditions:
      - IsMatch(span.name, "^none")
      - span.attributes["http.response.status_code"] == 599
      - span.end_time - span.start_time > Duration("1h")
  transform:
    trace_statements:
      - set(span.attributes["deployment.environment.name"], "prod")
      - delete_key(span.attributes, "user_agent.original")
      - replace_pattern(span.name, "/[0-9]+", "/{{id}}")
      - truncate_all(span.attributes, 4096)
      - set(span.attributes["slow"], true) where span.end_time - span.start_time > Duration("1s")
exporters: {{otlp_{protocol}: {{endpoint: "{target}", compression: {compression}, tls: {{insecure: true}}{exporter}}}}}
service:{used_extensions}
  telemetry:
    logs: {{level: warn}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}
  pipelines: {{traces: {{receivers: [otlp], processors: [{processors}], exporters: [otlp_{protocol}]}}}}
"""
EXTENSIONS: Final = """
extensions: {{file_storage: {{directory: "{directory}", create_directory: true, fsync: true}}}}"""
OURS: Final = "from collector.cli import main; main()"
# The service makes its loop by this name; the product itself has no such switch.
OURS_ON_ASYNCIO: Final = (
    f"import asyncio; from collector.cli import run; run.new_event_loop = asyncio.new_event_loop; {OURS}"
)


@dataclasses.dataclass(frozen=True)
class Side:
    """One gateway to compare."""

    name: str
    engine: str = ""
    """Of Tailrace's gRPC, both directions; empty: its default."""
    code: str = OURS
    """What Python runs; empty: this is the Go collector."""
    checkout: Path = ROOT
    on_disk: bool = False
    """Whether its queue is in ``file_storage``, synced before a request is answered."""

    @property
    def program(self) -> list[str]:
        """Its command line, but for the configuration."""
        return [sys.executable, "-c", self.code, "run"] if self.code else [str(OTELCOL)]


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all sides of a comparison have in common."""

    protocol: str
    processors: str = ""
    compression: str = "none"
    tls: bool = False


@dataclasses.dataclass
class Running:
    """A gateway that runs."""

    side: Side
    process: psutil.Process
    port: int

    def cpu_s(self) -> float:
        """User and system time so far, of all threads."""
        return cpu_s(self.process)

    def rss_bytes(self) -> int:
        """Resident memory now."""
        return int(self.process.memory_info().rss)


def cpu_s(process: psutil.Process) -> float:
    """User and system time so far, of all threads."""
    times = process.cpu_times()
    return float(times.user + times.system)


class Bench:
    """A folder, the sink and the load; starts gateways between the two."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        if not OTLPLOAD.exists():
            raise SystemExit(f"no load generator at {OTLPLOAD}: `make backends` builds it")
        raise_file_limit()
        self.folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self._sink = stack.enter_context(child([str(OTLPLOAD), "sink"], **pipes))
        self._load = stack.enter_context(child([str(OTLPLOAD), "load"], **pipes))
        self._ports = heard(self._sink)
        self.load, self.sink = psutil.Process(self._load.pid), psutil.Process(self._sink.pid)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.folder / "ca.pem")
        certificate = authority.issue_cert("localhost", "127.0.0.1")
        certificate.private_key_pem.write_to_path(self.folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(self.folder / "cert.pem")

    @classmethod
    @contextlib.contextmanager
    def open(cls) -> Iterator[Self]:
        """One whose processes end with the block."""
        with contextlib.ExitStack() as stack:
            yield cls(stack)

    def order(self, **what: Any) -> dict[str, Any]:
        """Have the load do it; what came of it."""
        stdin = cast("IO[bytes]", self._load.stdin)
        stdin.write(json.dumps(what).encode() + b"\n")
        stdin.flush()
        return cast("dict[str, Any]", heard(self._load))

    def arrived(self) -> dict[str, int]:
        """Requests, items and bytes that the sink counted so far."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._ports['http']}/", timeout=10) as answer:
            return cast("dict[str, int]", json.load(answer))

    @contextlib.contextmanager
    def gateways(self, sides: Sequence[Side], setting: Setting) -> Iterator[list[Running]]:
        """All of them, listening."""
        with contextlib.ExitStack() as stack:
            yield [self._start(stack, side, setting) for side in sides]

    def _start(self, stack: contextlib.ExitStack, side: Side, setting: Setting) -> Running:
        port = free_port()
        config, log = self.folder / f"{side.name}.yaml", self.folder / f"{side.name}.log"
        tls = f", tls: {{cert_file: {self.folder}/cert.pem, key_file: {self.folder}/key.pem}}" if setting.tls else ""
        engine = side.engine if setting.protocol == "grpc" else ""
        receiver = tls + (", transport: grpcio" if engine == "grpcio" else "")  # there http2 is what serves `tcp`
        exporter = f", transport: {engine}" if engine else ""
        extensions = used_extensions = ""
        if side.on_disk:
            exporter += ", sending_queue: {storage: file_storage}"
            extensions = EXTENSIONS.format(directory=self.folder / f"{side.name}.queue")
            used_extensions = "\n  extensions: [file_storage]"
        target = (
            f"127.0.0.1:{self._ports['grpc']}"
            if setting.protocol == "grpc"
            else f"http://127.0.0.1:{self._ports['http']}"
        )
        config.write_text(
            CONFIG.format(
                protocol=setting.protocol,
                port=port,
                receiver=receiver,
                exporter=exporter,
                target=target,
                metrics=free_port(),
                compression=setting.compression,
                processors=setting.processors,
                extensions=extensions,
                used_extensions=used_extensions,
            )
        )
        output = stack.enter_context(log.open("wb"))
        command = [*side.program, "--config", str(config)]
        process = stack.enter_context(
            child(command, side.checkout, stdout=output, stderr=subprocess.STDOUT, cwd=self.folder)
        )
        wait_for_port(port, process, log)
        return Running(side, psutil.Process(process.pid), port)


@contextlib.contextmanager
def child(arguments: Sequence[str], checkout: Path = ROOT, **options: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    process = subprocess.Popen(list(arguments), env={**os.environ, "PYTHONPATH": str(checkout)}, **options)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def heard(process: subprocess.Popen[bytes]) -> Any:
    """The child's next line."""
    line = cast("IO[bytes]", process.stdout).readline()
    if not line:
        raise SystemExit("a process of the benchmark ended; its message is above")
    return json.loads(line)


def wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Until somebody listens there."""
    deadline = time.monotonic() + START_MAX_S
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{process.args} did not start:\n{log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.05)


def raise_file_limit() -> None:
    """As many open files as this user may have, for all that is started from here."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
