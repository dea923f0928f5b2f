"""What the processor adds to the streams: counts, limits, expiry, hand-over."""

from collector.model import MetricsBuilder, Signal
from collector.testing import FakeClock, FakeHost, FakeStorage, RecordingTelemetry, make_settings
from processors.delta_to_cumulative import factory


def delta(value, start, time, series="a"):
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    builder.sum(
        scope, "requests", temporality=1, monotonic=True, times=[time], start_times=[start], values=[value],
        attributes=[{"series": series}],
    )  # fmt: skip
    builder.gauge(scope, "gauge", times=[time], values=[value])
    return builder.build()


def processor(clock=None, telemetry=None, **options):
    settings = make_settings(
        factory, signals={Signal.METRICS}, clock=clock or FakeClock(), telemetry=telemetry or RecordingTelemetry()
    )
    return factory.create(settings, factory.config_type.model_validate(options))


def total(batch):
    """(value, start, time, temporality) of the sum, or None if it was dropped."""
    names = batch.field("name", "metrics").to_list()
    if "requests" not in names:
        return None
    return (
        batch.field("value")[0],
        *(batch.field(f"{name}time_unix_nano")[0] for name in ("start_", "")),
        batch.field("temporality", "metrics")[0],
    )


def test_deltas_add_up():
    """Each point has the start of its stream and the total up to its time; gauges pass."""
    telemetry = RecordingTelemetry()
    under_test = processor(telemetry=telemetry)
    assert total(under_test.transform(delta(5, 10, 20))) == (5, 10, 20, 2)
    assert total(under_test.transform(delta(7, 20, 30))) == (12, 10, 30, 2)
    assert total(under_test.transform(delta(1, 20, 30))) is None
    assert total(under_test.transform(delta(1, 5, 40))) is None
    assert dict(telemetry.ledger.dropped) == {(Signal.METRICS, "out_of_order"): 1, (Signal.METRICS, "older_start"): 1}
    datapoints = "otelcol_deltatocumulative_datapoints"
    assert telemetry.value(datapoints, error="") == 2
    assert telemetry.value(datapoints, error="out_of_order") == 1
    assert telemetry.value("otelcol_deltatocumulative_streams_tracked") == 1
    assert telemetry.value("otelcol_deltatocumulative_streams_limit") == 500_000
    assert telemetry.value("otelcol_deltatocumulative_streams_max_stale") == 300


async def test_a_stale_stream_begins_again_and_a_reload_continues():
    """Totals survive a reload; those without points for max_stale are forgotten."""
    clock = FakeClock()
    first = processor(clock, max_stale="30s")
    await first.start(FakeHost())
    first.transform(delta(5, 10, 20))
    await clock.advance(20)
    first.transform(delta(5, 10, 20, series="b"))
    await clock.advance(20)
    second = processor(clock, max_stale="30s")
    assert second.take_over(first.hand_over(None))
    assert not second.take_over(None)
    await first.shutdown()
    await second.start(FakeHost())
    await clock.advance(20)
    assert total(second.transform(delta(7, 20, 30, series="b"))) == (12, 10, 30, 2)
    await clock.advance(15)
    assert total(second.transform(delta(7, 20, 30))) == (7, 20, 30, 2)
    await second.shutdown()


def test_the_limit_holds_and_is_logged_once():
    """Known streams go on, points of further ones are dropped."""
    telemetry = RecordingTelemetry()
    under_test = processor(telemetry=telemetry, max_streams=1)
    assert total(under_test.transform(delta(5, 10, 20))) == (5, 10, 20, 2)
    for series in "bc":
        assert total(under_test.transform(delta(5, 10, 20, series=series))) is None
    assert total(under_test.transform(delta(5, 20, 30))) == (10, 10, 30, 2)
    assert dict(telemetry.ledger.dropped) == {(Signal.METRICS, "limit"): 2}
    assert len(telemetry.log.of_level("error")) == 1


async def test_totals_continue_after_a_restart_and_begin_anew_after_a_crash():
    """What was saved when the process ended is used once."""
    storage, clock = FakeStorage(), FakeClock()
    host = FakeHost(extensions={"disk": storage})
    first = processor(clock, storage="disk")
    await first.start(host)
    assert total(first.transform(delta(5, 10, 20))) == (5, 10, 20, 2)
    await first.shutdown()
    second = processor(clock, storage="disk")
    await second.start(host)
    assert total(second.transform(delta(7, 20, 30))) == (12, 10, 30, 2)
    third = processor(clock, storage="disk")
    await third.start(host)
    assert total(third.transform(delta(1, 30, 40))) == (1, 30, 40, 2)


async def test_a_processor_that_hands_over_saves_nothing():
    """The successor's totals are newer."""
    storage, clock = FakeStorage(), FakeClock()
    host = FakeHost(extensions={"disk": storage})
    first, second = processor(clock, storage="disk"), processor(clock, storage="disk")
    await first.start(host)
    first.transform(delta(5, 10, 20))
    assert second.take_over(first.hand_over(None))
    await first.shutdown()
    assert [state.value for state in storage.states.values()] == [None]
    await second.start(host)
    assert total(second.transform(delta(7, 20, 30))) == (12, 10, 30, 2)
    await second.shutdown()
    assert [bool(state.value) for state in storage.states.values()] == [True]
