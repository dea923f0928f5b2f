"""Exceptions are counted by their dimensions, and become log records."""

from collections import Counter

import pytest

from collector.model import Events, LogsBuilder, Signal, TracesBuilder
from collector.testing import FakeClock, RecordingTelemetry, Sink, make_settings, traces
from connectors.exceptions import factory


def failing(messages=("boom", "boom", "bang"), service="shop", name="GET /"):
    """Spans, each with an exception (or None for an ordinary event)."""
    builder = TracesBuilder()
    scope = builder.scope(builder.resource({"service.name": service} if service else {}), "lib", "1.0")
    count = len(messages)
    builder.spans(
        scope,
        names=[name] * count,
        trace_ids=[[0, number + 1] for number in range(count)],
        span_ids=list(range(1, count + 1)),
        start_times=[10] * count,
        end_times=[20] * count,
        kinds=[2] * count,
        status_codes=[2] * count,
        attributes=[{"http.route": "/", "n": number} for number in range(count)],
        events=Events.of(
            [
                [
                    {
                        "name": "log" if message is None else "exception",
                        "time_unix_nano": 15 + number,
                        "attributes": {
                            "exception.type": "ValueError",
                            "exception.message": message or "",
                            "exception.stacktrace": f"at line {number}",
                        },
                    }
                ]
                for number, message in enumerate(messages)
            ]
        ),
    )
    return builder.build()


def connector(telemetry=None, outputs=(Signal.METRICS, Signal.LOGS), **options):
    sinks = {signal: Sink(signal) for signal in outputs}
    settings = make_settings(factory, outputs=sinks, telemetry=telemetry or RecordingTelemetry(), clock=FakeClock())
    return factory.create(settings, factory.config_type.model_validate(options)), sinks


def points(batch):
    """{(dimension values): count}."""
    keys = sorted(set(batch.attributes().key.to_list()))
    columns = {key: batch.attribute(key).as_text().to_list() for key in keys}
    return {
        tuple((key, columns[key][row]) for key in keys if columns[key][row] is not None): value
        for row, value in enumerate(batch.field("int_value").tolist())
    }


async def test_the_metric_counts_exceptions():
    """By service, span and the configured dimensions; totals go on with every batch."""
    telemetry = RecordingTelemetry()
    under_test, sinks = connector(telemetry, outputs=[Signal.METRICS])
    await under_test.consume(failing(("boom", "boom", "bang", None)))
    await under_test.consume(failing(("boom",)))
    common = (("service.name", "shop"), ("span.kind", "SPAN_KIND_SERVER"), ("span.name", "GET /"))
    common += (("status.code", "STATUS_CODE_ERROR"),)

    def series(message):
        return (("exception.message", message), ("exception.type", "ValueError"), *common)

    first, second = sinks[Signal.METRICS].batches
    assert points(first) == {series("boom"): 2, series("bang"): 1}
    assert points(second) == {series("boom"): 3}
    assert first.field("name", "metrics").to_list() == ["exceptions"]
    assert (first.field("temporality", "metrics")[0], first.field("monotonic", "metrics")[0]) == (2, 1)
    assert first.field("name", "scopes").to_list() == ["exceptionsconnector"]
    assert set(first.field("start_time_unix_nano").tolist()) == set(second.field("start_time_unix_nano").tolist())
    assert telemetry.ledger.folded[Signal.TRACES] == 5
    assert telemetry.ledger.created[Signal.METRICS] == 3


async def test_dimensions_come_from_span_event_and_resource():
    """The span's attribute takes precedence; without any, the default, or nothing."""
    dimensions = [
        {"name": "http.route"},
        {"name": "exception.type"},
        {"name": "missing"},
        {"name": "other", "default": "d"},
    ]
    under_test, sinks = connector(outputs=[Signal.METRICS], dimensions=dimensions)
    await under_test.consume(failing(("boom",)))
    ((key, count),) = points(sinks[Signal.METRICS].batches[0]).items()
    found = dict(key)
    assert (found["http.route"], found["exception.type"], found["other"], count) == ("/", "ValueError", "d", 1)
    assert "missing" not in found


async def test_records_have_the_attributes_of_the_span():
    """And time, ids, severity, dimensions and stack trace of the exception."""
    telemetry = RecordingTelemetry()
    under_test, sinks = connector(telemetry)
    await under_test.consume(failing(("boom", None, "bang")))
    (batch,) = sinks[Signal.LOGS].batches
    assert batch.item_count == telemetry.ledger.created[Signal.LOGS] == 2
    assert batch.field("time_unix_nano").tolist() == [15, 17]
    assert batch.field("severity_number").tolist() == [17, 17]
    assert batch.field("severity_text").to_list() == ["ERROR", "ERROR"]
    assert batch.field("trace_id").tolist() == [[0, 1], [0, 3]]
    assert batch.field("span_id").tolist() == [1, 3]
    assert batch.attribute("n").int.tolist() == [0, 2]
    assert batch.attribute("exception.message").text.to_list() == ["boom", "bang"]
    assert batch.attribute("exception.stacktrace").text.to_list() == ["at line 0", "at line 2"]
    assert batch.attribute("service.name").text.to_list() == ["shop", "shop"]
    assert batch.field("name", "scopes").to_list() == ["lib"]


async def test_exceptions_in_logs_are_counted():
    """Records named ``exception``, without the dimensions of a span."""
    builder = LogsBuilder()
    scope = builder.scope(builder.resource({"service.name": "shop"}))
    attributes = [{"exception.type": "KeyError"}] * 3
    builder.records(scope, times=[1, 2, 3], event_names=["exception", "other", "exception"], attributes=attributes)
    under_test, sinks = connector(outputs=[Signal.METRICS])
    await under_test.consume(builder.build())
    assert points(sinks[Signal.METRICS].batches[0]) == {(("exception.type", "KeyError"), ("service.name", "shop")): 2}


async def test_exemplars_are_the_spans():
    """One for each exception, on the point of its series."""
    under_test, sinks = connector(outputs=[Signal.METRICS], exemplars={"enabled": True})
    await under_test.consume(failing(("boom", "bang", "boom")))
    (batch,) = sinks[Signal.METRICS].batches
    owners = batch.table("exemplars").parent.tolist()
    assert Counter(owners) == {0: 2, 1: 1}
    assert sorted(batch.field("span_id", "exemplars").tolist()) == [1, 2, 3]


async def test_series_are_bounded():
    """Further exceptions are counted together, known ones go on; the log says so."""
    telemetry = RecordingTelemetry()
    under_test, sinks = connector(telemetry, outputs=[Signal.METRICS], max_series=2)
    await under_test.consume(failing(("a", "b", "c", "d")))
    await under_test.consume(failing(("a", "e")))
    first, second = (points(batch) for batch in sinks[Signal.METRICS].batches)
    overflow = (("otel.metric.overflow", "true"),)
    assert first[overflow] == 2
    assert second[overflow] == 3
    assert sorted(second.values()) == [2, 3]
    assert len(telemetry.log.of_level("warning")) == 1


async def test_nothing_is_emitted_without_exceptions():
    """Neither for ordinary spans nor for resources without a service."""
    under_test, sinks = connector()
    await under_test.consume(failing((None,)))
    await under_test.consume(failing(("boom",), service=""))
    await under_test.consume(traces(spans=3).select(traces(spans=3).field("kind") > 99))
    assert not any(sink.batches for sink in sinks.values())


async def test_a_reload_continues_the_counts():
    """If the dimensions are the same."""
    first, _ = connector(outputs=[Signal.METRICS])
    await first.consume(failing(("boom",)))
    second, sinks = connector(outputs=[Signal.METRICS])
    assert second.take_over(first.hand_over(factory.config_type()))
    await second.consume(failing(("boom",)))
    assert list(points(sinks[Signal.METRICS].batches[0]).values()) == [2]
    assert first.hand_over(factory.config_type.model_validate({"dimensions": []})) is None
    assert not second.take_over(object())


@pytest.mark.parametrize("name", ["service.name", "exception.type"])
def test_a_dimension_is_there_once(name):
    """Neither a built-in one nor one of the list can be repeated."""
    dimensions = [{"name": "exception.type"}, {"name": name}]
    with pytest.raises(ValueError, match="is there already"):
        factory.config_type.model_validate({"dimensions": dimensions})
