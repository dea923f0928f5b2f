"""The Go collector's pdata reads what the gateway accepts and sends, with the content that protobuf reads in it.

pdata drops fields that it does not know and does not tell empty messages from absent ones: the comparison ignores both.
"""

import random
import struct
import subprocess
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Logs, MalformedBatch, Metrics, Traces

pytestmark = pytest.mark.e2e

KINDS: Any = (
    (Traces, ExportTraceServiceRequest),
    (Metrics, ExportMetricsServiceRequest),
    (Logs, ExportLogsServiceRequest),
)
TEXTS = ("", "a", "service.name", "grüße", "日本語", "x" * 150, "\x00", "emoji 🎉")
NUMBERS = {  # by the size of what holds them
    "int64": (0, 1, -1, 300, 2**63 - 1, -(2**63)),
    "int32": (0, 1, 2, -1, 2**31 - 1, -(2**31)),
    "uint32": (0, 1, 256, 2**32 - 1),
    "uint64": (0, 1, 127, 128, 10**18, 2**64 - 1),
    "double": (0.0, -0.0, 1.5, -2e300, float("inf"), float("nan"), 5e-324),
}


class Pdata:
    """The program of tests/backends/pdata, which answers one request at a time."""

    def __init__(self, program: str):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def again(self, signal: int, wire: bytes) -> tuple[str, bytes]:
        """Return the error, or the request as pdata writes it."""
        self.process.stdin.write(struct.pack(">BI", signal, len(wire)) + wire)
        self.process.stdin.flush()
        failed, length = struct.unpack(">BI", self.process.stdout.read(5))
        answer = self.process.stdout.read(length)
        return (answer.decode(errors="replace"), b"") if failed else ("", answer)

    def close(self) -> None:
        self.process.stdin.close()
        assert self.process.wait(10) == 0
        self.process.stdout.close()


@pytest.fixture(scope="module")
def pdata(pdata_program):
    program = Pdata(pdata_program)
    yield program
    program.close()


def scalar(rng: random.Random, field: Any) -> Any:
    if field.name in {"trace_id", "span_id", "parent_span_id"}:
        return rng.choice((b"", rng.randbytes(16 if field.name == "trace_id" else 8)))
    if field.type == field.TYPE_STRING:
        return rng.choice(TEXTS[1:] if field.name == "name" else TEXTS)
    if field.type == field.TYPE_BYTES:
        return rng.randbytes(rng.randrange(20))
    if field.type == field.TYPE_BOOL:
        return rng.random() < 0.5
    names = {
        field.TYPE_DOUBLE: "double",
        field.TYPE_UINT64: "uint64",
        field.TYPE_FIXED64: "uint64",
        field.TYPE_UINT32: "uint32",
        field.TYPE_FIXED32: "uint32",
        field.TYPE_INT64: "int64",
        field.TYPE_SFIXED64: "int64",
    }
    return rng.choice(NUMBERS[names.get(field.type, "int32")])


def fill(rng: random.Random, message: Message, depth: int = 0) -> Message:
    """Set any of the fields to any value that a valid request may contain."""
    for field in message.DESCRIPTOR.fields:
        if field.name.endswith("strindex") or (rng.random() < 0.25 and field.name != "name"):
            continue
        nested = field.message_type is not None and field.message_type.name in {"ArrayValue", "KeyValueList"}
        if (nested and depth > 2) or (field.containing_oneof and rng.random() < 0.5):
            continue
        value = getattr(message, field.name)
        if field.message_type is None and field.is_repeated:
            value.extend(scalar(rng, field) for _ in range(rng.randrange(4)))
        elif field.message_type is None:
            setattr(message, field.name, scalar(rng, field))
        elif field.is_repeated:
            for _ in range(rng.choice((0, 1, 1, 2))):
                fill(rng, value.add(), depth + nested)
        else:
            value.SetInParent()
            fill(rng, value, depth + nested)
    return message


def damage(rng: random.Random, wire: bytes) -> bytes:
    out = bytearray(wire)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(len(out) + 1)
        kind = rng.randrange(5)
        if kind == 0 and out:
            out[at % len(out)] = rng.randrange(256)
        elif kind == 1 and out:
            out[at % len(out)] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[at : at + rng.choice((1, 2, 8, 1000))]
        elif kind == 3:
            out[at:at] = rng.randbytes(rng.choice((1, 2, 4)))
        else:
            start = rng.randrange(len(out) + 1)
            out[at:at] = out[start : start + rng.randrange(40)]
    return bytes(out)


def plain(message: Message) -> Message:
    """Return the message without absent and empty messages, which pdata does not distinguish outside a oneof."""
    for field, value in message.ListFields():
        if field.message_type is None:
            # for pdata's writer a zero like the other
            negative_zero = not field.is_repeated and not field.has_presence and value == 0
            # of profiles: no reader of these signals has a table for it
            if negative_zero or field.name.endswith("strindex"):
                message.ClearField(field.name)
            continue
        for child in value if field.is_repeated else [value]:
            plain(child)
        if not field.is_repeated and not field.containing_oneof and not value.ListFields():
            message.ClearField(field.name)
    return message


def content(request: Any, wire: bytes) -> bytes:
    message = request.FromString(wire)
    message.DiscardUnknownFields()
    return plain(message).SerializeToString(deterministic=True)


def sent(rng: random.Random, batch: Any) -> list[bytes]:
    """Return what can leave the gateway: the batch as it was received, a part of it, and one with changes."""
    mask = np.array([rng.random() < 0.5 for _ in range(batch.item_count)], np.bool_)
    # these have no attributes
    table = rng.choice([table for table in batch.tables if table not in {"metrics", "quantiles"}])
    where = np.array([rng.random() < 0.5 for _ in range(batch.table(table).row_count)], np.bool_)
    edit = batch.edit().delete(list(batch.attributes(table).key.distinct)[::2], ~where, table=table)
    edit.set("new", rng.choice(("value", 7, 1.5, True, b"x" * 200, [1, {"k": 2}])), where, table=table)
    edit.set_field("schema_url", "url" * 50, table="scopes")
    wires = [batch.wire, batch.select(mask).wire, edit.apply().wire]
    wires += [part.wire for part in batch.split(max_items=2, max_bytes=0)]
    return wires


def assert_read_alike(pdata: Pdata, signal: int, wire: bytes, rng: random.Random) -> bool:
    kind, request = KINDS[signal]
    try:
        batch = kind.check(wire).batch
    except MalformedBatch:
        return False
    if batch is None:
        return True
    for out in sent(rng, batch):
        error, again = pdata.again(signal, out)
        assert not error, (error, out)
        assert content(request, again) == content(request, out), (out, again)
    return True


@pytest.mark.parametrize("signal", range(3), ids=["traces", "metrics", "logs"])
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_whole_requests_are_read_alike(pdata, signal, seed):
    rng = random.Random(seed)
    assert assert_read_alike(pdata, signal, fill(rng, KINDS[signal][1]()).SerializeToString(), rng)


@pytest.mark.parametrize("signal", range(3), ids=["traces", "metrics", "logs"])
@given(seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=100)
def test_damaged_requests_are_refused_or_read_alike(pdata, signal, seed):
    rng = random.Random(seed)
    wire = fill(rng, KINDS[signal][1]()).SerializeToString()
    for _ in range(5):
        assert_read_alike(pdata, signal, damage(rng, wire), rng)


def test_pdata_says_why_it_refuses(pdata):
    """The program reports an error for bytes that are not a request, and answers the next one."""
    error, _ = pdata.again(0, b"\x0a\xff")
    assert error
    assert pdata.again(3, b"")[0] == "no signal has the number 3"
    assert pdata.again(2, b"") == ("", b"")
