"""Builders against protobuf messages: both have equal content."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue

from collector.model import Context, Metrics, StringColumn, Traces
from collector.model.builders import Attributes, Events, Exemplars, Links, LogsBuilder, MetricsBuilder, TracesBuilder

TIME = 1_700_000_000_000_000_000
SETS = [{"a": 1, "b": "x"}, {}, {"c": [1.5, {"d": b"\0"}]}]


def any_value(value):
    """The reference AnyValue."""
    out = AnyValue()
    if isinstance(value, bool):
        out.bool_value = value
    elif isinstance(value, int):
        out.int_value = value
    elif isinstance(value, float):
        out.double_value = value
    elif isinstance(value, str):
        out.string_value = value
    elif isinstance(value, bytes):
        out.bytes_value = value
    elif isinstance(value, list):
        out.array_value.SetInParent()
        out.array_value.values.extend(any_value(item) for item in value)
    elif isinstance(value, dict):
        out.kvlist_value.SetInParent()
        out.kvlist_value.values.extend(key_values(value))
    return out


def key_values(attributes):
    return [KeyValue(key=key, value=any_value(value)) for key, value in attributes.items()]


def parsed(request_type, builder):
    request = request_type()
    request.ParseFromString(builder.build_wire())
    return request


def metric(build):
    """The one metric that ``build(builder, scope)`` makes."""
    builder = MetricsBuilder()
    build(builder, builder.scope(builder.resource()))
    return parsed(ExportMetricsServiceRequest, builder).resource_metrics[0].scope_metrics[0].metrics[0]


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
scalars = st.one_of(
    st.none(),
    texts,
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.binary(max_size=200),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(texts, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(texts, values, max_size=5))
def test_attributes_are_the_key_values_of_their_mapping(attributes):
    builder = TracesBuilder()
    builder.spans(
        builder.scope(builder.resource(attributes), "s", "v", attributes),
        names="n",
        trace_ids=ids(1),
        span_ids=[1],
        start_times=0,
        end_times=0,
    )
    resource = parsed(ExportTraceServiceRequest, builder).resource_spans[0]
    assert list(resource.resource.attributes) == key_values(attributes)
    assert list(resource.scope_spans[0].scope.attributes) == key_values(attributes)
    assert (resource.scope_spans[0].scope.name, resource.scope_spans[0].scope.version) == ("s", "v")


def ids(count):
    return np.arange(1, 2 * count + 1, dtype=np.uint64).reshape(-1, 2)


def test_numpy_values_are_attribute_values():
    encoded = Attributes({"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True), "a": np.array([1, 2])})
    assert encoded == Attributes({"i": 3, "f": 0.5, "b": True, "a": [1, 2]})
    assert len(encoded) == 4
    assert hash(encoded) == hash(Attributes({"i": 3, "f": 0.5, "b": True, "a": [1, 2]}))
    assert encoded != Attributes({"i": 4})


@pytest.mark.parametrize(
    ("attributes", "error"),
    [({"k": 2**63}, ValueError), ({"k": -(2**63) - 1}, ValueError), ({1: 1}, TypeError), ({"k": object()}, TypeError)],
)
def test_what_is_no_attribute_is_refused(attributes, error):
    with pytest.raises(error):
        Attributes(attributes)


def test_nesting_is_limited_as_at_the_door():
    value = 1
    for _ in range(29):
        value = [value]
    Attributes({"k": value})
    with pytest.raises(ValueError, match="30"):
        Attributes({"k": [value, [[value]]]})


def test_a_lone_surrogate_becomes_the_replacement_character():
    builder = LogsBuilder()
    builder.records(
        builder.scope(builder.resource()),
        times=[1],
        bodies=["a\ud800b"],
        severity_texts="\udfff",
        attributes={"k\ud800": "v"},
    )
    record = parsed(ExportLogsServiceRequest, builder).resource_logs[0].scope_logs[0].log_records[0]
    assert (record.body.string_value, record.severity_text, record.attributes[0].key) == (
        "a\ufffdb",
        "\ufffd",
        "k\ufffd",
    )


def test_spans_have_every_field():
    builder = TracesBuilder()
    scope = builder.scope(builder.resource({"service.name": "api"}, "https://r"), "lib", schema_url="https://s")
    builder.spans(
        scope,
        names=["first", "second"],
        trace_ids=np.array([[1, 2**63], [3, 4]], np.uint64),
        span_ids=np.array([5, 2**64 - 1], np.uint64),
        start_times=[TIME, TIME + 1],
        end_times=np.array([TIME + 5, 0], np.int64),
        parent_span_ids=[0, 5],
        kinds=np.array([2, 0], np.int32),
        status_codes=[0, 2],
        status_messages=[None, "broken"],
        attributes=[{"a": 1}, None],
        trace_states=["k=v", ""],
        flags=np.array([0x101, 0], np.uint32),
        events=[
            [],
            [{"name": "exception", "time_unix_nano": TIME, "attributes": {"exception.type": "E"}}, {"name": "end"}],
        ],
        links=Links(
            owner=[1, 0], trace_ids=ids(2), span_ids=[7, 8], attributes=[{"l": 1}, {"l": 0}], trace_states="t", flags=3
        ),
    )
    resource = parsed(ExportTraceServiceRequest, builder).resource_spans[0]
    assert (resource.schema_url, resource.scope_spans[0].schema_url) == ("https://r", "https://s")
    first, second = resource.scope_spans[0].spans
    assert (first.trace_id.hex(), first.span_id.hex()) == ("0000000000000001" + "8000000000000000", "0000000000000005")
    assert (second.trace_id.hex(), second.span_id.hex()) == ("0000000000000003" + "0000000000000004", "f" * 16)
    assert (first.parent_span_id, second.parent_span_id.hex()) == (b"", "0000000000000005")
    assert (first.name, first.kind, first.start_time_unix_nano, first.end_time_unix_nano) == (
        "first",
        2,
        TIME,
        TIME + 5,
    )
    assert (second.name, second.kind, second.start_time_unix_nano, second.end_time_unix_nano) == (
        "second",
        0,
        TIME + 1,
        0,
    )
    assert (first.HasField("status"), second.status.code, second.status.message) == (False, 2, "broken")
    assert (list(first.attributes), list(second.attributes)) == (key_values({"a": 1}), [])
    assert (first.trace_state, second.trace_state, first.flags, second.flags) == ("k=v", "", 0x101, 0)
    assert [(event.name, event.time_unix_nano, list(event.attributes)) for event in second.events] == [
        ("exception", TIME, key_values({"exception.type": "E"})),
        ("end", 0, []),
    ]
    assert not first.events
    assert [
        (link.span_id[-1], link.trace_id[-1], link.trace_state, link.flags, link.attributes[0].value.int_value)
        for link in [*first.links, *second.links]
    ] == [
        (8, 4, "t", 3, 0),
        (7, 2, "t", 3, 1),
    ]


TEXTS = StringColumn.from_codes(np.array([1, -1, 0], np.int32), ["x", "é".encode()])


def test_records_have_every_field():
    builder = LogsBuilder()
    scope = builder.scope(builder.resource())
    builder.records(
        scope,
        times=np.array([TIME, 0, 1], np.uint64),
        bodies=["text", None, {"k": [1, ""]}],
        severity_numbers=[9, 0, 17],
        severity_texts=TEXTS,
        attributes=(np.array([2, -1, 0], np.int32), SETS),
        trace_ids=ids(3),
        span_ids=[0, 1, 2],
        observed_times=TIME,
        flags=[1, 0, 0],
        event_names=["", "e", None],
    )
    builder.records(scope, times=[1, 2, 3], bodies=TEXTS)
    builder.records(scope, times=[1], bodies=[""])
    records = parsed(ExportLogsServiceRequest, builder).resource_logs[0].scope_logs[0].log_records
    assert [record.time_unix_nano for record in records] == [TIME, 0, 1, 1, 2, 3, 1]
    assert [record.body for record in records[:3]] == [any_value("text"), AnyValue(), any_value({"k": [1, ""]})]
    assert [record.HasField("body") for record in records] == [True, False, True, True, False, True, True]
    assert [record.body.string_value for record in records[3:]] == ["é", "", "x", ""]
    assert [record.severity_number for record in records[:3]] == [9, 0, 17]
    assert [record.severity_text for record in records[:3]] == ["é", "", "x"]
    assert [list(record.attributes) for record in records[:3]] == [key_values(SETS[2]), [], key_values(SETS[0])]
    assert [record.trace_id[-1] for record in records[:3]] == [2, 4, 6]
    assert [record.span_id[-1:] for record in records[:3]] == [b"", b"\1", b"\2"]
    assert [(record.observed_time_unix_nano, record.flags, record.event_name) for record in records[:3]] == [
        (TIME, 1, ""),
        (TIME, 0, "e"),
        (TIME, 0, ""),
    ]


@pytest.mark.parametrize("kind", ["gauge", "sum"])
@pytest.mark.parametrize(
    "numbers",
    [
        np.array([0, -5, 2**40]),
        np.array([0.0, -0.5, math.inf]),
        np.ma.masked_array([1.5, 0.0, 9.0], [False, True, False]),
    ],
)
def test_number_points_have_every_field(kind, numbers):
    exemplars = Exemplars(
        owner=[2, 0, 2],
        times=[1, 2, 3],
        values=np.array([7, 8, 9]),
        trace_ids=ids(3),
        span_ids=[1, 2, 3],
        attributes=[{"x": 1}, {"x": 2}, None],
    )
    common = {
        "unit": "s",
        "description": "d",
        "times": [1, 2, 3],
        "values": numbers,
        "start_times": TIME,
        "flags": [0, 1, 0],
        "attributes": SETS,
        "exemplars": exemplars,
    }
    if kind == "gauge":
        made = metric(lambda builder, scope: builder.gauge(scope, "m", **common))
        points = made.gauge.data_points
    else:
        made = metric(lambda builder, scope: builder.sum(scope, "m", temporality=2, monotonic=True, **common))
        points = made.sum.data_points
        assert (made.sum.aggregation_temporality, made.sum.is_monotonic) == (2, True)
    assert (made.name, made.unit, made.description) == ("m", "s", "d")
    assert [point.time_unix_nano for point in points] == [1, 2, 3]
    assert [point.start_time_unix_nano for point in points] == [TIME] * 3
    assert [point.flags for point in points] == [0, 1, 0]
    assert [list(point.attributes) for point in points] == [key_values(values) for values in SETS]
    field = "as_int" if numbers.dtype.kind == "i" else "as_double"
    masks = np.ma.getmaskarray(numbers)
    assert [point.WhichOneof("value") for point in points] == [None if masked else field for masked in masks]
    assert [
        getattr(point, field) for point, masked in zip(points, masks, strict=True) if not masked
    ] == np.ma.compressed(numbers).tolist()
    assert [[exemplar.as_int for exemplar in point.exemplars] for point in points] == [[8], [], [7, 9]]
    assert [list(exemplar.filtered_attributes) for exemplar in points[2].exemplars] == [key_values({"x": 1}), []]
    assert (
        points[0].exemplars[0].trace_id[-1],
        points[0].exemplars[0].span_id[-1],
        points[0].exemplars[0].time_unix_nano,
    ) == (4, 2, 2)


def test_histograms_have_every_field():
    made = metric(
        lambda builder, scope: builder.histogram(
            scope,
            "h",
            temporality=1,
            times=[1, 2],
            counts=[3, 0],
            bucket_counts=np.array([[1, 2], [0, 0]]),
            bounds=[0.5],
            sums=np.ma.masked_array([0.0, 1.0], [False, True]),
            mins=[-1.0, 2.0],
            maxs=np.ma.masked_array([4.0, 5.0], [True, False]),
            attributes={"a": 1},
            start_times=[5, 6],
            flags=1,
            exemplars=Exemplars(owner=[1], times=[1], values=[0.25]),
        )
    )
    first, second = made.histogram.data_points
    assert made.histogram.aggregation_temporality == 1
    assert [list(point.bucket_counts) for point in (first, second)] == [[1, 2], [0, 0]]
    assert [list(point.explicit_bounds) for point in (first, second)] == [[0.5], [0.5]]
    assert [
        (point.count, point.time_unix_nano, point.start_time_unix_nano, point.flags) for point in (first, second)
    ] == [
        (3, 1, 5, 1),
        (0, 2, 6, 1),
    ]
    assert [(point.HasField("sum"), point.HasField("min"), point.HasField("max")) for point in (first, second)] == [
        (True, True, False),
        (False, True, True),
    ]
    assert (first.sum, first.min, second.max) == (0.0, -1.0, 5.0)
    assert [list(point.attributes) for point in (first, second)] == [key_values({"a": 1})] * 2
    assert [exemplar.as_double for exemplar in second.exemplars] == [0.25]


def test_a_histogram_without_buckets_has_count_and_sum():
    made = metric(
        lambda builder, scope: builder.histogram(
            scope,
            "h",
            temporality=2,
            times=[1],
            counts=[3],
            sums=[1.0],
            bucket_counts=np.zeros((1, 0), np.uint64),
            bounds=[],
        )
    )
    (point,) = made.histogram.data_points
    assert (point.count, point.sum, list(point.bucket_counts), list(point.explicit_bounds)) == (3, 1.0, [], [])


def test_exponential_histograms_have_every_field():
    made = metric(
        lambda builder, scope: builder.exponential_histogram(
            scope,
            "e",
            temporality=2,
            times=[1, 2],
            counts=[6, 1],
            scales=[-3, 20],
            zero_counts=[1, 0],
            zero_thresholds=[0.0, 1e-9],
            positive=([-1, 4], (np.array([1, 300, 2**63], np.uint64), [0, 3, 3])),
            negative=([0, 7], np.array([[1, 2], [3, 4]])),
            sums=[1.0, 2.0],
            mins=[0.0, 0.0],
            maxs=[3.0, 4.0],
            attributes=[{"a": 1}, {"b": 2}],
            start_times=9,
            flags=[0, 1],
            exemplars=Exemplars(owner=[0], times=[1], values=[1]),
        )
    )
    first, second = made.exponential_histogram.data_points
    assert made.exponential_histogram.aggregation_temporality == 2
    assert [
        (point.scale, point.zero_count, point.zero_threshold, point.count, point.sum, point.min, point.max)
        for point in (first, second)
    ] == [
        (-3, 1, 0.0, 6, 1.0, 0.0, 3.0),
        (20, 0, 1e-9, 1, 2.0, 0.0, 4.0),
    ]
    assert [(point.positive.offset, list(point.positive.bucket_counts)) for point in (first, second)] == [
        (-1, [1, 300, 2**63]),
        (4, []),
    ]
    assert [(point.negative.offset, list(point.negative.bucket_counts)) for point in (first, second)] == [
        (0, [1, 2]),
        (7, [3, 4]),
    ]
    assert [list(point.attributes) for point in (first, second)] == [key_values({"a": 1}), key_values({"b": 2})]
    assert [(point.start_time_unix_nano, point.time_unix_nano, point.flags) for point in (first, second)] == [
        (9, 1, 0),
        (9, 2, 1),
    ]
    assert first.exemplars[0].as_int == 1


def test_summaries_have_every_field():
    made = metric(
        lambda builder, scope: builder.summary(
            scope,
            "s",
            times=[1, 2],
            counts=[3, 4],
            sums=[0.0, 1.5],
            quantiles=[0.5, 0.99],
            quantile_values=[[1, 2], [0, 4]],
            attributes=SETS[:2],
            flags=[0, 1],
        )
    )
    first, second = made.summary.data_points
    assert [[(pair.quantile, pair.value) for pair in point.quantile_values] for point in (first, second)] == [
        [(0.5, 1), (0.99, 2)],
        [(0.5, 0), (0.99, 4)],
    ]
    assert [(point.count, point.sum, point.time_unix_nano, point.flags) for point in (first, second)] == [
        (3, 0.0, 1, 0),
        (4, 1.5, 2, 1),
    ]
    assert list(first.attributes) == key_values(SETS[0])


@pytest.mark.parametrize("count", [1, 200, 20_000])
def test_batches_of_every_size(count):
    """Also messages past 127 and 16383 bytes, and past the size from which the GIL is released."""
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource({"service.name": "x" * 300}))
    sets = [Attributes({"k": "v" * i}) for i in range(0, 300, 7)]
    codes = (np.arange(count) % len(sets)).astype(np.int32)
    builder.gauge(scope, "g", times=np.arange(count), values=np.arange(count) / 2, attributes=(codes, sets))
    points = (
        parsed(ExportMetricsServiceRequest, builder).resource_metrics[0].scope_metrics[0].metrics[0].gauge.data_points
    )
    assert [point.as_double for point in points] == [i / 2 for i in range(count)]
    assert [len(point.attributes[0].value.string_value) for point in points] == [code * 7 for code in codes.tolist()]


def test_scopes_and_resources_without_items_are_left_out():
    builder = MetricsBuilder()
    builder.scope(builder.resource({"empty": True}))
    full = builder.resource({"full": True})
    builder.scope(full, "unused")
    scope = builder.scope(full, "used")
    builder.gauge(scope, "none", times=[], values=np.zeros(0))
    assert builder.build_wire() == b""
    builder.gauge(scope, "one", times=[1], values=[1])
    request = parsed(ExportMetricsServiceRequest, builder)
    assert [[scope.scope.name for scope in resource.scope_metrics] for resource in request.resource_metrics] == [
        ["used"]
    ]
    assert list(request.resource_metrics[0].resource.attributes) == key_values({"full": True})


def test_columns_that_do_not_fit_are_refused():
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    point = {"times": [1], "values": [1]}
    for call in (
        lambda: builder.gauge(scope, "m", times=[1, 2], values=[1, 2, 3]),
        lambda: builder.gauge(scope, "m", times=[-1], values=[1]),
        lambda: builder.gauge(scope, "m", times=[1], values=["1"]),
        lambda: builder.gauge(scope, "m", times=[1], values=np.array([2**63], np.uint64)),
        lambda: builder.gauge(scope, "m", attributes=(np.array([1], np.int32), SETS[:1]), **point),
        lambda: builder.gauge(scope, "m", attributes=[{}, {}], **point),
        lambda: builder.gauge(scope, "m", exemplars=Exemplars(owner=[1], times=[1], values=[1]), **point),
        lambda: builder.gauge(scope, "", **point),
        lambda: builder.sum(scope, "m", temporality=3, monotonic=True, **point),
        lambda: builder.histogram(
            scope, "m", temporality=1, times=[1], counts=[1], bucket_counts=[[1, 2]], bounds=[1.0, 2.0]
        ),
        lambda: builder.histogram(scope, "m", temporality=1, times=[1], counts=[-1], bucket_counts=[[1]], bounds=[]),
        lambda: builder.exponential_histogram(
            scope, "m", temporality=1, times=[1], counts=[1], scales=[0], positive=([0], ([1], [0, 2]))
        ),
        lambda: builder.summary(
            scope, "m", times=[1], counts=[1], sums=[1.0], quantiles=[0.5], quantile_values=[[1.0, 2.0]]
        ),
    ):
        with pytest.raises(ValueError):
            call()
    with pytest.raises(IndexError):
        builder.gauge(scope + 1, "m", **point)
    with pytest.raises(IndexError):
        builder.scope(7)
    assert builder.build_wire() == b""


def test_events_given_as_columns():
    builder = TracesBuilder()
    events = Events(owner=np.array([0, 0]), times=[1, 2], names=["a", "b"], attributes={"k": "v"})
    builder.spans(
        builder.scope(builder.resource()),
        names="n",
        trace_ids=ids(1),
        span_ids=[1],
        start_times=1,
        end_times=2,
        events=events,
    )
    (span,) = parsed(ExportTraceServiceRequest, builder).resource_spans[0].scope_spans[0].spans
    assert [(event.name, event.time_unix_nano, len(event.attributes)) for event in span.events] == [
        ("a", 1, 1),
        ("b", 2, 1),
    ]


def test_a_batch_is_built_that_the_door_would_let_in():
    context = Context(tenant="a")
    builder = MetricsBuilder(context)
    builder.gauge(
        builder.scope(builder.resource({"service.name": "x"})),
        "m",
        times=[1, 2],
        values=[1.5, 2.5],
        attributes=[{"k": 1}, {"k": "1"}],
    )
    batch = builder.build()
    assert (type(batch), batch.item_count, batch.context) == (Metrics, 2, context)
    assert Metrics.check(batch.wire).batch.wire == batch.wire
    assert batch.field("value").tolist() == [1.5, 2.5]
    assert len({tuple(row) for row in batch.series_key().tolist()}) == 2
    assert TracesBuilder().build().item_count == LogsBuilder().build().item_count == 0
    assert type(TracesBuilder().build()) is Traces
