"""Zipkin's formats beside the Go collector's receiver: from the same bytes, both make the same OTLP."""

import json
import random
import time
import urllib.request

import jaeger_peer
import pytest
import zipkin_peer as peer
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Signal, from_json
from collector.testing import free_port
from receivers.zipkin import _v1, _v2

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def lines(request):
    """Each span as text with its resource and scope."""
    found = []
    for resource_spans in jaeger_peer.comparable(request).resource_spans:
        resource = json_format.MessageToDict(resource_spans.resource)
        for scope_spans in resource_spans.scope_spans:
            scope = json_format.MessageToDict(scope_spans.scope)
            for span in scope_spans.spans:
                if any(pair.key == "otel.zipkin.absentField.startTime" for pair in span.attributes):
                    span.end_time_unix_nano -= span.start_time_unix_nano
                    span.start_time_unix_nano = 0  # version 1: the time of the translation
                shown = json_format.MessageToDict(span)
                if shown.get("status") == {}:
                    del shown["status"]
                found.append(json.dumps([resource, scope, shown], sort_keys=True))
    return found


@pytest.mark.parametrize("parses", [False, True])
def test_makes_the_spans_of_the_go_collector(server, tmp_path, parses):
    """Both versions, JSON, protobuf and Thrift, with and without numbers in tags."""
    program = server.binary("otelcol")
    health, http = free_port(), free_port()
    config = {
        "extensions": {"health_check": {"endpoint": f"127.0.0.1:{health}"}},
        "receivers": {"zipkin": {"endpoint": f"127.0.0.1:{http}", "parse_string_tags": parses}},
        "exporters": {"file": {"path": f"{tmp_path}/go.jsonl", "flush_interval": "100ms"}},
        "service": {
            "extensions": ["health_check"],
            "telemetry": {"metrics": {"level": "none"}, "logs": {"level": "fatal"}},
            "pipelines": {"traces": {"receivers": ["zipkin"], "exporters": ["file"]}},
        },
    }
    (tmp_path / "go.json").write_text(json.dumps(config))
    ways = [
        ("/api/v2/spans", "application/json", peer.v2_json, lambda body: _v2.decode_json(body, parses)),
        ("/api/v2/spans", "application/x-protobuf", peer.v2_proto, lambda body: _v2.decode_proto(body, parses)),
        ("/api/v1/spans", "application/json", peer.v1_json, lambda body: _v1.decode_json(body, parses)),
        ("/api/v1/spans", "application/x-thrift", peer.v1_thrift, _v1.decode_thrift),
    ]
    ours = []
    rng = random.Random(5)
    with server.running([program, f"--config={tmp_path}/go.json"], f"http://127.0.0.1:{health}/", tmp_path):
        for number in range(200):
            path, media_type, encode, decode = ways[number % 4]
            spans = peer.v2_spans(rng, number) if number % 4 < 2 else peer.v1_spans(rng, number)
            body = encode(spans)
            request = urllib.request.Request(f"http://127.0.0.1:{http}{path}", body, {"Content-Type": media_type})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert answer.status == 202
            ours += lines(ExportTraceServiceRequest.FromString(decode(body)))
        theirs = []
        deadline = time.monotonic() + 30
        while len(theirs) < len(ours) and time.monotonic() < deadline:
            time.sleep(0.1)
            theirs = [
                line
                for text in (tmp_path / "go.jsonl").read_text().split("\n")[:-1]
                for line in lines(ExportTraceServiceRequest.FromString(from_json(Signal.TRACES, text.encode())))
            ]
    assert len(theirs) == len(ours) > 300
    only_theirs, only_ours = set(theirs) - set(ours), set(ours) - set(theirs)
    assert not only_theirs, "\n".join([*sorted(only_theirs)[:3], "OURS", *sorted(only_ours)[:3]])
    assert sorted(theirs) == sorted(ours)
