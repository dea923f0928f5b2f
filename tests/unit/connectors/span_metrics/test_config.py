"""Which configurations span_metrics accepts, and which it refuses with which message."""

import pytest
from pydantic import ValidationError

from connectors.span_metrics import factory
from connectors.span_metrics.config import SpanMetricsConfig


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ({"dimensions": [{"name": "a", "glob": "b"}]}, "exactly one of name and glob"),
        ({"dimensions": [{}]}, "exactly one of name and glob"),
        ({"dimensions": [{"glob": "a.*", "default": "x"}]}, "default can only be used together with name"),
        ({"dimensions": [{"glob": "a.["}]}, "not closed"),
        ({"dimensions": [{"glob": "a.{b"}]}, "not closed"),
        ({"dimensions": [{"glob": "a\\"}]}, "backslash"),
        ({"dimensions": [{"glob": "[-a]"}]}, "not a set of characters"),
        ({"dimensions": [{"glob": "x" * 300}]}, "at most 256"),
        ({"dimensions": [{"name": "span.name"}]}, "already a dimension"),
        ({"dimensions": [{"name": "a"}, {"name": "a"}]}, "already a dimension"),
        ({"dimensions": [{"name": "a"}], "calls_dimensions": [{"name": "a"}]}, "calls_dimensions"),
        ({"dimensions": [{"name": "a"}], "histogram": {"dimensions": [{"name": "a"}]}}, "histogram::dimensions"),
        ({"dimensions": [{"glob": "**"}]}, "matches 'service.name'"),
        ({"dimensions": [{"name": "a.b"}, {"glob": "a.*"}]}, "matches 'a.b'"),
        (
            {"include_collector_instance_id": True, "dimensions": [{"name": "collector.instance.id"}]},
            "already a dimension",
        ),
        ({"events": {"enabled": True}}, "events.enabled requires dimensions"),
        ({"events": {"enabled": True, "dimensions": [{"name": "span.kind"}]}}, "events::dimensions"),
        ({"histogram": {"explicit": {"buckets": ["1s", "1s"]}}}, "ascending order"),
        ({"histogram": {"explicit": {"buckets": ["0s", "1s"]}}}, "greater than 0"),
        ({"histogram": {"explicit": {}, "exponential": {}}}, "not both"),
        ({"histogram": {"exponential": {"max_size": 1}}}, "at least 2"),
        ({"histogram": {"exponential": {"max_size": 20000}}}, "16384"),
        ({"histogram": {"unit": "us"}}, "'ms' or 's'"),
        ({"metrics_flush_interval": "0"}, "greater than 0"),
        ({"metrics_flush_interval": "-1s"}, "greater than 0"),
        ({"metrics_expiration": "-1s"}, "greater than or equal to 0"),
        ({"series_expiration": "-1s"}, "greater than or equal to 0"),
        ({"aggregation_temporality": "DELTA"}, "AGGREGATION_TEMPORALITY_DELTA"),
        ({"aggregation_temporality": "AGGREGATION_TEMPORALITY_DELTA", "metric_timestamp_cache_size": 0}, "at least 1"),
        ({"aggregation_cardinality_limit": -1}, "greater than or equal to 0"),
        ({"max_series": 0}, "greater than or equal to 1"),
        ({"resource_metrics_cache_size": 0}, "greater than or equal to 1"),
        ({"exemplars": {"max_per_data_point": -1}}, "greater than or equal to 0"),
        ({"exemplars": {"max_per_data_point": 1000}}, "100"),
        ({"exclude_dimensions": ["span.names"]}, "got 'span.names'"),
        ({"kinds": ["SERVER", "SERVER"]}, "twice"),
        ({"kinds": ["server"]}, "SERVER"),
        ({"status_label": "status_code"}, "no effect without names: http"),
        ({"names": "http", "namespace": "x"}, "namespace has no effect"),
        ({"names": "http", "histogram": {"unit": "ms"}}, "unit must be 's'"),
        ({"names": "http", "dimensions": [{"name": "status"}]}, "already a dimension"),
        ({"names": "http", "exclude_dimensions": ["span.name"]}, "any of method, endpoint, status"),
        ({"surprise": 1}, "Extra inputs"),
    ],
)
def test_refuses(raw, message):
    """A key out of range or a contradiction is an error whose message names the key."""
    with pytest.raises(ValidationError) as caught:
        SpanMetricsConfig.model_validate(raw)
    assert message in str(caught.value)


def test_accepts_the_example_of_the_collectors_readme():
    """The example uses every key."""
    config = SpanMetricsConfig.model_validate(
        {
            "namespace": "span.metrics",
            "histogram": {
                "unit": "MS",
                "dimensions": [{"name": "url.scheme", "default": "https"}],
                "explicit": {"buckets": ["100us", "1ms", "2ms", "250ms"]},
            },
            "dimensions": [
                {"name": "http.method", "default": "GET"},
                {"name": "http.status_code"},
                {"glob": "k8s.*.name"},
                {"glob": "db.**.name"},
            ],
            "calls_dimensions": [{"name": "http.url", "default": "/ping"}],
            "exemplars": {"enabled": True, "max_per_data_point": 4},
            "exclude_dimensions": ["status.code"],
            "aggregation_temporality": "AGGREGATION_TEMPORALITY_CUMULATIVE",
            "metrics_flush_interval": "15s",
            "metrics_expiration": "5m",
            "series_expiration": "5m",
            "events": {"enabled": True, "dimensions": [{"name": "exception.type"}, {"name": "exception.message"}]},
            "resource_metrics_key_attributes": ["service.name", "telemetry.sdk.language"],
            "resource_metrics_cache_size": 100,
            "include_instrumentation_scope": ["express"],
            "dimensions_cache_size": 1000,
            "metric_timestamp_cache_size": 10,
            "aggregation_cardinality_limit": 5,
            "add_resource_attributes": True,
            "enable_metrics_sampling_method": True,
            "include_collector_instance_id": True,
        }
    )
    assert config.histogram.bounds == (0.1, 1.0, 2.0, 250.0)
    assert factory.config_type is SpanMetricsConfig
    assert factory.aliases == ("spanmetrics",)


def test_defaults_are_the_collectors_except_for_the_series_limit():
    config = SpanMetricsConfig()
    assert (config.metrics_flush_interval, config.metrics_expiration, config.series_expiration) == (60, 0, 0)
    assert (config.namespace, config.histogram.unit, config.resource_metrics_cache_size) == (
        "traces.span.metrics",
        "ms",
        1000,
    )
    assert (config.exemplars.max_per_data_point, config.events.enabled, config.timestamp_cache_size) == (
        5,
        False,
        10_000,
    )
    assert (config.aggregation_cardinality_limit, config.is_delta) == (2000, False)


def test_names_http_is_in_seconds_and_counts_servers():
    config = SpanMetricsConfig.model_validate({"names": "http", "histogram": {"explicit": {"buckets": ["1ms"]}}})
    assert (config.histogram.unit, config.histogram.bounds, config.counted_kinds) == ("s", (0.001,), ("SERVER",))


def test_an_empty_list_of_buckets_is_one_bucket():
    """This is what the Collector does; null means the defaults."""
    assert SpanMetricsConfig.model_validate({"histogram": {"explicit": {"buckets": []}}}).histogram.bounds == ()
    assert len(SpanMetricsConfig.model_validate({"histogram": {"explicit": {"buckets": None}}}).histogram.bounds) == 16
