"""Receivers of other formats than OTLP beside the Go collector's: CPU time for each span, in alternating rounds.

Both decode, and give the spans to the exporter ``nop``. Only the gateway's own CPU time counts, user and system, all
threads. Without the Go collector (``make backends``) its side is left out.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import grpc
import psutil
from rich.console import Console
from rich.table import Table
from sides import OTELCOL, OURS, ROOT, child, cpu_s, wait_for_port

from collector.testing import free_port

sys.path.append(str(ROOT / "tests" / "support"))
import jaeger_peer
import zipkin_peer

CONFIG: Final = """
receivers: {receivers}
exporters: {{nop: }}
service:
  telemetry:
    logs: {{level: warn}}
    metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: 127.0.0.1, port: {metrics}}}}}}}}}]}}
  pipelines: {{traces: {{receivers: [{receiver}], exporters: [nop]}}}}
"""
BODY_COUNT: Final = 8


def batch(number: int, span_count: int) -> dict[str, Any]:
    """Spans of a web service with 10 tags each, one of them with a log."""
    tags = [
        ("http.method", "GET"), ("http.url", "https://shop.example.com/cart/items?id=4711"), ("http.status_code", 200),
        ("span.kind", "server"), ("component", "net/http"), ("peer.ipv4", "10.1.2.3"), ("cached", True),
        ("ratio", 0.25), ("tenant", "blue"), ("retries", 0),
    ]  # fmt: skip
    spans = [
        {
            "trace_id": (number << 96) + at // 8 + 1,
            "span_id": (number << 32) + at + 1,
            "parent_id": (number << 32) + at - at % 8 if at % 8 else 0,
            "name": f"GET /cart/{at % 20}",
            "flags": 1,
            "duration_us": 1000 + at,
            "tags": tags,
            "logs": [(1_700_000_000_000_000, [("event", "cache miss"), ("key", "4711")])] if at % 8 == 0 else [],
        }
        for at in range(span_count)
    ]
    return {"service": "shop", "tags": [("hostname", "h1"), ("ip", "10.0.0.1")], "spans": spans}


@dataclass(frozen=True)
class Way:
    """One format over one transport."""

    name: str
    receiver: str
    config: Callable[[int], dict[str, Any]]
    """The receiver's configuration for a port."""
    body: Callable[[dict[str, Any]], bytes]
    span_count: int
    sender: Callable[[int], contextlib.AbstractContextManager[Callable[[bytes], None]]]
    """Sends one body to a port."""


@contextlib.contextmanager
def over_http(port: int, path: str, media_type: str) -> Iterator[Callable[[bytes], None]]:
    """One kept connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port)

    def send(body: bytes) -> None:
        connection.request("POST", path, body, {"Content-Type": media_type})
        answer = connection.getresponse()
        answer.read()
        assert answer.status in {200, 202}, answer.status

    yield send
    connection.close()


@contextlib.contextmanager
def over_udp(port: int) -> Iterator[Callable[[bytes], None]]:
    """Paced, so that both sides can keep up."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        counter = itertools.count()

        def send(body: bytes) -> None:
            udp.sendto(body, ("127.0.0.1", port))
            if next(counter) % 32 == 0:
                time.sleep(0.008)

        yield send


@contextlib.contextmanager
def over_grpc(port: int) -> Iterator[Callable[[bytes], None]]:
    """One channel."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans")
        yield lambda body: call(body, timeout=30)


def jaeger(protocol: str) -> Callable[[int], dict[str, Any]]:
    """The configuration of one protocol of the receiver ``jaeger``."""
    return lambda port: {"protocols": {protocol: {"endpoint": f"127.0.0.1:{port}"}}}


def zipkin(port: int) -> dict[str, Any]:
    """The configuration of the receiver ``zipkin``."""
    return {"endpoint": f"127.0.0.1:{port}"}


def as_zipkin(batch: dict[str, Any]) -> list[dict[str, Any]]:
    """The same spans in Zipkin's version 2."""
    return [
        {
            "traceId": f"{span['trace_id']:032x}",
            "id": f"{span['span_id']:016x}",
            **({"parentId": f"{span['parent_id']:016x}"} if span["parent_id"] else {}),
            "name": span["name"],
            "kind": "SERVER",
            "timestamp": 1_700_000_000_000_000,
            "duration": span["duration_us"],
            "localEndpoint": {"serviceName": batch["service"], "ipv4": "10.0.0.1", "port": 80},
            "tags": {key: str(value) for key, value in span["tags"] if key != "span.kind"},
            "annotations": [{"timestamp": at, "value": "cache miss"} for at, _ in span["logs"]],
        }
        for span in batch["spans"]
    ]


WAYS: Final = (
    Way(
        "Jaeger Thrift, HTTP, 200 spans", "jaeger", jaeger("thrift_http"), jaeger_peer.thrift_batch, 200,
        lambda port: over_http(port, "/api/traces", "application/x-thrift"),
    ),
    Way(
        "Jaeger Thrift compact, UDP, 20 spans", "jaeger", jaeger("thrift_compact"),
        lambda spans: jaeger_peer.thrift_packet(spans, compact=True), 20, over_udp,
    ),
    Way("Jaeger protobuf, gRPC, 200 spans", "jaeger", jaeger("grpc"), jaeger_peer.post_spans, 200, over_grpc),
    Way(
        "Zipkin JSON, 200 spans", "zipkin", zipkin, lambda spans: zipkin_peer.v2_json(as_zipkin(spans)), 200,
        lambda port: over_http(port, "/api/v2/spans", "application/json"),
    ),
    Way(
        "Zipkin protobuf, 200 spans", "zipkin", zipkin, lambda spans: zipkin_peer.v2_proto(as_zipkin(spans)), 200,
        lambda port: over_http(port, "/api/v2/spans", "application/x-protobuf"),
    ),
)  # fmt: skip


@dataclass
class Gateway:
    """One side, running."""

    name: str
    process: psutil.Process
    port: int
    metrics_port: int

    def accepted_spans(self) -> float:
        """How many spans it counted."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.metrics_port}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return sum(
            float(line.rpartition(" ")[2]) for line in lines if line.startswith("otelcol_receiver_accepted_spans")
        )


@contextlib.contextmanager
def running(way: Way, name: str, program: list[str], folder: Path) -> Iterator[Gateway]:
    """A gateway for one way of sending."""
    port, metrics = free_port(), free_port()
    config = folder / f"{name}.yaml"
    receivers = json.dumps({way.receiver: way.config(port)})
    config.write_text(CONFIG.format(receivers=receivers, receiver=way.receiver, metrics=metrics))
    log = folder / f"{name}.log"
    with (
        log.open("wb") as output,
        child([*program, "--config", str(config)], stdout=output, stderr=subprocess.STDOUT) as process,
    ):
        wait_for_port(metrics, process, log)
        yield Gateway(name, psutil.Process(process.pid), port, metrics)


def measure(gateway: Gateway, way: Way, bodies: list[bytes], requests: int) -> float:
    """CPU seconds per million spans that were accepted."""
    before, cpu_before_s = gateway.accepted_spans(), cpu_s(gateway.process)
    with way.sender(gateway.port) as send:
        for number in range(requests):
            send(bodies[number % len(bodies)])
    time.sleep(0.3)
    cpu_after_s, after = cpu_s(gateway.process), gateway.accepted_spans()
    return (cpu_after_s - cpu_before_s) / (after - before) * 1e6


def main() -> None:
    """Runs all ways, or those whose name contains a word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only ways whose name contains one of these")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--spans", type=int, default=100_000, help="spans per round and side")
    options = parser.parse_args()
    table = Table("", "Tailrace", "Go collector", "ratio", title="CPU s per million spans, median of the rounds")
    programs = {"tailrace": [sys.executable, "-c", OURS, "run"]}
    if OTELCOL.exists():
        programs["go"] = [str(OTELCOL)]
    for way in WAYS:
        if options.words and not any(word.lower() in way.name.lower() for word in options.words):
            continue
        bodies = [way.body(batch(number + 1, way.span_count)) for number in range(BODY_COUNT)]
        requests = options.spans // way.span_count
        figures: dict[str, list[float]] = {name: [] for name in programs}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            sides = [
                stack.enter_context(running(way, name, program, Path(folder))) for name, program in programs.items()
            ]
            for side in sides:
                measure(side, way, bodies, requests // 10)  # warm-up
            for number in range(options.rounds):
                for side in sides if number % 2 else reversed(sides):
                    figures[side.name].append(measure(side, way, bodies, requests))
        medians = {name: statistics.median(values) for name, values in figures.items()}
        ours, theirs = medians["tailrace"], medians.get("go")
        ratio = "" if theirs is None else f"{theirs / ours:.1f}"
        table.add_row(way.name, f"{ours:.2f}", "" if theirs is None else f"{theirs:.2f}", ratio)
    Console().print(table)


if __name__ == "__main__":
    main()
