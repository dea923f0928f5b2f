"""Nop delivers to nobody, and says delivered."""

from collector.model import Signal
from collector.testing import RecordingTelemetry, logs, make
from exporters.nop import factory


async def test_everything_counts_as_delivered():
    """Per signal."""
    telemetry = RecordingTelemetry()
    exporter = make(factory, telemetry=telemetry)
    await exporter.consume(logs(records=5))
    assert telemetry.ledger.delivered == {Signal.LOGS: 5}
