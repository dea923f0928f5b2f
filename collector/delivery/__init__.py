"""Delivery for exporter authors: queue, batching, retry, split, ledger, drain. Derive from :class:`QueuedExporter`.

``config``   ExporterConfig: the Collector's ``timeout``, ``retry_on_failure``, ``sending_queue``
``base``     QueuedExporter: what an exporter derives from; Part: one request to the backend
``lane``     the queue of one signal: bounds, merging
``backoff``  how long to wait before the next attempt
``storage``  where queued batches live: memory, or an extension's disk
"""

from collector.delivery.base import Part, QueuedExporter
from collector.delivery.config import ExporterConfig
from collector.delivery.storage import MemoryStorage, Storage

__all__ = ["ExporterConfig", "MemoryStorage", "Part", "QueuedExporter", "Storage"]
