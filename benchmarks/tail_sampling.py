"""What tail sampling costs: CPU a million spans with 50 000 traces open, and the memory of what is held.

Run: ``python benchmarks/tail_sampling.py [--processor sampling|tail_sampling] [--spans N] [--size N] [--before PATH]
    [--plot PNG]``.
``--before``: a checkout of an older version, run in the same way in a process of its own, the two by turns. ``--plot``
needs matplotlib and draws kept shares against the truth.

One core: batches of 512 spans arrive through the door's parse (not measured), a trace's ten spans over half a
decision_wait, the clock is moved by hand. Ingest, decisions, writing of thresholds and the batches that leave are
measured; 11 to 13 % of the traces are kept: errors, what is slow, one a minute of each API (``sampling``) or one
tenant's (``tail_sampling``), a tenth of the rest.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np

OPEN_TRACES = 50_000
SPANS_A_TRACE = 10
REQUEST_SPANS = 512
WAIT_S = 10.0
UNREAD_ROWS = 8192
KEYS: dict[str, dict[str, Any]] = {
    "sampling": {
        "max_bytes": "4GiB",
        "rules": [
            {"name": "errors", "any": {"status": "error", "http_status": "5xx"}, "ratio": 1.0},
            {"name": "slow", "root_duration": "2s", "ratio": 1.0},
            {"name": "coverage", "per": ["service.name", "span.name"], "at_least": "1/min"},
            {"name": "rest", "ratio": 0.1},
        ],
    },
    "tail_sampling": {
        "num_traces": 4 * OPEN_TRACES,
        "policies": [
            {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}},
            {
                "name": "5xx",
                "type": "numeric_attribute",
                "numeric_attribute": {"key": "http.response.status_code", "min_value": 500, "max_value": 599},
            },
            {"name": "slow", "type": "latency", "latency": {"threshold_ms": 2000}},
            {
                "name": "tenant",
                "type": "string_attribute",
                "string_attribute": {"key": "tenant_id", "values": ["tenant-39"]},
            },
            {"name": "rest", "type": "probabilistic", "probabilistic": {"sampling_percentage": 10}},
        ],
    },
}


def requests(span_count: int, size: int = REQUEST_SPANS, seed: int = 7) -> tuple[list[bytes], int]:
    """Requests in order of arrival, and how many make one ``WAIT_S``."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    random = np.random.default_rng(seed)
    per_wait = OPEN_TRACES * SPANS_A_TRACE  # spans that arrive in one wait while so many traces are open
    traces = span_count // SPANS_A_TRACE
    begin = np.arange(traces) / OPEN_TRACES
    at = (begin[:, None] + np.sort(random.random((traces, SPANS_A_TRACE)), axis=1) * 0.5).ravel()
    owner = np.repeat(np.arange(traces), SPANS_A_TRACE)
    number = np.tile(np.arange(SPANS_A_TRACE), traces)
    order = np.argsort(at, kind="stable")
    ids = random.bytes(16 * traces)
    failed, slow = random.random(traces) < 0.01, random.random(traces) < 0.002
    made: list[bytes] = []
    for low in range(0, len(order), size):
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"service-{low % 7}"
        scope = resource.scope_spans.add()
        for i in order[low : low + size].tolist():
            trace, place = int(owner[i]), int(number[i])
            start = 10**18 + i * 1000
            span = scope.spans.add(
                trace_id=ids[16 * trace : 16 * trace + 16],
                span_id=(i + 1).to_bytes(8, "big"),
                parent_span_id=b"" if place == 0 else (i - place + 1).to_bytes(8, "big"),
                name=f"GET /v1/things/{trace % 50}",
                kind=2,
                start_time_unix_nano=start,
                end_time_unix_nano=start + (3 * 10**9 if slow[trace] else 10**7),
            )
            if failed[trace] and place == 3:
                span.status.code = 2
            for key, text in (
                ("http.route", "/v1/things/{id}"),
                ("url.path", f"/v1/things/{i % 999}"),
                ("tenant_id", f"tenant-{trace % 40}"),
            ):
                span.attributes.add(key=key).value.string_value = text
            span.attributes.add(key="http.response.status_code").value.int_value = 200
            span.attributes.add(key="user_agent.original").value.string_value = "python-httpx/0.27 " + "x" * 60
        made.append(message.SerializeToString())
    return made, max(1, per_wait // size)


def sampler(processor: str, clock: Any, output: Any) -> Any:
    """The processor of the imported checkout, with common rules and a budget that outlasts the run."""
    import importlib

    from collector.model import Signal
    from collector.testing import make_settings

    factory = importlib.import_module(f"processors.{processor}").factory
    config = factory.config_type.model_validate({"decision_wait": f"{WAIT_S:.0f}s", **KEYS[processor]})
    settings = make_settings(factory, signals={Signal.TRACES}, clock=clock, outputs={Signal.TRACES: output})
    return factory.create(settings, config)


async def run(processor: str, wires: list[bytes], per_wait: int) -> dict[str, Any]:
    """From end to end."""
    from collector.model import Traces
    from collector.testing import FakeClock, FakeHost, Sink

    kept = [0]

    class Counting(Sink):
        async def consume(self, batch: Any) -> None:
            kept[0] += batch.item_count

    clock = FakeClock()
    sut = sampler(processor, clock, Counting())
    await sut.start(FakeHost())
    spent = 0.0
    most_held = 0
    spans = 0
    step = WAIT_S / per_wait
    for number, wire in enumerate(wires):
        batch = Traces.check(wire).batch
        spans += batch.item_count
        clock.move(step)
        start = time.process_time()
        await sut.consume(batch)
        # the fake clock's own work is not to be measured: it wakes who is due now and then
        if number % max(1, per_wait // 100) == 0:
            await clock.advance(0)
        spent += time.process_time() - start
        most_held = max(most_held, sut.held_items())
    start = time.process_time()
    await sut.shutdown()
    spent += time.process_time() - start
    return {"cpu_s_per_million": spent / spans * 1e6, "kept": kept[0], "spans": spans, "most_held_spans": most_held}


async def memory(processor: str, wires: list[bytes], per_wait: int) -> dict[str, float]:
    """Memory of the spans of one wait compared with their bytes, by tracemalloc and by count for compiled code."""
    from collector.model import Traces
    from collector.testing import FakeClock, Sink
    from collector.wire.layout import SPAN

    sut = sampler(processor, FakeClock(), Sink())
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    total = 0
    for wire in wires[:per_wait]:
        batch = Traces.check(bytes(bytearray(wire))).batch
        total += batch.size_bytes
        await sut.consume(batch)
        del batch
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    # the table's keys and places; the rows of what was not read yet
    held += sut.open_count * 37 * 2 + UNREAD_ROWS * SPAN.itemsize
    return {"bytes_in": total, "memory": held, "ratio": held / total}


def plot(path: str) -> None:
    """Kept share and adjusted count against the truth, over ratios of head and tail."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    from collector.model import Signal, Traces
    from collector.otlp.consistent_sampling import RANDOMNESS_BITS, read_trace_state, threshold_digits, threshold_of
    from collector.testing import FakeClock, Sink, make_settings
    from processors.sampling import factory
    from processors.sampling.config import SamplingConfig

    whole = 1 << RANDOMNESS_BITS
    random = np.random.default_rng(3)
    count = 20_000

    async def one(head: float, tail: float, how: str) -> tuple[float, float]:
        message = ExportTraceServiceRequest()
        resource = message.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = "a"
        spans = resource.scope_spans.add().spans
        threshold = threshold_of(head)
        for _ in range(count):
            trace_id = random.bytes(16)
            if how == "th" and int.from_bytes(trace_id[9:], "big") >= threshold:
                spans.add(
                    trace_id=trace_id,
                    span_id=b"12345678",
                    trace_state=f"ot=th:{threshold_digits(threshold)}" if threshold else "",
                )
            elif how != "th" and int.from_bytes(trace_id[8:], "big") < head * 2**64:
                spans.add(trace_id=trace_id, span_id=b"12345678")
        sink = Sink()
        settings = make_settings(factory, signals={Signal.TRACES}, clock=FakeClock(), outputs={Signal.TRACES: sink})
        keys: dict[str, Any] = {"rules": [{"name": "rest", "ratio": tail}]}
        if how == "upstream_ratio":
            keys["upstream_ratio"] = {"a": head}
        sampler: Any = factory.create(settings, SamplingConfig.model_validate(keys))
        await sampler.consume(Traces.from_wire(message.SerializeToString()))
        await sampler.shutdown()
        kept = adjusted = 0.0
        for batch in sink.batches:
            states = batch.field("trace_state")
            weights = [whole / (whole - (read_trace_state(text).threshold or 0)) for text in states.distinct] + [1.0]
            kept += batch.item_count
            adjusted += float(np.array(weights)[states.codes].sum())
        return kept / count, adjusted / count

    heads, tails = (1.0, 0.5, 0.1, 0.02), (1.0, 0.3, 0.1, 0.03)
    figure, axis = plt.subplots(figsize=(7.5, 4.2), dpi=110)
    labels = [f"{head:g}\n{tail:g}" for head in heads for tail in tails]
    for how, mark, text in (
        ("th", "o", "the SDK writes ot=th"),
        ("upstream_ratio", "s", "it does not, upstream_ratio says it"),
        ("nothing", "x", "it does not, and nobody says so"),
    ):
        shares = [asyncio.run(one(head, tail, how))[1] for head in heads for tail in tails]
        axis.plot(range(len(shares)), shares, mark, label=text, fillstyle="none")
    axis.axhline(1.0, color="grey", linewidth=1)
    axis.set_yscale("log")
    axis.set_xticks(range(len(labels)), labels, fontsize=7)
    axis.set_xlabel("head ratio, below it the tail's")
    axis.set_ylabel("adjusted count / traces there were")
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--spans", type=int, default=1_000_000)
    parser.add_argument(
        "--size",
        type=int,
        default=REQUEST_SPANS,
        help="spans a batch: under load the door joins requests to up to 8192",
    )
    parser.add_argument("--processor", choices=sorted(KEYS), default="sampling")
    parser.add_argument("--before", default="")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plot", default="")
    parser.add_argument("--one", action="store_true", help="one run as JSON: what the turns are made of")
    options = parser.parse_args()
    if options.plot:
        plot(options.plot)
        return
    if options.one:
        wires, per_wait = requests(options.spans, options.size)
        result = asyncio.run(run(options.processor, wires, per_wait))
        result["memory"] = asyncio.run(memory(options.processor, wires, per_wait))
        print(json.dumps(result))
        return
    here = Path(__file__).resolve()
    checkouts = {"after": str(here.parent.parent), **({"before": options.before} if options.before else {})}
    for turn in range(options.rounds):
        for name, path in sorted(checkouts.items(), reverse=True):
            environment = {**os.environ, "PYTHONPATH": path}
            command = [sys.executable, str(here), "--one", "--processor", options.processor]
            command += ["--spans", str(options.spans), "--size", str(options.size)]
            done = subprocess.run(command, cwd=path, env=environment, capture_output=True, text=True, check=True)
            result = json.loads(done.stdout)
            print(
                f"{name:6} run {turn + 1}: {result['cpu_s_per_million']:.3f} CPU s a million spans "
                f"({1 / result['cpu_s_per_million']:.2f} M spans/s a core), most held {result['most_held_spans']}, "
                f"kept {result['kept'] / result['spans']:.3f}, memory / bytes held {result['memory']['ratio']:.2f}"
            )


if __name__ == "__main__":
    main()
