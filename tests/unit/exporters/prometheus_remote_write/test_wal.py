"""``wal``: the queue is kept in a directory, without an extension."""

import pytest

from collector.model import Signal
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, free_port, make_settings, metrics
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
    exporter.drain_timeout_s = 0.0
    return exporter, telemetry


async def test_what_was_not_delivered_is_sent_after_the_restart(tmp_path):
    """Data is acknowledged once it is in the directory; the directory is given back at shutdown."""
    for run in range(2):
        exporter, telemetry = made(tmp_path / "wal")
        assert exporter.waits_for_storage
        await exporter.start(FakeHost())
        assert sum(telemetry.ledger.created.values()) == (4 if run else 0)
        if not run:
            await exporter.consume(metrics(points=4))
        await exporter.shutdown()
        assert exporter.in_flight_items() == {Signal.METRICS: 4}


async def test_two_exporters_cannot_share_a_directory(tmp_path):
    """The message names the key."""
    first, _ = made(tmp_path / "wal")
    await first.start(FakeHost())
    second, _ = made(tmp_path / "wal")
    with pytest.raises(OSError, match=r"exporters::prw::wal::directory: .*is in use by process"):
        await second.start(FakeHost())
    await second.shutdown()
    await first.shutdown()


def test_one_place_for_the_queue(tmp_path):
    """Not a directory and an extension."""
    with pytest.raises(ValueError, match="remove one of them"):
        made(tmp_path, remote_write_queue={"storage": "file_storage"})
