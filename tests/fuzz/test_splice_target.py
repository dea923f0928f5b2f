"""The fuzz target of the splice holds for a fixed set of damaged requests: a smoke test without atheris."""

import importlib.util
import random
from pathlib import Path

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def target():
    spec = importlib.util.spec_from_file_location("fuzz_splice", Path(__file__).with_name("fuzz_splice.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.test_one_input


def seeds():
    traces = ExportTraceServiceRequest()
    for _ in range(2):
        scope = traces.resource_spans.add().scope_spans.add()
        for i in range(3):
            span = scope.spans.add(trace_id=bytes(15) + b"\1", name=f"n{i}")
            span.attributes.add(key="a").value.string_value = "v"
            span.events.add(name="e").attributes.add(key="b").value.int_value = i
            span.links.add(trace_state="x")
    traces.resource_spans[0].resource.attributes.add(key="service.name").value.string_value = "s"
    metrics = ExportMetricsServiceRequest()
    scope = metrics.resource_metrics.add().scope_metrics.add()
    for member in ("gauge", "sum", "histogram", "exponential_histogram", "summary"):
        for _ in range(2):
            getattr(scope.metrics.add(name=member), member).data_points.add(time_unix_nano=1).attributes.add(
                key="k"
            ).value.double_value = 1
    metrics.resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points[0].exemplars.add(
        as_int=1
    ).filtered_attributes.add(key="x")
    logs = ExportLogsServiceRequest()
    for i in range(3):
        record = logs.resource_logs.add().scope_logs.add().log_records.add(severity_text="WARN")
        record.body.string_value = "line"
        record.attributes.add(key="k").value.int_value = i
    return [message.SerializeToString() for message in (traces, metrics, logs)]


def test_target_holds():
    """A damaged request is refused at the door, or everything made from it passes the door again."""
    run = target()
    source = random.Random(20240607)
    for signal, seed in enumerate(seeds()):
        for _ in range(250):
            wire = bytearray(seed)
            for _ in range(source.choice((0, 1, 1, 2, 4))):
                at = source.randrange(len(wire))
                kind = source.randrange(3)
                if kind == 0:
                    wire[at] ^= 1 << source.randrange(8)
                elif kind == 1:
                    wire[at:at] = source.randbytes(2)
                else:
                    wire += wire[: source.choice((0, len(seed)))]
            run(bytes([signal]) + source.randbytes(8) + bytes(wire))
