"""What the processor adds to the streams: which metrics are converted, counts, expiry, hand-over."""

import pytest

from collector.model import Metrics, MetricsBuilder, Signal
from collector.testing import FakeClock, FakeHost, FakeStorage, RecordingTelemetry, make_settings
from processors.cumulative_to_delta import factory

NOW = FakeClock().time_unix_nano()


def cumulative(value, time, name="http_requests", series="a", start=NOW + 1):
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource({"service.name": "shop"}))
    attributes = [{"series": series}]
    builder.sum(
        scope, name, temporality=2, monotonic=True, times=[NOW + time], start_times=[start], values=[value],
        attributes=attributes,
    )  # fmt: skip
    builder.sum(scope, "level", temporality=2, monotonic=False, times=[NOW + time], values=[value])
    builder.gauge(scope, "gauge", times=[NOW + time], values=[value])
    builder.histogram(
        scope, "latency", temporality=2, times=[NOW + time], start_times=[start], counts=[value],
        bucket_counts=[[value, 0]], bounds=[1.0], sums=[value * 0.5], mins=[0.5], maxs=[0.5], attributes=attributes,
    )  # fmt: skip
    return builder.build()


def processor(clock=None, telemetry=None, **options):
    settings = make_settings(
        factory, signals={Signal.METRICS}, clock=clock or FakeClock(), telemetry=telemetry or RecordingTelemetry()
    )
    return factory.create(settings, factory.config_type.model_validate(options))


def values(batch):
    """Name → (value or count, temporality) of each metric; each has one point."""
    names = batch.field("name", "metrics").to_list()
    temporality = batch.field("temporality", "metrics").tolist()
    numbers = [
        count if type_ == 3 else value
        for type_, value, count in zip(
            batch.field("type", "metrics").tolist(), batch.field("value").tolist(), batch.field("count").tolist(),
            strict=True,
        )
    ]  # fmt: skip
    return dict(zip(names, zip(numbers, temporality, strict=True), strict=True))


def test_monotonic_sums_and_histograms_become_deltas():
    """Everything else passes as it is, and the conversions are counted by type."""
    telemetry = RecordingTelemetry()
    under_test = processor(telemetry=telemetry)
    assert values(under_test.transform(cumulative(5, 10)))["http_requests"] == (5, 1)
    out = under_test.transform(cumulative(12, 20))
    assert values(out) == {"http_requests": (7, 1), "level": (12, 2), "gauge": (12, 0), "latency": (7, 1)}
    assert (out.field("start_time_unix_nano")[[0, 3]] == NOW + 10).all()
    assert out.field("sum")[3] == 3.5
    assert out.field("present")[3] == 1
    Metrics.check(out.wire)
    assert telemetry.value("otelcol_cumulativetodelta_datapoints", metric_type="sum") == 2
    assert telemetry.value("otelcol_cumulativetodelta_datapoints", metric_type="histogram") == 2
    assert telemetry.value("otelcol_cumulativetodelta_streams_tracked") == 2


def test_drops_are_counted_with_their_reason():
    """In the ledger, and in the Collector's metric."""
    telemetry = RecordingTelemetry()
    under_test = processor(telemetry=telemetry, initial_value="drop")
    assert under_test.transform(cumulative(5, 10)).item_count == 2
    assert under_test.transform(cumulative(4, 20)).item_count == 2
    assert dict(telemetry.ledger.dropped) == {(Signal.METRICS, "initial"): 2, (Signal.METRICS, "reset"): 2}
    dropped = "otelcol_cumulativetodelta_datapoints_dropped"
    assert telemetry.value(dropped, metric_type="sum", reason="reset") == 1
    assert telemetry.value(dropped, metric_type="histogram", reason="initial") == 1


@pytest.mark.parametrize(
    ("options", "converted"),
    [
        ({"include": {"match_type": "strict", "metrics": ["latency"]}}, {"latency"}),
        ({"include": {"match_type": "regexp", "metrics": ["^http"]}}, {"http_requests"}),
        ({"include": {"metric_types": ["Histogram"]}}, {"latency"}),
        ({"exclude": {"match_type": "strict", "metrics": ["latency"]}}, {"http_requests"}),
        ({"exclude": {"metric_types": ["sum", "histogram"]}}, set()),
        ({"include": {"match_type": "regexp", "metrics": ["."]}, "exclude": {"metric_types": ["sum"]}}, {"latency"}),
    ],
)
def test_include_and_exclude(options, converted):
    """By name, pattern and type; exclude takes precedence."""
    out = values(processor(**options).transform(cumulative(5, 10)))
    assert {name for name, (_, temporality) in out.items() if temporality == 1} == converted


async def test_stale_streams_are_forgotten_and_live_ones_handed_over():
    """A reload loses no interval."""
    clock = FakeClock()
    first = processor(clock, max_staleness="30s", initial_value="drop")
    await first.start(FakeHost())
    first.transform(cumulative(5, 10))
    await clock.advance(20)
    first.transform(cumulative(6, 20, series="b"))
    await clock.advance(20)
    second = processor(clock, max_staleness="30s", initial_value="drop")
    assert second.take_over(first.hand_over(None))
    assert not second.take_over("something else")
    await first.shutdown()
    await second.start(FakeHost())
    await clock.advance(20)
    assert values(second.transform(cumulative(9, 40, series="b")))["http_requests"] == (3, 1)
    await clock.advance(15)
    assert "http_requests" not in values(second.transform(cumulative(9, 30)))
    await second.shutdown()


def test_streams_beyond_the_limit_are_logged_once():
    """Their points are dropped with the reason ``limit``."""
    telemetry = RecordingTelemetry()
    under_test = processor(telemetry=telemetry, max_streams=2)
    for series in "abc":
        under_test.transform(cumulative(5, 10, series=series))
    assert dict(telemetry.ledger.dropped) == {(Signal.METRICS, "limit"): 4}
    assert len(telemetry.log.of_level("error")) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"include": {"metrics": ["a"]}}, "match_type must be set"),
        ({"include": {"match_type": "strict"}}, "metrics must be given"),
        ({"include": {"match_type": "regexp", "metrics": ["("]}}, "invalid pattern"),
        ({"include": {"metric_types": ["gauge"]}}, "'sum', 'histogram' or 'exponentialhistogram'"),
        ({"initial_value": "x"}, "'auto', 'keep' or 'drop'"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message says what is expected."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)


async def test_deltas_continue_after_a_restart_and_begin_anew_after_a_crash():
    """The interval of the restart is not lost, and no interval is passed on twice."""
    storage, clock = FakeStorage(), FakeClock()
    host = FakeHost(extensions={"disk": storage})
    first = processor(clock, storage="disk")
    await first.start(host)
    assert values(first.transform(cumulative(5, 10)))["http_requests"] == (5, 1)
    await first.shutdown()
    await clock.advance(100)
    second = processor(clock, storage="disk")
    await second.start(host)
    assert values(second.transform(cumulative(12, 20)))["http_requests"] == (7, 1)
    new = cumulative(3, 30, series="b")
    assert values(second.transform(new))["http_requests"] == (3, 1), "it began after the first of the processes"
    third = processor(clock, storage="disk")
    await third.start(host)
    assert "http_requests" not in values(third.transform(cumulative(13, 40)))
