"""CPU time and memory per sample of remote write: the Go collector's exporter and this one, in one run.

    python benchmarks/remote_write.py [--series 10000 100000 1000000] [--rounds 5]

Every gateway receives the same OTLP/HTTP requests of 1 000 points, in turn, and writes to the same sink. A round is one
sample of every series. The first round, in which all series are new, is shown by itself. Needs `make backends`.
"""

import argparse
import asyncio
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np
import psutil
from aiohttp import web
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from sides import OTELCOL, OURS, child, cpu_s, wait_for_port

from collector.testing import free_port

MIB: Final = 2**20
POINTS: Final = 1000  # of a request
TIME: Final = 0x7EEDFACE7EEDFACE  # stands for the present time
V2: Final = "protobuf_message: io.prometheus.write.v2.Request"
CONFIG: Final = """
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters:
  {exporter}: {{endpoint: "http://127.0.0.1:{sink}/", {keys}}}
service:
  telemetry:
    logs: {{level: warn}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}
  pipelines: {{metrics: {{receivers: [otlp], exporters: [{exporter}]}}}}
"""


@dataclass
class Side:
    """A gateway."""

    name: str
    program: list[str]
    exporter: str
    keys: str = ""
    port: int = 0
    metrics_port: int = 0
    process: psutil.Process | None = None
    rounds_s: list[float] = field(default_factory=list)
    """CPU seconds of each round."""
    rss_before: int = 0
    rss_peak: int = 0


def sides() -> list[Side]:
    ours = [sys.executable, "-c", OURS, "run"]
    return [
        Side("Go collector", [str(OTELCOL)], "prometheusremotewrite"),
        Side("Tailrace, 1.0", ours, "prometheus_remote_write"),
        Side("Tailrace, 2.0", ours, "prometheus_remote_write", V2),
    ]


def template(first: int) -> np.ndarray:
    """A request with the series from ``first`` on: ten processes, a counter with four attributes."""
    made = ExportMetricsServiceRequest()
    for process in range(10):
        resource = made.resource_metrics.add()
        for key, value in (("service.name", "shop"), ("service.instance.id", f"pod-{first + process}")):
            resource.resource.attributes.add(key=key).value.string_value = value
        scope = resource.scope_metrics.add()
        scope.scope.name = "io.opentelemetry.http"
        metric = scope.metrics.add(name="http.server.requests", unit="{request}", description="Requests by route.")
        metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
        for i in range(POINTS // 10):
            point = metric.sum.data_points.add(start_time_unix_nano=1, time_unix_nano=TIME, as_int=i)
            attributes = {"http.request.method": "GET", "http.route": f"/api/v1/items/{i}", "server.port": "8080"}
            for key, value in (attributes | {"http.response.status_code": str(200 + i % 5)}).items():
                point.attributes.add(key=key).value.string_value = value
    return np.frombuffer(made.SerializeToString(), np.uint8).copy()


class Load:
    """The requests of all series; ``body`` returns one with the present time."""

    def __init__(self, series: int) -> None:
        self._requests = [template(i * 10) for i in range(series // POINTS)]
        mark, wire = TIME.to_bytes(8, "little"), self._requests[0].tobytes()
        self.count = len(self._requests)
        self._mark = np.frombuffer(mark, np.uint8)
        self._places: list[np.ndarray] = []
        for request in self._requests:
            wire, found, at = request.tobytes(), [], -1
            while (at := wire.find(mark, at + 1)) >= 0:
                found.append(at)
            self._places.append(np.array(found)[:, None] + np.arange(8))

    def body(self, number: int) -> bytes:
        """The request of this number."""
        now = np.frombuffer(time.time_ns().to_bytes(8, "little"), np.uint8)
        self._requests[number][self._places[number]] = now
        return self._requests[number].tobytes()


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[int]:
    """A receiver of both versions that throws everything away; its port."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204, headers={"X-Prometheus-Remote-Write-Samples-Written": "1"})

    application = web.Application(client_max_size=256 * MIB, handler_args={"auto_decompress": False})
    application.router.add_post("/", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


async def sent_count(http: aiohttp.ClientSession, side: Side) -> float:
    """The points that the side has delivered, by its own metrics."""
    async with http.get(f"http://127.0.0.1:{side.metrics_port}/metrics") as answer:
        page = await answer.text()
    values = [line.rpartition(" ")[2] for line in page.splitlines() if "exporter_sent_metric_points" in line[:50]]
    return sum(float(value) for value in values if value[0].isdigit())


async def run_round(http: aiohttp.ClientSession, side: Side, load: Load) -> None:
    """One sample of every series; returns when they are delivered."""
    assert side.process is not None
    expected = await sent_count(http, side) + load.count * POINTS
    before = cpu_s(side.process)
    limit = asyncio.Semaphore(4)

    async def post(number: int) -> None:
        async with limit:
            headers = {"Content-Type": "application/x-protobuf"}
            url = f"http://127.0.0.1:{side.port}/v1/metrics"
            async with http.post(url, data=load.body(number), headers=headers) as answer:
                if answer.status != 200:
                    raise SystemExit(f"{side.name} answers {answer.status}: {await answer.text()}")

    await asyncio.gather(*(post(number) for number in range(load.count)))
    deadline = time.monotonic() + 120
    while await sent_count(http, side) < expected:
        if time.monotonic() > deadline:
            raise SystemExit(f"{side.name} has not delivered everything after two minutes")
        side.rss_peak = max(side.rss_peak, side.process.memory_info().rss)
        await asyncio.sleep(0.1)
    side.rss_peak = max(side.rss_peak, side.process.memory_info().rss)
    side.rounds_s.append(cpu_s(side.process) - before)


async def compare(series: int, rounds: int) -> None:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with sink() as sink_port, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(300)) as http:
            chosen = sides()
            for side in chosen:
                side.port, side.metrics_port = free_port(), free_port()
                values = {"port": side.port, "metrics": side.metrics_port, "sink": sink_port}
                config = folder / f"{side.port}.yaml"
                config.write_text(CONFIG.format(exporter=side.exporter, keys=side.keys, **values))
                log = folder / f"{side.port}.log"
                output = stack.enter_context(log.open("wb"))
                arguments = [*side.program, "--config", str(config)]
                process = stack.enter_context(child(arguments, stdout=output, stderr=subprocess.STDOUT, cwd=folder))
                wait_for_port(side.port, process, log)
                side.process = psutil.Process(process.pid)
                side.rss_before = side.process.memory_info().rss
            load = Load(series)
            for _ in range(rounds + 1):
                for side in chosen:
                    await run_round(http, side, load)
    print(f"\n{series:,} series", flush=True)
    for side in chosen:
        first, *others = side.rounds_s
        rate = series / float(np.median(others))
        growth = (side.rss_peak - side.rss_before) / series
        print(
            f"  {side.name:14} {rate:12,.0f} samples per CPU second; new series {first / series * 1e6:6.2f} µs each;"
            f" RSS at most {side.rss_peak / MIB:6.0f} MiB, {growth:5.0f} bytes per series more than before",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--series", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--rounds", type=int, default=5, help="after the first")
    options = parser.parse_args()
    for series in options.series:
        asyncio.run(compare(series, options.rounds))


if __name__ == "__main__":
    main()
