"""A process that is killed or stopped in the middle of everything: its successor continues what every stage knew.

Half of the data is sent before, half of it afterwards. What arrives at the end is compared with a run that never ended.
"""

import collections
import contextlib
import json
import signal
import time
import urllib.request

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.testing import free_port

RECEIVERS = ("TAIL", "SAMPLED", "SPANS", "CAPPED", "DELTAS", "TOTALS")
CONFIG = """
extensions: {file_storage: {directory: STORAGE, create_directory: true}}
receivers:
  otlp/tail: {protocols: {http: {endpoint: "127.0.0.1:TAIL"}}}
  otlp/sampled: {protocols: {http: {endpoint: "127.0.0.1:SAMPLED"}}}
  otlp/spans: {protocols: {http: {endpoint: "127.0.0.1:SPANS"}}}
  otlp/capped: {protocols: {http: {endpoint: "127.0.0.1:CAPPED"}}}
  otlp/deltas: {protocols: {http: {endpoint: "127.0.0.1:DELTAS"}}}
  otlp/totals: {protocols: {http: {endpoint: "127.0.0.1:TOTALS"}}}
processors:
  tail_sampling:
    tail_storage: file_storage
    checkpoint_interval: 1s
    decision_wait: 6s
    policies: [{name: errors, type: status_code, status_code: {status_codes: [ERROR]}}]
  sampling:
    storage: file_storage
    checkpoint_interval: 1s
    decision_wait: 6s
    rules: [{name: errors, any: {status: error}, ratio: 1.0}, {name: rest, ratio: 0.3}]
  cardinality: {storage: file_storage, limit: 2, initial: full, overflow: {flush_interval: 300ms, stale_after: 5m}}
  delta_to_cumulative: {storage: file_storage}
  cumulative_to_delta: {storage: file_storage}
connectors:
  span_metrics: {storage: file_storage, metrics_flush_interval: 300ms}
  service_graph: {storage: file_storage, metrics_flush_interval: 300ms, store: {ttl: 10m}}
exporters:
  otlp_grpc:
    endpoint: "127.0.0.1:SINK"
    tls: {insecure: true}
    sending_queue: {storage: file_storage, queue_size: 100000, num_consumers: 1}
service:
  extensions: [file_storage]
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces/tail: {receivers: [otlp/tail], processors: [tail_sampling], exporters: [otlp_grpc]}
    traces/sampled: {receivers: [otlp/sampled], processors: [sampling], exporters: [otlp_grpc]}
    traces/spans: {receivers: [otlp/spans], exporters: [span_metrics, service_graph]}
    metrics/spans: {receivers: [span_metrics, service_graph], exporters: [otlp_grpc]}
    metrics/capped: {receivers: [otlp/capped], processors: [cardinality], exporters: [otlp_grpc]}
    metrics/deltas: {receivers: [otlp/deltas], processors: [delta_to_cumulative], exporters: [otlp_grpc]}
    metrics/totals: {receivers: [otlp/totals], processors: [cumulative_to_delta], exporters: [otlp_grpc]}
"""
SINK = """
receivers: {otlp: {protocols: {grpc: {endpoint: "127.0.0.1:SINK"}}}}
exporters: {file: {path: out.jsonl}}
service:
  telemetry: {logs: {level: info}, metrics: {address: "127.0.0.1:{admin}"}}
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file]}
"""
TRACES = 40
SERVER, CLIENT, ERROR = 2, 3, 2
DELTA, CUMULATIVE = 1, 2
T0 = 1_790_000_000_000_000_000


# What is sent. Each has two halves: 0 before the end of the process, 1 afterwards.


def halves_of_traces(half, first):
    """Traces of two spans; the first half decides about those with an error."""
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for number in range(TRACES):
        span = scope.spans.add(
            trace_id=bytes([first]) * 15 + bytes([number]), span_id=bytes(7) + bytes([half + 1]), name="held",
            start_time_unix_nano=T0, end_time_unix_nano=T0 + 1000,
        )  # fmt: skip
        span.status.code = ERROR if number % 2 and not half else 0
    return request


def sides_of_requests(half):
    """Before: 20 whole requests and the client side of 10; afterwards: their server side, and 20 further ones."""
    request = ExportTraceServiceRequest()
    for service, kind, requests in (
        ("shop", CLIENT, range(30) if half == 0 else range(30, 50)),
        ("stock", SERVER, range(20) if half == 0 else range(20, 50)),
    ):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = service
        scope = resource.scope_spans.add()
        for number in requests:
            own, parent = (1, 0) if kind == CLIENT else (2, 1)
            scope.spans.add(
                trace_id=b"r" * 15 + bytes([number]), span_id=bytes(7) + bytes([own]), name=f"op{number % 3}",
                parent_span_id=bytes(7) + bytes([parent]) if parent else b"", kind=kind,
                start_time_unix_nano=T0, end_time_unix_nano=T0 + (number + 1) * 1_000_000,
            )  # fmt: skip
    return request


def sums(name, half, temporality, began=T0):
    """Five series, of which each adds 10 in the first half and 7 in the second one."""
    request = ExportMetricsServiceRequest()
    resource = request.resource_metrics.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    metric = resource.scope_metrics.add().metrics.add(name=name)
    metric.sum.is_monotonic, metric.sum.aggregation_temporality = True, temporality
    total = (10, 7 if temporality == DELTA else 17)[half]
    start = began + half * 1000 if temporality == DELTA else began
    for number in range(5):
        point = metric.sum.data_points.add(
            as_int=total, start_time_unix_nano=start, time_unix_nano=began + (half + 1) * 1000
        )
        point.attributes.add(key="series").value.string_value = str(number)
    return request


def send_half(ports, half, began):
    """Post one half to each receiver; the totals begin at ``began``, which is after the first start of the process."""
    for receiver, signal_, request in (
        ("TAIL", "traces", halves_of_traces(half, 1)),
        ("SAMPLED", "traces", halves_of_traces(half, 2)),
        ("SPANS", "traces", sides_of_requests(half)),
        ("CAPPED", "metrics", sums("capped", half, CUMULATIVE)),
        ("DELTAS", "metrics", sums("deltas", half, DELTA)),
        ("TOTALS", "metrics", sums("totals", half, CUMULATIVE, began)),
    ):
        with urllib.request.urlopen(
            urllib.request.Request(
                f"http://127.0.0.1:{ports[receiver]}/v1/{signal_}", request.SerializeToString(),
                {"Content-Type": "application/x-protobuf"},
            ), timeout=20,
        ) as answer:  # fmt: skip
            assert answer.status == 200


# What arrived.


class Arrived:
    """The lines of the sink's file."""

    def __init__(self, path):
        self.spans = collections.Counter()
        """(trace id, span id)"""
        self.points = collections.defaultdict(list)
        """By metric and attributes: (start, time, what was counted) in the order of arrival."""
        lines = path.read_text().splitlines() if path.exists() else []
        for line in lines:
            with contextlib.suppress(json.JSONDecodeError):  # the last one is being written
                self._add(json.loads(line))

    def _add(self, batch):
        for resource in batch.get("resourceSpans", []):
            for scope in resource["scopeSpans"]:
                self.spans.update((span["traceId"], span["spanId"]) for span in scope["spans"])
        for resource in batch.get("resourceMetrics", []):
            for scope in resource["scopeMetrics"]:
                for metric in scope["metrics"]:
                    self._add_points(resource["resource"], metric)

    def _add_points(self, resource, metric):
        body = metric.get("sum") or metric.get("histogram")
        about = [each for each in resource.get("attributes", []) if each["key"] != "service.instance.id"]
        for point in body["dataPoints"]:
            key = metric["name"], json.dumps([about, sorted(point.get("attributes", []), key=lambda each: each["key"])])
            counted = {
                name: value for name, value in point.items() if name in {"asInt", "asDouble", "count", "bucketCounts"}
            }
            self.points[key].append((int(point["startTimeUnixNano"]), int(point["timeUnixNano"]), counted))

    def named(self, name):
        """The series of a metric."""
        return {key: points for key, points in self.points.items() if key[0] == name}

    def last(self):
        """What each series counted in the end; deltas are added up."""
        found = {}
        for key, points in self.points.items():
            if key[0] == "totals":
                found[key] = sum(int(counted["asInt"]) for _, _, counted in points)
            else:
                found[key] = points[-1][2]
        return found

    def calls(self):
        """Spans that span_metrics has counted, requests of service_graph, and what cardinality has merged."""
        return tuple(
            sum(int(points[-1][2].get("asInt", points[-1][2].get("asDouble", 0))) for points in self.named(name).values())
            for name in ("traces.span.metrics.calls", "traces_service_graph_request_total", "capped")
        )  # fmt: skip


def run(gateways, until, folder, end):
    """One run; ``end`` is the signal that ends the process after the first half, None for one that goes on."""
    folder.mkdir()
    ports = {name: str(free_port()) for name in (*RECEIVERS, "SINK")}

    def filled_in(text):
        for name, port in ports.items():
            text = text.replace(f":{name}", f":{port}")
        return text.replace("STORAGE", str(folder / "storage"))

    out = folder / "sink" / "out.jsonl"
    with contextlib.ExitStack() as stack:
        stack.enter_context(gateways(filled_in(SINK), folder / "sink"))
        running = stack.enter_context(gateways(filled_in(CONFIG), folder / "gateway"))
        began = time.time_ns()
        send_half(ports, 0, began)
        # Flushed, so that not even a crash loses it; and the other exporters have sent theirs.
        assert until(lambda: Arrived(out).calls() == (50, 20, 50) and len(Arrived(out).named("totals")) == 5)
        assert until(lambda: len(Arrived(out).named("deltas")) == 5)
        if end is not None:
            running.process.send_signal(end)
            running.process.wait(60)
            running = stack.enter_context(gateways(filled_in(CONFIG), folder / "gateway"))
        send_half(ports, 1, began)
        assert until(lambda: Arrived(out).calls() == (100, 50, 85)), Arrived(out).calls()
        assert until(
            lambda: sum(map(len, Arrived(out).named("totals").values())) >= (5 if end == signal.SIGKILL else 10)
        )
        assert until(lambda: len([span for span in Arrived(out).spans if span[0].startswith("01")]) == TRACES)
        assert until(lambda: not any(row["held"] for row in running.ledger() if "sampling" in row["node"]))
        assert running.stop() == 0
        running.final_ledger()
    return Arrived(out)


@pytest.mark.timeout(240)
def test_every_stage_continues_as_if_the_process_had_never_ended(gateways, load, tmp_path):
    """Held traces, decisions, series and totals, after kill -9 and after SIGTERM."""
    _, _, until = load
    whole = run(gateways, until, tmp_path / "whole", None)
    assert len(whole.spans) > TRACES  # half of the traces of one sampler, more of the other
    for end in (signal.SIGKILL, signal.SIGTERM):
        got = run(gateways, until, tmp_path / end.name, end)
        assert got.spans.keys() == whole.spans.keys(), end
        expected, last = whole.last(), got.last()
        if end is signal.SIGKILL:
            # Documented: streams begin anew after a crash. Nothing is counted twice, and a fall is a reset.
            for key, points in got.named("deltas").items():
                (first_start, first_time, _), (start, _, counted) = points
                assert first_time <= start != first_start
                assert counted == {"asInt": "7"}
                del last[key], expected[key]
            for key in got.named("totals"):
                assert last.pop(key) == 10
                del expected[key]
        else:
            assert set(got.spans.values()) == {1}
        assert last == expected
        for key, points in got.points.items():
            if key[0] not in {"deltas", "totals"}:
                assert len({start for start, _, _ in points}) == 1, f"{key} began again"
                assert [time for _, time, _ in points] == sorted({time for _, time, _ in points}), key
