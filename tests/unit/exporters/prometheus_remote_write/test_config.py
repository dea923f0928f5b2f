"""The configuration takes the Collector's keys."""

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import make_settings
from exporters.prometheus_remote_write import factory
from exporters.prometheus_remote_write.config import PrometheusRemoteWriteConfig

ENDPOINT = "http://127.0.0.1:1/api/v1/write"


def test_what_the_collector_prints_as_its_defaults_is_accepted():
    """All keys of its ``print-config``, version 0.156, with the same effect as if they were left out."""
    printed = {
        "add_metric_suffixes": True, "disable_scope_info": False, "endpoint": ENDPOINT, "external_labels": {},
        "force_attempt_http2": True, "idle_conn_timeout": "1m30s", "max_batch_request_parallelism": None,
        "max_batch_size_bytes": 3000000, "max_idle_conns": 100, "namespace": "",
        "protobuf_message": "prometheus.WriteRequest",
        "remote_write_queue": {"enabled": True, "num_consumers": 5, "queue_size": 10000},
        "resource_to_telemetry_conversion": {"enabled": False, "exclude_service_attributes": False},
        "retry_on_failure": {"enabled": True, "initial_interval": "50ms", "max_elapsed_time": "5m0s",
                             "max_interval": "30s", "multiplier": 1.5, "randomization_factor": 0.5},
        "send_metadata": False, "target_info": {"enabled": True}, "timeout": "5s", "translation_strategy": "",
        "wal": None, "write_buffer_size": 524288,
    }  # fmt: skip
    config, default = (PrometheusRemoteWriteConfig.model_validate(keys) for keys in (printed, {"endpoint": ENDPOINT}))
    changed = {"translation_strategy": default.translation_strategy, "http": default.http}
    assert config.model_copy(update=changed) == default
    assert config.http.model_copy(update={"write_buffer_size": 0}) == default.http
    assert config.strategy == default.strategy


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"protobuf_message": "io.prometheus.write.v3.Request"}, r"prometheus\.WriteRequest or io\.prometheus"),
        ({"convert_histograms_to_nhcb": True}, r"protobuf_message: io\.prometheus\.write\.v2\.Request"),
    ],
)
def test_what_is_not_available_is_refused_with_the_alternative(keys, message):
    """A message that does not exist; custom buckets, which only remote write 2.0 has."""
    with pytest.raises(ValueError, match=message):
        PrometheusRemoteWriteConfig.model_validate({"endpoint": ENDPOINT} | keys)


@pytest.mark.parametrize(("keys", "expected"), [({}, 5), ({"max_batch_request_parallelism": 2}, 2)])
def test_requests_of_a_batch_that_are_sent_at_the_same_time(keys, expected):
    """``max_batch_request_parallelism`` takes precedence over the number of consumers."""
    config = PrometheusRemoteWriteConfig.model_validate(
        {"endpoint": ENDPOINT, "target_info": {"enabled": False}} | keys
    )
    sut = factory.create(make_settings(factory, signals={Signal.METRICS}), config)
    made = ExportMetricsServiceRequest()
    gauge = made.resource_metrics.add().scope_metrics.add().metrics.add(name="x").gauge
    for i in range(20_000):
        gauge.data_points.add(time_unix_nano=10**9, as_int=1).attributes.add(key="i").value.int_value = i
    parts = sut.encode(Metrics.from_wire(made.SerializeToString()))
    assert {part.shard for part in parts} == set(range(expected))


@pytest.mark.parametrize("name", ["", "__name__"])
def test_labels_of_every_series_need_a_name_of_their_own(name):
    """An empty one would be left out, and the metric name would be replaced."""
    with pytest.raises(ValueError, match="cannot be the name of a label"):
        PrometheusRemoteWriteConfig.model_validate({"endpoint": ENDPOINT, "external_labels": {name: "x"}})
