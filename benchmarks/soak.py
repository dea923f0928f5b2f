"""Keep the whole gateway busy and watch that nothing grows (memory, descriptors, threads, tasks); compare the books.

``make soak`` runs it for an hour (``DURATION=300`` for five minutes). The gateway is a process of its own with queues
and state on disk, a sampler, a cap, span metrics, two senders of each signal and a reload once a minute. ``--overload``
sends ten times what a slow backend takes instead, with a limit of memory.

Exits with 1, and the reason, if the resident memory of the last quarter is more than 20 % above that of the second, if
descriptors, threads or tasks grow, if the ledger is not balanced, or if the exporter and the sink differ.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import psutil
from aiohttp import web

from collector.model import EMPTY_CONTEXT, Signal, batch_type
from collector.testing import free_port, request

CONFIG = """
extensions: {{file_storage: {{directory: "{folder}/storage", create_directory: true}}}}
receivers: {{otlp: {{protocols: {{http: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
processors:
  memory_limiter: {{check_interval: 200ms, limit_mib: {limit_mib}}}
  tail_sampling:
    tail_storage: {storage}
    decision_wait: 2s
    policies: [{{name: all, type: always_sample}}]
  cardinality: {{storage: {storage}, limit: 20, overflow: {{flush_interval: 1s}}}}
connectors: {{span_metrics: {{storage: {storage}, metrics_flush_interval: 1s}}}}
exporters:
  otlp_http:
    endpoint: "http://127.0.0.1:{sink}"
    compression: none
    sending_queue: {{storage: {storage}, queue_size: 100000, max_bytes: 0}}
service:
  extensions: [file_storage]
  telemetry: {{metrics: {{address: "127.0.0.1:{admin}"}}}}
  pipelines:
{pipelines}
"""
PIPELINES = """    traces: {receivers: [otlp], processors: [memory_limiter, tail_sampling], exporters: [otlp_http]}
    traces/counted: {receivers: [otlp], processors: [memory_limiter], exporters: [span_metrics]}
    metrics: {receivers: [otlp, span_metrics], processors: [memory_limiter, cardinality], exporters: [otlp_http]}
    logs: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_http]}"""
OVERLOADED = "    traces: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_http]}"
_ITEMS = 100
_RELOAD_INTERVAL_S = 60.0
_STEADY_GROWTH_MAX = 1.2
_AFTER_OVERLOAD_MAX = 1.5
_GOODPUT_MIN = 0.8
_SINK_DELAY_S = 0.0005  # for each item, in an overload: ten requests at a time are 20 000 items per second
_MIB = 1024 * 1024


@dataclass
class Sample:
    """What the process used at one moment, and what had been acknowledged to senders and taken by the sink by then."""

    time_s: float
    rss_bytes: int
    descriptors: int
    threads: int
    tasks: int
    taken: int


@dataclass
class Books:
    """Items as the senders and the sink count them."""

    acknowledged: Counter[str] = field(default_factory=Counter)
    """By signal."""
    refused_requests: int = 0
    without_retry_after: int = 0
    taken: Counter[str] = field(default_factory=Counter)
    """By signal."""
    delay_s: float = 0.0
    samples: list[Sample] = field(default_factory=list)


async def start_sink(books: Books) -> tuple[web.AppRunner, int]:
    """A server that counts the items it takes, after ``books.delay_s`` for each of them."""

    async def take(request: web.Request) -> web.Response:
        signal_ = request.match_info["signal"]
        checked = batch_type(Signal(signal_)).check(await request.read(), EMPTY_CONTEXT)
        items = checked.batch.item_count if checked.batch is not None else 0
        if books.delay_s:
            await asyncio.sleep(books.delay_s * items)
        books.taken[signal_] += items
        return web.Response()

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/{signal}", take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, runner.addresses[0][1]


async def send(
    books: Books, port: int, signal_: Signal, requests: list[bytes], stop: asyncio.Event, pause_s: float
) -> None:
    """Post requests, at most one every ``pause_s``, until ``stop`` is set; a refused one is not repeated."""
    headers = {"Content-Type": "application/x-protobuf"}
    number = 0
    async with aiohttp.ClientSession() as session:
        while not stop.is_set():
            number += 1
            wire = requests[number % len(requests)]
            async with session.post(f"http://127.0.0.1:{port}/v1/{signal_}", data=wire, headers=headers) as answer:
                await answer.read()
            if answer.status == 200:
                books.acknowledged[str(signal_)] += _ITEMS
            else:
                books.refused_requests += 1
                books.without_retry_after += "Retry-After" not in answer.headers
            await asyncio.sleep(pause_s)


async def watch(books: Books, process: psutil.Process, admin: int, end_s: float, interval_s: float) -> None:
    """Take a sample at every interval until ``end_s``."""
    while time.monotonic() < end_s:
        rss, taken = process.memory_info().rss, sum(books.taken.values())
        tasks = await running_tasks(admin)
        books.samples.append(Sample(time.monotonic(), rss, process.num_fds(), process.num_threads(), tasks, taken))
        await asyncio.sleep(min(interval_s, max(end_s - time.monotonic(), 0.01)))


async def page(admin: int, path: str) -> dict:
    """A JSON document of the admin port; empty while there is none."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin}{path}") as answer:
            return await answer.json() if answer.status == 200 else {}
    except aiohttp.ClientError:
        return {}


async def running_tasks(admin: int) -> int:
    """The tasks of the gateway's event loop."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{admin}/metrics") as answer:
        text = await answer.text()
    return next(int(float(line.split()[-1])) for line in text.splitlines() if line.startswith("tailrace_service_tasks"))


async def until(check, timeout_s: float = 120.0) -> bool:
    """Whether ``check`` became true in time."""
    end_s = time.monotonic() + timeout_s
    while not await check():
        if time.monotonic() > end_s:
            return False
        await asyncio.sleep(0.1)
    return True


async def soak(duration_s: float, *, overload: bool, limit_mib: int, folder: Path) -> tuple[dict, list[str]]:
    """Run it once. Returns figures and problems."""
    books, port, admin = Books(), free_port(), free_port()
    runner, sink = await start_sink(books)
    storage = '""' if overload else "file_storage"
    path = folder / "tailrace.yaml"
    path.write_text(
        CONFIG.format(
            folder=folder, port=port, sink=sink, admin=admin, limit_mib=limit_mib, storage=storage,
            pipelines=OVERLOADED if overload else PIPELINES,
        )
    )  # fmt: skip
    program = [sys.executable, "-c", "from collector.cli import main; main()", "run", "--config", str(path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with (folder / "tailrace.log").open("wb") as log:
        gateway = await asyncio.create_subprocess_exec(*program, stdout=log, stderr=log, env=environment)
    process = psutil.Process(gateway.pid)
    requests = {
        signal_: [request(signal_, items=_ITEMS, seed=seed) for seed in range(50)]
        for signal_ in ([Signal.TRACES] if overload else Signal)
    }
    stop = asyncio.Event()
    try:
        if not await until(lambda: page(admin, "/health/ready"), 60):
            raise SystemExit(f"the gateway did not start: {(folder / 'tailrace.log').read_text()}")
        problems: list[str] = []
        interval_s = min(5.0, duration_s / 40)
        peak = 0.0
        before = 0
        if overload:  # first what the backend can take
            books.delay_s, sustainable = _SINK_DELAY_S, asyncio.Event()
            spans = requests[Signal.TRACES]
            first = [
                asyncio.ensure_future(send(books, port, Signal.TRACES, spans, sustainable, 0.01)) for _ in range(2)
            ]
            await watch(books, process, admin, time.monotonic() + duration_s / 3, interval_s)
            sustainable.set()
            await asyncio.gather(*first)
            peak, before = rate(books.samples), process.memory_info().rss
            books.samples.clear()
        senders = [
            asyncio.ensure_future(send(books, port, signal_, wires, stop, 0.02))
            for signal_, wires in requests.items()
            for _ in range(40 if overload else 2)
        ]
        reloads = None if overload else asyncio.ensure_future(reload_often(gateway.pid, path, duration_s))
        await watch(books, process, admin, time.monotonic() + duration_s, interval_s)
        stop.set()
        await asyncio.gather(*senders)
        books.delay_s = 0.0
        if reloads is not None:
            await reloads

        async def is_empty() -> bool:
            nodes = (await page(admin, "/ledger")).get("nodes", [])
            return bool(nodes) and not any(row["held"] for row in nodes)

        if not await until(is_empty):
            problems.append("the queue did not become empty")
        document = await page(admin, "/ledger")
        problems += check_books(books, document)
        if overload:
            problems += await check_overload(books, process, peak, before, limit_mib)
        else:
            problems += check_steady(books.samples)
        figures = {
            "seconds": duration_s,
            "acknowledged_items": dict(books.acknowledged),
            "delivered_items": dict(books.taken),
            "refused_requests": books.refused_requests,
            "rss_max_mib": max(sample.rss_bytes for sample in books.samples) // _MIB,
            "rss_end_mib": process.memory_info().rss // _MIB,
            "items_per_s": round(rate(books.samples)),
        } | ({"items_per_s_peak": round(peak), "rss_before_mib": before // _MIB} if overload else {})
        gateway.send_signal(signal.SIGTERM)
        if (status := await asyncio.wait_for(gateway.wait(), 60)) != 0:
            problems.append(f"the gateway ended with status {status}")
        if "Traceback" in (text := (folder / "tailrace.log").read_text()):
            problems.append(f"there is a traceback in the log: {text[text.index('Traceback') :][:2000]}")
        return figures, problems
    finally:
        if gateway.returncode is None:
            gateway.kill()
            await gateway.wait()
        await runner.cleanup()


async def reload_often(pid: int, path: Path, duration_s: float) -> None:
    """Change the limit of the queue and send SIGHUP, once a minute, or four times in a short run."""
    interval_s = min(_RELOAD_INTERVAL_S, duration_s / 5)
    end_s = time.monotonic() + duration_s - interval_s
    number = 0
    while time.monotonic() < end_s:
        await asyncio.sleep(interval_s)
        number += 1
        text = path.read_text()
        path.write_text(text.replace(f"queue_size: {99999 + number}", f"queue_size: {100000 + number}"))
        os.kill(pid, signal.SIGHUP)


def rate(samples: list[Sample]) -> float:
    """Items that the sink took in a second."""
    first, last = samples[0], samples[-1]
    return (last.taken - first.taken) / max(last.time_s - first.time_s, 1e-9)


def check_books(books: Books, document: dict) -> list[str]:
    """Senders, ledger and sink agree to the item."""
    rows = {(row["node"], row["signal"]): row for row in document.get("nodes", [])}
    wrong = []
    if not document["balanced"]:
        wrong.append(f"the ledger is not balanced: {json.dumps(document)}")
    for signal_, acknowledged in books.acknowledged.items():
        door, end = rows["receivers/otlp", signal_], rows["exporters/otlp_http", signal_]
        taken = books.taken[signal_]
        if door["out"] != acknowledged or sum(door["refused"].values()) > books.refused_requests * _ITEMS:
            wrong.append(f"the senders had {acknowledged} items acknowledged, the ledger has {door}")
        # The number of metric points is that of the series that were not merged, and of those that were made here.
        if end["delivered"] != taken or (signal_ != Signal.METRICS and taken != acknowledged):
            wrong.append(f"the sink took {taken} of {acknowledged} items, the ledger has {end}")
    return wrong


def check_steady(samples: list[Sample]) -> list[str]:
    """The last quarter uses no more than the second one."""
    quarter = max(len(samples) // 4, 1)
    second, last = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    wrong = []
    for name, allowance in (("rss_bytes", 0.0), ("descriptors", 8.0), ("threads", 4.0), ("tasks", 20.0)):
        then = statistics.median(getattr(sample, name) for sample in second)
        now = statistics.median(getattr(sample, name) for sample in last)
        factor = _STEADY_GROWTH_MAX if name == "rss_bytes" else 1.0
        if now > then * factor + allowance:
            wrong.append(f"{name} grew from {then:.0f} to {now:.0f}")
    return wrong


async def check_overload(books: Books, process: psutil.Process, peak: float, before: int, limit_mib: int) -> list[str]:
    """Within the limit, goodput near its peak, refusals that say when to retry, and memory that returns."""
    wrong = []
    if (highest := max(sample.rss_bytes for sample in books.samples)) > limit_mib * _MIB:
        wrong.append(f"the resident memory reached {highest // _MIB} MiB, with a limit of {limit_mib}")
    if (goodput := rate(books.samples)) < _GOODPUT_MIN * peak:
        wrong.append(f"the goodput fell from {peak:.0f} to {goodput:.0f} items per second")
    if books.without_retry_after:
        wrong.append(f"{books.without_retry_after} refusals had no Retry-After")

    async def has_returned() -> bool:
        return process.memory_info().rss <= _AFTER_OVERLOAD_MAX * before

    if not await until(has_returned, 40):
        wrong.append(
            f"memory was {before // _MIB} MiB before and is {process.memory_info().rss // _MIB} MiB afterwards"
        )
    return wrong


def main() -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration", type=float, default=3600.0, help="seconds")
    parser.add_argument("--overload", action="store_true", help="ten times what the backend takes")
    parser.add_argument("--limit-mib", type=int, default=400)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tailrace-soak-") as folder:
        figures, problems = asyncio.run(
            soak(options.duration, overload=options.overload, limit_mib=options.limit_mib, folder=Path(folder))
        )
    print(json.dumps(figures, indent=2))
    for problem in problems:
        print(f"PROBLEM: {problem}")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
