"""What the service provides to components, as protocols. ``collector.testing`` has a double of each."""

import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from collector.model import Batch, Context, Signal

__all__ = [
    "Admission",
    "Clock",
    "Counter",
    "Gauge",
    "HealthCheck",
    "Histogram",
    "Host",
    "ListeningSocket",
    "OnReceipt",
    "Output",
    "Overview",
    "PipelineOverview",
    "Receipt",
    "ReceiverOutput",
    "Status",
    "Telemetry",
]


class Clock(Protocol):
    """Time, so that tests can replace it. Components never call ``time`` or ``asyncio.sleep`` themselves.

    Example::

        started_s = self._clock.monotonic_s()
        await self._clock.sleep(self._config.delay)
        self._delays.observe(self._clock.monotonic_s() - started_s)
    """

    def time_unix_nano(self) -> int:
        """The wall clock."""
        ...

    def monotonic_s(self) -> float:
        """A monotonic clock, for intervals."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Suspend the calling task."""
        ...


class Output(Protocol):
    """The edge to what comes next in a pipeline. The service counts every item that crosses it.

    Example::

        await settings.outputs[Signal.METRICS].consume(builder.build())
    """

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on. Raises ConsumeError only if an exporter downstream waits for the result."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one request at the door.

    >>> receipt = Receipt(accepted_count=98, rejected_count=2, message="trace_id: expected 16 bytes, got 8")
    >>> receipt.accepted_count + receipt.rejected_count
    100
    """

    accepted_count: int
    rejected_count: int = 0
    message: str = ""
    """Why items were rejected; empty if none were."""


OnReceipt = Callable[[Receipt | Exception], None]
"""Called once with the outcome of a request: what ``consume_request`` returns or raises. It must not raise itself.

Example::

    def on_done(outcome: Receipt | Exception) -> None:
        connection.answer(200 if isinstance(outcome, Receipt) else status_of(outcome))
"""


class ReceiverOutput(Output, Protocol):
    """The door: everything that a receiver brings in goes through here, once.

    Both ``consume_request`` methods reserve the bytes in the shared budget, validate them, ask every reachable exporter
    that blocks on overflow for room, and only then commit. After that nothing refuses. Accepted, refused and failed
    items are counted here.

    Requests of one context that arrive within two turns of the event loop are committed as one batch; each gets its own
    outcome.

    Example::

        try:
            receipt = await settings.outputs[Signal.TRACES].consume_request(body, context)
        except MalformedBatch as error:
            return Response(400, str(error))
        except RetryableError as error:
            return Response(503, str(error))
        return Response(200, partial_success(receipt.rejected_count, receipt.message))
    """

    def try_consume_request(self, wire: bytes, context: Context, on_done: OnReceipt) -> None:
        """``consume_request`` without a task or future per request.

        ``on_done`` is called exactly once, before this method returns or in a later turn of the event loop, with a
        Receipt or with the exception that ``consume_request`` would raise.
        """
        ...

    async def consume_request(self, wire: bytes, context: Context) -> Receipt:
        """Validate and commit the bytes of one Export…ServiceRequest.

        Raises:
            MalformedBatch: the request violates the protocol; answer 400 / INVALID_ARGUMENT.
            RetryableError: there is no room (memory, queue); answer 503 or 429 / UNAVAILABLE, with ``retry_after_s`` if
                set.
            PermanentError: refused for good.
        """
        ...

    async def consume(self, batch: Batch) -> None:
        """Commit a batch that the receiver built itself (scrapers, builders).

        Raises:
            RetryableError: there is no room.
        """
        ...

    def refuse_unread(self, reason: str) -> None:
        """Count a request that was refused before it was decoded, because of its length or for lack of memory.

        Nobody knows how many items it has: it counts as one.
        """
        ...

    def for_transport(self, transport: str) -> "ReceiverOutput":
        """The same door, counting under the label ``transport`` (``grpc``, ``http``).

        Returns the same object each time.
        """
        ...


class Admission(Protocol):
    """The memory budget of the process, in bytes: in flight + queues + stages + indexes.

    Example::

        with host.admission.reserve(content_length):  # raises RetryableError: answer 503 before reading anything
            body = await reader.readexactly(content_length)
            await self._output.consume_request(body, context)
    """

    def reserve(self, size_bytes: int) -> AbstractContextManager[None]:
        """Hold ``size_bytes`` while the context is open, for example while a request is read and validated.

        Raises:
            RetryableError: above the budget or the RSS limit (reason ``memory_limit``). Call it before reading or
                decompressing.
        """
        ...

    def charge(self, size_bytes: int) -> None:
        """Add to the bytes held; a negative size releases them. Never refuses."""
        ...

    def limit(
        self,
        *,
        soft_bytes: int,
        hard_bytes: int,
        rss: Callable[[], int] | None = None,
        check_interval_s: float = 1.0,
        min_gc_interval_soft_s: float = 10.0,
        min_gc_interval_hard_s: float = 0.0,
    ) -> Callable[[], None]:
        """Set limits of the bytes held, and of the RSS, which is read every ``check_interval_s``.

        The lowest of all limits apply. Returns a function that withdraws these; call it in ``shutdown``.
        """
        ...

    @property
    def available_bytes(self) -> int:
        """How much memory the process may use at most: the container's limit, or the machine's memory."""
        ...

    @property
    def used_bytes(self) -> int:
        """Bytes held at present."""
        ...


class Counter(Protocol):
    """An own metric that only increases.

    Example::

        self._redacted = settings.telemetry.counter("tailrace_redact_values", "Values redacted", ("kind",))
        self._redacted.add(redacted_count, kind="prompt")
    """

    def add(self, value: float = 1, **labels: str) -> None:
        """Add ``value`` ≥ 0 to the series with these labels."""
        ...


class Gauge(Protocol):
    """An own metric that rises and falls.

    Example::

        settings.telemetry.gauge("tailrace_broker_connections", "Open connections", read=lambda: len(self._connections))
    """

    def set(self, value: float, **labels: str) -> None:
        """Set the series with these labels."""
        ...


class Histogram(Protocol):
    """The distribution of an own quantity.

    Example::

        self._sizes = settings.telemetry.histogram("tailrace_broker_message_bytes", "Message size", (1e3, 1e4, 1e5))
        self._sizes.observe(len(message))
    """

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        """Add ``count`` observations of ``value``."""
        ...


class Telemetry(Protocol):
    """A component's own metrics, its log, and its entries in the loss ledger.

    Metric names are given whole (``otelcol_exporter_queue_size``, ``tailrace_gpu_devices``), without ``_total``, as the
    Collector shows them; the label that names the component (``exporter="otlp_grpc/a"``) is added here. Asking twice
    for one name gives the same metric.

    Example::

        self._telemetry.dropped(batch.signal, batch.item_count, "unknown_tenant")
        self._telemetry.log.warning("a batch has no tenant; it is dropped", items=batch.item_count)
    """

    log: Any
    """A structlog logger bound to the component's id.

    Log constant sentences with key-values; never contents of records.
    """

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
        """The counter of that name."""
        ...

    def gauge(
        self,
        name: str,
        description: str,
        labels: tuple[str, ...] = (),
        read: Callable[[], float | Mapping[tuple[str, ...], float]] | None = None,
    ) -> Gauge:
        """The gauge of that name. ``read`` is called at each scrape; with labels it returns label values → value."""
        ...

    def histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        """The histogram of that name; ``buckets`` are upper bounds."""
        ...

    # The ledger. For every node: received + created = out + dropped + folded + refused/rejected + held.
    # For every exporter: received = delivered + dropped + refused + in flight.
    def dropped(self, signal: Signal, item_count: int, reason: str) -> None:
        """Count items lost here, intentionally or not; the reason is a constant word."""
        ...

    def folded(self, signal: Signal, item_count: int) -> None:
        """Count items merged into others."""
        ...

    def created(self, signal: Signal, item_count: int) -> None:
        """Count items that this node created (overflow points, span metrics)."""
        ...

    def delivered(self, signal: Signal, item_count: int) -> None:
        """Exporters that settle by themselves: count items that the backend accepted."""
        ...

    def refused(self, signal: Signal, item_count: int, reason: str) -> None:
        """Exporters: count items that the backend refused permanently."""
        ...

    def dead_lettered(self, signal: Signal, item_count: int) -> None:
        """Exporters: count those of the dropped and refused items of which a copy is kept in a dead-letter store."""
        ...


class Status(StrEnum):
    """The state of a component, in the Collector's terms.

    Example::

        host.report(Status.RECOVERABLE_ERROR, "the broker is unreachable; retrying")
    """

    STARTING = "starting"
    OK = "ok"
    RECOVERABLE_ERROR = "recoverable_error"
    PERMANENT_ERROR = "permanent_error"
    FATAL_ERROR = "fatal_error"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One line of ``/health``.

    >>> HealthCheck("broker", healthy=False, message="not connected since 12 s").message
    'not connected since 12 s'
    """

    name: str
    healthy: bool
    message: str = ""
    duration_ms: float = 0.0
    status: Status = Status.OK
    """The state of the component that the line is about."""
    failing_s: float = 0.0
    """Seconds for which the component has been in an error state, or its backend has failed."""
    queue_age_s: float = 0.0
    """Seconds for which the oldest data has been in the component's queues."""


class ListeningSocket(Protocol):
    """What :meth:`Host.listen` returns.

    Example::

        async def shutdown(self) -> None:
            is_continued = self._listening.is_continued  # then idle clients may send one more request
            self._server.close()
    """

    @property
    def socket(self) -> socket.socket:
        """It listens (a UDP socket is bound), and does not block. The component closes it."""
        ...

    @property
    def is_continued(self) -> bool:
        """Whether a reload has made another component listen on the same port or path: clients find a server there."""
        ...


@dataclass(frozen=True, slots=True)
class PipelineOverview:
    """One running pipeline: the ids of its components, in the order of the data.

    >>> PipelineOverview("traces", Signal.TRACES, ("otlp",), ("batch",), ("otlp_grpc/a",)).exporters
    ('otlp_grpc/a',)
    """

    id: str
    signal: Signal
    receivers: tuple[str, ...]
    processors: tuple[str, ...]
    exporters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overview:
    """What the service knows of itself, for extensions that show it to an operator.

    >>> overview = Overview(version="0.1.0", instance_id="7f3a", start_time_unix_nano=1, extensions=("zpages",))
    >>> overview.extensions
    ('zpages',)
    """

    version: str
    instance_id: str
    start_time_unix_nano: int
    pipelines: tuple[PipelineOverview, ...] = ()
    extensions: tuple[str, ...] = ()
    """The ids of the running extensions, in the order of their start."""
    statuses: Mapping[str, str] = field(default_factory=dict)
    """What each component last reported, such as ``ok`` or ``recoverable_error: no connection``, by its name
    (``exporters/otlp_grpc/a``, ``processors/batch@traces``).
    """
    ledger: tuple[Mapping[str, Any], ...] = ()
    """The rows of ``GET /ledger``: what became of the items, for each node and signal."""


class Host(Protocol):
    """The service, as a running component sees it.

    Example::

        async def start(self, host: Host) -> None:
            self._admission = host.admission
            self._tenants = host.extension(self._config.tenants)
            host.add_health_check("broker", self._check)
    """

    @property
    def admission(self) -> Admission:
        """The memory budget."""
        ...

    def extension(self, component_id: str) -> Any:
        """The running extension with this id. Raises KeyError, which lists the configured ids."""
        ...

    def listen(self, address: str, bind: Callable[[bool], socket.socket]) -> ListeningSocket:
        """A socket that listens at ``address`` (``localhost:4317``, ``unix:///run/x.sock``, ``udp://localhost:6831``).

        Normally it is what ``bind(False)`` returns. If a component that a reload removes or replaces listens there, it
        is a second descriptor of that component's socket, so that no connection is refused. ``bind(True)`` is called
        if such a component has the port at another address: it must set ``SO_REUSEPORT``.

        Raises:
            OSError: of ``bind``.
        """
        ...

    def health(self) -> list[HealthCheck]:
        """All checks: of the service, of each exporter, and those that components registered."""
        ...

    def ready(self) -> bool:
        """Whether the service has started and is not shutting down."""
        ...

    def uptime_s(self) -> float:
        """Seconds since the start."""
        ...

    def shutdown_time_left_s(self) -> float:
        """How many seconds ``shutdown`` of this component may still take. It is cancelled a second after that.

        The time may become shorter while ``shutdown`` runs, for example if a replaced component drains in the
        background and the service is asked to stop.
        """
        ...

    def overview(self) -> Overview:
        """The pipelines, components and counts of the running service."""
        ...

    def configuration(self) -> Mapping[str, Any]:
        """The running configuration with all defaults, as in the file; secrets are redacted."""
        ...

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        """Add a line to ``/health``."""
        ...

    def add_readiness_check(self, check: Callable[[], str]) -> None:
        """Let ``/health/ready`` on the admin port fail while ``check`` returns a reason; it returns "" if it is ready.

        The check is not called before the service has started.
        """
        ...

    def add_admin_route(self, path: str, handler: Callable[[Mapping[str, str]], Awaitable[Any]]) -> None:
        """Serve ``GET path`` on the admin port, to clients on this machine only.

        The handler gets the query parameters and returns a mapping that can be written as JSON, keyed by the
        component's id (processors: ``id@pipeline``); the answers of several components at one path are merged.
        """
        ...

    def add_admin_action(self, path: str, handler: Callable[[Mapping[str, str]], Awaitable[Any]]) -> None:
        """Like :meth:`add_admin_route`, but for ``POST path``: the handler changes something."""
        ...

    def report(self, status: Status, message: str = "") -> None:
        """Report the component's state."""
        ...
