"""Delivery for exporter authors: derive from :class:`QueuedExporter` and implement ``send``.

Five parts stand between ``consume`` and ``send``, each with one job; :class:`QueuedExporter` connects them. There is
one queue, one gate, one sender and one settlement per signal, as in the Collector, so ``queue_size`` and
``num_consumers`` hold for each signal. Every part only calls public methods of those above it in this list:

``queue``       SendingQueue: what waits, in which order, merged with what, and whether there is room for more
``retry``       RetryPolicy: whether to retry, how long to wait, and what a shutdown changes about it
``gate``        Gate: whether an attempt may begin now; with ``breaker`` and ``concurrency``, which decide that
``settlement``  Settlement: what became of each item; releases what is settled from the queue
``sender``      Sender: sends a unit from the queue, attempt after attempt, until it is settled
``exporter``    QueuedExporter: what an author derives from, and the component that the service sees

Supporting modules:

``config``      ExporterConfig: the Collector's ``timeout``, ``retry_on_failure``, ``sending_queue``, and our own keys
``parts``       Part: one request to the backend; splitting by its limits
``units``       QueuedBatch, SendUnit: what a queue consists of
``backlog``     Backlog: which batches of a durable queue are in memory, and which on the disk alone
``dead_letters``  DeadLetters: keeps what cannot be delivered; ``letter_admin`` shows and replays it
``health``      BackendHealth: whether the backend accepts what it is sent
``metrics``     the queue's own metrics
``log``         a log that an outage cannot flood
``tasks``       the exporter's background tasks
``otlp``        the base of exporters to OTLP/gRPC servers
"""

from collector.delivery.config import ExporterConfig
from collector.delivery.exporter import QueuedExporter
from collector.delivery.parts import Part, with_rows

__all__ = ["ExporterConfig", "Part", "QueuedExporter", "with_rows"]
