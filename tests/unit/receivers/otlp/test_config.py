"""The receiver has the Collector's keys and defaults."""

import pytest
from pydantic import ValidationError

from receivers.otlp.config import OTLPConfig


def load(protocols):
    return OTLPConfig.model_validate({"protocols": protocols})


def test_defaults_are_the_collectors():
    """Every key has the Collector's default."""
    config = load({"grpc": None, "http": {}})
    assert (config.protocols.grpc.endpoint, config.protocols.http.endpoint) == ("localhost:4317", "localhost:4318")
    assert config.protocols.http.max_request_body_size == 64 * 1024 * 1024
    assert (
        config.protocols.http.traces_url_path,
        config.protocols.http.metrics_url_path,
        config.protocols.http.logs_url_path,
    ) == (
        "/v1/traces",
        "/v1/metrics",
        "/v1/logs",
    )
    assert (
        config.protocols.http.read_header_timeout,
        config.protocols.http.write_timeout,
        config.protocols.http.idle_timeout,
    ) == (0, 0, 0)


@pytest.mark.parametrize("present", ["grpc", "http"])
def test_protocol_is_on_only_if_its_key_is_there(present):
    """``grpc:`` without a value enables the protocol."""
    protocols = load({present: None}).protocols
    assert {name: getattr(protocols, name) is not None for name in ("grpc", "http")} == {
        "grpc": present == "grpc",
        "http": present == "http",
    }


@pytest.mark.parametrize("written", [{}, {"protocols": None}, {"protocols": {}}])
def test_no_protocol_is_an_error(written):
    """With the Collector's message if ``protocols`` is empty, as a missing key if it is absent."""
    with pytest.raises(ValidationError, match=r"must specify at least one protocol|Field required"):
        OTLPConfig.model_validate(written)


@pytest.mark.parametrize(
    ("protocols", "message"),
    [
        ({"http": {"endpoint": "http://localhost:4318"}}, "is a URL"),
        ({"http": {"endpoint": "localhost"}}, "is not a valid endpoint"),
        ({"grpc": {"endpoint": "localhost:99999"}}, "expected a port from 0"),
        ({"grpc": {"endpoint": "::1:4317"}}, "is not a valid endpoint"),
        ({"grpc": {"transport": "unix", "endpoint": ""}}, "is not a valid Unix socket"),
        ({"http": {"traces_url_path": "/a?b"}}, "is not a valid URL path"),
        ({"http": {"traces_url_path": "/v1/logs"}}, "must differ"),
        ({"http": {"compression_algorithms": ["br"]}}, "Input should be"),
        ({"https": {}}, "Extra inputs"),
        ({"grpc": {"max_recv_msg_size": 4}}, "Extra inputs"),
    ],
)
def test_mistakes_are_refused(protocols, message):
    """The message says what is wrong and what is expected."""
    with pytest.raises(ValidationError, match=message):
        load(protocols)
