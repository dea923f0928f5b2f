"""Nanoseconds per row of the dictionaries, hashes, groups, KeyTable, builders and OTLP/JSON.

Prints the best of many runs on one core, with ``np.unique`` and protobuf's own JSON next to their replacements.
Run: ``python benchmarks/hash.py``.
"""

import json
import time

import numpy as np
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model.builders import Attributes, MetricsBuilder, TracesBuilder
from collector.model.groups import groups
from collector.model.keytable import KeyTable
from collector.wire import hash as wire_hash
from collector.wire.json import from_json, to_json
from collector.wire.layout import ATTRIBUTE

ROWS = 5120


def report(name, call, rows=ROWS, runs=40):
    best = min(timed(call) for _ in range(runs))
    print(f"{name:<42}{best / rows * 1e9:>10.1f} ns per row{best * 1e6:>12.1f} µs")


def timed(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main():
    random = np.random.default_rng(7)
    values = [b"/api/v1/users/%d" % value for value in random.integers(0, 300, ROWS)]
    wire = b"".join(values)
    lengths = np.array([len(value) for value in values], np.int32)
    starts = (np.cumsum(lengths) - lengths).astype(np.int32)
    report("dictionary, 300 distinct", lambda: wire_hash.dictionary(wire, starts, lengths))
    report("  the same by a Python dict", lambda: dict.fromkeys(values))
    report("hash_slices", lambda: wire_hash.hash_slices(wire, starts, lengths))
    rows = np.zeros(ROWS, ATTRIBUTE)
    rows["key"], rows["key_len"], rows["kind"] = starts, 11, 1
    rows["value"], rows["value_len"], rows["owner"], rows["key_code"] = (
        starts,
        lengths,
        np.arange(ROWS) // 10,
        np.arange(ROWS) % 10,
    )
    hashes = wire_hash.hash_attributes(wire, rows)
    report("hash_attributes", lambda: wire_hash.hash_attributes(wire, rows))
    report("sum_by_owner, 10 attributes each", lambda: wire_hash.sum_by_owner(hashes, rows["owner"], ROWS // 10, rows))
    report("combine, two keys", lambda: wire_hash.combine(hashes, hashes))
    left, right = random.integers(0, 700, ROWS).astype(np.uint64), random.integers(0, 3, ROWS).astype(np.uint64)
    report("groups of two words", lambda: groups(left, right))
    pairs = np.stack([left, right], 1)
    report(
        "  the same by np.unique(axis=0)",
        lambda: np.unique(pairs, axis=0, return_index=True, return_inverse=True, return_counts=True),
    )
    table = KeyTable({"value": np.float64})
    table.insert(hashes)
    report("KeyTable.find", lambda: table.find(hashes))
    report("KeyTable.insert, all known", lambda: table.insert(hashes))
    report("KeyTable.insert, all new", lambda: KeyTable({"value": np.float64}).insert(hashes))
    sets = [Attributes({"http.method": "GET", "tenant": f"tenant-{i}", "status": 200 + i}) for i in range(50)]
    codes = (np.arange(ROWS) % 50).astype(np.int32)

    def points():
        builder = MetricsBuilder()
        builder.gauge(
            builder.scope(builder.resource()),
            "g",
            times=np.arange(ROWS),
            values=np.arange(ROWS) / 3,
            attributes=(codes, sets),
        )
        return builder.build_wire()

    def spans():
        builder = TracesBuilder()
        ids = np.arange(1, 2 * ROWS + 1, dtype=np.uint64)
        builder.spans(
            builder.scope(builder.resource({"service.name": "api"})),
            names="GET /users",
            trace_ids=ids.reshape(-1, 2),
            span_ids=ids[:ROWS],
            start_times=ids[:ROWS],
            end_times=ids[:ROWS],
            kinds=2,
            attributes=(codes, sets),
        )
        return builder.build_wire()

    report("MetricsBuilder, number points", points)
    report("TracesBuilder, spans", spans)
    request = spans()
    body = to_json("traces", request)
    report("to_json, spans of 3 attributes", lambda: to_json("traces", request))
    report("from_json", lambda: from_json("traces", body))
    message = ExportTraceServiceRequest.FromString(request)
    report("  out by protobuf", lambda: json_format.MessageToJson(message), runs=1)
    report(
        "  in by protobuf",
        lambda: json_format.Parse(json.dumps(json_format.MessageToDict(message)), ExportTraceServiceRequest()),
        runs=1,
    )


if __name__ == "__main__":
    main()
