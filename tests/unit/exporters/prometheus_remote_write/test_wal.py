"""``wal``: the queue is kept in a directory, without an extension."""

import pytest

from collector.model import Signal
from collector.registry import Registry
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, free_port, make_settings, metrics
from config.errors import ConfigErrors
from config.load import load
from exporters.prometheus_remote_write import factory


def made(folder, **more):
    telemetry = RecordingTelemetry()
    config = factory.config_type.model_validate(
        {
            "endpoint": f"http://127.0.0.1:{free_port()}/api/v1/write",
            "wal": {"directory": str(folder), "buffer_size": 300, "truncate_frequency": "1m"},
            **more,
        }
    )
    settings = make_settings(
        factory, signals={Signal.METRICS}, telemetry=telemetry, clock=SystemClock(), component_id="prw"
    )
    exporter = factory.create(settings, config)
    return exporter, telemetry


async def test_what_was_not_delivered_is_sent_after_the_restart(tmp_path):
    """Data is acknowledged once it is in the directory; the directory is given back at shutdown."""
    for run in range(2):
        exporter, telemetry = made(tmp_path / "wal")
        assert exporter.waits_for_storage
        await exporter.start(FakeHost(shutdown_timeout_s=0.0))
        assert sum(telemetry.ledger.created.values()) == (4 if run else 0)
        if not run:
            await exporter.consume(metrics(points=4))
        await exporter.shutdown()
        assert exporter.in_flight_items() == {Signal.METRICS: 4}


async def test_two_exporters_cannot_share_a_directory(tmp_path):
    """The message names the key."""
    first, _ = made(tmp_path / "wal")
    await first.start(FakeHost(shutdown_timeout_s=0.0))
    second, _ = made(tmp_path / "wal")
    with pytest.raises(OSError, match=r"exporters::prw::wal::directory: .*is in use by process"):
        await second.start(FakeHost(shutdown_timeout_s=0.0))
    await second.shutdown()
    await first.shutdown()


def test_one_place_for_the_queue(tmp_path):
    """Not a directory and an extension."""
    with pytest.raises(ValueError, match=r"wal: this key and remote_write_queue::storage .* remove one"):
        made(tmp_path, remote_write_queue={"storage": "file_storage"})


def test_an_extension_that_is_not_listed_is_an_error_of_the_configuration():
    """As for the queues of other exporters."""
    text = """
receivers: {otlp: {protocols: {grpc: }}}
exporters: {prometheus_remote_write: {endpoint: "http://x/", remote_write_queue: {storage: file_storage}}}
service: {pipelines: {metrics: {receivers: [otlp], exporters: [prometheus_remote_write]}}}
"""
    with pytest.raises(ConfigErrors) as caught:
        load((f"yaml:{text}",), (), Registry())
    assert "remote_write_queue::storage: the extension 'file_storage' is not listed" in str(caught.value)
