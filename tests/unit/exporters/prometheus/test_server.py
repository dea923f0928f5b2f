"""The server of the metrics page has the Collector's settings."""

import gzip

import aiohttp
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import FakeHost, make_settings
from exporters.prometheus import factory
from exporters.prometheus.config import PrometheusConfig


def gauges(count):
    made = ExportMetricsServiceRequest()
    gauge = made.resource_metrics.add().scope_metrics.add().metrics.add(name="x").gauge
    for i in range(count):
        gauge.data_points.add(time_unix_nano=1, as_int=i).attributes.add(key="i").value.int_value = i
    return Metrics.from_wire(made.SerializeToString())


@pytest.fixture
async def serve():
    started = []

    async def start(**keys):
        config = PrometheusConfig.model_validate({"endpoint": "127.0.0.1:0", **keys})
        sut = factory.create(make_settings(factory, signals={Signal.METRICS}), config)
        await sut.start(FakeHost())
        started.append(sut)
        return sut

    yield start
    for sut in started:
        await sut.shutdown()


async def ask(sut, method="GET", path="/metrics", connector=None, **headers):
    """Status, headers and body, which is not decompressed."""
    async with (
        aiohttp.ClientSession(connector=connector, auto_decompress=False) as session,
        session.request(
            method,
            f"http://127.0.0.1:{sut.port or 80}{path}",
            headers={"Accept-Encoding": "identity", **{key.replace("_", "-"): value for key, value in headers.items()}},
        ) as response,
    ):
        return response.status, response.headers, await response.read()


def test_what_the_collector_prints_as_its_defaults_is_accepted():
    """All keys of its ``print-config``, version 0.156, with the same effect as if they were left out."""
    printed = {
        "add_metric_suffixes": True, "const_labels": {}, "cors": None, "enable_open_metrics": False,
        "endpoint": "127.0.0.1:9999", "idle_timeout": "1m0s", "keep_alives_enabled": True, "metric_expiration": "5m0s",
        "namespace": "", "read_header_timeout": "1m0s",
        "resource_to_telemetry_conversion": {"enabled": False, "exclude_service_attributes": False},
        "send_timestamps": False, "sending_queue": None, "tls": None, "translation_strategy": "", "transport": "tcp",
        "without_scope_info": False, "write_timeout": "30s",
    }  # fmt: skip
    config, default = (PrometheusConfig.model_validate(keys) for keys in (printed, {"endpoint": printed["endpoint"]}))
    assert config.strategy == default.strategy == "UnderscoreEscapingWithSuffixes"
    assert config.model_copy(update={"translation_strategy": default.translation_strategy}) == default


@pytest.mark.parametrize("count", [0, 300, 5000])
async def test_the_page_is_compressed_for_scrapers_that_accept_gzip(serve, count):
    """Whatever its size; a very small page is sent as it is."""
    sut = await serve()
    await sut.consume(gauges(count))
    _, plain_headers, plain = await ask(sut)
    assert "Content-Encoding" not in plain_headers
    _, headers, body = await ask(sut, Accept_Encoding="br, gzip;q=0.5")
    assert headers.get("Content-Encoding") == ("gzip" if count else None)
    assert (gzip.decompress(body) if count else body) == plain
    assert plain.count(b"\nx{") == count
    _, headers, body = await ask(sut, Accept_Encoding="gzip;q=0.0")
    assert ("Content-Encoding" in headers, body) == (False, plain)


async def test_other_paths_and_methods(serve):
    """HEAD has no body, POST is not allowed, and only ``/metrics`` exists."""
    sut = await serve()
    await sut.consume(gauges(1))
    status, headers, body = await ask(sut, "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 0
    status, headers, _ = await ask(sut, "POST")
    assert (status, headers["Allow"]) == (405, "GET, HEAD")
    assert (await ask(sut, path="/"))[0] == 404


async def test_cors_and_response_headers(serve):
    """A page of the configured origin may read the metrics."""
    sut = await serve(cors={"allowed_origins": ["https://grafana.example"]}, response_headers={"X-Frame": "no"})
    _, headers, _ = await ask(sut, Origin="https://grafana.example")
    assert (headers["Access-Control-Allow-Origin"], headers["X-Frame"]) == ("https://grafana.example", "no")
    _, headers, _ = await ask(sut, Origin="https://other.example")
    assert "Access-Control-Allow-Origin" not in headers


async def test_keep_alives_can_be_disabled(serve):
    """Then the response says that the connection is closed."""
    assert (await ask(await serve(keep_alives_enabled=False)))[1]["Connection"] == "close"
    assert "Connection" not in (await ask(await serve()))[1]


async def test_a_unix_socket(serve, tmp_path):
    """With ``transport: unix``, the endpoint is its path."""
    path = str(tmp_path / "metrics.sock")
    sut = await serve(endpoint=path, transport="unix")
    await sut.consume(gauges(1))
    status, _, body = await ask(sut, connector=aiohttp.UnixConnector(path))
    assert (status, b"\nx{" in body) == (200, True)


async def test_a_sending_queue_is_accepted_with_a_warning(serve):
    """It could have no effect."""
    sut = await serve(sending_queue={})
    (line,) = sut._settings.telemetry.log.of_level("warning")
    assert line.fields["config"] == "exporters::prometheus::sending_queue"
    assert not (await serve(sending_queue={"enabled": False}))._settings.telemetry.log.of_level("warning")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, "endpoint is required"),
        ({"endpoint": "localhost"}, "expected host:port"),
        ({"endpoint": "localhost:99999"}, "expected a port from 0"),
        ({"endpoint": "http://localhost:1"}, "is a URL"),
        ({"endpoint": "\0", "transport": "unix"}, "not a valid Unix socket"),
    ],
)
def test_invalid_endpoints(keys, expected):
    """The message says what is expected."""
    with pytest.raises(ValueError, match=expected):
        PrometheusConfig.model_validate(keys)
