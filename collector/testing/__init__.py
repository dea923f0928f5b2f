"""The test kit for component authors: doubles of the service, deterministic batches, and the contract of every factory.

``clock``     FakeClock, eventually
``doubles``   RecordingTelemetry, Sink, FakeHost, FakeAdmission, make_settings, make, hand_over
``storage``   FakeStorage: a storage extension whose content survives the component
``generate``  traces, metrics, logs, batch, request: what an embedding platform sends
``contract``  check_component, readme_examples, free_port
"""

from collector.testing.clock import FakeClock, eventually
from collector.testing.contract import check_component, free_port, readme_examples
from collector.testing.doubles import (
    FakeAdmission,
    FakeHost,
    LoggedEvent,
    RecordedLedger,
    RecordingLog,
    RecordingTelemetry,
    Sink,
    hand_over,
    make,
    make_settings,
)
from collector.testing.generate import (
    batch,
    logs,
    logs_request,
    metrics,
    metrics_request,
    request,
    traces,
    traces_request,
)
from collector.testing.storage import FakeQueueStorage, FakeStateStore, FakeStorage

__all__ = [
    "FakeAdmission",
    "FakeClock",
    "FakeHost",
    "FakeQueueStorage",
    "FakeStateStore",
    "FakeStorage",
    "LoggedEvent",
    "RecordedLedger",
    "RecordingLog",
    "RecordingTelemetry",
    "Sink",
    "batch",
    "check_component",
    "eventually",
    "free_port",
    "hand_over",
    "logs",
    "logs_request",
    "make",
    "make_settings",
    "metrics",
    "metrics_request",
    "readme_examples",
    "request",
    "traces",
    "traces_request",
]
