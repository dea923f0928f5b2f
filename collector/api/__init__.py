"""What a component implements and what the service gives it. The only vocabulary between the two.

``component``  Component, Transform, Stage, Receiver, Exporter, Connector, Extension
``factory``    Factory, Settings, Stability, Trait
``shared``     SharedState, SharedKey, Scope: state that several components share
``periodic``   PeriodicTask: work repeated in the background
``host``       Host, Admission, Output, ReceiverOutput, Receipt, Telemetry: what the service provides
``storage``    StorageExtension, QueueStorage, StateStore: what keeps data over a restart
``errors``     ConsumeError → PermanentError (→ TooLargeError) | RetryableError
"""

from collector.api.component import Component, Connector, Exporter, Extension, Receiver, Stage, Transform
from collector.api.errors import ConsumeError, PermanentError, RetryableError, TooLargeError, out_of_memory
from collector.api.factory import ComponentId, ComponentKind, Factory, Settings, Stability, Trait
from collector.api.host import (
    Admission,
    Clock,
    Counter,
    Gauge,
    HealthCheck,
    Histogram,
    Host,
    ListeningSocket,
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
from collector.api.state import SavedState
from collector.api.storage import (
    DamagedBatchError,
    Evicted,
    OnStored,
    QueueStorage,
    StateStore,
    StorageExtension,
    StoredBatch,
    StoredTotals,
    WhenFull,
    find_storage,
)

__all__ = [
    "Admission",
    "Clock",
    "Component",
    "ComponentId",
    "ComponentKind",
    "Connector",
    "ConsumeError",
    "Counter",
    "DamagedBatchError",
    "Evicted",
    "Exporter",
    "Extension",
    "Factory",
    "Gauge",
    "HealthCheck",
    "Histogram",
    "Host",
    "ListeningSocket",
    "OnReceipt",
    "OnStored",
    "Output",
    "Overview",
    "PeriodicTask",
    "PermanentError",
    "PipelineOverview",
    "QueueStorage",
    "Receipt",
    "Receiver",
    "ReceiverOutput",
    "RetryableError",
    "SavedState",
    "Scope",
    "Settings",
    "SharedKey",
    "SharedState",
    "Stability",
    "Stage",
    "StateStore",
    "Status",
    "StorageExtension",
    "StoredBatch",
    "StoredTotals",
    "Telemetry",
    "TooLargeError",
    "Trait",
    "Transform",
    "WhenFull",
    "find_storage",
    "out_of_memory",
]
