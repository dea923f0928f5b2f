"""What the service provides to components, as protocols. ``collector.testing`` has a double of each."""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
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
    "OnReceipt",
    "Output",
    "Receipt",
    "ReceiverOutput",
    "Status",
    "Telemetry",
]


class Clock(Protocol):
    """Time, so that tests can replace it. Components never call ``time`` or ``asyncio.sleep`` themselves."""

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
    """The edge to what comes next in a pipeline. The service counts every item that crosses it."""

    async def consume(self, batch: Batch) -> None:
        """Pass the batch on. Raises ConsumeError only if an exporter downstream waits for the result."""
        ...


@dataclass(frozen=True, slots=True)
class Receipt:
    """The outcome of one request at the door."""

    accepted_count: int
    rejected_count: int = 0
    message: str = ""
    """Why items were rejected; empty if none were."""


OnReceipt = Callable[[Receipt | Exception], None]
"""Called once with the outcome of a request: what ``consume_request`` returns or raises. It must not raise itself."""


class ReceiverOutput(Output, Protocol):
    """The door: everything that a receiver brings in goes through here, once.

    Both ``consume_request`` methods reserve the bytes in the shared budget, validate them, ask every reachable exporter
    that blocks on overflow for room, and only then commit. After that nothing refuses. Accepted, refused and failed
    items are counted here.

    Requests of one context that arrive within two turns of the event loop are committed as one batch; each gets its own
    outcome.
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

    def for_transport(self, transport: str) -> "ReceiverOutput":
        """The same door, counting under the label ``transport`` (``grpc``, ``http``).

        Returns the same object each time.
        """
        ...


class Admission(Protocol):
    """The memory budget of the process, in bytes: in flight + queues + stages + indexes."""

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
    ) -> None:
        """Set the limits of the bytes held, and of the RSS, which is read every ``check_interval_s``."""
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
    """An own metric that only increases."""

    def add(self, value: float = 1, **labels: str) -> None:
        """Add ``value`` ≥ 0 to the series with these labels."""
        ...


class Gauge(Protocol):
    """An own metric that rises and falls."""

    def set(self, value: float, **labels: str) -> None:
        """Set the series with these labels."""
        ...


class Histogram(Protocol):
    """The distribution of an own quantity."""

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        """Add ``count`` observations of ``value``."""
        ...


class Telemetry(Protocol):
    """A component's own metrics, its log, and its entries in the loss ledger.

    Metric names are given whole (``otelcol_exporter_queue_size``, ``tailrace_gpu_devices``), without ``_total``, as the
    Collector shows them; the label that names the component (``exporter="otlp_grpc/a"``) is added here. Asking twice
    for one name gives the same metric.
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

    # The ledger. For each node: in + created = out + dropped(reason) + folded + held.
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


class Status(StrEnum):
    """The state of a component, in the Collector's terms."""

    STARTING = "starting"
    OK = "ok"
    RECOVERABLE_ERROR = "recoverable_error"
    PERMANENT_ERROR = "permanent_error"
    FATAL_ERROR = "fatal_error"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class HealthCheck:
    """One line of ``/health``."""

    name: str
    healthy: bool
    message: str = ""
    duration_ms: float = 0.0


class Host(Protocol):
    """The service, as a running component sees it."""

    @property
    def admission(self) -> Admission:
        """The memory budget."""
        ...

    def extension(self, component_id: str) -> Any:
        """The running extension with this id. Raises KeyError, which lists the configured ids."""
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

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        """Add a line to ``/health``."""
        ...

    def add_admin_route(self, path: str, handler: Callable[[Mapping[str, str]], Awaitable[Any]]) -> None:
        """Serve ``GET path`` on the admin port, to clients on this machine only.

        The handler gets the query parameters and returns a mapping that can be written as JSON, keyed by the
        component's id (processors: ``id@pipeline``); the answers of several components at one path are merged.
        """
        ...

    def report(self, status: Status, message: str = "") -> None:
        """Report the component's state."""
        ...
