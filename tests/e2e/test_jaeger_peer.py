"""Jaeger's encodings beside the Go collector's receiver: from the same bytes, both make the same OTLP."""

import json
import random
import socket
import time
import urllib.request

import grpc
import jaeger_peer as peer
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, from_json
from collector.testing import free_port
from receivers.jaeger._proto import decode_post_spans
from receivers.jaeger._thrift import decode_batch, decode_packet

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]

KEYS = (
    "a", "b", "error", "span.kind", "otel.status_code", "otel.status_description", "http.status_code",
    "http.status_message", "w3c.tracestate", "otel.scope.name", "otel.scope.version", "event", "hostname", "host.name",
    "jaeger.version", "opencensus.exporterversion",
)  # fmt: skip
VALUES = (
    True, False, 404, 500, 200, 399, 0, -1, 1.5, 0.25, b"\0\xff", b"", "", "client", "server", "ok", "ERROR", "503",
    "+404", "99999999999999999999", "é",
)  # fmt: skip


def batches(count):
    """Batches with a service of its own each, and with every mapped tag in every type."""
    rng = random.Random(11)

    def tags():
        keys = rng.sample(KEYS, rng.randrange(6))
        return [(key, rng.choice(VALUES)) for key in keys]

    for number in range(count):
        spans = []
        for at in range(rng.randrange(1, 5)):
            span = {"span_id": at + 1, "tags": tags(), "parent_id": rng.choice((0, 0, 9)), "flags": rng.randrange(4)}
            span["references"] = [
                (rng.random() < 0.5, rng.choice((peer.SPAN["trace_id"], 77)), rng.choice((9, 10)))
                for _ in range(rng.choice((0, 1, 2)))
            ]
            span["logs"] = [(1_700_000_000_000_000 + i, tags()) for i in range(rng.choice((0, 1, 2)))]
            if rng.random() < 0.3:
                span["process"] = (f"own {number} {at}", tags())
            spans.append(span)
        yield {"service": f"service {number}", "tags": tags(), "spans": spans}


def lines(request, is_thrift):
    """Each span as text with its resource and scope, sorted."""
    found = []
    for resource_spans in peer.comparable(request).resource_spans:
        resource = json_format.MessageToDict(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            scope = json_format.MessageToDict(scope_spans.scope)
            for span in scope_spans.spans:
                # Versions of the Go collector differ in whether they pass the sampled flag on.
                span.flags = 0
                shown = json_format.MessageToDict(span)
                shown.pop("status") if shown.get("status") == {} else None
                found.append(json.dumps([is_thrift, resource, scope, shown], sort_keys=True))
    return found


def test_makes_the_spans_of_the_go_collector(server, tmp_path):
    """Thrift over HTTP and UDP, and protobuf over gRPC."""
    program = server.binary("otelcol")
    health, rpc, http, compact, binary = (free_port() for _ in range(5))
    protocols = {
        "grpc": {"endpoint": f"127.0.0.1:{rpc}"},
        "thrift_http": {"endpoint": f"127.0.0.1:{http}"},
        "thrift_compact": {"endpoint": f"127.0.0.1:{compact}"},
        "thrift_binary": {"endpoint": f"127.0.0.1:{binary}"},
    }
    config = {
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "receivers": {"jaeger": {"protocols": protocols}},
        "exporters": {"file": {"path": f"{tmp_path}/go.jsonl", "flush_interval": "100ms"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "fatal"}},
            "pipelines": {"traces": {"receivers": ["jaeger"], "exporters": ["file"]}},
        },
    }
    (tmp_path / "go.json").write_text(json.dumps(config))
    ours = []
    with (
        server.running([program, f"--config={tmp_path}/go.json"], f"http://127.0.0.1:{health}/", tmp_path),
        grpc.insecure_channel(f"127.0.0.1:{rpc}") as channel,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
    ):
        post = channel.unary_unary("/jaeger.api_v2.CollectorService/PostSpans", bytes, bytes)
        for number, batch in enumerate(batches(200)):
            way = number % 4
            if way == 0:
                body = peer.post_spans(batch)
                post(body, timeout=60, wait_for_ready=True)
                wire = decode_post_spans(body)
            elif way == 1:
                body = peer.thrift_batch(batch)
                headers = {"Content-Type": "application/x-thrift"}
                url = f"http://127.0.0.1:{http}/api/traces"
                with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as answer:
                    assert answer.status == 202
                wire = decode_batch(body)
            else:
                body = peer.thrift_packet(batch, compact=way == 2)
                udp.sendto(body, ("127.0.0.1", compact if way == 2 else binary))
                wire = decode_packet(body, is_compact=way == 2)
            ours += lines(ExportTraceServiceRequest.FromString(wire), way != 0)
        theirs = []
        deadline = time.monotonic() + 30
        while len(theirs) < len(ours) and time.monotonic() < deadline:
            theirs = []
            for line in (tmp_path / "go.jsonl").read_text().split("\n")[:-1]:
                request = ExportTraceServiceRequest.FromString(from_json(Signal.TRACES, line.encode()))
                (name,) = {
                    pair.value.string_value
                    for pair in request.resource_spans[0].resource.attributes
                    if pair.key == "service.name"
                }
                number = int(name.split()[1])
                theirs += lines(request, number % 4 != 0)
            time.sleep(0.1)
    assert len(theirs) == len(ours) > 400
    only_theirs, only_ours = set(theirs) - set(ours), set(ours) - set(theirs)
    assert not only_theirs, "\n".join([*sorted(only_theirs)[:3], "OURS", *sorted(only_ours)[:3]])
    assert sorted(theirs) == sorted(ours)
