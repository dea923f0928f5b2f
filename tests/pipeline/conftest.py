"""Components that do what a test orders, and a service that runs them."""

import asyncio
from collections.abc import Mapping
from contextlib import asynccontextmanager

import pytest

from collector.api import (
    ComponentKind,
    Connector,
    Exporter,
    Extension,
    Factory,
    PermanentError,
    Receiver,
    RetryableError,
    Scope,
    Settings,
    SharedKey,
    Stability,
    Stage,
    Status,
    Transform,
)
from collector.model import Batch, Signal
from collector.registry import Registry
from collector.service import Service
from config.blocks import ComponentConfig, InvalidSettings
from config.load import load

ALL = frozenset(Signal)


class ScriptConfig(ComponentConfig):
    """``do`` is the order that the component follows. Another ``version`` makes a reload replace the component."""

    do: str = ""
    version: int = 0
    holds: str = ""
    """What only one component may use."""


class Source(Receiver):
    def __init__(self, settings: Settings) -> None:
        self.outputs, self.started, self.stopped = settings.outputs, False, False
        self.settings, self.everybody = settings, settings.shared.get(SERVICE_OBJECTS)

    async def start(self, host) -> None:
        if self.order == "fail_start":
            raise OSError("receivers::source::endpoint: the port is taken")
        self.started = True

    async def shutdown(self) -> None:
        self.stopped = True


OBJECTS = SharedKey("test.objects", list)
SERVICE_OBJECTS = SharedKey("test.objects", list, scope=Scope.SERVICE)


class Every(Transform):
    """A transform that passes, halves or drops batches, or raises, as ordered."""

    drop_reason = "halved"

    def __init__(self, settings: Settings, order: str) -> None:
        self.order, self.telemetry = order, settings.telemetry
        self.siblings, self.everybody = settings.shared.get(OBJECTS), settings.shared.get(SERVICE_OBJECTS)

    def transform(self, batch: Batch) -> Batch | None:
        if self.order == "raise":
            raise RuntimeError("a bug")
        if self.order == "drop":
            return None
        if self.order == "half":
            import numpy as np

            return batch.select(np.arange(batch.item_count) % 2 == 0)
        if self.order == "half_own_reason":
            import numpy as np

            left = batch.select(np.arange(batch.item_count) % 2 == 0)
            self.telemetry.dropped(batch.signal, batch.item_count - left.item_count, "mine")
            return left
        return batch


class Holder(Stage):
    """A stage that holds all batches until its shutdown, or until ``flush`` is called."""

    def __init__(self, settings: Settings, order: str) -> None:
        self.order, self.output, self.held = order, settings.outputs, []
        self.is_handed_over = False
        self.successor_config = None

    async def start(self, host) -> None:
        if "fail_start" in self.order:
            raise ValueError("cannot start")
        if "use_helper" in self.order:
            self.helper = host.extension("helper")
        if "report_failure" in self.order:
            host.report(Status.PERMANENT_ERROR, "broken")

    def hand_over(self, config):
        if self.order == "hand_over_raise":
            raise RuntimeError("a bug")
        if "hand_over" not in self.order:
            return None
        self.successor_config, self.is_handed_over = config, True
        return self

    def take_over(self, state) -> bool:
        if self.order == "hand_over, take_over_raise":
            raise RuntimeError("a bug")
        if self.order == "hand_over, adopt_and_raise":
            self.held = state.held
            raise RuntimeError("a bug")
        if self.order == "hand_over, refuse":
            return False
        self.held, state.held = state.held, []
        return True

    async def consume(self, batch: Batch) -> None:
        if self.order == "raise":
            raise RuntimeError("a bug")
        if self.order == "refuse":
            raise RetryableError("the lookup failed", reason="unavailable")
        if self.order == "hang":
            await asyncio.Event().wait()
        self.held.append(batch)

    def held_items(self) -> int:
        return sum(batch.item_count for batch in self.held)

    def held_bytes(self) -> int:
        return sum(batch.memory_bytes for batch in self.held)

    async def flush(self) -> None:
        held, self.held = self.held, []
        for batch in held:
            await self.output[batch.signal].consume(batch)

    async def shutdown(self) -> None:
        if self.order == "hang_shutdown":
            await asyncio.Event().wait()
        if self.order != "lose" and not self.is_handed_over:
            await self.flush()
        self.is_handed_over = False


AWAITED = {"async", "hang", "raise", "consume_error"}
"""Orders that a target follows in ``consume`` alone."""


class Target(Exporter):
    """An exporter that delivers, or fails in any way in which a backend can make it fail."""

    settles_by_itself = True

    def __init__(self, settings: Settings, order: str) -> None:
        self.order, self.telemetry = order, settings.telemetry
        self.batches: list[Batch] = []
        self.release = asyncio.Event()
        self.waiting = 0
        self.stopped = False
        self.room = True
        self.waits_for_result = order.startswith("wait")

    async def start(self, host) -> None:
        if self.order == "fail_start":
            raise ValueError("no such certificate")

    def sole_use(self):
        return {self.config.holds} if self.config.holds else ()

    def blocks_on_overflow(self) -> bool:
        return self.order == "blocks_on_overflow"

    def has_room(self, batch: Batch) -> bool:
        return self.room

    def in_flight_items(self) -> Mapping[Signal, int]:
        return {Signal.TRACES: self.waiting}

    def try_consume(self, batch: Batch) -> bool:
        if self.order == "try_raise":
            raise RuntimeError("a bug")
        if self.order in AWAITED or self.waits_for_result:
            return False
        self._deliver(batch)
        return True

    async def consume(self, batch: Batch) -> None:
        if self.order in {"hang", "wait_hang"}:
            self.waiting += batch.item_count
            await self.release.wait()
            self.waiting -= batch.item_count
        if self.order == "raise":
            raise RuntimeError("a bug")
        if self.order == "wait_refuse":
            self.telemetry.refused(batch.signal, batch.item_count, "http_400")
            raise PermanentError("bad", reason="http_400")
        if self.order == "wait_retry":
            self.telemetry.dropped(batch.signal, batch.item_count, "retries_exhausted")
            raise RetryableError("later", reason="unavailable")
        if self.order == "consume_error":
            raise RetryableError("not allowed here", reason="unavailable")
        self._deliver(batch)

    def _deliver(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.telemetry.delivered(batch.signal, batch.item_count)

    async def shutdown(self) -> None:
        self.stopped = True
        if self.order == "hang_shutdown":
            self.waiting = 7
            await asyncio.Event().wait()

    @property
    def item_count(self) -> int:
        return sum(batch.item_count for batch in self.batches)


class PlainTarget(Exporter):
    """An exporter that only has ``consume``, so that the service does its accounting."""

    def __init__(self, settings: Settings, order: str) -> None:
        self.order, self.telemetry = order, settings.telemetry
        self.waits_for_result = order.startswith("wait")
        self.release = asyncio.Event()
        self.entered = 0

    def try_consume(self, batch: Batch) -> bool:
        if self.order == "try, refuse":
            self.telemetry.dropped(batch.signal, 3, "too_large")
            raise PermanentError("bad", reason="http_400")
        return False

    async def consume(self, batch: Batch) -> None:
        self.entered += 1
        if "drop_some" in self.order:
            self.telemetry.dropped(batch.signal, 3, "too_large")
        if "count_all" in self.order:
            self.telemetry.delivered(batch.signal, batch.item_count)
        if "hang" in self.order:
            await self.release.wait()
        if self.order == "drop_some, hang, raise" and self.entered > 1:
            raise RuntimeError("a bug")
        if self.order == "count_all, raise":
            raise RuntimeError("a bug")
        if self.order in {"refuse", "wait, refuse", "count_all, refuse"}:
            raise PermanentError("bad", reason="http_400")
        if self.order == "retry":
            raise RetryableError("later")
        if self.order == "raise":
            raise RuntimeError("a bug")


class Passer(Connector):
    def __init__(self, settings: Settings, order: str) -> None:
        self.settings, self.order = settings, order
        self.held = dict.fromkeys(Signal, 0)

    async def consume(self, batch: Batch) -> None:
        if self.order == "refuse":
            raise PermanentError("cannot convert", reason="unsupported")
        if self.order == "hold":
            self.held[batch.signal] += batch.item_count
            return
        await self.settings.outputs[batch.signal].consume(batch)

    def held_items(self) -> Mapping[Signal, int]:
        return self.held


class Helper(Extension):
    unready_reason = ""

    async def start(self, host) -> None:
        async def answer(query):
            return {"hello": query.get("name", "world")}

        async def act(query):
            if "bad" in query:
                raise ValueError("that is not possible")
            return {"done": query.get("name", "")}

        host.add_admin_route("/hello", answer)
        host.add_admin_action("/act", act)
        host.add_readiness_check(lambda: self.unready_reason)


class World:
    """Makes services from YAML. ``made`` has every component by ``section/id``, the newest object of each."""

    def __init__(self) -> None:
        self.made: dict[str, object] = {}
        self.log: list[str] = []
        self.services: list[Service] = []

    def registry(self) -> Registry:
        makers = {
            (ComponentKind.RECEIVER, "source"): lambda settings, order: Source(settings),
            (ComponentKind.PROCESSOR, "every"): Every,
            (ComponentKind.PROCESSOR, "holder"): Holder,
            (ComponentKind.EXPORTER, "target"): Target,
            (ComponentKind.EXPORTER, "plain"): PlainTarget,
            (ComponentKind.CONNECTOR, "passer"): Passer,
            (ComponentKind.EXTENSION, "helper"): lambda settings, order: Helper(),
        }
        return Registry.of([self._factory(kind, name, make) for (kind, name), make in makers.items()])

    def _factory(self, kind, name, make) -> Factory:
        def create(settings, config):
            if config.do == "fail_create":
                raise ValueError("refuses its configuration")
            if config.do == "fail_create:version":
                raise InvalidSettings((("version",), "refused"), (("do",), "refused"))
            if config.do.startswith("fail_create:"):
                raise ValueError(config.do.removeprefix("fail_create:"))
            component = make(settings, config.do)
            component.order, component.config = config.do, config
            key = f"{kind.value}/{settings.id}" + (f"@{settings.pipeline}" if settings.pipeline else "")
            self.made[key] = component
            self._record(component, key)
            return component

        return Factory(
            component_type=name,
            config_type=ScriptConfig,
            create=create,
            stability=Stability.STABLE,
            signals=frozenset() if kind is ComponentKind.EXTENSION else ALL,
            kind=kind,
            connects=frozenset((signal, signal) for signal in Signal)
            if kind is ComponentKind.CONNECTOR
            else frozenset(),
        )

    def _record(self, component, key) -> None:
        for name in ("start", "shutdown"):
            inner = getattr(component, name)

            async def recorded(*arguments, _inner=inner, _name=name):
                self.log.append(f"{_name} {key}")
                await _inner(*arguments)

            setattr(component, name, recorded)

    def config(self, text: str, *, metrics: str = "level: none"):
        head = f"service:\n  telemetry: {{metrics: {{{metrics}}}}}\n"
        return load([f"yaml:{head}", f"yaml:{text}"], (), self.registry())

    def service(self, text: str, *, metrics: str = "level: none", **options) -> Service:
        made = Service(self.config(text, metrics=metrics), **{"shutdown_timeout_s": 5.0, **options})
        self.services.append(made)
        return made

    @asynccontextmanager
    async def running(self, text: str, *, metrics: str = "level: none", **options):
        service = self.service(text, metrics=metrics, **options)
        await service.start()
        try:
            yield service
        finally:
            await service.shutdown()
            assert service.ledger.imbalances() == [], service.ledger.imbalances()

    def source(self, name: str = "source", signal: Signal = Signal.TRACES):
        return self.made[f"receivers/{name}"].outputs[signal]

    def target(self, name: str = "target") -> Target:
        return self.made[f"exporters/{name}"]


@pytest.fixture
def world() -> World:
    return World()
