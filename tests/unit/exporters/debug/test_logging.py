"""The type ``logging`` shows what the Collector's exporter of that name showed."""

import pytest

from collector.testing import FakeClock, RecordingTelemetry, make, traces
from exporters.debug.logging import LoggingConfig, factory


@pytest.mark.parametrize(
    ("options", "messages"),
    [({}, 1), ({"verbosity": "normal"}, 1), ({"verbosity": "Detailed"}, 2), ({"loglevel": "DEBUG"}, 2)],
)
async def test_only_detailed_shows_more_than_counts(options, messages):
    """``normal`` is the default and shows counts, unlike that of ``debug``."""
    telemetry = RecordingTelemetry()
    exporter = make(factory, LoggingConfig.model_validate(options), telemetry=telemetry)
    await exporter.consume(traces(spans=3))
    events = telemetry.log.of_level("info")
    assert len(events) == messages
    assert events[0].event == "Traces"
    assert events[0].fields["spans"] == 3


async def test_sampling_begins_after_two_batches_of_a_second():
    """Then one out of 500 is shown."""
    telemetry, clock = RecordingTelemetry(), FakeClock()
    exporter = make(factory, LoggingConfig(), telemetry=telemetry, clock=clock)
    for _ in range(501):
        await exporter.consume(traces(spans=1))
    assert len(telemetry.log.events) == 2
    await exporter.consume(traces(spans=1))
    assert len(telemetry.log.events) == 3
