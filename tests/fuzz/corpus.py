"""The inputs that fuzzing starts from: valid requests, and the messages in them.

``python tests/fuzz/corpus.py FOLDER`` writes them for each target, in the form that it takes, into FOLDER/TARGET.
"""

import gzip
import random
import sys
from pathlib import Path

import jaeger_peer
import zipkin_peer
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


def seeds() -> list[bytes]:
    """A request of each signal with a bit of everything, the same with its first item alone, and an empty one."""
    traces = ExportTraceServiceRequest()
    group = traces.resource_spans.add(schema_url="url")
    group.resource.attributes.add(key="service.name").value.string_value = "söme"
    span = group.scope_spans.add().spans.add(
        trace_id=bytes(16), span_id=bytes(8), name="n", flags=1, start_time_unix_nano=1
    )
    span.attributes.add(key="list").value.array_value.values.add().kvlist_value.values.add(key="k").value.int_value = -1
    span.events.add(name="e").attributes.add(key="k").value.bool_value = True
    span.links.add(trace_id=bytes(16), span_id=bytes(8), trace_state="a=b").attributes.add(
        key="k"
    ).value.double_value = 1.5
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
    record = (
        logs.resource_logs.add()
        .scope_logs.add()
        .log_records.add(severity_text="WARN", event_name="e", trace_id=bytes(16))
    )
    record.body.kvlist_value.values.add(key="k").value.string_value = "v" * 150
    record.attributes.add(key="k").value.int_value = 2**40
    items = [span, scope.metrics[2].histogram.data_points[0], record, span.links[0]]
    return [message.SerializeToString() for message in [traces, metrics, logs, *items]] + [b""]


def http1_streams() -> list[bytes]:
    """Consecutive requests: bodies with both framings, an upgrade, refused requests, and data that is not HTTP."""
    post = b"POST /x HTTP/1.1\r\nHost: h\r\n"
    body = b"Content-Length: 4\r\n\r\nbody"
    return [
        post + body + b"GET /now?q HTTP/1.0\r\nConnection: keep-alive\r\n\r\n" + post + b"Connection: close\r\n" + body,
        post
        + b"Transfer-Encoding: chunked\r\n\r\n4;e=1\r\nbody\r\n0\r\nT: v\r\n\r\n"
        + post
        + b"Expect: 100-continue\r\n"
        + body,
        post + b"Connection: Upgrade\r\nUpgrade: h2c\r\n" + body + b"PUT http://h/x HTTP/1.1\r\nHost: h\r\n" + body,
        b"OPTIONS /x HTTP/1.1\r\nHost: h\r\nOrigin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n\r\n",
        post + b"Content-Encoding: gzip\r\n" + body + post + b"Content-Length: 4\r\n" + body,
        b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n\x16\x03\x01",
    ]


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """An HTTP/2 frame."""
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream_id.to_bytes(4, "big") + payload


def http2_streams() -> list[bytes]:
    """What clients send after the preface: calls whole, in pieces, compressed or cancelled; plain requests; junk."""

    def literal(name: bytes, value: bytes) -> bytes:
        return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value

    settings = frame(4, 0, 0) + frame(4, 1, 0)
    call = b"\x83\x86\x01\x01x\x04\x06/a.B/C\x0f\x10\x10application/grpc"
    plain = b"\x83\x86\x01\x01x\x04\x02/x\x0f\x10\x0atext/plain"
    watch = b"\x83\x86\x01\x01x\x04\x1b/grpc.health.v1.Health/Watch\x0f\x10\x10application/grpc"
    message = b"\0\0\0\0\4body"
    packed = gzip.compress(b"body", mtime=0)
    zipped = b"\1" + len(packed).to_bytes(4, "big") + packed
    return [
        settings + frame(1, 4, 1, call) + frame(0, 1, 1, message) + frame(1, 5, 3, call) + frame(6, 0, 0, bytes(8)),
        settings
        + frame(1, 0, 1, call[:9])
        + frame(9, 4, 1, call[9:])
        + frame(0, 0, 1, message[:3])
        + frame(0, 9, 1, b"\2" + message[3:] + b"\0\0"),
        settings
        + frame(1, 4, 1, call + literal(b"grpc-encoding", b"gzip") + literal(b"x-bin", b"AAA"))
        + frame(0, 1, 1, zipped),
        settings
        + frame(1, 4, 1, call + literal(b"grpc-timeout", b"5S"))
        + frame(0, 1, 1, message * 2)
        + frame(3, 0, 1, bytes(4)),
        settings
        + frame(1, 4, 1, plain)
        + frame(0, 1, 1, b"body")
        + frame(1, 5, 3, plain + literal(b"content-encoding", b"gzip")),
        settings
        + frame(1, 4, 1, watch)
        + frame(0, 1, 1, bytes(5))
        + frame(8, 0, 0, bytes([0, 1, 0, 0]))
        + frame(7, 0, 0, bytes(8)),
        settings
        + frame(1, 0x2C, 1, b"\0" + bytes(4) + b"\x10" + call)
        + frame(1, 5, 1, literal(b"t", b"v"))
        + frame(2, 0, 5, bytes(5)),
    ]


def http2_answers() -> list[bytes]:
    """What servers send in reply to two calls: responses, whole and in pieces, statuses, resets, GOAWAY; junk."""
    settings = frame(4, 0, 0) + frame(4, 1, 0)
    head = b"\x88\x0f\x10\x10application/grpc"
    status = b"\x00\x0bgrpc-status\x010"
    message = b"\0\0\0\0\4body"
    return [
        settings
        + frame(1, 4, 1, head)
        + frame(0, 0, 1, message)
        + frame(1, 5, 1, status)
        + frame(1, 5, 3, head + status),
        settings
        + frame(1, 4, 1, b"\x08\x03103")
        + frame(1, 4, 1, head)
        + frame(0, 0, 1, message[:7])
        + frame(0, 1, 1, message[7:]),
        settings
        + frame(1, 4, 3, head)
        + frame(0, 0, 3, message * 2)
        + frame(3, 0, 3, bytes([0, 0, 0, 7]))
        + frame(6, 0, 0, bytes(8)),
        settings
        + frame(1, 4, 1, b"\x8d")
        + frame(0, 1, 1, b"not found")
        + frame(7, 0, 0, bytes([0, 0, 0, 1, 0, 0, 0, 0])),
        settings
        + frame(8, 0, 0, bytes([0, 1, 0, 0]))
        + frame(1, 0, 1, head[:5])
        + frame(9, 4, 1, head[5:])
        + frame(0, 0, 1, b"\2" * 9),
    ]


def jaeger_messages() -> list[bytes]:
    """A batch in each of Jaeger's encodings, after the byte that selects it."""
    tags = [("a", 1), ("error", True), ("b", b"xy"), ("c", 1.5), ("span.kind", "server"), ("a", "again")]
    span = {"tags": tags, "logs": [(5, tags)], "references": [(True, 1, 2), (False, 3, 4)], "process": ("p", tags)}
    batch = {"service": "s", "tags": tags, "spans": [span, {}]}
    return [
        b"\0" + jaeger_peer.post_spans(batch),
        b"\1" + jaeger_peer.thrift_batch(batch),
        b"\2" + jaeger_peer.thrift_batch(batch, compact=True),
        b"\3" + jaeger_peer.thrift_packet(batch, compact=False),
        b"\4" + jaeger_peer.thrift_packet(batch, compact=True),
    ]


def zipkin_messages() -> list[bytes]:
    """Spans in each of Zipkin's formats, after the byte that selects it."""
    rng = random.Random(3)
    v1 = [zipkin_peer.v1_spans(rng, 1) for _ in range(4)]
    v2 = [zipkin_peer.v2_spans(rng, 1) for _ in range(4)]
    return [
        *(b"\0" + zipkin_peer.v1_thrift(spans) for spans in v1),
        *(b"\1" + zipkin_peer.v1_json(spans) for spans in v1),
        *(b"\x82" + zipkin_peer.v2_json(spans) for spans in v2),
        *(b"\3" + zipkin_peer.v2_proto(spans) for spans in v2),
    ]


def pages() -> list[bytes]:
    """Pages of Prometheus: the format first, then all types, escapes, quoted names, timestamps and exemplars."""
    histogram = (
        b'# TYPE h histogram\nh_bucket{le="1"} 2 1700\nh_bucket{le="+Inf"} 3 1700\nh_sum 4.5 1700\nh_count 3 1700\n'
    )
    return [
        b'\0# HELP a_total x\\\\ y\n# TYPE a_total counter\n a_total{b="c\\\\d\\"\\n", e="",} 1.5e3\na_total 1\n',
        b"\0" + histogram + b'# TYPE s summary\ns{quantile="0.5"} NaN\ns_sum 1\ns_count 1\nup 1\njunk 0x1\n',
        b'\0{"a.\xc3\xbc","b.c"="d"} 12345678901234567890.5\ntarget_info{v="1"} 1\notel_scope_info{otel_scope_name="s"} 1\n',
        b'\1# TYPE r counter\n# UNIT t_seconds seconds\n# TYPE t_seconds gauge\nr_total 1 2.5 # {trace_id="'
        + b"0a" * 16
        + b'",k="v\\n"} 0.5 3\nr_created 1.25\nx{otel_scope_name="s",otel_scope_a="b",job="j"} -Inf\n# EOF\n',
    ]


def inputs() -> dict[str, list[bytes]]:
    """The first inputs of each target: its leading control bytes, followed by the data."""
    found = seeds()
    requests = list(enumerate(found[:3]))
    return {
        "fuzz_scan": [bytes([signal]) + wire for signal, wire in requests],
        "fuzz_index": [bytes([choice, shift]) + wire for choice in range(14) for shift in (0, 200) for wire in found],
        "fuzz_exposition": pages(),
        "fuzz_http1": [bytes([step]) + stream for step in (0, 6, 40) for stream in http1_streams()],
        "fuzz_grpc": [bytes([step]) + stream for step in (0, 6, 40) for stream in http2_streams()],
        "fuzz_session": [bytes([step]) + stream for step in (0, 6, 40) for stream in http2_streams()]
        + [bytes([64 + step]) + stream for step in (0, 6, 40) for stream in http2_answers()],
        "fuzz_jaeger": jaeger_messages(),
        "fuzz_zipkin": zipkin_messages(),
        "fuzz_splice": [
            bytes([signal]) + bytes([chance]) * 8 + wire for signal, wire in requests for chance in range(8)
        ],
    }


def main() -> None:
    for target, wires in inputs().items():
        folder = Path(sys.argv[1], target)
        folder.mkdir(parents=True, exist_ok=True)
        for i, wire in enumerate(wires):
            (folder / f"seed-{i}").write_bytes(wire)


if __name__ == "__main__":
    main()
