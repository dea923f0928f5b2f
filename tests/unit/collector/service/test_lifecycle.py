"""Accounting for what ended components hold."""

from collector.api import Component, ComponentId, ComponentKind, Settings
from collector.model import Signal
from collector.service.admission import ServiceAdmission
from collector.service.ledger import Ledger
from collector.service.lifecycle import Lifecycle
from collector.service.nodes import HeldItems, Node
from collector.service.sockets import ListeningSockets
from collector.service.telemetry import ServiceTelemetry
from collector.testing import FakeClock, RecordingLog

LOKI = ComponentId("loki")


class World:
    def __init__(self) -> None:
        self.ledger, clock = Ledger(), FakeClock()
        self.telemetry = ServiceTelemetry(ledger=self.ledger, clock=clock, resource={})
        self.admission, self.sockets = ServiceAdmission(clock), ListeningSockets()
        self.lifecycle = Lifecycle(self, RecordingLog())
        self.entry = self.ledger.entry(ComponentKind.EXPORTER, LOKI, Signal.LOGS)
        self.clock = clock

    def node(self, held: dict, *, is_kept: bool) -> Node:
        telemetry = self.telemetry.component(ComponentKind.EXPORTER, LOKI)
        settings = Settings(id=LOKI, kind=ComponentKind.EXPORTER, telemetry=telemetry, clock=self.clock)
        items = [HeldItems(self.entry, lambda: held["count"], is_kept=is_kept)]
        return Node(ComponentKind.EXPORTER, LOKI, Component(), settings, None, telemetry, held=items)


async def test_what_a_storage_keeps_stays_in_flight_until_a_successor_has_it():
    """It is not dropped, and not counted twice when the next component with this id has opened the storage."""
    world = World()
    world.entry.received = 5
    held = {"count": 5}
    old, new = world.node(held, is_kept=True), world.node(dict(held), is_kept=True)
    await world.lifecycle.start([old], {})
    await world.lifecycle.end([old], 0.0)
    assert (world.entry.held, world.entry.dropped) == (5, {})
    await world.lifecycle.start([new], {})
    assert (world.entry.held, world.entry.dropped) == (5, {})
    assert world.ledger.imbalances() == []


async def test_what_is_only_in_memory_is_dropped():
    """The reason is shutdown."""
    world = World()
    world.entry.received = 5
    node = world.node({"count": 5}, is_kept=False)
    await world.lifecycle.start([node], {})
    await world.lifecycle.end([node], 0.0)
    assert (world.entry.held, world.entry.dropped) == (0, {"shutdown": 5})
    await world.lifecycle.end([node], 0.0)
    assert world.ledger.imbalances() == []
