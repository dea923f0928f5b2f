"""Counts of what is in a batch, per resource, by conditions and attributes."""

from collections import Counter

import pytest

from collector.model import Signal, TracesBuilder
from collector.testing import RecordingTelemetry, Sink, logs, make_settings, metrics, traces
from connectors.count import factory


async def counted(batch, telemetry=None, **options):
    """{(metric, service, attributes): count} of what the connector emits."""
    sink = Sink(Signal.METRICS)
    settings = make_settings(
        factory, signals={batch.signal}, outputs={Signal.METRICS: sink}, telemetry=telemetry or RecordingTelemetry()
    )
    await factory.create(settings, factory.config_type.model_validate(options)).consume(batch)
    found = {}
    for out in sink.batches:
        names = out.field("name", "metrics").take(out.ancestor("metrics")).to_list()
        services = out.attribute("service.name", "resources").text.take(out.ancestor("resources")).to_list()
        keys = sorted(set(out.attributes().key.to_list()))
        columns = {key: out.attribute(key) for key in keys}
        for row, (name, service, value) in enumerate(
            zip(names, services, out.field("int_value").tolist(), strict=True)
        ):
            attributes = tuple(
                (key, columns[key].as_text().to_list()[row]) for key in keys if columns[key].present[row]
            )
            found[name, service, attributes] = value
        assert (out.field("temporality", "metrics") == 1).all()
        assert out.field("monotonic", "metrics").all()
    return found


def by_service(batch, mask=None):
    services = batch.attribute("service.name", inherit=True).text.to_list()
    return Counter(service for row, service in enumerate(services) if mask is None or mask[row])


async def test_the_default_metrics_are_the_collectors():
    """One metric for each kind of data, per resource."""
    batch = traces(spans=50, services=3)
    found = await counted(batch)
    events = batch.table("events").parent
    services = batch.attribute("service.name", inherit=True).text.to_list()
    expected = {("trace.span.count", service, ()): count for service, count in by_service(batch).items()}
    event_counts = Counter(services[span] for span in events.tolist())
    expected |= {("trace.span.event.count", service, ()): count for service, count in event_counts.items()}
    assert found == expected
    batch = logs(records=20, services=2)
    assert await counted(batch) == {("log.record.count", service, ()): n for service, n in by_service(batch).items()}
    batch = metrics(points=40, services=2)
    found = await counted(batch)
    assert {key[0] for key in found} == {"metric.count", "metric.datapoint.count"}
    assert sum(n for key, n in found.items() if key[0] == "metric.count") == batch.table("metrics").row_count
    assert sum(n for key, n in found.items() if key[0] == "metric.datapoint.count") == batch.item_count


async def test_conditions_select_what_is_counted():
    """Any of them must hold."""
    batch = traces(spans=100, services=2)
    conditions = ["status.code == STATUS_CODE_ERROR", "kind == SPAN_KIND_SERVER"]
    found = await counted(batch, spans={"picked": {"conditions": conditions}}, spanevents={})
    mask = (batch.field("status_code") == 2) | (batch.field("kind") == 2)
    assert found == {("picked", service, ()): count for service, count in by_service(batch, mask).items()}


async def test_attributes_separate_counts_with_their_types():
    """From the item, or its resource; items without one are counted under the default, or not at all."""
    builder = TracesBuilder()
    for service in ("a", "b"):
        scope = builder.scope(builder.resource({"service.name": service, "zone": "z1"}))
        builder.spans(
            scope,
            names=["x"] * 4,
            trace_ids=[[0, 1]] * 4,
            span_ids=[1, 2, 3, 4],
            start_times=[1] * 4,
            end_times=[2] * 4,
            attributes=[{"code": 200}, {"code": "200"}, {"code": 200, "zone": "z2"}, {}],
        )
    batch = builder.build()
    attributes = [{"key": "code", "default_value": -1}, {"key": "zone"}]
    found = await counted(batch, spans={"n": {"attributes": attributes}}, spanevents={})
    one = {
        (("code", "200"), ("zone", "z1")): 1,
        (("code", "200"), ("zone", "z2")): 1,
        (("code", "-1"), ("zone", "z1")): 1,
    }
    assert {key[2] for key in found} == set(one)
    assert sum(found.values()) == 6  # 200 and "200" have the same text, so one of them is hidden by the other
    missing = await counted(batch, spans={"n": {"attributes": [{"key": "missing"}]}}, spanevents={})
    assert missing == {}


async def test_the_ledger_closes():
    """What is counted is folded, the points are created; nothing is emitted if nothing matches."""
    batch, telemetry = traces(spans=30), RecordingTelemetry()
    found = await counted(batch, telemetry)
    assert telemetry.ledger.folded[Signal.TRACES] == 30
    assert telemetry.ledger.created[Signal.METRICS] == len(found)
    assert await counted(batch, spans={"n": {"conditions": ['name == "none"']}}, spanevents={}) == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metrics": {"n": {"attributes": [{"key": "a"}]}}}, "metrics have no attributes; count datapoints instead"),
        ({"spans": {"n": {"conditions": ["name =="]}}}, "spans::n::conditions"),
        ({"spans": {"": {}}}, "the name of a metric must not be empty"),
    ],
)
def test_impossible_settings_are_refused(options, message):
    """Each message names the metric."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(options)
