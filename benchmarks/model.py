"""The cost of the model's operations on requests of 512 spans with 10 attributes (about 270 KB) and of 10 spans.

Run: ``python benchmarks/model.py [seconds per line]``. Prints the CPU microseconds of one call, as the lower quartile
of repetitions, with protobuf for comparison. With ``--against PATH`` another checkout, built in place, is measured as
well; the two take turns, line by line. glibc's malloc is configured as the service does it: otherwise every large
buffer is mapped anew, and its pages cost more than what is written to them.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

sys.path.insert(0, os.environ.get("TAILRACE_TREE", str(Path(__file__).parents[1])))

from collector.model import StringColumn, Traces
from collector.service import process

SPANS, ATTRIBUTES, FEW = 512, 10, 10


def request(spans: int = SPANS) -> bytes:
    """Spans like those of an instrumented service: a few constant texts, some numbers, one long text each."""
    random = np.random.default_rng(7)
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    for key in ("service.name", "host.name", "telemetry.sdk.language"):
        resource.resource.attributes.add(key=key).value.string_value = f"value of {key}"
    scope = resource.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.fastapi"
    for i in range(spans):
        start = 10**18 + i * 10**6
        span = scope.spans.add(
            trace_id=random.bytes(16),
            span_id=random.bytes(8),
            parent_span_id=random.bytes(8),
            name=f"GET /v1/things/{i % 20}",
            kind=2,
        )
        span.start_time_unix_nano, span.end_time_unix_nano = start, start + 10**7
        for a in range(ATTRIBUTES):
            value = span.attributes.add(key=f"http.attribute.{a}").value
            if a % 5 == 0:
                value.int_value = i * a
            elif a % 5 == 1:
                value.string_value = f"{i}:" + "x" * 40
            else:
                value.string_value = f"one of a few values {i % 8}"
    return message.SerializeToString()


def lines() -> Iterator[tuple[str, Callable[[], object]]]:
    """The names of the measurements and the calls they time."""
    wire = request()
    batch = Traces.from_wire(wire)
    few = np.arange(SPANS) % 10 == 0
    half = np.arange(SPANS) % 2 == 0
    items = Traces.from_wire(wire)
    items.attributes()
    names = batch.field("name")
    codes = np.arange(SPANS) % 4
    states = StringColumn.constant("ot=th:e666", SPANS)
    hexadecimal = batch.field("span_id").astype(">u8").tobytes().hex().encode()
    digits = np.arange(0, 16 * SPANS, 16), np.full(SPANS, 16)
    parts = [Traces.from_wire(request(SPANS // 16)) for _ in range(16)]
    full_parts = [Traces.from_wire(part.wire) for part in parts]
    small = Traces.from_wire(request(FEW))
    small_items = Traces.from_wire(small.wire)
    small_items.attributes()
    small_few = np.arange(FEW) % 2 == 0
    for part in full_parts:
        part.attributes()

    def span_ids() -> StringColumn:
        return StringColumn.from_slices(hexadecimal, *digits)

    def protobuf_select() -> bytes:
        message = ExportTraceServiceRequest.FromString(wire)
        for scope in message.resource_spans[0].scope_spans:
            kept = [span for i, span in enumerate(scope.spans) if few[i]]
            del scope.spans[:]
            scope.spans.extend(kept)
        return message.SerializeToString()

    yield "check and index", lambda: Traces.from_wire(wire)
    yield "index trusted bytes", lambda: Traces(wire).item_count
    yield "index trusted bytes, and all attributes", lambda: Traces(wire).attributes()
    yield "index trusted bytes, and the names", lambda: Traces(wire).field("name")
    yield "attribute(key), first time", lambda: forgetful(items).attribute("http.attribute.2")
    yield "attribute(key), again", lambda: items.attribute("http.attribute.2")
    yield "attribute(key).text, first time", lambda: forgetful(items).attribute("http.attribute.2").text
    yield "attribute(key, inherit), first time", lambda: forgetful(items).attribute("service.name", inherit=True)
    yield "predicate over names", lambda: names.where(lambda name: name.endswith("7"))
    yield "select 10 %", lambda: batch.select(few)
    yield "select 50 %", lambda: batch.select(half)
    yield "select 10 %, attributes indexed", lambda: items.select(few)
    yield "select 10 %, not indexed", lambda: Traces(wire, item_count=SPANS).select(few)
    yield "set one attribute on 10 %", lambda: items.edit().set("new", "value", few).apply()
    yield "set one attribute on all", lambda: items.edit().set("new", "value").apply()
    yield "set one attribute on all, then its index", lambda: items.edit().set("new", "value").apply().attributes()
    yield "replace one attribute on all", lambda: items.edit().set("http.attribute.0", 7).apply()
    yield "delete one attribute on all", lambda: items.edit().delete("http.attribute.1").apply()
    yield "insert 14 attributes on all (gpu)", lambda: gpu(items, SPANS)
    yield "insert 14 attributes on all (gpu), then their index", lambda: gpu(items, SPANS).attributes()
    yield "set a field on 10 %", lambda: items.edit().set_field("name", "other", few).apply()
    yield "set a field on all", lambda: items.edit().set_field("kind", 3).apply()
    yield "set a text field that was absent on all", lambda: items.edit().set_field("trace_state", states).apply()
    yield "span ids in hexadecimal, compared with one", lambda: span_ids().equals("00f067aa0ba902b7")
    yield "concat 16 of 512 spans", lambda: Traces.concat([batch] * 16)
    yield "concat 16 of 32 spans", lambda: Traces.concat(parts)
    yield "concat 16 of 32 spans, then the index", lambda: Traces.concat(parts).table().row_count
    yield "concat 16 of 32 spans, then all attributes", lambda: Traces.concat(full_parts).attributes()
    yield "split in 8", lambda: batch.split(max_items=64)
    yield "partition in 4", lambda: batch.partition(codes, 4)
    yield f"{FEW} spans: check and index", lambda: Traces.from_wire(small.wire)
    yield f"{FEW} spans: field, first time", lambda: Traces.from_wire(small.wire).field("kind")
    yield f"{FEW} spans: attribute(key), first time", lambda: forgetful(small_items).attribute("http.attribute.2")
    yield f"{FEW} spans: select half", lambda: small.select(small_few)
    yield f"{FEW} spans: set one attribute", lambda: small_items.edit().set("new", "value").apply()
    yield f"{FEW} spans: insert 14 attributes (gpu)", lambda: gpu(small_items, FEW)
    yield f"{FEW} spans: concat 16", lambda: Traces.concat([small] * 16)
    yield "protobuf: parse, select 10 %, serialise", protobuf_select


def forgetful(batch: Traces) -> Traces:
    """The batch without its cached columns."""
    batch.index.columns.clear()
    return batch


def gpu(batch: Traces, count: int) -> Traces:
    """The edit of the ``gpu`` processor for spans of one device."""
    edit = batch.edit()
    where = np.ones(count, np.bool_)
    target = np.zeros(count, np.int32)
    for key, text in (("hw.id", "GPU-5b2b0a1c"), ("hw.parent", "0000:3b:00.0"), ("hw.model", "NVIDIA H100")):
        edit.set(key, StringColumn.from_codes(target, [text]), where, mode="insert")
    for name in ("utilization.mean", "utilization.max", "power.mean", "device.energy", "coverage"):
        edit.set(f"gpu.{name}", np.full(count, 0.5), where, mode="insert")
    for name in ("memory.used.max", "memory.limit", "samples"):
        edit.set(f"gpu.{name}", np.full(count, 10**10), where, mode="insert")
    edit.set("gpu.sample_interval", 0.1, where, mode="insert")
    edit.set("gpu.source", "nvml", where, mode="insert")
    edit.set("gpu.attribution.method", StringColumn.from_codes(target, ["uuid", "process"]), where, mode="insert")
    return edit.apply()


def measure(function: Callable[[], object], seconds: float) -> float:
    """CPU microseconds of one call, as the lower quartile, because other processes can only add to it."""
    function()
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 4:
        start = time.process_time_ns()
        function()
        times.append(time.process_time_ns() - start)
    return statistics.quantiles(times, n=4)[0] / 1000


def serve(seconds: float) -> None:
    """The measuring process: answers each input line with a measurement until there are no more."""
    process.raise_malloc_thresholds()
    for name, function in lines():
        if not sys.stdin.readline():
            return
        print(json.dumps([name, measure(function, seconds)]), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seconds", nargs="?", type=float, default=0.5, help="per line and tree")
    parser.add_argument("--against", type=Path, metavar="PATH", help="another checkout, built in place")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve(arguments.seconds)
        return
    trees = [tree for tree in (arguments.against, Path(__file__).parents[1]) if tree]
    command = [sys.executable, __file__, "--serve", str(arguments.seconds)]
    children = [
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "TAILRACE_TREE": str(tree.resolve())},
        )
        for tree in trees
    ]
    print(
        f"{SPANS} spans of {ATTRIBUTES} attributes, CPU µs"
        + (": before, after, before / after" if len(trees) > 1 else "")
    )
    while True:
        found = []
        for child in children:
            assert child.stdin is not None
            assert child.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                child.stdin.write("\n")
                child.stdin.flush()
            if line := child.stdout.readline():
                found.append(json.loads(line))
        if len(found) < len(children):
            break
        figures = [microseconds for _, microseconds in found]
        ratio = f" {figures[0] / figures[1]:7.1f}" if len(figures) > 1 else ""
        print(f"{found[0][0]:52}" + "".join(f" {figure:9.1f}" for figure in figures) + ratio, flush=True)


if __name__ == "__main__":
    main()
