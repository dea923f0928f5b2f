"""What a component implements and what the service gives it. The only vocabulary between the two.

``component``  Component, Transform, Stage, Receiver, Exporter, Connector, Extension
``factory``    Factory, Settings, Stability
``host``       Host, Admission, Output, ReceiverOutput, Receipt, Telemetry: what the service provides
``errors``     ConsumeError → PermanentError (→ TooLargeError) | RetryableError
"""

from collector.api.component import Component, Connector, Exporter, Extension, Receiver, Stage, Transform
from collector.api.errors import ConsumeError, PermanentError, RetryableError, TooLargeError
from collector.api.factory import ComponentId, ComponentKind, Factory, Settings, Stability
from collector.api.host import (
    Admission,
    Answered,
    Clock,
    Counter,
    Gauge,
    HealthCheck,
    Histogram,
    Host,
    Output,
    Receipt,
    ReceiverOutput,
    Status,
    Telemetry,
)

__all__ = [
    "Admission",
    "Answered",
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
    "Output",
    "PermanentError",
    "Receipt",
    "Receiver",
    "ReceiverOutput",
    "RetryableError",
    "Settings",
    "Stability",
    "Stage",
    "Status",
    "Telemetry",
    "TooLargeError",
    "Transform",
]
