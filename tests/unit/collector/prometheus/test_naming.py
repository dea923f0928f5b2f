"""Names and labels agree with the examples of the specifications."""

import dataclasses
import json
from pathlib import Path

import pytest
from held_memory import assert_bounded

from collector.prometheus import (
    UP_DOWN_COUNTER,
    LabelSettings,
    SeriesLabels,
    escape_by_values,
    escape_label_name,
    metric_name,
    prometheus_type,
)

ROWS = json.loads((Path(__file__).parents[3] / "data/prometheus_names.json").read_text(encoding="utf-8"))
"""Name, unit; with suffixes: the names of a gauge, of a counter, of other types; without suffixes: the name; unescaped
with suffixes: as before. They are those of Prometheus 3's OTLP endpoint (tests/e2e/test_prometheus_names.py)."""


@pytest.mark.parametrize(
    ("name", "unit", "kind", "expected"),
    [
        ("http.server.request.duration", "s", "histogram", "http_server_request_duration_seconds"),
        ("http.server.duration", "ms", "histogram", "http_server_duration_milliseconds"),
        ("http_requests_total", "", "counter", "http_requests_total"),
        ("http_requests", "", "counter", "http_requests_total"),
        ("total_requests", "", "counter", "requests_total"),
        ("system.filesystem.usage", "By", "gauge", "system_filesystem_usage_bytes"),
        ("cache_hit_rate", "1", "gauge", "cache_hit_rate_ratio"),
        ("hit.ratio", "1", "gauge", "hit_ratio"),
        ("jobs", "{job}", "gauge", "jobs"),
        ("disk.io", "By/s", "gauge", "disk_io_bytes_per_second"),
        ("io", "TiBy", "gauge", "io_tibibytes"),
        ("request_duration_seconds", "s", "histogram", "request_duration_seconds"),
        ("1st", "", "gauge", "_1st"),
        ("a..b__c", "", "gauge", "a_b_c"),
        ("weird", "foo bar", "gauge", "weird_foo_bar"),
        ("___", "", "gauge", ""),
    ],
)
def test_metric_names_follow_the_translator(name, unit, kind, expected):
    """The default strategy produces the names that Prometheus produces."""
    assert metric_name(name, unit, kind) == expected


def test_other_strategies_and_namespace():
    """Every strategy of the translator is supported."""
    assert metric_name("a.b", "s", "counter", "UnderscoreEscapingWithoutSuffixes") == "a_b"
    assert metric_name("a.b", "s", "counter", "NoUTF8EscapingWithSuffixes") == "a.b_seconds_total"
    assert metric_name("a.b", "s", "counter", "NoTranslation") == "a.b"
    assert metric_name("a.b", "s", "gauge", namespace="ns") == "ns_a_b_seconds"


@pytest.mark.parametrize("kind", ["gauge", "counter", UP_DOWN_COUNTER, "histogram", "summary"])
def test_names_are_those_of_prometheus_otlp_endpoint(kind):
    """For every name and unit of the table, every type and every strategy."""
    column = {"gauge": 0, "counter": 1}.get(kind, 2)
    for name, unit, escaped, without_suffixes, unescaped in ROWS:
        found = [
            metric_name(name, unit, kind, strategy)
            for strategy in (
                "UnderscoreEscapingWithSuffixes",
                "UnderscoreEscapingWithoutSuffixes",
                "NoUTF8EscapingWithSuffixes",
                "NoTranslation",
            )
        ]
        assert found == [escaped[column], without_suffixes, unescaped[column], name], (name, unit)


def test_a_namespace_is_escaped_where_names_are():
    """A namespace is a setting of the exporter that Prometheus' endpoint does not have."""
    assert metric_name("a", "s", "gauge", namespace="my-ns") == "my_ns_a_seconds"
    assert metric_name("a", "s", "gauge", "UnderscoreEscapingWithoutSuffixes", "1.x") == "_1_x_a"
    assert metric_name("a", "s", "gauge", "NoTranslation", "my-ns") == "my-ns_a"
    assert metric_name("", "", "gauge", "NoUTF8EscapingWithSuffixes", "ns") == ""


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.b", "a_b"), ("0a", "key_0a"), ("_x", "key_x"), ("__x", "__x"), ("a..b", "a__b"), ("ok", "ok"),
        ("é", "key_"), ("éa", "key_a"), ("имяa", "___a"), ("", ""), ("__", "__"),
    ],
)  # fmt: skip
def test_label_names_by_default_are_prometheus_own(key, expected):
    """Runs of underscores are kept, and a leading underscore gets a prefix."""
    assert escape_label_name(key) == expected


def test_label_keys_without_a_valid_character_stay_apart():
    """Prometheus refuses them; dropping them would make one series of several."""
    names = {escape_label_name(key) for key in ("ключ", "имя", "温度", "度数", "é:", "éé_")}
    assert len(names) == 6
    assert all(name.isascii() and name.replace("_", "a").isalnum() for name in names)
    assert escape_label_name("é:") == "U___e9__3a_"
    assert escape_label_name("имя", utf8=True) == "имя"
    assert escape_by_values("9a_é") == "U___39_a___e9_"
    labels = [
        SeriesLabels(LabelSettings(scope_info=False)).series([(key, "x")], [], ("", "", "", []))
        for key in ("ключ", "имя", "温度")
    ]
    assert len({tuple(found) for found in labels}) == 3


@pytest.mark.parametrize("strategy", ["UnderscoreEscapingWithSuffixes", "NoTranslation"])
def test_label_names_are_remembered_in_little_memory(strategy):
    """However many attribute keys there are, and however long."""
    labels = SeriesLabels(LabelSettings(strategy=strategy))
    assert_bounded(labels.name)


def test_label_names_the_collectors_way():
    """Both settings exist because implementations differ."""
    assert escape_label_name("a..b", preserve_multiple_underscores=False) == "a_b"
    assert escape_label_name("__y", preserve_multiple_underscores=False) == "key_y"
    assert escape_label_name("_y", sanitize_leading_underscore=False) == "_y"
    assert escape_label_name("ключ", preserve_multiple_underscores=False) == "key_"


def test_colliding_attributes_are_joined_in_key_order():
    """a.b=1 and a_b=2 become a_b="1;2"."""
    labels = SeriesLabels(LabelSettings(scope_info=False)).series([("a_b", "2"), ("a.b", "1")], [], ("", "", "", []))
    assert labels == [("a_b", "1;2")]


def test_precedence_and_omission():
    """``job`` and ``instance`` override attributes, external labels do not; empty values get no label."""
    settings = LabelSettings(
        external_labels={"job": "x", "env": "prod", "k": "external"}, resource_attributes=("host.*",)
    )
    labels = dict(
        SeriesLabels(settings).series(
            [("job", "attr"), ("k", "v"), ("empty", ""), ("__name__", "bad")],
            [
                ("service.name", "api"),
                ("service.namespace", "shop"),
                ("service.instance.id", "1"),
                ("host.name", "h"),
                ("os.type", "linux"),
            ],
            ("lib", "1.0", "", [("name", "dropped"), ("x", "y")]),
        )
    )
    assert labels == {
        "job": "shop/api", "instance": "1", "k": "v", "env": "prod", "host_name": "h",
        "otel_scope_name": "lib", "otel_scope_version": "1.0", "otel_scope_x": "y",
    }  # fmt: skip


def test_service_attributes_can_be_left_out_of_promoted_ones():
    """They are ``job`` and ``instance``; an explicit glob still promotes them."""
    resource = [("service.name", "api"), ("service.instance.id", "1"), ("host.name", "h")]
    every = LabelSettings(scope_info=False, promote_all_resource_attributes=True)
    assert dict(SeriesLabels(every).series([], resource, ("", "", "", []))).keys() == {
        "host_name", "instance", "job", "service_instance_id", "service_name",
    }  # fmt: skip
    settings = dataclasses.replace(every, exclude_service_attributes=True)
    assert dict(SeriesLabels(settings).series([], resource, ("", "", "", []))).keys() == {
        "host_name",
        "instance",
        "job",
    }
    settings = dataclasses.replace(settings, resource_attributes=("service.name",))
    assert "service_name" in dict(SeriesLabels(settings).series([], resource, ("", "", "", [])))


def test_target_info_needs_identity_and_something_to_say():
    """A resource without identity, or with only identifying attributes, has no target_info."""
    labels = SeriesLabels(LabelSettings())
    assert labels.target_info([("host.name", "h")]) is None
    assert labels.target_info([("service.name", "a")]) is None
    assert labels.target_info([("service.name", "a"), ("host.name", "h")]) == [("host_name", "h"), ("job", "a")]


def test_types():
    """Delta and unspecified temporality have no Prometheus type."""
    assert prometheus_type(2, 2, 1) == "counter"
    assert prometheus_type(2, 2, 0) == "gauge"
    assert prometheus_type(2, 1, 1) == ""
    assert prometheus_type(3, 0, 0) == ""
    assert prometheus_type(5, 0, 0) == "summary"


def test_a_name_without_valid_characters_is_that_of_its_unit():
    """As Prometheus' OTLP endpoint names it; without a unit there is none."""
    assert metric_name("温度", "Cel", "gauge") == "celsius"
    assert metric_name("温度", "By", "counter") == "bytes_total"
    assert metric_name("温度", "", "gauge") == ""
    assert metric_name("温度", "", "gauge", namespace="ns") == ""
    assert metric_name("温度", "", "gauge", "UnderscoreEscapingWithoutSuffixes", namespace="ns") == ""
