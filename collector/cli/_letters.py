"""The dead letters of a configuration, for the commands that show, remove and replay them.

The storage extensions of the configuration are started without a service. That fails while a service uses the same
directory; what can be done then goes through its admin port (``_running``).
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, Self, TypeVar

import click
from pydantic import TypeAdapter

from collector.api import (
    ComponentKind,
    Factory,
    HealthCheck,
    Overview,
    QueueStorage,
    Settings,
    StorageExtension,
    StoredBatch,
    find_storage,
)
from collector.delivery.dead_letters import LetterFilter, dead_letter_queue, matching
from collector.model import Batch, Signal
from collector.service.admission import ServiceAdmission
from collector.service.host import ComponentHost
from collector.service.ledger import Ledger
from collector.service.process import SystemClock
from collector.service.sockets import ListeningSockets
from collector.service.telemetry import ServiceTelemetry
from config.blocks import DeadLetterConfig, Duration
from config.model import Config

__all__ = ["Letter", "LetterRow", "LetterStores", "OfflineService", "parse_where", "where_option"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])

_NS_PER_S: Final = 1_000_000_000
_TEXT_KEYS: Final = ("exporter", "signal", "reason")
_TIME_KEYS: Final = ("after", "before")


class LetterRow(NamedTuple):
    """What is shown of a letter."""

    key: int
    stored_unix_nano: int
    exporter: str
    signal: str
    reason: str
    item_count: int
    size_bytes: int
    error: str

    @property
    def time(self) -> str:
        """When it was stored, in UTC."""
        return datetime.fromtimestamp(self.stored_unix_nano // _NS_PER_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

    @classmethod
    def of(cls, stored: StoredBatch) -> Self:
        """The row of a stored batch."""
        sizes = {"key": stored.key, "items": stored.item_count, "bytes": stored.size_bytes}
        return cls.of_answer({**stored.labels, **sizes, "stored_unix_nano": stored.stored_unix_nano})

    @classmethod
    def of_answer(cls, answer: Mapping[str, Any]) -> Self:
        """The row of an entry that a running service lists."""
        return cls(
            key=int(answer["key"]),
            stored_unix_nano=int(answer["stored_unix_nano"]),
            exporter=str(answer.get("exporter", "")),
            signal=str(answer.get("signal", "")),
            reason=str(answer.get("reason", "")),
            item_count=int(answer["items"]),
            size_bytes=int(answer["bytes"]),
            error=str(answer.get("error", "")),
        )


class Letter(NamedTuple):
    """One stored batch and the store that it is in."""

    stored: StoredBatch
    storage: QueueStorage

    @property
    def labels(self) -> Mapping[str, str]:
        """Exporter, signal, reason and error."""
        return self.stored.labels

    async def read(self) -> Batch:
        """Its content. Raises OSError."""
        return await self.storage.read(self.stored.key)

    def remove(self) -> None:
        """Remove it from its store."""
        self.storage.ack(self.stored.key)


def parse_where(conditions: Iterable[str], now_unix_nano: int) -> LetterFilter:
    """The conditions written as ``reason=http_400,http_413``, ``signal=traces``, ``after=2h``.

    Raises:
        ValueError: a condition is not valid; the message says what is expected.
    """
    values: dict[str, Any] = {}
    for condition in conditions:
        key, separator, text = condition.partition("=")
        if not separator or key not in {*_TEXT_KEYS, *_TIME_KEYS}:
            raise ValueError(
                f"{condition!r} is not a valid condition; expected KEY=VALUE with one of the keys"
                f" {', '.join((*_TEXT_KEYS, *_TIME_KEYS))}"
            )
        if key in _TIME_KEYS:
            values[f"{key}_unix_nano"] = _time(text, now_unix_nano)
        else:
            values[key] = values.get(key, frozenset()) | frozenset(text.split(","))
    return LetterFilter(**values)


def where_option(command: CommandT) -> CommandT:
    """``--where``, repeatable, as ``where``: a :class:`LetterFilter`."""

    def parse(_context: click.Context, _parameter: click.Parameter, value: tuple[str, ...]) -> LetterFilter:
        try:
            return parse_where(value, time.time_ns())
        except ValueError as exc:
            raise click.BadParameter(str(exc)) from exc

    return click.option(
        "--where",
        multiple=True,
        callback=parse,
        metavar="KEY=VALUE",
        help="Only data for which all conditions hold: exporter=ID, signal=traces, reason=http_400 (several values are"
        " separated by commas), after=TIME, before=TIME. A time is 2026-12-01T08:00:00Z, or a duration before now: 2h.",
    )(command)


class OfflineService:
    """What components need of a service although none runs: a clock, telemetry that nobody reads, a memory budget."""

    def __init__(self, config: Config) -> None:
        self.clock = SystemClock()
        self.ledger = Ledger()
        self.telemetry = ServiceTelemetry(ledger=self.ledger, clock=self.clock, resource={})
        self.admission = ServiceAdmission(self.clock)
        self.sockets = ListeningSockets()
        self.config = config
        self.extensions: dict[str, Any] = {}

    def health(self) -> list[HealthCheck]:
        """There are no checks."""
        return []

    def ready(self) -> bool:
        """Always."""
        return True

    def overview(self) -> Overview:
        """Nothing runs."""
        return Overview(version="", instance_id="", start_time_unix_nano=0)

    def configuration(self) -> Mapping[str, Any]:
        """Empty: no component shows it."""
        return {}

    def host(self) -> ComponentHost:
        """A host for one component."""
        return ComponentHost(self, self.extensions)

    @asynccontextmanager
    async def running(
        self, kind: ComponentKind, component_id: Any, factory: Factory, config: Any, signals: frozenset[Signal]
    ) -> AsyncIterator[Any]:
        """The started component, which is shut down at the end."""
        telemetry = self.telemetry.component(kind, component_id)
        component = factory.create(Settings(component_id, kind, telemetry, self.clock, signals), config)
        await component.start(self.host())
        try:
            yield component
        finally:
            await component.shutdown()

    def signals_of(self, exporter_id: Any) -> frozenset[Signal]:
        """The signals of the pipelines that use the exporter."""
        pipelines = self.config.service.pipelines.values()
        return frozenset(pipeline.signal for pipeline in pipelines if exporter_id in pipeline.exporters)


class LetterStores:
    """The opened dead-letter stores of a configuration."""

    def __init__(self, service: OfflineService) -> None:
        self._service = service
        self._storages: list[QueueStorage] = []

    @asynccontextmanager
    async def opened(self) -> AsyncIterator["LetterStores"]:
        """Open all stores.

        Raises:
            OSError: a store cannot be opened, for example because the service runs.
        """
        async with AsyncExitStack() as stack:
            for exporter_id, configured in self._service.config.exporters.items():
                dead_letter = getattr(configured.config, "dead_letter", None)
                if not isinstance(dead_letter, DeadLetterConfig):
                    continue
                extension = await self._extension(stack, dead_letter, f"exporters::{exporter_id}")
                for signal in sorted(self._service.signals_of(exporter_id)):
                    storage = await extension.queue(
                        dead_letter_queue(exporter_id, signal),
                        max_size_bytes=dead_letter.max_size,
                        when_full="drop_oldest",
                    )
                    stack.push_async_callback(storage.close)
                    self._storages.append(storage)
            yield self

    async def _extension(self, stack: AsyncExitStack, config: DeadLetterConfig, path: str) -> StorageExtension:
        service = self._service
        if config.storage not in service.extensions:
            for extension_id, configured in service.config.extensions.items():
                if str(extension_id) == config.storage:
                    service.extensions[config.storage] = await stack.enter_async_context(
                        service.running(
                            ComponentKind.EXTENSION, extension_id, configured.factory, configured.config, frozenset()
                        )
                    )
        return find_storage(service.host(), config.storage, key=f"{path}::dead_letter::storage")

    async def letters(self, where: LetterFilter) -> AsyncGenerator[Letter, None]:
        """The letters that are meant, of one store after the other, oldest first."""
        for storage in self._storages:
            async for stored in matching(storage, where):
                yield Letter(stored, storage)


def _time(text: str, now_unix_nano: int) -> int:
    """A time in nanoseconds since 1970, from ISO 8601 or a duration before now."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            seconds: float = TypeAdapter(Duration).validate_python(text)
        except ValueError:
            raise ValueError(
                f"{text!r} is not a valid time; expected for example 2026-12-01T08:00:00Z or 2h (before now)"
            ) from None
        return now_unix_nano - int(seconds * _NS_PER_S)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * _NS_PER_S
