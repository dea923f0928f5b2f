"""Requests that provoke errors cannot flood the log."""

from collector.testing import FakeClock, RecordingTelemetry
from collector.transport.error_log import ErrorLog


async def test_one_line_a_second():
    """The first error is logged with its exception; others of the same second are not, the next one is."""
    telemetry, clock = RecordingTelemetry(), FakeClock()
    log = ErrorLog(telemetry.log, clock, "it failed", config="receivers::otlp")
    for _ in range(3):
        log(ValueError("first"))
    await clock.advance(1.0)
    log(ValueError("second"))
    events = telemetry.log.events
    assert [(event.level, event.event, str(event.fields["exc_info"])) for event in events] == [
        ("error", "it failed", "first"),
        ("error", "it failed", "second"),
    ]
    assert events[0].fields["config"] == "receivers::otlp"
