"""Remote write 2.0: what requests carry, that it is what those of 1.0 carry, and when a receiver gets 1.0 instead."""

import math
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from reference_messages import message_class
from remote_write_rules import V1, V2, check_v1, check_v2

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write._v2 import to_v2

STALE = 0x7FF0000000000002
NOW = 1_700_000_000_000
MESSAGE = "io.prometheus.write.v2.Request"
REQUEST_V1, REQUEST_V2 = message_class("WriteRequest", V1), message_class("Request", V2)


def exporter(**keys):
    config = factory.config_type.model_validate(
        {"endpoint": "http://localhost:1/", "protobuf_message": MESSAGE, "disable_scope_info": True} | keys
    )
    return factory.create(make_settings(factory, signals={Signal.METRICS}), config)


def every_type(*, times=(0,), flags=0):
    """A metric of each type, with a point at each time in milliseconds after ``NOW``."""
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key in ("service.name", "host.name"):
        resource.resource.attributes.add(key=key).value.string_value = "api"
    metrics = resource.scope_metrics.add().metrics
    gauge = metrics.add(name="g", unit="s", description="A gauge.").gauge
    counter = metrics.add(name="c", description="A counter.").sum
    histogram, native = metrics.add(name="h").histogram, metrics.add(name="n").exponential_histogram
    summary = metrics.add(name="q").summary
    counter.is_monotonic = True
    counter.aggregation_temporality = histogram.aggregation_temporality = native.aggregation_temporality = 2
    for i, time_ms in enumerate(times, 1):
        when = {"time_unix_nano": (NOW + time_ms) * 10**6, "start_time_unix_nano": (NOW - 5000) * 10**6, "flags": flags}
        points = [
            gauge.data_points.add(as_double=1.5 * i, **when),
            counter.data_points.add(as_int=7 * i, **when),
            histogram.data_points.add(count=3 * i, sum=4.5, bucket_counts=[i, 2 * i], explicit_bounds=[1], **when),
            native.data_points.add(count=4 * i, sum=9, scale=10, zero_count=i, **when),
            summary.data_points.add(count=i, sum=1, **when),
        ]
        points[3].positive.offset = -3
        points[3].positive.bucket_counts.extend([i, 0, 0, 0, 2 * i])
        points[4].quantile_values.add(quantile=0.5, value=1)
        for point in points:
            point.attributes.add(key="path").value.string_value = "/x"
        exemplar = points[1].exemplars.add(time_unix_nano=when["time_unix_nano"], as_double=2, trace_id=b"t" * 16)
        exemplar.filtered_attributes.add(key="user").value.string_value = "api"
    return Metrics.from_wire(made.SerializeToString())


def read(parts):
    """What the parts carry as version 1.0 and as 2.0, checked by the rules of each."""
    first, second = {}, {}
    for part in parts:
        first |= check_v1(REQUEST_V1.FromString(part.payload.body))
        if body := part.payload.as_v2():
            second |= check_v2(REQUEST_V2.FromString(body))
    return first, second


def by_name(found):
    return {dict(labels)["__name__"] + dict(labels).get("le", ""): series for labels, series in found.items()}


def test_a_request_of_version_2_carries_the_samples_of_version_1():
    """Labels, values, times, exemplars and histograms."""
    first, second = read(exporter().encode(every_type(times=(0, 1000))))
    assert set(first) == set(second)
    for labels, series in first.items():
        other = second[labels]
        assert [sample[:2] for sample in series.samples] == [sample[:2] for sample in other.samples]
        assert series.exemplars == other.exemplars
        for histogram, other_histogram in zip(series.histograms, other.histograms, strict=True):
            other_histogram.ClearField("start_timestamp")
            assert histogram.SerializeToString() == other_histogram.SerializeToString()


def test_series_have_metadata_and_the_samples_of_counters_and_histograms_have_starts():
    """Type, help and unit are in each series; a gauge has no start."""
    _, found = read(exporter().encode(every_type(times=(0, 1000))))
    series = by_name(found)
    assert series["g_seconds"].metadata == (2, "A gauge.", "s")
    assert series["c_total"].metadata == (1, "A counter.", "")
    assert {series[name].metadata for name in ("h_bucket1", "h_bucket+Inf", "h_sum", "h_count", "n")} == {(3, "", "")}
    assert {series[name].metadata for name in ("q", "q_sum", "q_count")} == {(5, "", "")}
    assert series["target_info"].metadata == (2, "Target metadata", "")
    starts = {name: {sample[2] for sample in one.samples} for name, one in series.items() if one.samples}
    assert starts.pop("g_seconds") == starts.pop("target_info") == {0}
    assert set(map(frozenset, starts.values())) == {frozenset({NOW - 5000})}
    assert [histogram.start_timestamp for histogram in series["n"].histograms] == [NOW - 5000] * 2


def test_a_start_at_the_time_of_the_point_is_unknown():
    """OpenTelemetry says so, and Prometheus would count nothing."""
    batch = every_type()
    made = ExportMetricsServiceRequest.FromString(batch.wire)
    point = made.resource_metrics[0].scope_metrics[0].metrics[1].sum.data_points[0]
    point.start_time_unix_nano = point.time_unix_nano
    _, found = read(exporter().encode(Metrics.from_wire(made.SerializeToString())))
    assert by_name(found)["c_total"].samples[0][2] == 0


def test_stale_markers_keep_their_bits():
    """Also in version 2.0."""
    _, found = read(exporter(target_info={"enabled": False}).encode(every_type(flags=1)))
    for series in found.values():
        assert {bits for bits, _, _ in series.samples} <= {STALE}
        assert {struct.unpack("<Q", struct.pack("<d", histogram.sum))[0] for histogram in series.histograms} <= {STALE}


def test_parts_of_a_request_keep_what_belongs_to_their_series():
    """Metadata and starts, when a receiver demands smaller requests."""
    sut = exporter()
    parts = list(sut.encode(every_type(times=(0, 1000))))
    _, whole = read(parts)
    while any(len(part.payload.cuts) > 1 for part in parts):
        parts = [half for part in parts for half in sut.cut(part)]
    _, found = read(parts)
    assert found == whole
    single = next(part for part in parts if part.item_count == 2)
    _, halves = zip(*(read([half]) for half in sut.cut_refused(single)), strict=True)
    assert [sample[2] for half in halves for series in half.values() for sample in series.samples] != []
    for half in halves:
        for labels, series in half.items():
            assert series.metadata == whole[labels].metadata
            assert {sample[2] for sample in series.samples} == {sample[2] for sample in whole[labels].samples}


def test_histograms_become_native_histograms_with_custom_buckets():
    """One series in place of many; the last bound is left out if it is infinite; what is missing counts as nothing."""
    made = ExportMetricsServiceRequest()
    metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="h")
    metric.histogram.aggregation_temporality = 2
    cases = [([1, 0, 0, 0, 4], [1, 2, 3, 4]), ([1, 2, 3], [1, math.inf]), ([5], []), ([], [])]
    for i, (counts, bounds) in enumerate(cases):
        point = metric.histogram.data_points.add(
            time_unix_nano=NOW * 10**6, count=sum(counts) or 6, sum=2.5, bucket_counts=counts, explicit_bounds=bounds
        )
        point.attributes.add(key="i").value.int_value = i
    sut = exporter(convert_histograms_to_nhcb=True)
    _, found = read(sut.encode(Metrics.from_wire(made.SerializeToString())))
    histograms = {dict(labels)["i"]: series.histograms[0] for labels, series in found.items()}
    assert {dict(labels)["__name__"] for labels in found} == {"h"}
    assert {histogram.schema for histogram in histograms.values()} == {-53}
    assert [list(histograms[i].custom_values) for i in "0123"] == [[1, 2, 3, 4], [1], [], []]
    assert [histograms[i].count_int for i in "0123"] == [5, 6, 5, 6]
    spans = [[(span.offset, span.length) for span in histograms[i].positive_spans] for i in "0123"]
    assert spans == [[(0, 1), (3, 1)], [(0, 2)], [(0, 1)], [(0, 1)]]
    assert [list(histograms[i].positive_deltas) for i in "0123"] == [[1, 3], [1, 4], [5], [6]]


TEXT = st.text("ab\u00e9\U0001f600", max_size=3)


@given(
    st.lists(
        st.tuples(
            st.dictionaries(TEXT.filter(bool), TEXT.filter(bool), min_size=1, max_size=5),
            st.lists(st.tuples(st.floats(allow_nan=False), st.integers(0, 100)), max_size=4),
            st.lists(st.tuples(TEXT.filter(bool), st.floats(allow_nan=False)), max_size=2),
        ),
        max_size=8,
    )
)
def test_the_kernel_agrees_with_protobuf(content):
    """For any labels, samples and starts."""
    made, cuts, times = REQUEST_V1(), [], []
    body = b""
    for labels, samples, exemplars in content:
        series = made.timeseries.add()
        for name in sorted(labels, key=str.encode):
            series.labels.add(name=name, value=labels[name])
        for i, (value, start) in enumerate(samples, 1):
            series.samples.add(value=value, timestamp=1000 * i)
            times.append((1000 * i, start))
        for text, value in exemplars:
            series.exemplars.add(value=value, timestamp=5).labels.add(name="t", value=text)
        body = made.SerializeToString()
        cuts.append((len(body), len(times)))
    texts = np.frombuffer(b"helpunit", np.uint8)
    written = to_v2(
        body, np.array(cuts, np.int64).reshape(-1, 2), np.array(times, np.int64).reshape(-1, 2),
        np.zeros(len(cuts), np.int32), np.array([[1, 0, 4, 4, 4]]), texts,
    )  # fmt: skip
    if not content:
        assert written == b""
        return
    request = REQUEST_V2.FromString(written)
    symbols = list(request.symbols)
    assert len(request.timeseries) == len(content)
    for series, (labels, samples, exemplars) in zip(request.timeseries, content, strict=True):
        refs = [symbols[ref] for ref in series.labels_refs]
        assert dict(zip(refs[::2], refs[1::2], strict=True)) == labels
        assert [(sample.value, sample.start_timestamp) for sample in series.samples] == samples
        assert [(symbols[e.labels_refs[1]], e.value) for e in series.exemplars] == exemplars
        assert (symbols[series.metadata.help_ref], symbols[series.metadata.unit_ref]) == ("help", "unit")
    assert sorted(set(symbols)) == sorted(symbols)


@pytest.mark.parametrize("body", [b"\x0a\x05ab", b"\x0a\x03\x0a\x05a", b"\x0a\xff\xff\xff\xff\x0f"])
def test_what_is_no_request_is_refused(body):
    """Nothing is read beyond the end."""
    none = np.zeros((0, 2), np.int64)
    with pytest.raises(ValueError, match=r"version 1\.0"):
        to_v2(body, none, none, np.zeros(0, np.int32), np.zeros((0, 5), np.int64), np.zeros(1, np.uint8))
