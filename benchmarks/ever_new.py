"""Memory and own metrics of the production gateway while everything that senders name is new all the time.

``python benchmarks/ever_new.py [--seconds 180] [--requests 20] [--limit-mib 1024]``

``config/gateway.yaml`` runs with its backends replaced by sinks. Every span, point and record comes with a service, a
name, an attribute key, an attribute value and a trace id that never occurred before and never occur again: the tables
of the process reach their bounds. Meanwhile ``/metrics`` is read every second. Afterwards nothing is sent until the
tables have forgotten what they hold, after a minute instead of an hour, or until ``--rest`` seconds have passed.

It prints a line every ten seconds and ends with 1 if one of these does not hold:

- memory grows by no more than a tenth of the limit in the second half of the run, and is never above the limit;
- reading ``/metrics`` never takes longer than half a second.

The memory after the rest is printed beside that of the warm process before the run. It is not as small, because tables
keep the largest size that they have had (docs/memory.md).
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import numpy as np
import psutil
from aiohttp import web
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from sides import OURS, ROOT, child, wait_for_port

from collector.testing import free_port

MIB: Final = 2**20
SERVICES: Final = 20  # of each request
ITEMS: Final = 10  # of each service
SCRAPE_MAX_S: Final = 0.5
EXPIRY: Final = "60s"  # of what is one hour in the gateway, so that the run need not last for hours
NEW: Final = b"\xf4\x8f\xbf\xbd" * 4  # U+10FFFD four times: stands for 16 hexadecimal digits that are new
NEW_TEXT: Final = NEW.decode()
NEW_ID: Final = NEW  # and for the 16 bytes of a trace id
TIME: Final = 0x7EEDFACE7EEDFACE  # stands for the present time


class Template:
    """A request in which names and times are filled in, without encoding it anew."""

    def __init__(self, message: Any) -> None:
        self._bytes = np.frombuffer(message.SerializeToString(), np.uint8).copy()
        wire = self._bytes.tobytes()
        self._places = places(wire, NEW)
        self._times = places(wire, TIME.to_bytes(8, "little"))
        self._count = len(self._places)

    def body(self, first: int) -> bytes:
        """The request with the numbers from ``first`` on in place of what is new."""
        numbers = np.arange(first, first + self._count, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        digits = (numbers[:, None] >> np.arange(0, 64, 4, dtype=np.uint64)) & np.uint64(15)
        self._bytes[self._places[:, None] + np.arange(16)] = np.frombuffer(b"0123456789abcdef", np.uint8)[digits]
        now = np.frombuffer(time.time_ns().to_bytes(8, "little"), np.uint8)
        self._bytes[self._times[:, None] + np.arange(8)] = now
        return self._bytes.tobytes()

    @property
    def count(self) -> int:
        """How many numbers a request takes."""
        return self._count


def places(wire: bytes, what: bytes) -> np.ndarray[Any, Any]:
    """Where ``what`` is."""
    found, at = [], wire.find(what)
    while at >= 0:
        found.append(at)
        at = wire.find(what, at + len(what))
    return np.array(found, np.int64)


def add_attribute(attributes: Any, key: str, value: str) -> None:
    attributes.add(key=key).value.string_value = value


def traces() -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    for _ in range(SERVICES):
        group = request.resource_spans.add()
        add_attribute(group.resource.attributes, "service.name", f"service-{NEW_TEXT}")
        scope = group.scope_spans.add()
        scope.scope.name = f"scope-{NEW_TEXT}"
        for i in range(ITEMS):
            span = scope.spans.add(
                name=f"GET /{NEW_TEXT}", kind=2 + i % 2, start_time_unix_nano=TIME, end_time_unix_nano=TIME
            )
            span.span_id = NEW_ID[:8]
            span.trace_state = f"vendor={'x' * 8}"
            add_attribute(span.attributes, f"key.{NEW_TEXT}", f"value-{NEW_TEXT}")
            add_attribute(span.attributes, "http.route", f"/route/{NEW_TEXT}")
            add_attribute(span.attributes, "peer.service", f"peer-{NEW_TEXT}")
            span.events.add(name=f"event-{NEW_TEXT}", time_unix_nano=TIME)
    return request


def metrics() -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    for _ in range(SERVICES):
        group = request.resource_metrics.add()
        add_attribute(group.resource.attributes, "service.name", f"service-{NEW_TEXT}")
        scope = group.scope_metrics.add()
        for i in range(ITEMS):
            metric = scope.metrics.add(name=f"metric.{NEW_TEXT}", description=f"of {NEW_TEXT}", unit="s")
            if i % 3 == 0:
                points, extra = metric.gauge.data_points, {"as_double": 1.5}
            elif i % 3 == 1:
                metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
                points, extra = metric.sum.data_points, {"as_int": 7, "start_time_unix_nano": TIME}
            else:
                metric.histogram.aggregation_temporality = 2
                points = metric.histogram.data_points
                extra = {"count": 6, "sum": 3.5, "bucket_counts": [1, 2, 3], "explicit_bounds": [0.1, 1.0]}
            point = points.add(time_unix_nano=TIME, **extra)
            add_attribute(point.attributes, f"key.{NEW_TEXT}", f"value-{NEW_TEXT}")
            add_attribute(point.attributes, "tenant_id", f"tenant-{NEW_TEXT}")
            add_attribute(point.attributes, "endpoint", f"/endpoint/{NEW_TEXT}")
    return request


def logs() -> ExportLogsServiceRequest:
    request = ExportLogsServiceRequest()
    for _ in range(SERVICES):
        group = request.resource_logs.add()
        add_attribute(group.resource.attributes, "service.name", f"service-{NEW_TEXT}")
        scope = group.scope_logs.add()
        for i in range(ITEMS):
            record = scope.log_records.add(time_unix_nano=TIME, severity_number=9, severity_text="INFO")
            record.body.string_value = f"done with {NEW_TEXT}"
            if i % 2:
                record.trace_id = NEW_ID
            add_attribute(record.attributes, f"key.{NEW_TEXT}", f"value-{NEW_TEXT}")
    return request


def with_trace_ids(message: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    for group in message.resource_spans:
        for scope in group.scope_spans:
            for span in scope.spans:
                span.trace_id = NEW_ID
                span.span_id = os.urandom(8)
    return message


@contextlib.asynccontextmanager
async def sink() -> AsyncIterator[int]:
    """A server that takes everything that is pushed; its port."""

    async def take(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(status=204)

    application = web.Application(client_max_size=256 * MIB)
    application.router.add_post("/{path:.*}", take)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield port
    finally:
        await runner.cleanup()


def jaeger_config(port: int, metrics_port: int) -> str:
    return (
        f'{{receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}", max_recv_msg_size_mib: 64}}}}}}}}, '
        f"exporters: {{nop: {{}}}}, service: {{{metrics_at(metrics_port)}, "
        f"pipelines: {{traces: {{receivers: [otlp], exporters: [nop]}}}}}}}}"
    )


def metrics_at(port: int) -> str:
    pull = f"{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {port}}}}}}}}}"
    return f"telemetry: {{logs: {{level: warn}}, metrics: {{readers: [{pull}]}}}}"


def gateway_config(otlp: int, health: int, metrics_port: int, limit_mib: int) -> str:
    """What differs from ``config/gateway.yaml``."""
    return (
        f'{{receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{free_port()}"}}, '
        f'http: {{endpoint: "127.0.0.1:{otlp}"}}}}}}}}, '
        f"processors: {{memory_limiter: {{check_interval: 1s, limit_mib: {limit_mib}, "
        f"spike_limit_mib: {limit_mib // 5}, limit_percentage: 0, spike_limit_percentage: 0}}, "
        f"cardinality: {{window: {EXPIRY}, state_ttl: {EXPIRY}, overflow: {{stale_after: {EXPIRY}}}}}}}, "
        f"connectors: {{span_metrics: {{series_expiration: {EXPIRY}}}}}, "
        f'extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}, '
        f"service: {{{metrics_at(metrics_port)}}}}}"
    )


class Run:
    """The load, and what is seen meanwhile."""

    def __init__(self, options: argparse.Namespace, process: psutil.Process, otlp: int, metrics_port: int) -> None:
        self._options, self._process = options, process
        self._base = f"http://127.0.0.1:{otlp}/v1/"
        self._metrics_url = f"http://127.0.0.1:{metrics_port}/metrics"
        self._templates = {
            "traces": Template(with_trace_ids(traces())),
            "metrics": Template(metrics()),
            "logs": Template(logs()),
        }
        self._next_number = 1
        self.answers: dict[int, int] = {}
        self.rss_mib: list[float] = []
        self.scrape_s: list[float] = []
        self.page = ""

    async def send(self, http: aiohttp.ClientSession, requests: float, seconds: float) -> None:
        """``requests`` requests a second of each signal, as far as they are answered in time."""
        started, sent, in_flight = time.monotonic(), 0, set[asyncio.Task[None]]()
        while (passed := time.monotonic() - started) < seconds:
            while sent < passed * requests and len(in_flight) < 64:
                sent += 1
                for signal_name, template in self._templates.items():
                    body = template.body(self._next_number)
                    self._next_number += template.count
                    task = asyncio.create_task(self._post(http, signal_name, body))
                    in_flight.add(task)
                    task.add_done_callback(in_flight.discard)
            await asyncio.sleep(0.01)
        if in_flight:
            await asyncio.wait(in_flight)

    async def _post(self, http: aiohttp.ClientSession, signal_name: str, body: bytes) -> None:
        headers = {"Content-Type": "application/x-protobuf"}
        try:
            async with http.post(self._base + signal_name, data=body, headers=headers) as answer:
                await answer.read()
                status = answer.status
        except (aiohttp.ClientError, TimeoutError):
            status = 0
        self.answers[status] = self.answers.get(status, 0) + 1

    async def watch(self, http: aiohttp.ClientSession) -> None:
        """Read memory and ``/metrics`` every second, until cancelled."""
        started = time.monotonic()
        while True:
            before = time.monotonic()
            try:
                async with http.get(self._metrics_url) as answer:
                    self.page = await answer.text()
                self.scrape_s.append(time.monotonic() - before)
            except (aiohttp.ClientError, TimeoutError) as error:
                self.scrape_s.append(time.monotonic() - before)
                print("no metrics:", repr(error))
            self.rss_mib.append(self._process.memory_info().rss / MIB)
            if len(self.rss_mib) % 10 == 0:
                print(
                    f"{time.monotonic() - started:5.0f} s  RSS {self.rss_mib[-1]:7.1f} MiB  "
                    f"scrape {max(self.scrape_s[-10:]) * 1000:6.1f} ms ({len(self.page) / 1000:.0f} kB)  "
                    f"CPU {sum(self._process.cpu_times()[:2]):6.1f} s  {self.answers}",
                    flush=True,
                )
            await asyncio.sleep(max(1.0 - (time.monotonic() - before), 0.05))


async def settled_mib(process: psutil.Process, most_s: float, enough_mib: float = 0.0) -> float:
    """Memory once it has fallen to ``enough_mib``, or after ``most_s``."""
    deadline = time.monotonic() + most_s
    while (rss := process.memory_info().rss / MIB) > enough_mib and time.monotonic() < deadline:
        await asyncio.sleep(1)
    return rss


async def main_async(options: argparse.Namespace) -> int:
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with sink() as sink_port, aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(60)) as http:
            jaeger, otlp, health, metrics_port = free_port(), free_port(), free_port(), free_port()
            config = [f"yaml:{jaeger_config(jaeger, free_port())}"]
            start(stack, folder, "jaeger", config, jaeger, {})
            url = f"http://127.0.0.1:{sink_port}"
            target = {"PROMETHEUS_URL": url, "LOKI_URL": url, "JAEGER_ENDPOINT": f"127.0.0.1:{jaeger}"}
            config = [
                str(ROOT / "config/gateway.yaml"),
                f"yaml:{gateway_config(otlp, health, metrics_port, options.limit_mib)}",
            ]
            process = start(stack, folder, "gateway", config, otlp, target)
            run = Run(options, process, otlp, metrics_port)
            await run.send(http, 2, 5)
            before = await settled_mib(process, 10)
            print(f"before: RSS {before:.1f} MiB", flush=True)
            watching = asyncio.create_task(run.watch(http))
            await run.send(http, options.requests, options.seconds)
            grown, scrapes = list(run.rss_mib), list(run.scrape_s)
            print("the load has ended", flush=True)
            after = await settled_mib(process, options.rest, 1.5 * before)
            watching.cancel()
            if options.page:
                Path(options.page).write_text(run.page)
            half = grown[len(grown) // 2 :]
            growth = max(half[-len(half) // 4 :]) - max(half[: len(half) // 4])
            print(f"RSS at most {max(grown):.0f} MiB; in the second half it grew by {growth:.0f} MiB")
            print(f"after the rest: RSS {after:.1f} MiB, {after / before:.2f} times that before")
            print(f"/metrics: median {np.median(scrapes) * 1000:.1f} ms, longest {max(scrapes) * 1000:.1f} ms")
            print(f"answers: {run.answers}")
            held = growth <= options.limit_mib / 10 and max(grown) <= options.limit_mib
            return 0 if held and max(scrapes) <= SCRAPE_MAX_S else 1


def start(
    stack: contextlib.ExitStack, folder: Path, name: str, configs: list[str], port: int, environment: dict[str, str]
) -> psutil.Process:
    import subprocess
    import sys

    log = folder / f"{name}.log"
    output = stack.enter_context(log.open("wb"))
    arguments = [sys.executable, "-c", OURS, "run", *(part for config in configs for part in ("--config", config))]
    os.environ.update(environment)
    process = stack.enter_context(child(arguments, stdout=output, stderr=subprocess.STDOUT, cwd=folder))
    wait_for_port(port, process, log)
    return psutil.Process(process.pid)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=180.0, help="how long")
    parser.add_argument("--requests", type=float, default=20.0, help="requests a second, of each signal")
    parser.add_argument("--limit-mib", type=int, default=1024, help="memory_limiter's limit")
    parser.add_argument("--rest", type=float, default=90.0, help="seconds to wait for memory to return")
    parser.add_argument("--page", help="a file for the last page of /metrics")
    return asyncio.run(main_async(parser.parse_args()))


if __name__ == "__main__":
    raise SystemExit(main())
