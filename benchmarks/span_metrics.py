"""CPU of span_metrics a million spans, beside a loop over the spans, and (--go) beside the Go collector's connector.

Run: python benchmarks/span_metrics.py [--go PATH_OF_OTELCOL]
     python benchmarks/span_metrics.py --plot: what counting behind sampling says, as docs/images/span_metrics.png
"""

import argparse
import asyncio
import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import grpc
import numpy as np
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, Traces, TracesBuilder
from collector.testing import FakeClock, free_port, make_settings
from connectors.span_metrics import factory

SPANS, BATCH, REQUESTS, DOOR = 1_000_000, 512, 40, 16
START = 1_700_000_000_000_000_000
VARIANTS = {
    "defaults": {},
    "three dimensions": {
        "dimensions": [{"name": "http.request.method"}, {"name": "http.response.status_code"}, {"name": "tenant"}]
    },
    "names: http": {"names": "http"},
    "exponential": {"histogram": {"exponential": {}}},
    "exemplars": {"exemplars": {"enabled": True}},
    "calls_dimensions (two families)": {"calls_dimensions": [{"name": "tenant"}]},
}


def request_of(seed, sampled=False, names=30):
    """Spans as auto-instrumentation makes them: a few services, ten attributes each."""
    rng, request = random.Random(seed), ExportTraceServiceRequest()
    for service in range(4):
        resource = request.resource_spans.add()
        resource.resource.attributes.add(key="service.name").value.string_value = f"service-{service}"
        resource.resource.attributes.add(key="service.instance.id").value.string_value = f"instance-{service}"
        scope = resource.scope_spans.add()
        for _ in range(BATCH // 4):
            start = START + rng.randrange(10**9)
            route = rng.randrange(names)
            span = scope.spans.add(
                name=f"GET /v1/route{route}",
                kind=rng.choice([1, 2, 2, 3]),
                trace_id=rng.randbytes(16),
                span_id=rng.randbytes(8),
                start_time_unix_nano=start,
                end_time_unix_nano=start + int(rng.lognormvariate(17, 2)),
            )
            if sampled:
                span.trace_state = f"ot=th:c;rv:{rng.randrange(1 << 56):014x}"
            span.status.code = rng.choice([0, 0, 0, 2])
            for key, value in (
                ("http.request.method", "GET"),
                ("http.route", f"/v1/route{route}"),
                ("url.path", f"/v1/route{route}"),
                ("server.address", "api"),
                ("url.scheme", "http"),
                ("user_agent.original", "bench"),
                ("tenant", f"t{rng.randrange(5)}"),
                ("network.protocol.version", "1.1"),
                ("client.address", "10.0.0.1"),
            ):
                span.attributes.add(key=key).value.string_value = value
            span.attributes.add(key="http.response.status_code").value.int_value = rng.choice([200, 200, 404, 500])
    return request.SerializeToString()


def cpu_of(work, count):
    """CPU seconds a million spans, best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        spans = work(count)
        best = min(best, (time.process_time() - began) / spans * 1e6)
    return best


def connector_cpu(raw, wires, joined=1):
    """(CPU seconds a million spans, best of three; µs of a flush a point; points). ``joined``: requests in a batch."""
    clock = FakeClock()
    settings = make_settings(factory, clock=clock)
    connector = factory.create(settings, factory.config_type.model_validate(raw))

    def work(count):
        checked = [Traces.check(wires[number % len(wires)]).batch for number in range(count // BATCH)]
        batches = [Traces.concat(checked[at : at + joined]) for at in range(0, len(checked), joined)]
        began = time.process_time()

        async def consume():
            for batch in batches:
                await connector.consume(batch)

        asyncio.run(consume())
        nonlocal spent
        spent += time.process_time() - began
        return count

    best = float("inf")
    for _ in range(3):
        spent = 0.0
        spans = sum(work(SPANS // 10) for _ in range(3))
        best = min(best, spent / spans * 1e6)
    began = time.process_time()
    clock.move(1)
    asyncio.run(connector._flush())
    points = settings.outputs[Signal.METRICS].item_count
    return best, (time.process_time() - began) / max(1, points) * 1e6, points


def loop_cpu(wires):
    """What everyone does: decode, then a dictionary entry a span."""
    bounds = factory.config_type().histogram.bounds
    series = defaultdict(lambda: [0, 0.0, [0] * (len(bounds) + 1)])

    def work(count):
        for number in range(count // BATCH):
            request = ExportTraceServiceRequest.FromString(wires[number % len(wires)])
            for resource in request.resource_spans:
                service = next(
                    each.value.string_value for each in resource.resource.attributes if each.key == "service.name"
                )
                for scope in resource.scope_spans:
                    for span in scope.spans:
                        one = series[service, span.name, span.kind, span.status.code]
                        ms = max(0, span.end_time_unix_nano - span.start_time_unix_nano) / 1e6
                        one[0] += 1
                        one[1] += ms
                        one[2][next((at for at, bound in enumerate(bounds) if ms <= bound), len(bounds))] += 1
        return count

    return cpu_of(work, SPANS // 10)


def go_cpu(program, wires, connector):
    """CPU seconds a million spans of the Go collector from receiver to connector, or to nowhere."""
    port, health = free_port(), free_port()
    text = f"""
extensions: {{health_check: {{endpoint: "127.0.0.1:{health}"}}}}
receivers: {{otlp: {{protocols: {{grpc: {{endpoint: "127.0.0.1:{port}"}}}}}}}}
exporters: {{nop: {{}}}}
connectors: {{span_metrics: {{}}}}
service:
  extensions: [health_check]
  telemetry: {{metrics: {{level: none}}, logs: {{level: warn}}}}
  pipelines:
    traces: {{receivers: [otlp], exporters: [{"span_metrics" if connector else "nop"}]}}
    {"metrics: {receivers: [span_metrics], exporters: [nop]}" if connector else ""}
"""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        process = subprocess.Popen(
            [program, f"--config={file.name}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            while True:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{health}/", timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.1)
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                export = channel.unary_unary(
                    "/opentelemetry.proto.collector.trace.v1.TraceService/Export", bytes, bytes
                )
                for wire in wires:
                    export(wire)
                before = cpu_seconds(process.pid)
                count = SPANS // 2
                for number in range(count // BATCH):
                    export(wires[number % len(wires)])
                return (cpu_seconds(process.pid) - before) / count * 1e6
        finally:
            process.terminate()
            process.wait()


def cpu_seconds(pid):
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


PLOT = Path(__file__).parents[1] / "docs" / "images" / "span_metrics.png"
REQUESTS_AN_HOUR, ERRORS, SLOW_S, KEPT = 100_000, 0.001, 2.0, 0.1


def service_of(durations, is_error, weights=None):
    """What GET /span_metrics says of one span a request; ``weights``: those of ``ot=th``."""
    count = len(durations)
    builder = TracesBuilder()
    scope = builder.scope(builder.resource({"service.name": "api"}))
    ids = np.arange(1, count + 1, dtype=np.uint64)
    states = (
        None
        if weights is None
        else [f"ot=th:{round((1 - 1 / weight) * 2**56):014x}" if weight > 1 else "" for weight in weights]
    )
    builder.spans(
        scope,
        names="GET /",
        trace_ids=np.stack([ids, ids], axis=1),
        span_ids=ids,
        start_times=START,
        end_times=START + (durations * 1e9).astype(np.uint64),
        kinds=2,
        status_codes=np.where(is_error, 2, 0),
        trace_states=states,
    )
    raw = {"histogram": {"exponential": {"max_size": 2000}}}
    connector = factory.create(make_settings(factory, clock=FakeClock()), factory.config_type.model_validate(raw))
    asyncio.run(connector.consume(builder.build()))
    return connector.state.report.document()["services"][0]


def plot():
    """One hour of a service: 0.1 % errors, tail sampling that keeps errors, slow requests and a tenth of the rest."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    random_numbers = np.random.default_rng(5)
    durations = random_numbers.lognormal(-2.2, 1.0, REQUESTS_AN_HOUR)
    is_error = random_numbers.random(REQUESTS_AN_HOUR) < ERRORS
    chance = random_numbers.random(REQUESTS_AN_HOUR)
    always = is_error | (durations >= SLOW_S)
    tail, head = always | (chance < KEPT), chance < KEPT
    cases = {
        "span_metrics before sampling": service_of(durations, is_error),
        "behind tail sampling, spans counted as they come": service_of(durations[tail], is_error[tail]),
        "behind a 10 % head sampler, spans counted as they come": service_of(durations[head], is_error[head]),
        "behind a 10 % head sampler, ot=th counted": service_of(
            durations[head], is_error[head], np.full(int(head.sum()), 1 / KEPT)
        ),
    }
    truth = {
        "calls": REQUESTS_AN_HOUR,
        "error ratio": is_error.mean(),
        "p95": np.quantile(durations, 0.95) * 1e3,
        "p99": np.quantile(durations, 0.99) * 1e3,
    }
    keys = {"calls": "calls", "error ratio": "error_ratio", "p95": "p95_ms", "p99": "p99_ms"}
    figure, axes = plt.subplots(figsize=(8.5, 3.6), dpi=90)
    for place, (name, found) in enumerate(cases.items()):
        ratios = [found[keys[what]] / true for what, true in truth.items()]
        print(f"{name:56} " + "  ".join(f"{what} x {ratio:.2f}" for what, ratio in zip(truth, ratios, strict=True)))
        bars = axes.bar(np.arange(len(truth)) + 0.2 * (place - 1.5), ratios, 0.19, label=name)
        axes.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], fontsize=7)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(truth)), list(truth))
    axes.set_ylabel("said / true")
    axes.set_ylim(0.06, 60)
    axes.set_title(
        f"{REQUESTS_AN_HOUR:,} requests, {ERRORS:.1%} errors; tail sampling keeps errors, slow ones and 10 %",
        fontsize=9,
    )
    axes.legend(fontsize=7, loc="upper right")
    figure.tight_layout()
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--go", default="")
    parser.add_argument("--plot", action="store_true")
    arguments = parser.parse_args()
    if arguments.plot:
        plot()
        return
    wires = [request_of(seed) for seed in range(REQUESTS)]
    sampled = [request_of(seed, sampled=True) for seed in range(REQUESTS)]
    print(
        f"requests of {BATCH} spans, {len(wires[0]) // BATCH} bytes per span, {REQUESTS} different ones; "
        "CPU seconds per million spans,"
    )
    print(f"for batches of one request, and of {DOOR} as the door joins them under load")
    loop = loop_cpu(wires)
    print(f"{'a loop over decoded spans':36} {loop:7.2f}")
    for name, raw in VARIANTS.items():
        best, flush, points = connector_cpu(raw, wires)
        joined, *_ = connector_cpu(raw, wires, DOOR)
        print(
            f"{name:36} {best:7.2f} {joined:7.2f}   {loop / best:5.1f} x less; "
            f"flush {flush:5.1f} µs per point of {points}"
        )
    best, joined = connector_cpu({}, sampled)[0], connector_cpu({}, sampled, DOOR)[0]
    print(f"{'ot=th and rv on every span':36} {best:7.2f} {joined:7.2f}")
    flood = [request_of(1000 + seed, names=10**9) for seed in range(REQUESTS)]
    best, joined = connector_cpu({}, flood)[0], connector_cpu({}, flood, DOOR)[0]
    print(f"{'every name new (capped at 2000)':36} {best:7.2f} {joined:7.2f}")
    if arguments.go:
        without, with_connector = (
            go_cpu(arguments.go, wires, connector=False),
            go_cpu(arguments.go, wires, connector=True),
        )
        print(f"{'Go collector: receiver, nop':36} {without:7.2f}")
        print(
            f"{'Go collector: receiver, span_metrics':36} {with_connector:7.2f}   "
            f"the connector {with_connector - without:.2f}"
        )


if __name__ == "__main__":
    main()
