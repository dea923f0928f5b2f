"""What the remote-write exporter sends, as read by protobuf's own runtime."""

import math
import struct
from collections import defaultdict

import numpy as np
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig

STALE = 0x7FF0000000000002
SECOND = 1_000_000_000


def exporter(**keys):
    config = PrometheusRemoteWriteConfig.model_validate({"endpoint": "http://localhost:1/api/v1/write", **keys})
    return factory.create(make_settings(factory, signals={Signal.METRICS}), config)


def request(*, service="api", instance="1", scope="lib"):
    made = ExportMetricsServiceRequest()
    resource = made.resource_metrics.add()
    for key, value in (("service.name", service), ("service.instance.id", instance), ("host.name", "h")):
        resource.resource.attributes.add(key=key).value.string_value = value
    scope_metrics = resource.scope_metrics.add()
    scope_metrics.scope.name = scope
    return made, scope_metrics.metrics


def batch_of(made):
    return Metrics.from_wire(made.SerializeToString())


def series_of(write_request, parts):
    """{(name, labels): [(value bits, ms)]} and the parsed requests."""
    found = defaultdict(list)
    parsed = []
    for part in parts:
        message = write_request.FromString(part.payload.body)
        parsed.append(message)
        for series in message.timeseries:
            names = [label.name for label in series.labels]
            assert names == sorted(names)
            assert len(set(names)) == len(names)
            assert all(label.value for label in series.labels)
            labels = {label.name: label.value for label in series.labels}
            name = labels.pop("__name__")
            found[name, tuple(sorted(labels.items()))] += [
                (struct.unpack("<Q", struct.pack("<d", sample.value))[0], sample.timestamp) for sample in series.samples
            ]
    return found, parsed


def value(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


BASE = (("instance", "1"), ("job", "api"), ("otel_scope_name", "lib"))


def test_counter_and_gauge(write_request):
    """One series each, with milliseconds and sorted labels, and target_info in addition."""
    made, metrics = request()
    metric = metrics.add(name="http.requests", unit="{request}")
    metric.sum.aggregation_temporality, metric.sum.is_monotonic = 2, True
    point = metric.sum.data_points.add(time_unix_nano=5 * SECOND, as_int=7)
    point.attributes.add(key="http.method").value.string_value = "GET"
    gauge = metrics.add(name="temp", unit="Cel")
    gauge.gauge.data_points.add(time_unix_nano=6 * SECOND, as_double=1.5)
    parts = exporter().encode(batch_of(made))
    found, _ = series_of(write_request, parts)
    assert sum(part.item_count for part in parts) == 2
    assert [
        (value(bits), ms) for bits, ms in found["http_requests_total", tuple(sorted((*BASE, ("http_method", "GET"))))]
    ] == [(7.0, 5000)]
    assert [(value(bits), ms) for bits, ms in found["temp_celsius", BASE]] == [(1.5, 6000)]
    assert found["target_info", (("host_name", "h"), ("instance", "1"), ("job", "api"))] == [
        (struct.unpack("<Q", struct.pack("<d", 1.0))[0], 6000)
    ]


def histogram(metrics, counts, bounds, time_s=1, total=None, flags=0, name="d"):
    metric = metrics.add(name=name, unit="s")
    metric.histogram.aggregation_temporality = 2
    point = metric.histogram.data_points.add(
        time_unix_nano=time_s * SECOND, count=sum(counts), bucket_counts=counts, explicit_bounds=bounds, flags=flags
    )
    if total is not None:
        point.sum = total
    return point


def test_histogram_buckets_are_cumulative_and_close_with_inf(write_request):
    """Bounds in Go's shortest decimal form; +Inf is the count; there is no ``_sum`` if the point has none."""
    made, metrics = request()
    histogram(metrics, [1, 2, 0, 4], [0.005, 0.1, 2.5], total=9.5)
    histogram(metrics, [1, 1], [1e-05], name="nosum")
    found, _ = series_of(write_request, exporter().encode(batch_of(made)))
    buckets = {
        dict(labels)["le"]: value(samples[0][0])
        for (name, labels), samples in found.items()
        if name == "d_seconds_bucket"
    }
    assert buckets == {"0.005": 1, "0.1": 3, "2.5": 3, "+Inf": 7}
    assert value(found["d_seconds_sum", BASE][0][0]) == 9.5
    assert value(found["d_seconds_count", BASE][0][0]) == 7
    assert {dict(labels)["le"] for (name, labels) in found if name == "nosum_seconds_bucket"} == {"0.00001", "+Inf"}
    assert ("nosum_seconds_sum", BASE) not in found


def test_explicit_inf_bound_is_not_doubled(write_request):
    """An SDK that writes +Inf as a bound still results in one +Inf series."""
    made, metrics = request()
    histogram(metrics, [1, 2, 0], [1.0, math.inf])
    found, _ = series_of(write_request, exporter().encode(batch_of(made)))
    assert sorted(dict(labels)["le"] for (name, labels) in found if name == "d_seconds_bucket") == ["+Inf", "1"]


def test_stale_marker_reaches_every_derived_series(write_request):
    """NO_RECORDED_VALUE becomes Prometheus' stale NaN with its payload bits intact."""
    made, metrics = request()
    histogram(metrics, [0, 0], [1.0], flags=1)
    gauge = metrics.add(name="g")
    gauge.gauge.data_points.add(time_unix_nano=SECOND, flags=1)
    found, _ = series_of(write_request, exporter(target_info={"enabled": False}).encode(batch_of(made)))
    assert {name for name, _ in found} == {"d_seconds_bucket", "d_seconds_sum", "d_seconds_count", "g"}
    # The Python runtime keeps a quiet or signalling NaN's payload; the payload is the marker.
    assert {samples[0][0] & 0xFFFFFFFF for samples in found.values()} == {2}


def test_unspecified_temporality_is_dropped_and_counted(write_request):
    """A metric that Prometheus cannot represent does not affect the others."""
    made, metrics = request()
    for name in ("bad0", "bad1"):
        metric = metrics.add(name=name)
        metric.sum.is_monotonic = True
        metric.sum.data_points.add(time_unix_nano=SECOND, as_int=1)
    metrics.add(name="___").gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    metrics.add(name="good").gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    sut = exporter()
    found, _ = series_of(write_request, sut.encode(batch_of(made)))
    assert {name for name, _ in found} == {"good", "target_info"}
    assert sut.settings.telemetry.ledger.dropped[Signal.METRICS, "temporality"] == 2
    assert sut.settings.telemetry.ledger.dropped[Signal.METRICS, "metric_name"] == 1


def test_points_of_one_series_are_sent_in_time_order_without_duplicates(write_request):
    """Int 1 and "1" are one Prometheus series; two samples of one millisecond would make it refuse the request."""
    made, metrics = request()
    metric = metrics.add(name="g")
    for time_s, number, kind in (
        (3, 30, "int_value"),
        (1, 10, "string_value"),
        (2, 20, "int_value"),
        (3, 31, "string_value"),
    ):
        point = metric.gauge.data_points.add(time_unix_nano=time_s * SECOND, as_int=number)
        setattr(point.attributes.add(key="a").value, kind, 1 if kind == "int_value" else "1")
    sut = exporter()
    found, parsed = series_of(write_request, sut.encode(batch_of(made)))
    labels = tuple(sorted((*BASE, ("a", "1"))))
    assert [(value(bits), ms) for bits, ms in found["g", labels]] == [(10, 1000), (20, 2000), (31, 3000)]
    assert sum(1 for message in parsed for series in message.timeseries if series.samples[0].timestamp == 1000) == 1
    assert sut.settings.telemetry.ledger.dropped[Signal.METRICS, "duplicate_timestamp"] == 1


def test_summary(write_request):
    """A summary becomes series for its quantiles, its sum and its count."""
    made, metrics = request()
    point = metrics.add(name="s").summary.data_points.add(time_unix_nano=SECOND, count=3, sum=4.5)
    point.quantile_values.add(quantile=0.5, value=1.0)
    point.quantile_values.add(quantile=0.99, value=2.0)
    found, _ = series_of(write_request, exporter().encode(batch_of(made)))
    assert {
        dict(labels)["quantile"]: value(samples[0][0]) for (name, labels), samples in found.items() if name == "s"
    } == {
        "0.5": 1.0,
        "0.99": 2.0,
    }
    assert value(found["s_sum", BASE][0][0]) == 4.5
    assert value(found["s_count", BASE][0][0]) == 3


def test_exponential_histogram_is_native(write_request):
    """Scale 1, offset -1, [1,0,0,0,2]: (0.707,1] has 1 and (2.83,4] has 2, as in Prometheus and the Collector."""
    made, metrics = request()
    metric = metrics.add(name="e")
    metric.exponential_histogram.aggregation_temporality = 2
    point = metric.exponential_histogram.data_points.add(time_unix_nano=SECOND, count=3, scale=1, zero_count=0)
    point.sum = 6.0
    point.positive.offset = -1
    point.positive.bucket_counts.extend([1, 0, 0, 0, 2])
    sut = exporter(target_info={"enabled": False})
    _, parsed = series_of(write_request, sut.encode(batch_of(made)))
    histogram_ = parsed[0].timeseries[0].histograms[0]
    assert (histogram_.count_int, histogram_.sum, histogram_.schema, histogram_.timestamp) == (3, 6.0, 1, 1000)
    assert [(span.offset, span.length) for span in histogram_.positive_spans] == [(0, 1), (3, 1)]
    assert list(histogram_.positive_deltas) == [1, 1]
    assert histogram_.zero_threshold == 1e-128


@pytest.mark.parametrize("scale", [9, 12, 20])
def test_exponential_histogram_is_merged_down_to_scale_8(write_request, scale):
    """A scale finer than Prometheus supports is merged without losing a count."""
    made, metrics = request()
    metric = metrics.add(name="e")
    metric.exponential_histogram.aggregation_temporality = 2
    counts = list(range(1, 40))
    point = metric.exponential_histogram.data_points.add(time_unix_nano=SECOND, count=sum(counts), scale=scale)
    point.positive.offset = -7
    point.positive.bucket_counts.extend(counts)
    _, parsed = series_of(write_request, exporter(target_info={"enabled": False}).encode(batch_of(made)))
    histogram_ = parsed[0].timeseries[0].histograms[0]
    assert histogram_.schema == 8
    absolute, running, index = defaultdict(int), 0, 0
    deltas = iter(histogram_.positive_deltas)
    for span in histogram_.positive_spans:
        index += span.offset
        for _ in range(span.length):
            running += next(deltas)
            absolute[index] += running
            index += 1
    expected = defaultdict(int)
    for i, count in enumerate(counts):
        expected[((-7 + i) >> (scale - 8)) + 1] += count
    assert {index: count for index, count in absolute.items() if count} == dict(expected)


def test_exemplars_go_to_the_bucket_of_their_value(write_request):
    """Exemplars have their ids in hex, and the other attributes if they fit."""
    made, metrics = request()
    point = histogram(metrics, [1, 1, 1], [1.0, 2.0], total=1.0)
    for number in (0.5, 1.5, 9.0):
        exemplar = point.exemplars.add(
            as_double=number, time_unix_nano=SECOND, trace_id=bytes(range(16)), span_id=bytes(range(8))
        )
        exemplar.filtered_attributes.add(key="user.id").value.string_value = "u1"
    _, parsed = series_of(write_request, exporter(target_info={"enabled": False}).encode(batch_of(made)))
    placed = {}
    for series in parsed[0].timeseries:
        labels = {label.name: label.value for label in series.labels}
        for exemplar in series.exemplars:
            placed[labels["le"]] = (exemplar.value, {label.name: label.value for label in exemplar.labels})
    ids = {"trace_id": bytes(range(16)).hex(), "span_id": bytes(range(8)).hex(), "user_id": "u1"}
    assert placed == {"1": (0.5, ids), "2": (1.5, ids), "+Inf": (9.0, ids)}


def test_exemplar_labels_occur_once(write_request):
    """Prometheus stores no exemplar with a repeated label: the ids take precedence, then the first attribute stands."""
    made, metrics = request()
    point = histogram(metrics, [1], [], total=1.0)
    exemplar = point.exemplars.add(as_double=1, time_unix_nano=SECOND, trace_id=bytes(range(16)))
    for key, text in (
        ("a.b", "1"),
        ("a_b", "2"),
        ("trace.id", "x"),
        ("c", ""),
        ("c", "3"),
        ("c", "4"),
        ("span_id", "s"),
    ):
        exemplar.filtered_attributes.add(key=key).value.string_value = text
    point.exemplars.add(as_double=1, time_unix_nano=SECOND).filtered_attributes.add(
        key="trace_id"
    ).value.string_value = "own"
    _, parsed = series_of(write_request, exporter(target_info={"enabled": False}).encode(batch_of(made)))
    (first, second) = [e for series in parsed[0].timeseries for e in series.exemplars]
    assert sorted((label.name, label.value) for label in first.labels) == [
        ("a_b", "1"), ("c", "3"), ("span_id", "s"), ("trace_id", bytes(range(16)).hex()),
    ]  # fmt: skip
    assert [(label.name, label.value) for label in second.labels] == [("trace_id", "own")]


def test_an_inconsistent_native_histogram_is_dropped_alone(write_request):
    """Prometheus would refuse the whole request. Observations of NaN are in no bucket, so then fewer is right."""
    made, metrics = request()
    for name, count, total in (("good", 3, 1.0), ("bad", 4, 1.0), ("nan", 4, math.nan), ("few", 2, math.nan)):
        metric = metrics.add(name=name)
        metric.exponential_histogram.aggregation_temporality = 2
        point = metric.exponential_histogram.data_points.add(
            time_unix_nano=SECOND, count=count, zero_count=1, sum=total
        )
        point.positive.bucket_counts.extend([1])
        point.negative.bucket_counts.extend([1])
    sut = exporter(target_info={"enabled": False})
    _, parsed = series_of(write_request, sut.encode(batch_of(made)))
    assert [label.value for series in parsed[0].timeseries for label in series.labels if label.name == "__name__"] == [
        "good",
        "nan",
    ]
    assert sut.settings.telemetry.ledger.dropped == {(Signal.METRICS, "histogram_count"): 2}
    assert sut.settings.telemetry.log.of_level("warning")[0].fields["metrics"] == "bad of api, few of api"


@pytest.mark.parametrize("is_first", [False, True])
def test_a_gauge_that_is_a_sample_of_a_histogram_is_dropped(write_request, is_first):
    """``d_count`` beside the histogram ``d``, if the labels are the same; whichever comes first."""
    sut = exporter(target_info={"enabled": False})
    for time_s in (1, 2):
        made, metrics = request()
        if not is_first:
            histogram(metrics, [1, 2], [1.0], time_s, 5.0, name="d")
        gauge = metrics.add(name="d.seconds_count").gauge
        gauge.data_points.add(time_unix_nano=time_s * SECOND, as_int=7)
        gauge.data_points.add(time_unix_nano=time_s * SECOND, as_int=8).attributes.add(key="x").value.int_value = 1
        if is_first:
            histogram(metrics, [1, 2], [1.0], time_s, 5.0, name="d")
        found, _ = series_of(write_request, sut.encode(batch_of(made)))
        assert [
            [value(bits) for bits, _ in samples] for (name, _), samples in found.items() if name == "d_seconds_count"
        ] in ([[3.0], [8.0]], [[8.0], [3.0]])
    assert sut.settings.telemetry.ledger.dropped == {(Signal.METRICS, "name_conflict"): 2}


def test_requests_stay_below_the_limit_and_shards_keep_series_apart(write_request):
    """Splitting loses nothing, and a series is never in two shards."""
    made, metrics = request()
    metric = metrics.add(name="g")
    for i in range(5000):
        point = metric.gauge.data_points.add(time_unix_nano=SECOND, as_int=i)
        point.attributes.add(key="i").value.int_value = i
    parts = exporter(max_batch_size_bytes=20_000, target_info={"enabled": False}).encode(batch_of(made))
    assert sum(part.item_count for part in parts) == 5000
    assert len({part.shard for part in parts}) == 3
    assert max(len(part.payload.body) for part in parts) <= 20_000
    found, _ = series_of(write_request, parts)
    assert sorted(value(samples[0][0]) for samples in found.values()) == list(range(5000))
    assert sum(len(samples) for samples in found.values()) == 5000


def test_a_request_can_be_cut_down_to_its_series(write_request):
    """Cuts keep all bytes and points; buckets, sum and count of a histogram stay together."""
    made, metrics = request()
    metric = metrics.add(name="g")
    for i in range(60):
        point = metric.gauge.data_points.add(time_unix_nano=(1 + i // 20) * SECOND, as_int=i)
        point.attributes.add(key="i").value.int_value = i % 20
    for i in range(5):
        histogram(metrics, [1, 2], [1.0], total=1.0, name=f"h{i}")
    sut = exporter()
    whole, _ = sut.encode(batch_of(made))
    parts = [whole]
    while any(len(sut.cut(part)) == 2 for part in parts):
        parts = [half for part in parts for half in sut.cut(part)]
    assert b"".join(part.payload.body for part in parts) == whole.payload.body
    assert sorted(part.item_count for part in parts) == [*[1] * 5, *[3] * 20]
    for part in parts:
        found, _ = series_of(write_request, [part])
        kinds = sorted(name.rpartition("_")[2] for name, _ in found)
        assert kinds in (["g"], ["bucket", "bucket", "count", "sum"])
        assert part.size_bytes == len(part.payload.body)


def test_metadata_once_a_minute(write_request):
    """With ``send_metadata`` the type, help and unit are sent once per minute."""
    made, metrics = request()
    metric = metrics.add(name="g", description="what it is", unit="s")
    metric.gauge.data_points.add(time_unix_nano=SECOND, as_int=1)
    sut = exporter(send_metadata=True)
    _, parsed = series_of(write_request, sut.encode(batch_of(made)))
    assert [(m.type, m.metric_family_name, m.help, m.unit) for m in parsed[1].metadata] == [
        (2, "g_seconds", "what it is", "s")
    ]
    _, parsed = series_of(write_request, sut.encode(batch_of(made)))
    assert not any(message.metadata for message in parsed)


def test_labels_are_cached_and_survive_a_second_batch(write_request):
    """A second batch from the same sources has the same series."""
    made, metrics = request()
    histogram(metrics, [1, 2], [1.0], total=1.0)
    sut = exporter()
    first, _ = series_of(write_request, sut.encode(batch_of(made)))
    again, _ = series_of(write_request, sut.encode(batch_of(made)))
    first.pop(("target_info", (("host_name", "h"), ("instance", "1"), ("job", "api"))))
    assert first == again


def test_configuration_errors():
    """A missing endpoint, a wrong scheme and another compression are configuration errors."""
    for keys in ({}, {"endpoint": "localhost:9090"}, {"endpoint": "http://x/", "compression": "gzip"}):
        with pytest.raises(ValueError, match=r"endpoint|compression"):
            PrometheusRemoteWriteConfig.model_validate(keys)
    nested = PrometheusRemoteWriteConfig.model_validate({"http": {"endpoint": "http://x/"}, "timeout": "7s"})
    assert (nested.http.endpoint, nested.timeout, nested.http.timeout) == ("http://x/", 7.0, 7.0)


def test_random_batches_lose_nothing(write_request):
    """Every point that can be sent is in exactly one part."""
    rng = np.random.default_rng(3)
    for _ in range(20):
        made, metrics = request()
        for m in range(int(rng.integers(1, 6))):
            if rng.random() < 0.5:
                metric = metrics.add(name=f"g{m}")
                for i in range(int(rng.integers(0, 30))):
                    point = metric.gauge.data_points.add(time_unix_nano=(i + 1) * SECOND, as_double=float(rng.normal()))
                    point.attributes.add(key="x").value.int_value = int(rng.integers(0, 4))
            else:
                for i in range(int(rng.integers(1, 5))):
                    histogram(
                        metrics, rng.integers(0, 9, 3).tolist(), [1.0, 2.0], time_s=i + 1, total=1.0, name=f"h{m}"
                    )
        batch = batch_of(made)
        parts = exporter().encode(batch)
        assert sum(part.item_count for part in parts) == batch.item_count
