"""Transformations give what the Collector's processor gives, the ledger closes, and bad settings are named."""

import pytest
from metric_processor_cases import cases, data, digest, golden, shown
from pydantic import ValidationError

from collector.model import Metrics, MetricsBuilder, Signal
from collector.testing import RecordingTelemetry, make_settings
from processors.metrics_transform import factory


def processor(*transforms, telemetry=None):
    settings = make_settings(factory, signals={Signal.METRICS}, telemetry=telemetry or RecordingTelemetry())
    return factory.create(settings, factory.config_type.model_validate({"transforms": transforms}))


def ours(transforms):
    """What comes of the data of the cases; the ledger must close."""
    telemetry = RecordingTelemetry()
    try:
        under_test = processor(*transforms, telemetry=telemetry)
    except ValidationError:
        return "refused"
    batch = Metrics.from_wire(data().SerializeToString())
    before = batch.wire
    out = under_test.transform(batch)
    assert batch.wire == before
    if out.wire:
        checked = Metrics.check(out.wire).batch
        for table in ("metrics", "points"):  # the index was carried over
            assert (out.table(table).rows == checked.table(table).rows).all()
    ledger = telemetry.ledger
    known = batch.item_count + ledger.created[Signal.METRICS] - ledger.folded[Signal.METRICS]
    known -= ledger.dropped_count(Signal.METRICS)
    deletes = any(
        operation["action"] == "delete_label_value" for item in transforms for operation in item.get("operations", ())
    )
    assert known == out.item_count or (deletes and known > out.item_count)
    return shown(out.wire)


@pytest.mark.parametrize(("name", "transforms", "difference"), cases())
def test_does_what_the_collector_does(name, transforms, difference):
    """The results that were recorded from the Go collector; what differs on purpose does differ."""
    assert (digest(ours(transforms)) == golden()[name]) == (not difference)


def test_the_case_of_submatches_is_changed():
    """The Collector documents this, and forgets it."""
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    for name in ("http.Get", "http.PUT"):
        builder.gauge(scope, name, times=[1], values=[2.0])
    config = {
        "include": r"http\.(?P<method>.*)", "match_type": "regexp", "action": "combine", "new_name": "http",
        "aggregation_type": "sum", "submatch_case": "lower",
    }  # fmt: skip
    out = processor(config).transform(builder.build())
    assert out.field("name", "metrics").to_list() == ["http"]
    assert sorted(out.attribute("method").text.to_list()) == ["get", "put"]


def test_a_summary_is_left_alone_when_labels_are_aggregated():
    """Quantiles cannot be merged; the Collector drops such points."""
    builder = MetricsBuilder()
    scope = builder.scope(builder.resource())
    builder.summary(
        scope, "pause", times=[1], counts=[1], sums=[1.0], quantiles=[0.5], quantile_values=[[1.0]],
        attributes=[{"a": "b"}],
    )  # fmt: skip
    config = {
        "include": "pause", "action": "update",
        "operations": [{"action": "aggregate_labels", "aggregation_type": "sum"}],
    }  # fmt: skip
    batch = builder.build()
    assert processor(config).transform(batch).wire == batch.wire


def test_what_matches_nothing_is_the_same_object():
    """No byte is copied for metrics that no transformation is about."""
    batch = Metrics.from_wire(data().SerializeToString())
    assert processor({"include": "x", "action": "update", "new_name": "y"}).transform(batch) is batch
    assert processor().transform(batch) is batch


def test_metrics_that_cannot_be_combined_are_named():
    """They stay as they are."""
    telemetry = RecordingTelemetry()
    batch = Metrics.from_wire(data().SerializeToString())
    config = {
        "include": "^system", "match_type": "regexp", "action": "combine", "new_name": "x", "aggregation_type": "sum",
    }  # fmt: skip
    assert processor(config, telemetry=telemetry).transform(batch).wire == batch.wire
    (warning,) = telemetry.log.of_level("warning")
    assert "different types" in warning.event
    assert warning.fields["metrics"] == ["system.cpu.usage", "system.memory.usage"]


def test_points_that_are_lost_with_their_metric_are_counted():
    """A group takes the points that match the labels, and as in the Collector the others are lost."""
    telemetry = RecordingTelemetry()
    batch = Metrics.from_wire(data().SerializeToString())
    config = {
        "include": "system.cpu.time", "action": "group", "group_resource_labels": {"a": "b"},
        "experimental_match_labels": {"state": "user"},
    }  # fmt: skip
    out = processor(config, telemetry=telemetry).transform(batch)
    lost = telemetry.ledger.dropped_count(Signal.METRICS, "other_labels")
    assert lost > 0
    assert out.item_count + lost == batch.item_count


@pytest.mark.parametrize(
    ("transform", "key"),
    [
        ({"include": "x", "action": "insert"}, "new_name"),
        ({"include": "x", "action": "combine", "new_name": "y"}, "aggregation_type"),
        ({"include": "x", "action": "group"}, "group_resource_labels"),
        ({"include": "(", "action": "update", "match_type": "regexp"}, "invalid pattern"),
        ({"include": "x", "action": "update", "operations": [{"action": "update_label"}]}, "label"),
        ({"include": "x", "action": "update", "operations": [{"action": "experimental_scale_value"}]}, "scale"),
    ],
)
def test_what_is_missing_is_named(transform, key):
    """Each error names the key."""
    with pytest.raises(ValidationError, match=key.replace("(", r"\(")):
        factory.config_type.model_validate({"transforms": [transform]})


def test_an_aggregation_without_a_type_is_warned_about():
    """The Collector accepts it, and keeps one value of many."""
    transform = {"include": "x", "action": "update", "operations": [{"action": "aggregate_labels"}]}
    config = factory.config_type.model_validate({"transforms": [transform]})
    assert [key for key, _ in config.warnings()] == ["transforms[0].operations[0].aggregation_type"]
