"""What the decoders make of Jaeger's encodings, beside a slow reference; and that nothing hostile harms them."""

import random

import jaeger_peer as peer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import MalformedBatch, Traces
from receivers.jaeger._proto import decode_post_spans
from receivers.jaeger._thrift import decode_batch, decode_packet

KEYS = st.sampled_from(
    [
        "a", "b", "error", "span.kind", "otel.status_code", "otel.status_description", "http.status_code",
        "http.status_message", "w3c.tracestate", "otel.scope.name", "otel.scope.version", "event", "hostname",
        "host.name", "jaeger.version", "service.name",
    ]
) | st.text(max_size=5)  # fmt: skip
VALUES = (
    st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.sampled_from([404, 500, 200, 399])
    | st.floats(allow_nan=False)
    | st.binary(max_size=5)
    | st.text(max_size=5)
    | st.sampled_from(["client", "server", "ok", "ERROR", "Error", "503", "+404", "-1", "99999999999999999999", "x"])
    | st.tuples(st.just("unknown"), st.integers(5, 2**31 - 1))
)
TAGS = st.lists(st.tuples(KEYS, VALUES), max_size=25)
TRACE_IDS = st.sampled_from([0, 2, 1 << 64 | 2, (1 << 128) - 1])
SPAN_IDS = st.sampled_from([0, 1, 3, (1 << 64) - 1])
TIMES = st.integers(0, 2**50)
SPANS = st.fixed_dictionaries(
    {
        "trace_id": TRACE_IDS,
        "span_id": SPAN_IDS,
        "parent_id": SPAN_IDS,
        "name": st.text(max_size=5),
        "references": st.lists(st.tuples(st.booleans(), TRACE_IDS, SPAN_IDS), max_size=3),
        "flags": st.integers(0, 2**31 - 1),
        "start_us": TIMES,
        "duration_us": TIMES,
        "tags": TAGS,
        "logs": st.lists(st.tuples(TIMES, TAGS), max_size=3),
        "process": st.none() | st.tuples(st.sampled_from(["a", "", "OTLPResourceNoServiceName"]), TAGS),
    }
)
BATCHES = st.fixed_dictionaries(
    {
        "service": st.sampled_from(["svc", "", "OTLPResourceNoServiceName"]),
        "tags": TAGS,
        "spans": st.lists(SPANS, max_size=4),
    }
)


def read(wire):
    Traces.check(wire)  # what the door would do
    return peer.comparable(ExportTraceServiceRequest.FromString(wire))


@settings(deadline=None)
@given(batch=BATCHES, compact=st.booleans())
def test_thrift_is_translated_as_the_reference_does(batch, compact):
    """Both protocols, as a batch and as a packet."""
    expected = peer.comparable(peer.reference(batch, is_thrift=True))
    assert read(decode_batch(peer.thrift_batch(batch, compact=compact), compact)) == expected
    assert read(decode_packet(peer.thrift_packet(batch, compact=compact), compact)) == expected


@settings(deadline=None)
@given(batch=BATCHES)
def test_protobuf_is_translated_as_the_reference_does(batch):
    """Also spans that have a process of their own."""
    assert read(decode_post_spans(peer.post_spans(batch))) == peer.comparable(peer.reference(batch, is_thrift=False))


def test_many_tags_with_few_keys():
    """The last value of a key counts, also where there are so many tags that they go through a hash table."""
    tags = [(f"k{i % 100}", i) for i in range(5000)]
    batch = {"service": "s", "tags": tags, "spans": [{"tags": tags, "logs": [(1, tags)]}]}
    (resource_spans,) = read(decode_batch(peer.thrift_batch(batch))).resource_spans
    span = resource_spans.scope_spans[0].spans[0]
    for attributes in (resource_spans.resource.attributes, span.attributes, span.events[0].attributes):
        found = {pair.key: pair.value.int_value for pair in attributes if pair.key != "service.name"}
        assert found == {f"k{i}": 4900 + i for i in range(100)}


def test_times_out_of_range_stay_in_range():
    """OTLP's timestamps are unsigned: what is before 1970 becomes 0, and what is too late the latest."""
    spans = [
        {"start_us": -5, "duration_us": 3},
        {"start_us": 2**63 - 1, "duration_us": 2**63 - 1},
        {"start_us": 2**62, "duration_us": 0},
    ]
    wire = decode_batch(peer.thrift_batch({"service": "s", "tags": [], "spans": spans}))
    times = [(s.start_time_unix_nano, s.end_time_unix_nano) for s in read(wire).resource_spans[0].scope_spans[0].spans]
    assert times == [(0, 0), (2**64 - 1, 0), (2**64 - 1, 2**64 - 1)]
    wire = decode_post_spans(peer.post_spans({"service": "s", "tags": [], "spans": [{"start_us": -(2**62)}]}))
    assert read(wire).resource_spans[0].scope_spans[0].spans[0].start_time_unix_nano == 0


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b"", "truncated"),
        (b"\x0c", "truncated"),
        (b"\0", "a required field is missing"),
        (b"\x0f\0\2\x0c\x7f\xff\xff\xff", "more elements than the rest"),
        (b"\x0f\0\2\x0c\xff\xff\xff\xff", "more elements than the rest"),
        (b"\x0c\0\1\x0b\0\1\x7f\xff\xff\xff", "longer than the rest"),
        (b"\x0c\0\1\x0b\0\1\xff\xff\xff\xff", "longer than the rest"),
        (b"\x0c\0\x09" * 3000, "nested too deeply"),
        (b"\x0d\0\x09\x0b\x0b\x7f\0\0\0", "more entries than the rest"),
        (b"\x63\0\1", "unknown field type"),
    ],
)
def test_lies_about_sizes_are_refused(octets, message):
    """Nothing is allocated or skipped by what the sender claims."""
    with pytest.raises(MalformedBatch, match=message):
        decode_batch(octets)


def test_other_messages_are_refused():
    """A packet holds a call of emitBatch in the protocol of the port."""
    batch = {"service": "s", "tags": [], "spans": [{}]}
    with pytest.raises(MalformedBatch, match="not a call of emitBatch"):
        decode_packet(peer.thrift_packet(batch, compact=True, method="emitZipkinBatch"), is_compact=True)
    with pytest.raises(MalformedBatch, match="compact protocol"):
        decode_packet(peer.thrift_packet(batch, compact=False), is_compact=True)
    with pytest.raises(MalformedBatch):
        decode_packet(peer.thrift_packet(batch, compact=True), is_compact=False)
    with pytest.raises(MalformedBatch, match="trace_id"):
        decode_post_spans(b"\x0a\x07\x0a\x05\x0a\x03abc")


@pytest.mark.parametrize("seed", range(4))
def test_damaged_input_is_decoded_or_refused(seed):
    """Bit flips, cuts and insertions: what comes out is valid OTLP; otherwise it is refused."""
    rng = random.Random(seed)
    tags = [("a", 1), ("error", True), ("b", b"xy"), ("c", 1.5), ("span.kind", "server")]
    span = {"tags": tags, "logs": [(5, tags)], "references": [(True, 1, 2), (False, 3, 4)], "process": ("p", tags)}
    batch = {"service": "s", "tags": tags, "spans": [span] * 3}
    whole = [
        (peer.thrift_batch(batch), decode_batch),
        (peer.thrift_packet(batch, compact=False), lambda data: decode_packet(data, False)),
        (peer.thrift_packet(batch, compact=True), lambda data: decode_packet(data, True)),
        (peer.post_spans(batch), decode_post_spans),
    ]
    accepted = 0
    for _ in range(1500):
        octets, decode = rng.choice(whole)
        octets = bytearray(octets)
        for _ in range(rng.choice((1, 1, 3))):
            at = rng.randrange(len(octets))
            kind = rng.randrange(3)
            if kind == 0:
                octets[at] ^= 1 << rng.randrange(8)
            elif kind == 1:
                del octets[at : at + rng.choice((1, 4, 40))]
            else:
                octets[at:at] = rng.choice((b"\0", b"\xff", b"\x7f\xff\xff\xff"))
        try:
            wire = decode(bytes(octets))
        except MalformedBatch:
            continue
        if wire:
            checked = Traces.check(wire)
            accepted += checked.batch is not None
    assert accepted
