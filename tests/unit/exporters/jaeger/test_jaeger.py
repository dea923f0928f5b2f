"""The jaeger exporter is OTLP over gRPC with Jaeger's defaults. The end-to-end tests use a real Jaeger."""

import pytest

from collector.delivery.otlp import OTLPGrpcExporter
from collector.model import Signal
from collector.testing import make_settings
from exporters.jaeger import factory


def test_its_defaults_reach_a_default_jaeger():
    config = factory.config_type()
    assert (config.endpoint, config.tls.insecure, config.compression, config.timeout) == (
        "localhost:4317",
        True,
        "gzip",
        5.0,
    )
    assert isinstance(factory.create(make_settings(factory), config), OTLPGrpcExporter)


def test_a_tls_block_in_the_configuration_means_tls():
    assert not factory.config_type.model_validate({"tls": {"server_name_override": "jaeger"}}).tls.insecure


def test_it_accepts_traces_only():
    assert factory.signals == {Signal.TRACES}


def test_an_empty_endpoint_is_refused():
    with pytest.raises(ValueError, match="endpoint is required"):
        factory.config_type(endpoint="")


def test_the_port_of_the_old_protocol_is_warned_about():
    (warning,) = factory.config_type(endpoint="jaeger-collector:14250").warnings()
    assert warning[0] == "endpoint"
    assert "write jaeger-collector:4317" in warning[1]
    assert list(factory.config_type(endpoint="jaeger:4317").warnings()) == []
