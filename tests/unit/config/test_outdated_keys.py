"""Keys and component types of older Collectors are accepted, with one warning each that says what to write now."""

import pytest
from pydantic import ValidationError

from collector.registry import Registry
from config import GRPCClientConfig, HTTPClientConfig, HTTPServerConfig, examine, load
from config.dump import dump
from config.schema import json_schema
from connectors.span_metrics.config import SpanMetricsConfig
from exporters.debug import factory as debug
from exporters.debug.logging import factory as logging
from exporters.otlp_grpc import factory as otlp_grpc
from extensions.health_check import factory as health_check
from processors.memory_limiter import factory as memory_limiter
from receivers.otlp import factory as otlp

REGISTRY = Registry.of([otlp, otlp_grpc, debug, logging, health_check, memory_limiter])
OLD = """
receivers:
  otlp: {protocols: {grpc: {tls_settings: {cert_file: c.pem, key_file: k.pem}}}}
processors:
  memory_limiter: {check_interval: 1s, limit_mib: 100, ballast_size_mib: 50}
exporters:
  otlp_grpc: {endpoint: "backend:4317", insecure: true}
  logging: {loglevel: debug}
extensions:
  health_check: {port: 13134}
service:
  extensions: [health_check]
  telemetry: {metrics: {address: "0.0.0.0:9999"}}
  pipelines:
    traces: {receivers: [otlp], processors: [memory_limiter], exporters: [otlp_grpc, logging]}
"""


def test_an_old_file_loads_with_one_warning_for_each_outdated_key():
    """Every warning has the place and the key to write now; the values are where they belong."""
    config = load(["f.yaml"], [], REGISTRY, environ={}, read=lambda path: OLD)
    assert [str(warning) for warning in config.warnings] == [
        "f.yaml:3:29: receivers::otlp::protocols::grpc::tls_settings: this key is outdated; write tls",
        "f.yaml:5:56: processors::memory_limiter::ballast_size_mib: this key is outdated and has no effect; remove it",
        "f.yaml:7:41: exporters::otlp_grpc::insecure: this key is outdated; write tls::insecure",
        (
            "f.yaml:8:3: exporters::logging: the exporter type 'logging' is outdated; write debug, which has the keys "
            "verbosity, sampling_initial and sampling_thereafter as well"
        ),
        "f.yaml:8:13: exporters::logging::loglevel: this key is outdated; write verbosity",
        "f.yaml:10:18: extensions::health_check::port: this key is outdated; write endpoint",
        (
            "f.yaml:13:25: service::telemetry::metrics::address: this key is outdated; write readers: "
            "[{pull: {exporter: {prometheus: {host: ..., port: ...}}}}]"
        ),
    ]
    by_id = {str(component.id): component.config for component in config.exporters.values()}
    assert by_id["otlp_grpc"].tls.insecure
    assert by_id["logging"].verbosity == "detailed"
    (receiver,) = config.receivers.values()
    assert receiver.config.protocols.grpc.tls.cert_file == "c.pem"
    (extension,) = config.extensions.values()
    assert extension.config.endpoint == "0.0.0.0:13134"
    assert config.service.telemetry.metrics.endpoint() == ("0.0.0.0", 9999)


def test_what_is_printed_has_the_present_keys_only():
    """The output of print-config loads again; the only warnings left are about the type logging and the address."""
    config = load(["f.yaml"], [], REGISTRY, environ={}, read=lambda path: OLD)
    text = dump(config)
    assert "tls_settings" not in text
    assert "loglevel" not in text
    again = load(["again.yaml"], [], REGISTRY, environ={}, read=lambda path: text)
    assert dump(again) == text


def test_the_present_key_beside_the_outdated_one_is_an_error():
    """Two different values for one setting cannot both hold."""
    text = OLD.replace("insecure: true", "insecure: true, tls: {insecure: false}")
    found = examine(["f.yaml"], [], REGISTRY, environ={}, read=lambda path: text)
    assert [error.message for error in found.errors] == [
        "insecure is the outdated form of tls::insecure, which is written as well; remove insecure"
    ]
    assert GRPCClientConfig.model_validate({"insecure": True, "tls": {"insecure": True}}).tls.insecure


def test_outdated_keys_are_completed_with_what_is_written_beside_them():
    """A key that moves into a block joins the other keys of that block."""
    config = HTTPClientConfig.model_validate({"ca_file": "ca.pem", "tls": {"server_name_override": "a"}})
    assert (config.tls.ca_file, config.tls.server_name_override) == ("ca.pem", "a")
    server = HTTPServerConfig.model_validate({"cors_allowed_origins": ["*"], "cors_allowed_headers": ["x-a"]})
    assert server.cors is not None
    assert (server.cors.allowed_origins, server.cors.allowed_headers) == (("*",), ("x-a",))
    spans = SpanMetricsConfig.model_validate({"latency_histogram_buckets": ["1ms", "2ms"]})
    assert spans.histogram.explicit is not None
    assert spans.histogram.explicit.buckets == (0.001, 0.002)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("port: 13134", "port: many", "extensions::health_check: port: expected a number between 0 and 65535"),
        ("port: 13134", "port: 70000", "extensions::health_check: port: expected a number between 0 and 65535"),
        ("loglevel: debug", "loglevel: loud", "exporters::logging: loglevel: expected one of debug, info"),
        ("insecure: true", 'insecure: "x"', "exporters::otlp_grpc::tls: "),
        ("insecure: true", "insecure: true, tls: 5", "exporters::otlp_grpc::tls: expected a mapping"),
    ],
)
def test_wrong_values_of_outdated_keys_are_errors(old, new, message):
    """The message names the key that the user has written, or the one it stands for."""
    found = examine(["f.yaml"], [], REGISTRY, environ={}, read=lambda path: OLD.replace(old, new))
    texts = [str(error) for error in found.errors]
    assert len(texts) == 1, texts
    assert message.removesuffix("::tls: ") in texts[0]


def test_editors_show_outdated_keys_as_deprecated():
    """The JSON Schema allows them, and says what to write."""
    definitions = json_schema([health_check])["$defs"]
    port = definitions["HealthCheckConfig"]["properties"]["port"]
    assert port == {"description": "Outdated; write endpoint.", "deprecated": True}
    assert definitions["MetricsTelemetry"]["properties"]["address"]["deprecated"]


def test_an_unknown_key_stays_an_error():
    """Only the keys that a block names are outdated ones."""
    with pytest.raises(ValidationError, match="num_workers"):
        GRPCClientConfig.model_validate({"num_workers": 3})
