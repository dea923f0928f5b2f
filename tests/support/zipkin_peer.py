"""Zipkin's spans at random, and their encodings: for tests of the receiver.

Spans are in the form of each version's JSON.
"""

import json
import random
import socket
import struct
from typing import Any

from jaeger_peer import BOOL, I16, I32, I64, LIST, STRUCT, TEXT, thrift, varint

TAG_KEYS = (
    "a", "b", "error", "http.status_code", "http.status_message", "otel.status_code", "otel.status_description",
    "span.kind", "w3c.tracestate", "net.host.ip", "peer.service", "census.status_code", "census.status_description",
)  # fmt: skip
TAG_VALUES = ("", "x", "true", "false", "7", "-12", "0.5", "1e3", "404", "503", "200", "internal", "Ok", "Error", "é|ü")
ENDPOINTS = (
    None,
    {"serviceName": "other", "ipv4": "10.1.2.3", "port": 8080},
    {"serviceName": "", "ipv4": "10.1.2.3"},
    {"serviceName": "v6", "ipv6": "2001:db8::1"},
    {"serviceName": "both", "ipv4": "10.1.2.3", "ipv6": "2001:db8::2", "port": 1},
)


def _id(rng: random.Random, bits: int = 64) -> str:
    return f"{rng.randrange(1, 1 << bits):0{bits // 4}x}"


def v2_spans(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """Spans of one service; those with tags of the resource or the scope have the same ones."""
    fixed = {}
    if rng.random() < 0.5:
        fixed = {"host.name": "h", "process.pid": "7", "otel.scope.name": "lib", "otel.scope.version": "1"}
    if rng.random() < 0.2:
        fixed["otlp.service.name.source"] = "faas.name"
    local = rng.choice(
        [{"serviceName": f"service {number}", "ipv4": "1.2.3.4", "port": 80}, {"serviceName": f"s {number}"}]
    )
    spans = []
    for _ in range(rng.randrange(1, 5)):
        tags = {key: rng.choice(TAG_VALUES) for key in rng.sample(TAG_KEYS, rng.randrange(5))}
        if rng.random() < 0.2:
            tags["otlp.link.0"] = f'{_id(rng, 128)}|{_id(rng)}|k=v|{{"a":1,"b":"x|y","c":true,"d":0.5}}|2'
        span = {
            "traceId": _id(rng, rng.choice((64, 128))),
            "id": _id(rng),
            "name": rng.choice(("get /", "")),
            "tags": tags | fixed,
        }
        span["localEndpoint"] = local
        if remote := rng.choice(ENDPOINTS):
            span["remoteEndpoint"] = remote
        if rng.random() < 0.5:
            span["parentId"] = rng.choice((span["id"], _id(rng)))
        if kind := rng.choice(("", "CLIENT", "SERVER", "PRODUCER", "CONSUMER")):
            span["kind"] = kind
        if rng.random() < 0.9:
            span["timestamp"] = 1_700_000_000_000_000 + rng.randrange(1000)
        if rng.random() < 0.9:
            span["duration"] = rng.randrange(10**6)
        if rng.random() < 0.5:
            span["annotations"] = [
                {"timestamp": 1_700_000_000_000_000 + i, "value": value}
                for i, value in enumerate(("plain", 'ev|{"n":3,"t":"a|b","f":false}|0', 'x|{"d":1.5}|4'))
            ]
        spans.append(span)
    return spans


def v2_json(spans: list[dict[str, Any]]) -> bytes:
    """As JSON."""
    return json.dumps(spans).encode()


def _slice(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def _proto_endpoint(endpoint: dict[str, Any]) -> bytes:
    out = _slice(1, endpoint["serviceName"].encode()) if endpoint.get("serviceName") else b""
    if endpoint.get("ipv4"):
        out += _slice(2, socket.inet_pton(socket.AF_INET, endpoint["ipv4"]))
    if endpoint.get("ipv6"):
        out += _slice(3, socket.inet_pton(socket.AF_INET6, endpoint["ipv6"]))
    return out + (varint(4 << 3) + varint(endpoint["port"]) if endpoint.get("port") else b"")


def v2_proto(spans: list[dict[str, Any]]) -> bytes:
    """As a ListOfSpans. Spans without a time get one: here 0 is a time in the Collector."""
    out = b""
    kinds = ("", "CLIENT", "SERVER", "PRODUCER", "CONSUMER")
    for span in spans:
        span.setdefault("timestamp", 1_700_000_000_000_000)
        data = _slice(1, bytes.fromhex(span["traceId"].rjust(32, "0"))) + _slice(3, bytes.fromhex(span["id"]))
        if span.get("parentId"):
            data += _slice(2, bytes.fromhex(span["parentId"]))
        if span.get("kind"):
            data += varint(4 << 3) + varint(kinds.index(span["kind"]))
        data += _slice(5, span["name"].encode()) + varint(6 << 3 | 1) + struct.pack("<Q", span["timestamp"])
        data += varint(7 << 3) + varint(span.get("duration", 0))
        data += _slice(8, _proto_endpoint(span["localEndpoint"]))
        if span.get("remoteEndpoint"):
            data += _slice(9, _proto_endpoint(span["remoteEndpoint"]))
        for annotation in span.get("annotations", ()):
            stamp = varint(1 << 3 | 1) + struct.pack("<Q", annotation["timestamp"])
            data += _slice(10, stamp + _slice(2, annotation["value"].encode()))
        for key, value in span["tags"].items():
            data += _slice(11, _slice(1, key.encode()) + _slice(2, value.encode()))
        out += _slice(1, data)
    return out


def v1_spans(rng: random.Random, number: int) -> list[dict[str, Any]]:
    """Spans with the annotations of the core and others."""
    host = rng.choice(
        (
            {"serviceName": f"service {number}", "ipv4": "1.2.3.4", "port": 80},
            {"serviceName": f"service {number}", "ipv6": "2001:db8::1"},
            {"serviceName": f"service {number}"},
            {"serviceName": ""},
            None,
        )
    )
    spans = []
    for _ in range(rng.randrange(1, 5)):
        annotations = [
            {"timestamp": 1_700_000_000_000_000 + rng.randrange(1000), "value": value, "endpoint": host}
            for value in rng.sample(("cs", "cr", "ss", "sr", "ms", "mr", "custom", "other", ""), rng.randrange(4))
        ]
        # The Collector drops the text of an error, which is the message of the status here: no text.
        binary = [
            {
                "key": key,
                "value": "true" if key == "error" else rng.choice(TAG_VALUES[:13]),
                "endpoint": rng.choice((host, None)),
            }
            for key in rng.sample((*TAG_KEYS, "lc"), rng.randrange(5))
        ]
        span = {"traceId": _id(rng, rng.choice((64, 128))), "id": _id(rng), "name": rng.choice(("get /", ""))}
        if rng.random() < 0.5:
            span["parentId"] = _id(rng)
        if rng.random() < 0.6:
            span |= {"timestamp": 1_700_000_000_000_000, "duration": rng.randrange(10**6)}
        spans.append(span | {"annotations": annotations, "binaryAnnotations": binary})
    return spans


v1_json = v2_json


def _thrift_endpoint(endpoint: dict[str, Any]) -> tuple[int, Any]:
    address = socket.inet_pton(socket.AF_INET, endpoint.get("ipv4") or "0.0.0.0")
    fields = {1: (I32, struct.unpack(">i", address)[0]), 3: (TEXT, endpoint["serviceName"])}
    fields[2] = (I16, endpoint.get("port", 0))
    if endpoint.get("ipv6"):
        fields[4] = (TEXT, socket.inet_pton(socket.AF_INET6, endpoint["ipv6"]))
    return (STRUCT, dict(sorted(fields.items())))


def v1_thrift(spans: list[dict[str, Any]]) -> bytes:
    """As a list of Thrift's binary protocol. Some annotations get other types than text."""

    def signed(text: str) -> int:
        value = int(text, 16)
        return value - ((value >> 63) << 64)

    out = struct.pack(">bi", STRUCT, len(spans))
    types = {"a": (3, struct.pack(">i", 77)), "b": (5, struct.pack(">d", 0.5)), "peer.service": (0, b"\1")}
    types |= {"net.host.ip": (1, b"\0\1"), "w3c.tracestate": (4, struct.pack(">q", -3)), "span.kind": (2, b"\1")}
    for span in spans:
        trace_id = span["traceId"].rjust(32, "0")
        fields: dict[int, Any] = {
            1: (I64, signed(trace_id[16:])),
            3: (TEXT, span["name"]),
            4: (I64, signed(span["id"])),
        }
        if span.get("parentId"):
            fields[5] = (I64, signed(span["parentId"]))
        annotations, binary = [], []
        for annotation in span["annotations"]:
            content = {1: (I64, annotation["timestamp"]), 2: (TEXT, annotation["value"])}
            if annotation["endpoint"] is not None:
                content[3] = _thrift_endpoint(annotation["endpoint"])
            annotations.append((STRUCT, content))
        for annotation in span["binaryAnnotations"]:
            kind, value = types.get(annotation["key"], (6, annotation["value"].encode()))
            content = {1: (TEXT, annotation["key"]), 2: (TEXT, value), 3: (I32, kind)}
            if annotation["endpoint"] is not None:
                content[4] = _thrift_endpoint(annotation["endpoint"])
            binary.append((STRUCT, content))
        fields |= {6: (LIST, annotations), 8: (LIST, binary), 9: (BOOL, False)}
        if "timestamp" in span:
            fields |= {10: (I64, span["timestamp"]), 11: (I64, span["duration"])}
        fields[12] = (I64, signed(trace_id[:16]))
        out += thrift((STRUCT, fields), compact=False)
    return out


__all__ = ["v1_json", "v1_spans", "v1_thrift", "v2_json", "v2_proto", "v2_spans"]
