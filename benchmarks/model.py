"""What the model's operations cost: 512 spans of 10 attributes (about 218 KB), the request of design.md.

Run: ``python benchmarks/model.py [seconds per line]``. Prints microseconds: the median of repetitions, and protobuf's for comparison.
"""

import statistics
import sys
import time
from collections.abc import Callable

import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Traces

SPANS, ATTRIBUTES = 512, 10


def request() -> bytes:
    """Like an instrumented service: a few constant texts, some numbers, one long text a span."""
    random = np.random.default_rng(7)
    message = ExportTraceServiceRequest()
    resource = message.resource_spans.add()
    for key in ("service.name", "host.name", "telemetry.sdk.language"):
        resource.resource.attributes.add(key=key).value.string_value = f"value of {key}"
    scope = resource.scope_spans.add()
    scope.scope.name = "opentelemetry.instrumentation.fastapi"
    for i in range(SPANS):
        start = 10**18 + i * 10**6
        span = scope.spans.add(
            trace_id=random.bytes(16), span_id=random.bytes(8), parent_span_id=random.bytes(8), name=f"GET /v1/things/{i % 20}", kind=2
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


def measure(function: Callable[[], object], seconds: float) -> float:
    """Median microseconds of one call."""
    function()
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1e6


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 0.5
    wire = request()
    batch = Traces.from_wire(wire)
    few = np.arange(SPANS) % 10 == 0
    half = np.arange(SPANS) % 2 == 0
    items = Traces.from_wire(wire)
    items.attributes()
    names = batch.field("name")
    codes = np.arange(SPANS) % 4

    def protobuf_select() -> bytes:
        message = ExportTraceServiceRequest.FromString(wire)
        for scope in message.resource_spans[0].scope_spans:
            kept = [span for i, span in enumerate(scope.spans) if few[i]]
            del scope.spans[:]
            scope.spans.extend(kept)
        return message.SerializeToString()

    lines: dict[str, Callable[[], object]] = {
        "check and index": lambda: Traces.from_wire(wire),
        "index trusted bytes": lambda: Traces(wire).item_count,
        "index all attributes": lambda: Traces(wire, index=_rows_only(batch)).attributes(),
        "field: name (dictionary)": lambda: Traces(wire, index=_rows_only(batch)).field("name"),
        "attribute column: text": lambda: items.attribute("http.attribute.2").text,
        "attribute column: inherited": lambda: items.attribute("service.name", inherit=True),
        "predicate over names": lambda: names.where(lambda name: name.endswith("7")),
        "select 10 %": lambda: batch.select(few),
        "select 50 %": lambda: batch.select(half),
        "select 10 %, attributes indexed": lambda: items.select(few),
        "set one attribute on 10 %": lambda: batch.edit().set("new", "value", few).apply(),
        "set one attribute on 10 %, attributes indexed": lambda: items.edit().set("new", "value", few).apply(),
        "replace one attribute on all": lambda: items.edit().set("http.attribute.0", 7).apply(),
        "delete one attribute on all": lambda: items.edit().delete("http.attribute.1").apply(),
        "set a field on 10 %": lambda: items.edit().set_field("name", "other", few).apply(),
        "concat 16": lambda: Traces.concat([batch] * 16),
        "concat 16, attributes indexed": lambda: Traces.concat([items] * 16),
        "split in 8": lambda: batch.split(max_items=64),
        "partition in 4": lambda: batch.partition(codes, 4),
        "protobuf: parse, select 10 %, serialise": protobuf_select,
    }
    print(f"{SPANS} spans, {SPANS * ATTRIBUTES} attributes, {len(wire)} bytes")
    for name, function in lines.items():
        print(f"{name:48} {measure(function, seconds):9.1f} µs")


def _rows_only(batch: Traces) -> object:
    index = type(batch.index)()
    index.rows.update(batch.index.rows)
    return index


if __name__ == "__main__":
    main()
