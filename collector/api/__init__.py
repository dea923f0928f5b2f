"""What a component implements and what the service gives it. The only vocabulary between the two.

``component``  Component, Transform, Stage, Receiver, Exporter, Connector, Extension
``factory``    Factory, Settings, Stability, Trait
``shared``     SharedState, SharedKey, Scope: state that several components share
``periodic``   PeriodicTask: work repeated in the background
``host``       Host, Admission, Output, ReceiverOutput, Receipt, Telemetry: what the service provides
``errors``     ConsumeError → PermanentError (→ TooLargeError) | RetryableError
"""

from collector.api.component import Component, Connector, Exporter, Extension, Receiver, Stage, Transform
from collector.api.errors import ConsumeError, PermanentError, RetryableError, TooLargeError
from collector.api.factory import ComponentId, ComponentKind, Factory, Settings, Stability, Trait
from collector.api.host import (
    Admission,
    Clock,
    Counter,
    Gauge,
    HealthCheck,
    Histogram,
    Host,
    OnReceipt,
    Output,
    Overview,
    PipelineOverview,
    Receipt,
    ReceiverOutput,
    Status,
    Telemetry,
)
from collector.api.periodic import PeriodicTask
from collector.api.shared import Scope, SharedKey, SharedState

__all__ = [
    "Admission",
    "Clock",
    "Component",
    "ComponentId",
    "ComponentKind",
    "Connector",
    "ConsumeError",
    "Counter",
    "Exporter",
    "Extension",
    "Factory",
    "Gauge",
    "HealthCheck",
    "Histogram",
    "Host",
    "OnReceipt",
    "Output",
    "Overview",
    "PeriodicTask",
    "PermanentError",
    "PipelineOverview",
    "Receipt",
    "Receiver",
    "ReceiverOutput",
    "RetryableError",
    "Scope",
    "Settings",
    "SharedKey",
    "SharedState",
    "Stability",
    "Stage",
    "Status",
    "Telemetry",
    "TooLargeError",
    "Trait",
    "Transform",
]
