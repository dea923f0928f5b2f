"""Doubles of everything that the service provides to a component. They behave like it, and tests can read them."""

import asyncio
import socket
from collections import Counter as Tally
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from collector.api import (
    Component,
    ComponentId,
    ComponentKind,
    Factory,
    HealthCheck,
    OnReceipt,
    Output,
    Overview,
    Receipt,
    RetryableError,
    Settings,
    SharedState,
    Status,
)
from collector.model import Batch, Context, Signal, batch_type
from collector.testing.clock import FakeClock

__all__ = [
    "FakeAdmission",
    "FakeHost",
    "LoggedEvent",
    "RecordedLedger",
    "RecordingLog",
    "RecordingTelemetry",
    "Sink",
    "hand_over",
    "make",
    "make_settings",
]


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event that a component logged."""

    level: str
    event: str
    fields: Mapping[str, Any]


class RecordingLog:
    """A structlog logger that records its calls in ``events``."""

    def __init__(self, events: list[LoggedEvent] | None = None, bound: Mapping[str, Any] | None = None) -> None:
        self.events: list[LoggedEvent] = [] if events is None else events
        self._bound = dict(bound or {})

    def bind(self, **fields: Any) -> Self:
        """A logger with additional fields, which records into the same list."""
        return type(self)(self.events, {**self._bound, **fields})

    new = bind

    def of_level(self, level: str) -> list[LoggedEvent]:
        """The events of ``debug``, ``info``, ``warning``, ``error`` or ``critical``."""
        return [event for event in self.events if event.level == level]

    def _record(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        self.events.append(LoggedEvent(level, event, {**self._bound, **fields}))

    def debug(self, event: str, **fields: Any) -> None:
        """Record."""
        self._record("debug", event, fields)

    def info(self, event: str, **fields: Any) -> None:
        """Record."""
        self._record("info", event, fields)

    def warning(self, event: str, **fields: Any) -> None:
        """Record."""
        self._record("warning", event, fields)

    warn = warning

    def error(self, event: str, **fields: Any) -> None:
        """Record."""
        self._record("error", event, fields)

    def critical(self, event: str, **fields: Any) -> None:
        """Record."""
        self._record("critical", event, fields)

    def exception(self, event: str, **fields: Any) -> None:
        """Record as error, with ``exc_info``."""
        self._record("error", event, {"exc_info": True, **fields})


@dataclass
class RecordedLedger:
    """What a component reported to the ledger."""

    dropped: Tally[tuple[Signal, str]] = field(default_factory=Tally)
    folded: Tally[Signal] = field(default_factory=Tally)
    created: Tally[Signal] = field(default_factory=Tally)
    delivered: Tally[Signal] = field(default_factory=Tally)
    refused: Tally[tuple[Signal, str]] = field(default_factory=Tally)
    dead_lettered: Tally[Signal] = field(default_factory=Tally)

    def dropped_count(self, signal: Signal, reason: str | None = None) -> int:
        """Items dropped for one reason, or for any."""
        return sum(n for (s, r), n in self.dropped.items() if s == signal and reason in {None, r})

    def refused_count(self, signal: Signal, reason: str | None = None) -> int:
        """Items refused for one reason, or for any."""
        return sum(n for (s, r), n in self.refused.items() if s == signal and reason in {None, r})


class _Metric:
    """A counter, gauge or histogram: label values → value (histograms: list of observations)."""

    def __init__(
        self, name: str, kind: str, description: str, labels: tuple[str, ...], read: Callable[[], Any] | None = None
    ) -> None:
        self.name, self.kind, self.description, self.labels, self.read = name, kind, description, labels, read
        self.values: dict[tuple[str, ...], float] = {}
        self.observations: dict[tuple[str, ...], list[float]] = {}

    def _key(self, labels: Mapping[str, str]) -> tuple[str, ...]:
        if set(labels) != set(self.labels):
            raise ValueError(f"{self.name}: expected the labels {self.labels}, got {tuple(labels)}")
        return tuple(str(labels[name]) for name in self.labels)

    def add(self, value: float = 1, **labels: str) -> None:
        if value < 0:
            raise ValueError(f"{self.name} is a counter and cannot be decreased by {value}")
        key = self._key(labels)
        self.values[key] = self.values.get(key, 0) + value

    def set(self, value: float, **labels: str) -> None:
        self.values[self._key(labels)] = value

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        self.observations.setdefault(self._key(labels), []).extend([value] * count)

    def current(self) -> dict[tuple[str, ...], float]:
        if self.read is None:
            return dict(self.values)
        now = self.read()
        return {tuple(k): float(v) for k, v in now.items()} if isinstance(now, Mapping) else {(): float(now)}


class RecordingTelemetry:
    """A :class:`collector.api.Telemetry` that tests can read: ``value``, ``ledger`` and ``log.events``."""

    def __init__(self) -> None:
        self.log: Any = RecordingLog()
        self.ledger = RecordedLedger()
        self.metrics: dict[str, _Metric] = {}

    def _metric(
        self, name: str, kind: str, description: str, labels: tuple[str, ...], read: Callable[[], Any] | None = None
    ) -> _Metric:
        metric = self.metrics.get(name)
        if metric is None:
            metric = self.metrics[name] = _Metric(name, kind, description, labels, read)
        elif (metric.kind, metric.labels) != (kind, labels):
            raise ValueError(f"{name} is already a {metric.kind} with the labels {metric.labels}")
        elif read is not None:
            metric.read = read
        return metric

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Any:
        """A counter."""
        return self._metric(name, "counter", description, labels)

    def gauge(
        self, name: str, description: str, labels: tuple[str, ...] = (), read: Callable[[], Any] | None = None
    ) -> Any:
        """A gauge."""
        return self._metric(name, "gauge", description, labels, read)

    def histogram(self, name: str, description: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()) -> Any:
        """A histogram."""
        del buckets  # observations are kept individually
        return self._metric(name, "histogram", description, labels)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the series of metric ``name`` that have ``labels``; 0 if none has.

        Raises KeyError for an unknown metric.
        """
        metric = self.metrics[name]
        wanted = [(metric.labels.index(label), text) for label, text in labels.items()]
        return sum(value for key, value in metric.current().items() if all(key[i] == text for i, text in wanted))

    def observations(self, name: str) -> list[float]:
        """All observations of a histogram."""
        return [value for values in self.metrics[name].observations.values() for value in values]

    def dropped(self, signal: Signal, item_count: int, reason: str) -> None:
        """Record."""
        self.ledger.dropped[signal, reason] += item_count

    def folded(self, signal: Signal, item_count: int) -> None:
        """Record."""
        self.ledger.folded[signal] += item_count

    def created(self, signal: Signal, item_count: int) -> None:
        """Record."""
        self.ledger.created[signal] += item_count

    def delivered(self, signal: Signal, item_count: int) -> None:
        """Record."""
        self.ledger.delivered[signal] += item_count

    def refused(self, signal: Signal, item_count: int, reason: str) -> None:
        """Record."""
        self.ledger.refused[signal, reason] += item_count

    def dead_lettered(self, signal: Signal, item_count: int) -> None:
        """Record."""
        self.ledger.dead_lettered[signal] += item_count


class Sink:
    """An output, and the output of a receiver, that keeps every batch.

    If ``fail_with`` is set it is raised instead. After ``hang()``, senders wait until ``resume()``.
    """

    def __init__(self, signal: Signal = Signal.TRACES, *, fail_with: Exception | None = None) -> None:
        self.signal = signal
        self.batches: list[Batch] = []
        self.fail_with = fail_with
        self.refused_count = 0
        self.transports: list[str] = []
        self.unread: list[str] = []
        """Reasons of requests that were refused before they were decoded."""
        self._answers: set[asyncio.Task[None]] = set()
        self._open = asyncio.Event()
        self._open.set()

    @property
    def item_count(self) -> int:
        """Number of items received."""
        return sum(batch.item_count for batch in self.batches)

    def hang(self) -> None:
        """Accept nothing until ``resume``."""
        self._open.clear()

    def resume(self) -> None:
        """Accept batches again."""
        self._open.set()

    def for_transport(self, transport: str) -> Self:
        """The same sink; the transport is recorded in ``transports``."""
        self.transports.append(transport)
        return self

    async def consume(self, batch: Batch) -> None:
        """Keep the batch, or fail or wait as configured."""
        await self._open.wait()
        if self.fail_with is not None:
            self.refused_count += batch.item_count
            raise self.fail_with
        self.batches.append(batch)

    def refuse_unread(self, reason: str) -> None:
        """Record it in ``unread``."""
        self.unread.append(reason)

    def try_consume_request(self, wire: bytes, context: Context, on_done: OnReceipt) -> None:
        """``consume_request``, reporting through a callback."""

        async def answer() -> None:
            try:
                outcome: Receipt | Exception = await self.consume_request(wire, context)
            except Exception as error:  # noqa: BLE001 - it is the answer
                outcome = error
            on_done(outcome)

        task = asyncio.ensure_future(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    async def consume_request(self, wire: bytes, context: Context) -> Receipt:
        """Validate the request as the real door does, then keep it."""
        checked = batch_type(self.signal).check(wire, context)
        if checked.batch is None:
            return Receipt(0, checked.rejected_count, checked.message)
        await self.consume(checked.batch)
        return Receipt(checked.batch.item_count, checked.rejected_count, checked.message)


class FakeAdmission:
    """A memory budget that refuses if ``refuse`` is set, or above ``limit_bytes``."""

    def __init__(self, limit_bytes: int = 0) -> None:
        self.limit_bytes = limit_bytes
        self.hard_bytes = 0
        self.rss: Callable[[], int] | None = None
        self.refuse = False
        self._used_bytes = 0

    @contextmanager
    def reserve(self, size_bytes: int) -> Iterator[None]:
        """Hold ``size_bytes`` while open."""
        if self.refuse or (self.limit_bytes and self._used_bytes + size_bytes > self.limit_bytes):
            raise RetryableError("over the memory budget", reason="memory_limit")
        self._used_bytes += size_bytes
        try:
            yield
        finally:
            self._used_bytes -= size_bytes

    def charge(self, size_bytes: int) -> None:
        """Add to the bytes held."""
        self._used_bytes += size_bytes

    def limit(
        self, *, soft_bytes: int, hard_bytes: int, rss: Callable[[], int] | None = None, **_: Any
    ) -> Callable[[], None]:
        """Record the limits; returns a function that removes them."""
        self.limit_bytes, self.hard_bytes, self.rss = soft_bytes, hard_bytes, rss
        return self._withdraw_limits

    def _withdraw_limits(self) -> None:
        self.limit_bytes = self.hard_bytes = 0

    @property
    def available_bytes(self) -> int:
        """A gibibyte."""
        return 1 << 30

    @property
    def used_bytes(self) -> int:
        """Bytes held at present."""
        return self._used_bytes


@dataclass(frozen=True, slots=True)
class FakeListeningSocket:
    """A socket that nobody continues."""

    socket: socket.socket
    is_continued: bool = False


class FakeHost:
    """The service as a component sees it; tests can read what components registered."""

    def __init__(
        self,
        extensions: Mapping[str, Any] | None = None,
        admission: FakeAdmission | None = None,
        *,
        shutdown_timeout_s: float = 10.0,
    ) -> None:
        self._admission = admission or FakeAdmission()
        self.extensions = dict(extensions or {})
        self.is_ready = True
        self.shutdown_timeout_s = shutdown_timeout_s
        self.checks: dict[str, Callable[[], HealthCheck]] = {}
        self.readiness_checks: list[Callable[[], str]] = []
        self.routes: dict[str, Callable[[Mapping[str, str]], Awaitable[Any]]] = {}
        self.actions: dict[str, Callable[[Mapping[str, str]], Awaitable[Any]]] = {}
        self.statuses: list[tuple[Status, str]] = []
        self.shown = Overview(version="0.0.0", instance_id="test-instance", start_time_unix_nano=0)

    @property
    def admission(self) -> FakeAdmission:
        """The memory budget."""
        return self._admission

    def extension(self, component_id: str) -> Any:
        """The extension given to the constructor."""
        try:
            return self.extensions[component_id]
        except KeyError:
            raise KeyError(
                f"there is no extension {component_id!r}, only: {', '.join(self.extensions) or 'none'}"
            ) from None

    def listen(self, address: str, bind: Callable[[bool], socket.socket]) -> FakeListeningSocket:  # noqa: ARG002
        """A socket of its own."""
        return FakeListeningSocket(bind(False))

    def health(self) -> list[HealthCheck]:
        """The results of the registered checks."""
        return [check() for check in self.checks.values()]

    def ready(self) -> bool:
        """``is_ready``."""
        return self.is_ready

    def uptime_s(self) -> float:
        """Always 1."""
        return 1.0

    def shutdown_time_left_s(self) -> float:
        """``shutdown_timeout_s``."""
        return self.shutdown_timeout_s

    def overview(self) -> Overview:
        """``shown``."""
        return self.shown

    def configuration(self) -> Mapping[str, Any]:
        """Empty."""
        return {}

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        """Record it in ``checks``."""
        self.checks[name] = check

    def add_readiness_check(self, check: Callable[[], str]) -> None:
        """Record it in ``readiness_checks``."""
        self.readiness_checks.append(check)

    def add_admin_route(self, path: str, handler: Callable[[Mapping[str, str]], Awaitable[Any]]) -> None:
        """Record it in ``routes``."""
        self.routes[path] = handler

    def add_admin_action(self, path: str, handler: Callable[[Mapping[str, str]], Awaitable[Any]]) -> None:
        """Record it in ``actions``."""
        self.actions[path] = handler

    def report(self, status: Status, message: str = "") -> None:
        """Record it in ``statuses``."""
        self.statuses.append((status, message))


def make_settings(
    factory: Factory | None = None,
    *,
    component_id: str = "",
    kind: ComponentKind | None = None,
    signals: frozenset[Signal] | set[Signal] | None = None,
    telemetry: Any = None,
    clock: Any = None,
    outputs: Mapping[Signal, Output] | None = None,
    pipelines: Mapping[str, Output] | None = None,
    pipeline: str = "",
    shared: SharedState | None = None,
    instance_id: str = "test-instance",
) -> Settings:
    """Settings for one component; what is not given is a double.

    Without ``outputs`` there is a :class:`Sink` per signal.
    """
    chosen = frozenset(signals) if signals is not None else (factory.signals if factory else frozenset(Signal))
    chosen_kind = kind or (factory.kind if factory else ComponentKind.PROCESSOR)
    clock = clock or FakeClock()
    if outputs is None:
        produced = frozenset(out for _, out in factory.connects) if factory and factory.connects else chosen
        outputs = {signal: Sink(signal) for signal in sorted(produced)}
    return Settings(
        id=ComponentId.parse(component_id or (factory.component_type if factory else "test")),
        kind=chosen_kind,
        telemetry=telemetry or RecordingTelemetry(),
        clock=clock,
        signals=chosen,
        outputs=outputs,
        pipelines=pipelines or {},
        pipeline=pipeline or (f"{min(chosen)}" if chosen_kind is ComponentKind.PROCESSOR and chosen else ""),
        shared=SharedState() if shared is None else shared,
        version="0.0.0-test",
        instance_id=instance_id,
        start_time_unix_nano=clock.time_unix_nano(),
    )


def make(factory: Factory, config: Any = None, **settings: Any) -> Component:
    """The component of ``factory`` with its default configuration, made with ``make_settings(**settings)``."""
    return factory.create(make_settings(factory, **settings), factory.config_type() if config is None else config)


C = TypeVar("C", bound=Component)


def hand_over(predecessor: Component | None, successor: C, config: Any) -> C:
    """Pass the state of ``predecessor`` to ``successor``, which has ``config``, as a reload does.

    Returns ``successor``.

    Call it before the predecessor's ``shutdown`` if it flushes what it holds.
    """
    state = None if predecessor is None else predecessor.hand_over(config)
    if state is not None:
        successor.take_over(state)
    return successor
