"""Exporter jaeger is OTLP over gRPC with Jaeger's defaults. A real Jaeger is in the e2e test."""

import pytest

from collector.delivery.otlp import OTLPGrpcExporter
from collector.model import Signal
from collector.testing import make_settings
from exporters.jaeger import factory


def test_its_defaults_reach_a_jaeger_as_it_comes():
    config = factory.config_type()
    assert (config.endpoint, config.tls.insecure, config.compression, config.timeout) == (
        "localhost:4317",
        True,
        "gzip",
        5.0,
    )
    assert isinstance(factory.create(make_settings(factory), config), OTLPGrpcExporter)


def test_a_tls_block_of_ones_own_means_tls():
    assert not factory.config_type.model_validate({"tls": {"server_name_override": "jaeger"}}).tls.insecure


def test_it_takes_traces_alone():
    assert factory.signals == {Signal.TRACES}


def test_an_empty_endpoint_is_refused():
    with pytest.raises(ValueError, match="endpoint is required"):
        factory.config_type(endpoint="")
