"""Requests of many awkward shapes, written field by field, and the protobuf messages that batches are compared with."""

import random
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Logs, Metrics, Traces
from protobuf_wire import padded_varint, tag, varint

REQUESTS = {Traces: ExportTraceServiceRequest, Metrics: ExportMetricsServiceRequest, Logs: ExportLogsServiceRequest}
TEXTS = ("", "a", "service.name", "grün", "x" * 130)
KEYS = ("a", "b", "service.name", "", "long" * 40)


class Writer:
    """Messages with fields in any order, some missing, some unknown, some lengths longer than they need to be."""

    def __init__(self, random):
        self.random = random

    def maybe(self, share=0.7):
        return self.random.random() < share

    def number(self, field, value):
        return tag(field, 0) + varint(value % 2**64)

    def fixed64(self, field, value):
        return tag(field, 1) + (struct.pack("<d", value) if isinstance(value, float) else struct.pack("<Q", value))

    def fixed32(self, field, value):
        return tag(field, 5) + struct.pack("<I", value)

    def held(self, field, content):
        length = padded_varint(len(content)) if self.maybe(0.05) else varint(len(content))
        return tag(field) + length + content

    def unknown(self):
        field = self.random.randrange(200, 300)
        return self.random.choice(
            (self.number(field, 300), self.fixed64(field, 7), self.fixed32(field, 7), self.held(field, b"unknown"))
        )

    def message(self, *fields):
        fields = [field for field in fields if field]
        if self.maybe(0.1):
            fields.append(self.unknown())
        if self.maybe(0.3):
            self.random.shuffle(fields)
        return b"".join(fields)

    def text(self, field, share=0.7):
        return self.held(field, self.random.choice(TEXTS).encode()) if self.maybe(share) else b""

    def some(self, most, make):
        return [make() for _ in range(self.random.randrange(most + 1))]

    def time(self, field):
        return self.fixed64(field, self.random.choice((1, 10**18, 2**63))) if self.maybe() else b""

    def value(self, depth=0):
        kind = self.random.randrange(8 if depth < 3 else 5)
        return (
            lambda: b"",
            lambda: self.held(1, self.random.choice(TEXTS).encode()),
            lambda: self.number(2, self.random.randrange(2)),
            lambda: self.number(3, self.random.choice((0, 1, 2**62, -1))),
            lambda: self.fixed64(4, self.random.choice((0.0, 1.0, -2.5, float("inf")))),
            lambda: self.held(
                5, b"".join(self.held(1, self.value(depth + 1)) for _ in range(self.random.randrange(3)))
            ),
            lambda: self.held(6, b"".join(self.attribute(1, depth + 1) for _ in range(self.random.randrange(3)))),
            lambda: self.held(7, b"\x00\xff"),
        )[kind]()

    def attribute(self, field, depth=0):
        key = self.held(1, self.random.choice(KEYS).encode()) if self.maybe(0.95) else b""
        return self.held(field, self.message(key, self.held(2, self.value(depth)) if self.maybe(0.9) else b""))

    def attributes(self, field):
        return self.some(4, lambda: self.attribute(field))

    def trace_id(self, field):
        return self.held(field, self.random.choice((b"", b"\x01" * 16, bytes(15) + b"\x09"))) if self.maybe() else b""

    def span_id(self, field):
        return self.held(field, self.random.choice((b"", b"\x02" * 8, bytes(7) + b"\x09"))) if self.maybe() else b""

    def event(self):
        return self.held(11, self.message(self.time(1), self.text(2), *self.attributes(3)))

    def link(self):
        return self.held(
            13, self.message(self.trace_id(1), self.span_id(2), self.text(3), *self.attributes(4), self.fixed32(6, 3))
        )

    def span(self):
        status = (
            self.held(15, self.message(self.text(2), self.number(3, self.random.randrange(3)))) if self.maybe() else b""
        )
        return self.held(
            2,
            self.message(
                *(
                    self.trace_id(1),
                    self.span_id(2),
                    self.text(3, 0.3),
                    self.span_id(4),
                    self.text(5),
                    self.number(6, self.random.randrange(6)),
                ),
                *(
                    self.time(7),
                    self.time(8),
                    *self.attributes(9),
                    self.number(10, 2),
                    *self.some(2, self.event),
                    *self.some(2, self.link),
                ),
                *(status, self.fixed32(16, 0x301) if self.maybe(0.3) else b""),
            ),
        )

    def record(self):
        return self.held(
            2,
            self.message(
                *(
                    self.time(1),
                    self.number(2, self.random.randrange(25)),
                    self.text(3),
                    self.held(5, self.value()) if self.maybe(0.8) else b"",
                ),
                *(
                    *self.attributes(6),
                    self.fixed32(8, 1) if self.maybe(0.3) else b"",
                    self.trace_id(9),
                    self.span_id(10),
                    self.time(11),
                ),
                self.text(12, 0.3),
            ),
        )

    def exemplar(self, field):
        value = self.random.choice((self.fixed64(3, 1.5), self.fixed64(6, 7), b""))
        return self.held(
            field, self.message(self.time(2), value, self.span_id(4), self.trace_id(5), *self.attributes(7))
        )

    def doubles(self, field, count):
        return self.held(field, struct.pack(f"<{count}d", *range(count))) if count else b""

    def integers(self, field, count):
        return self.held(field, struct.pack(f"<{count}Q", *range(count))) if count else b""

    def number_point(self):
        value = self.random.choice((self.fixed64(4, 2.5), self.fixed64(6, 2**64 - 3), b""))
        flags = self.number(8, 1) if self.maybe(0.3) else b""
        exemplars = self.some(2, lambda: self.exemplar(5))
        return self.message(*self.attributes(7), self.time(2), self.time(3), value, *exemplars, flags)

    def histogram_point(self):
        count = self.random.randrange(4)
        flags = self.number(10, 1) if self.maybe(0.3) else b""
        return self.message(
            *(
                *self.attributes(9),
                self.time(2),
                self.time(3),
                self.fixed64(4, 6),
                self.fixed64(5, 1.5) if self.maybe() else b"",
            ),
            *(self.integers(6, count + 1), self.doubles(7, count), *self.some(2, lambda: self.exemplar(8)), flags),
            *(self.fixed64(11, 0.5) if self.maybe() else b"", self.fixed64(12, 9.5) if self.maybe() else b""),
        )

    def exponential_point(self):
        buckets = [
            self.held(field, self.message(self.number(1, 3), self.held(2, b"\x01\x00\x05"))) if self.maybe() else b""
            for field in (8, 9)
        ]
        flags = self.number(10, 1) if self.maybe(0.3) else b""
        return self.message(
            *(
                *self.attributes(1),
                self.time(2),
                self.time(3),
                self.fixed64(4, 6),
                self.fixed64(5, 1.5) if self.maybe() else b"",
            ),
            *(self.number(6, 5), self.fixed64(7, 2), *buckets, flags, *self.some(2, lambda: self.exemplar(11))),
            *(self.fixed64(12, 0.5) if self.maybe() else b"", self.fixed64(14, 1e-9) if self.maybe() else b""),
        )

    def summary_point(self):
        quantiles = self.some(3, lambda: self.held(6, self.message(self.fixed64(1, 0.5), self.fixed64(2, 3.5))))
        flags = self.number(8, 1) if self.maybe(0.3) else b""
        return self.message(
            *self.attributes(7), self.time(2), self.time(3), self.fixed64(4, 6), self.fixed64(5, 1.5), *quantiles, flags
        )

    def metric(self):
        kinds = (
            (5, self.number_point),
            (7, self.number_point),
            (9, self.histogram_point),
            (10, self.exponential_point),
            (11, self.summary_point),
        )
        field, point = self.random.choice(kinds)
        points = self.some(4, lambda: self.held(1, point()))
        temporality = self.number(2, self.random.randrange(3)) if field in {7, 9, 10} else b""
        monotonic = self.number(3, 1) if field == 7 and self.maybe(0.5) else b""
        held = self.held(field, self.message(*points, temporality, monotonic)) if self.maybe(0.9) else b""
        name = self.held(1, self.random.choice(("requests", "latency", "m" * 130)).encode())
        return self.held(2, self.message(name, self.text(2), self.text(3), held))

    def request(self, item):
        def scope():
            inner = self.held(1, self.message(self.text(1), self.text(2), *self.attributes(3))) if self.maybe() else b""
            return self.held(2, self.message(inner, *self.some(4, item), self.text(3, 0.3)))

        def resource():
            inner = self.held(1, self.message(*self.attributes(1), self.number(2, 1))) if self.maybe() else b""
            return self.held(1, self.message(inner, *self.some(3, scope), self.text(3, 0.3)))

        return b"".join(self.some(3, resource))


def write(kind, source):
    writer = Writer(source)
    return writer.request({Traces: writer.span, Metrics: writer.metric, Logs: writer.record}[kind])


@st.composite
def batches(draw, kinds=(Traces, Metrics, Logs), indexed=True):
    kind = draw(st.sampled_from(kinds))
    # A seed, not hypothesis' own randoms: those take minutes to shrink requests of this size.
    batch = kind.from_wire(write(kind, random.Random(draw(st.integers(0, 2**32)))))
    if indexed:
        load(batch)
    return batch


def load(batch):
    """Build every part of the index."""
    for table in batch.tables:
        batch.table(table)
        batch.attributes(table)


def parsed(batch):
    return REQUESTS[type(batch)].FromString(batch.wire)


def levels(message):
    """(message, its repeated field) of each message that holds items, in document order; of metrics, the data."""
    name = message.DESCRIPTOR.fields[0].name
    signal = name.removeprefix("resource_")
    for resource in getattr(message, name):
        for scope in getattr(resource, f"scope_{signal}"):
            if signal == "metrics":
                for metric in scope.metrics:
                    yield metric, metric.WhichOneof("data")
            else:
                yield scope, "log_records" if signal == "logs" else "spans"


def items(message):
    found = []
    for holder, name in levels(message):
        if name is not None:
            held = getattr(holder, name)
            found.extend(held.data_points if hasattr(held, "data_points") else held)
    return found


def keep(repeated, chosen):
    del repeated[:]
    repeated.extend(chosen)


def pruned(message, mask):
    """The message with the masked items only, without parents that have none left."""
    result = type(message)()
    result.CopyFrom(message)
    mask = iter(mask)
    for holder, name in levels(result):
        if name is not None:
            held = getattr(holder, name)
            points = held.data_points if hasattr(held, "data_points") else held
            keep(points, [item for item in list(points) if next(mask)])
    resources = getattr(result, result.DESCRIPTOR.fields[0].name)
    for resource in resources:
        scopes = getattr(resource, resource.DESCRIPTOR.fields[1].name)
        for scope in scopes:
            if hasattr(scope, "metrics"):
                full = [
                    m for m in scope.metrics if m.WhichOneof("data") and getattr(m, m.WhichOneof("data")).data_points
                ]
                keep(scope.metrics, full)
        keep(scopes, [scope for scope in scopes if getattr(scope, scope.DESCRIPTOR.fields[1].name)])
    keep(resources, [resource for resource in resources if getattr(resource, resource.DESCRIPTOR.fields[1].name)])
    return result


def assert_same_index(batch):
    """The index that the batch carries equals a scan of its bytes."""
    fresh = type(batch)(batch.wire)
    for name in batch.index.tables():
        rows = batch.index.rows(name)
        found = fresh.table(name).rows
        assert len(rows) == len(found), name
        for column in rows.dtype.names:
            assert np.array_equal(rows[column], found[column], equal_nan=rows[column].dtype.kind == "f"), (
                name,
                column,
                rows[column],
                found[column],
            )
    for name in batch.index.attributed_tables():
        carried = batch.index.attributes(name, batch.wire)
        found = fresh.attributes(name)
        assert carried.key.to_list() == found.key.to_list(), name
        for column in set(found.rows.dtype.names) - {"key_code"}:
            same = np.array_equal(carried.rows[column], found.rows[column], equal_nan=column == "double_value")
            assert same, (name, column, carried.rows[column], found.rows[column])
    for (table, name), column in batch.index.columns.items():
        assert len(column) == fresh.table(table).row_count, (table, name)


def canonical(message):
    return message.SerializeToString(deterministic=True)


@pytest.fixture(scope="session")
def otlp():
    return SimpleNamespace(
        REQUESTS=REQUESTS,
        KEYS=KEYS,
        batches=batches,
        load=load,
        parsed=parsed,
        items=items,
        pruned=pruned,
        assert_same_index=assert_same_index,
        canonical=canonical,
    )
