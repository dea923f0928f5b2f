"""The fuzz targets of the scan hold on a fixed set of damaged requests: the smoke test where there is no atheris."""

import importlib.util
import random
from pathlib import Path
from types import ModuleType

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def target(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def seeds() -> list[bytes]:
    """A request of each signal with a bit of everything, its first item alone, and nothing."""
    traces = ExportTraceServiceRequest()
    group = traces.resource_spans.add(schema_url="url")
    group.resource.attributes.add(key="service.name").value.string_value = "söme"
    span = group.scope_spans.add().spans.add(trace_id=bytes(16), span_id=bytes(8), name="n", flags=1, start_time_unix_nano=1)
    span.attributes.add(key="list").value.array_value.values.add().kvlist_value.values.add(key="k").value.int_value = -1
    span.events.add(name="e").attributes.add(key="k").value.bool_value = True
    span.links.add(trace_id=bytes(16), span_id=bytes(8), trace_state="a=b").attributes.add(key="k").value.double_value = 1.5
    span.status.message = "m"
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    for member in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        point = getattr(scope.metrics.add(name=member, unit="1"), member).data_points.add(time_unix_nano=1)
        point.attributes.add(key="k").value.bytes_value = b"\xff"
        if member != "summary":
            point.exemplars.add(as_int=1, trace_id=bytes(16)).filtered_attributes.add(key="k")
        else:
            point.quantile_values.add(quantile=0.5, value=1.0)
        if member == "histogram":
            point.bucket_counts.extend([1, 2])
            point.explicit_bounds.append(0.5)
        elif member == "exponential_histogram":
            point.positive.bucket_counts.extend([1, 300])
            point.negative.offset = -5
    logs = ExportLogsServiceRequest()
    record = logs.resource_logs.add().scope_logs.add().log_records.add(severity_text="WARN", event_name="e", trace_id=bytes(16))
    record.body.kvlist_value.values.add(key="k").value.string_value = "v" * 150
    record.attributes.add(key="k").value.int_value = 2**40
    items = [span, scope.metrics[2].histogram.data_points[0], record, span.links[0]]
    return [message.SerializeToString() for message in [traces, metrics, logs, *items]] + [b""]


@pytest.mark.parametrize("name", ["fuzz_scan", "fuzz_index"])
def test_target_holds(name):
    """Bit flips, cuts, insertions and repetitions of valid bytes violate no property."""
    run = target(name).test_one_input
    rng = random.Random(20240607)
    for seed in seeds():
        for choice in range(14):
            for shift in (0, 1, 2, 200):
                run(bytes([choice, shift]) + seed)
                run(bytes([choice]) + seed)
        for _ in range(1500):
            wire = bytearray(seed)
            for _ in range(rng.choice((1, 1, 2, 4))):
                at = rng.randrange(len(wire) + 1)
                kind = rng.randrange(4)
                if kind == 0 and wire:
                    wire[at % len(wire)] ^= 1 << rng.randrange(8)
                elif kind == 1:
                    del wire[at : at + rng.choice((1, 8, 1000))]
                elif kind == 2:
                    wire[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
                else:
                    wire[at:at] = wire[rng.randrange(len(wire) + 1) :][:30]
            run(bytes([rng.randrange(256), rng.randrange(256)]) + bytes(wire))
            run(bytes([rng.randrange(256)]) + bytes(wire))
