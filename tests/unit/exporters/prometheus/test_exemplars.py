"""Exemplars on OpenMetrics pages, read by prometheus_client's own parser."""

import bisect
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from collector.model import Metrics, Signal
from collector.testing import FakeClock, make_settings
from exporters.prometheus import factory
from exporters.prometheus._render import Page
from exporters.prometheus.config import PrometheusConfig
from exporters.prometheus.exemplars import RECORD

SECOND = 1_000_000_000
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
TRACE, SPAN = b"\x01" * 16, b"\x0a" * 8
IDS = {"trace_id": TRACE.hex(), "span_id": SPAN.hex()}


def exporter(**keys):
    config = PrometheusConfig.model_validate(
        {"endpoint": "127.0.0.1:0", "without_scope_info": True, "enable_open_metrics": True, **keys}
    )
    return factory.create(make_settings(factory, signals={Signal.METRICS}, clock=FakeClock()), config)


def now_ns():
    return FakeClock().time_unix_nano()


def add_exemplar(point, value, time_ns=None, *, has_ids=True, **attributes):
    exemplar = point.exemplars.add(as_double=value, time_unix_nano=now_ns() if time_ns is None else time_ns)
    if has_ids:
        exemplar.trace_id, exemplar.span_id = TRACE, SPAN
    for key, text in attributes.items():
        exemplar.filtered_attributes.add(key=key.replace("__", ".")).value.string_value = text
    return exemplar


def metric(made, kind, name="x", monotonic=True):
    found = made.resource_metrics.add().scope_metrics.add().metrics.add(name=name)
    data = getattr(found, kind)
    if kind != "gauge":
        data.aggregation_temporality = 2
    if kind == "sum":
        data.is_monotonic = monotonic
    point = data.data_points.add(time_unix_nano=now_ns())
    if kind == "histogram":
        point.explicit_bounds.extend((1, 2))
        point.bucket_counts.extend((1, 1, 1))
        point.count, point.sum = 3, 1
    else:
        point.as_int = 5
    return point


def exemplars_of(sut, accept=OPENMETRICS):
    """Sample name and ``le`` -> labels, value and time of the exemplar."""
    page, _ = sut.render(accept)
    return {
        (sample.name, sample.labels.get("le", "")): (
            sample.exemplar.labels,
            sample.exemplar.value,
            float(sample.exemplar.timestamp),
        )
        for family in parse_openmetrics(page.decode())
        for sample in family.samples
        if sample.exemplar
    }


def consume(sut, made):
    sut.try_consume(Metrics.from_wire(made.SerializeToString()))


def test_counters_and_buckets_have_exemplars():
    """With ids and other attributes; a bucket has that of the values up to its bound."""
    sut, made = exporter(), ExportMetricsServiceRequest()
    add_exemplar(metric(made, "sum", "c"), 3, user__id="u\\")
    point = metric(made, "histogram", "h")
    for value in (1, 1.5, 7):
        add_exemplar(point, value, now_ns() + int(value * SECOND), has_ids=value != 7)
    consume(sut, made)
    now_s = now_ns() / SECOND
    assert exemplars_of(sut) == {
        ("c_total", ""): ({**IDS, "user_id": "u\\"}, 3, now_s),
        ("h_bucket", "1"): (IDS, 1, now_s + 1),
        ("h_bucket", "2"): (IDS, 1.5, now_s + 1.5),
        ("h_bucket", "+Inf"): ({}, 7, now_s + 7),
    }
    assert b"# {" not in sut.render("text/plain")[0]


def test_other_types_have_none():
    """OpenMetrics allows them on counters and buckets only."""
    sut, made = exporter(), ExportMetricsServiceRequest()
    add_exemplar(metric(made, "gauge", "g"), 3)
    add_exemplar(metric(made, "sum", "u", monotonic=False), 3)
    add_exemplar(metric(made, "sum", "y_total"), 3)
    metric(made, "gauge", "y")  # the counter is of unknown type beside it
    consume(sut, made)
    assert exemplars_of(sut) == {}


def test_pages_without_openmetrics_keep_no_exemplars():
    """They could not show them."""
    sut, made = exporter(enable_open_metrics=False), ExportMetricsServiceRequest()
    add_exemplar(metric(made, "sum"), 3)
    consume(sut, made)
    assert b"# {" not in sut.render(OPENMETRICS)[0]
    assert sut._store._exemplars.memory_bytes == RECORD.itemsize * 16


def test_an_exemplar_stays_until_a_later_one_comes():
    """Also in batches without exemplars; one from the future counts as now, one without a time as its point."""
    sut = exporter()
    for time_ns, value in ((now_ns() + SECOND, 1), (now_ns(), 2)):
        made = ExportMetricsServiceRequest()
        add_exemplar(metric(made, "sum"), value, time_ns)
        consume(sut, made)
    made = ExportMetricsServiceRequest()
    metric(made, "sum")
    consume(sut, made)
    assert exemplars_of(sut)["x_total", ""][1] == 1
    sut, made = exporter(), ExportMetricsServiceRequest()
    add_exemplar(metric(made, "sum", "a"), 1, now_ns() + 86_400 * SECOND)
    add_exemplar(metric(made, "sum", "b"), 1, 0)
    consume(sut, made)
    assert {time_s for _, _, time_s in exemplars_of(sut).values()} == {now_ns() / SECOND}


def test_attributes_beyond_128_characters_are_left_out():
    """Prometheus would store no such exemplar; the ids stay."""
    sut, made = exporter(), ExportMetricsServiceRequest()
    add_exemplar(metric(made, "sum", "fits"), 1, k="v" * (128 - 40 - 23 - 1))
    add_exemplar(metric(made, "sum", "too_long"), 1, k="v" * (128 - 40 - 23))
    consume(sut, made)
    found = exemplars_of(sut)
    assert set(found["fits_total", ""][0]) == {"trace_id", "span_id", "k"}
    assert found["too_long_total", ""][0] == IDS


@pytest.mark.parametrize(
    ("accept", "expected"),
    [
        (OPENMETRICS + "; escaping=allow-utf-8", b' # {trace_id="%b",span_id="%b","a.b"="1"} 3 '),
        (OPENMETRICS, b' # {trace_id="%b",span_id="%b",a_b="1"} 3 '),
        (OPENMETRICS + "; escaping=values", b' # {trace_id="%b",span_id="%b",U__a_2e_b="1"} 3 '),
    ],
)
def test_label_names_are_escaped_as_the_scraper_asks(accept, expected):
    """As those of the series."""
    sut, made = exporter(translation_strategy="NoTranslation"), ExportMetricsServiceRequest()
    point = metric(made, "sum", "x_total")
    point.attributes.add(key="k").value.string_value = " # {"
    add_exemplar(point, 3, a__b="1")
    consume(sut, made)
    page = sut.render(accept)[0]
    assert b'x_total{k=" # {"} 5' + expected % (TRACE.hex().encode(), SPAN.hex().encode()) in page


POINTS = st.lists(
    st.tuples(
        st.integers(0, 2),  # series
        st.lists(
            st.tuples(st.sampled_from((-1.0, 1.0, 1.5, 2.0, 9.0, math.inf)), st.integers(0, 3), st.booleans()),
            max_size=4,
        ),
    ),
    max_size=6,
)


@given(st.lists(POINTS, min_size=1, max_size=3))
def test_the_latest_of_each_bucket_is_shown(batches):
    """A slow reference agrees, over several batches and series."""
    sut, expected, time_ns = exporter(), {}, now_ns()
    for points in batches:
        made = ExportMetricsServiceRequest()
        histogram = made.resource_metrics.add().scope_metrics.add().metrics.add(name="h").histogram
        histogram.aggregation_temporality = 2
        for series, exemplars in points:
            time_ns += SECOND // 1000
            point = histogram.data_points.add(time_unix_nano=time_ns, count=3, sum=1, bucket_counts=(1, 1, 1))
            point.explicit_bounds.extend((1, 2))
            point.attributes.add(key="i").value.int_value = series
            for value, offset_ms, has_label in exemplars:
                at_ns = now_ns() + offset_ms * 1_000_000
                add_exemplar(point, value, at_ns, **({"k": f"{value}"} if has_label else {}))
                place = str(series), ("1", "2", "+Inf")[bisect.bisect_left((1, 2), value)]
                if place not in expected or expected[place][1] <= at_ns:
                    expected[place] = value, at_ns, {**IDS, "k": f"{value}"} if has_label else IDS
        consume(sut, made)
    page, _ = sut.render(OPENMETRICS)
    found = {
        (sample.labels["i"], sample.labels["le"]): (
            sample.exemplar.value, round(float(sample.exemplar.timestamp) * 1000), sample.exemplar.labels,
        )
        for family in parse_openmetrics(page.decode())
        for sample in family.samples
        if sample.exemplar
    }  # fmt: skip
    assert found == {place: (value, at_ns // 1_000_000, labels) for place, (value, at_ns, labels) in expected.items()}


def test_labels_that_are_no_longer_shown_are_compacted():
    """The arena stays small however many exemplars come, and those shown keep their labels."""
    sut = exporter()
    for i in range(30):
        made = ExportMetricsServiceRequest()
        counter = made.resource_metrics.add().scope_metrics.add().metrics.add(name="x").sum
        counter.aggregation_temporality, counter.is_monotonic = 2, True
        for j in range(1000):
            point = counter.data_points.add(time_unix_nano=now_ns() + i, as_int=1)
            point.attributes.add(key="j").value.int_value = j
            add_exemplar(point, i, now_ns() + i * 1_000_000, k=f"{i} {j}".rjust(60))
        consume(sut, made)
    assert len(sut._store._exemplars.arena) < 1_200_000
    page = sut.render(OPENMETRICS)[0].decode()
    assert page.count("# {") == 1000
    assert all(f'k="{f"29 {j}".rjust(60)}"' in page for j in range(1000))


def test_the_kernel_checks_numbers_and_slices():
    """An exemplar that does not exist, or whose labels are outside of the arena, is an error and not a wild read."""

    def write(number, start, size):
        records = np.zeros(2, RECORD)
        records[1]["labels"], records[1]["labels_len"] = start, size
        page = Page()
        page.set_exemplars(records.view(np.uint8), np.zeros(4, np.uint8))
        page.numbers(
            b"x", False, np.zeros(1, np.uint8), np.zeros((1, 2), np.int64), np.zeros(1), np.full(1, -1, np.int64),
            np.array([number], np.int32), True,
        )  # fmt: skip

    for arguments in ((2, 0, 0), (1, 2, 3), (1, -1, 1), (1, 0, -1)):
        with pytest.raises(IndexError):
            write(*arguments)
    write(1, 0, 4)
