"""A queue on disk in the graph: the sender's answer waits for the disk, and nobody else does."""

import asyncio
import errno

import pytest

from collector.api import ComponentKind, Extension, Factory, Receipt, Receiver, RetryableError, Stability
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import EMPTY_CONTEXT, Batch, Signal
from collector.registry import Registry
from collector.service import Service
from collector.testing import FakeStorage, eventually, traces_request
from config.blocks import ComponentConfig
from config.load import load
from processors.attributes import factory as attributes_factory
from processors.batch import factory as batch_factory

FULL = OSError(errno.ENOSPC, "No space left on device")
CONFIG = """
extensions: {disk: {}}
receivers: {source: {}}
processors:
  batch: {send_batch_size: 5, timeout: 1h}
  attributes: {actions: [{key: a, value: b, action: insert}]}
exporters:
  probe/disk: {sending_queue: {storage: disk}}
  probe/memory: {}
service:
  extensions: [disk]
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [source], processors: [PROCESSORS], exporters: [EXPORTERS]}}
"""


class Source(Receiver):
    """Its door is what the tests use."""

    def __init__(self, settings):
        self.door = settings.outputs[Signal.TRACES]


class Disk(Extension, FakeStorage):
    """The fake storage as a component."""


class Probe(QueuedExporter[Batch]):
    """Delivers when the gate is open."""

    def __init__(self, settings, config):
        super().__init__(settings, config)
        self.sent = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, payload):
        await self.gate.wait()
        self.sent.append(payload.item_count)


class Running:
    """A service with exporters on disk and in memory, and senders."""

    def __init__(self, *, processors="", exporters="probe/disk, probe/memory"):
        self.made, self.answers = {}, []

        def factory(kind, name, make, config_type=ComponentConfig, signals=frozenset({Signal.TRACES})):
            def create(settings, config):
                self.made[str(settings.id)] = make(settings, config)
                return self.made[str(settings.id)]

            return Factory(
                component_type=name, kind=kind, config_type=config_type, create=create, signals=signals,
                stability=Stability.STABLE,
            )  # fmt: skip

        registry = Registry.of(
            [
                factory(ComponentKind.RECEIVER, "source", lambda settings, config: Source(settings)),
                factory(ComponentKind.EXPORTER, "probe", Probe, ExporterConfig),
                factory(ComponentKind.EXTENSION, "disk", lambda settings, config: Disk(), signals=frozenset()),
                attributes_factory,
                batch_factory,
            ]
        )
        text = CONFIG.replace("PROCESSORS", processors).replace("EXPORTERS", exporters)
        self.service = Service(load([f"yaml:{text}"], (), registry), shutdown_timeout_s=0.5)

    async def __aenter__(self):
        await self.service.start()
        return self

    async def __aexit__(self, *_):
        await self.service.shutdown()
        assert self.service.ledger.imbalances() == []

    @property
    def stored(self):
        return self.made["disk"].queues["probe/disk traces"]

    def send(self, spans):
        wire = traces_request(spans=spans).SerializeToString()
        self.made["source"].door.try_consume_request(wire, EMPTY_CONTEXT, self.answers.append)

    def row(self, node):
        return next(row for row in self.service.ledger.snapshot() if row.node == node)


async def test_the_answer_waits_for_the_disk_and_other_exporters_do_not():
    """Requests of one turn are one batch, as without a disk, and are answered one by one."""
    async with Running() as running:
        running.stored.hold()
        running.send(3)
        running.send(4)
        await eventually(lambda: running.made["probe/memory"].sent == [7])
        assert running.answers == []
        assert running.made["probe/disk"].sent == []
        running.stored.resume()
        await eventually(lambda: running.answers == [Receipt(3), Receipt(4)])
        await eventually(lambda: running.made["probe/disk"].sent == [7])


@pytest.mark.parametrize("processors", ["", "attributes"])
async def test_requests_go_on_while_the_disk_is_busy(processors):
    """They gather, and count as what senders sent, also after they were joined and changed."""
    async with Running(exporters="probe/disk", processors=processors) as running:
        running.stored.hold()
        for count in range(1, 21):
            running.send(count)
            await asyncio.sleep(0)
        await eventually(lambda: running.stored.totals.item_count == 210)
        assert running.stored.totals.request_count == 20
        running.stored.resume()
        await eventually(lambda: len(running.answers) == 20)
        await eventually(lambda: sum(running.made["probe/disk"].sent) == 210)


async def test_a_sender_learns_that_its_data_could_not_be_stored():
    """It may retry. The ledger shows the loss where it happened."""
    async with Running() as running:
        running.stored.hold()
        running.send(3)
        await eventually(lambda: running.stored.totals.item_count == 3)
        running.stored.fail_with = FULL
        running.stored.resume()
        await eventually(lambda: len(running.answers) == 1)
        (error,) = running.answers
        assert isinstance(error, RetryableError)
        assert "No space left on device" in str(error)
        assert running.row("exporters/probe/disk").dropped == {"storage_full": 3}
        await eventually(lambda: running.row("exporters/probe/memory").delivered == 3)
        running.stored.fail_with = None


async def test_a_full_disk_refuses_at_the_door_if_nobody_else_takes_the_data():
    """Before anything is taken, so a retry duplicates nothing; it works again by itself."""
    async with Running(exporters="probe/disk") as running:
        running.stored.fail_with = FULL
        running.send(3)
        await eventually(lambda: len(running.answers) == 1)
        assert isinstance(running.answers[0], RetryableError)
        assert running.row("exporters/probe/disk").received == 0
        running.stored.fail_with = None
        running.send(3)
        await eventually(lambda: running.answers[1:] == [Receipt(3)])
        await eventually(lambda: running.made["probe/disk"].sent == [3])


async def test_behind_a_stage_that_holds_data_the_answer_does_not_wait():
    """What fills the stage's batch waits with it; what is held is in memory, as documented."""
    async with Running(processors="batch", exporters="probe/disk") as running:
        running.stored.hold()
        running.send(3)
        await eventually(lambda: running.answers == [Receipt(3)])
        running.send(3)
        await eventually(lambda: running.stored.totals.item_count == 6)
        assert len(running.answers) == 1
        running.stored.resume()
        await eventually(lambda: len(running.answers) == 2)


@pytest.mark.parametrize("is_stored", [True, False])
async def test_the_ledger_closes_when_the_service_ends_with_data_on_the_disk(is_stored):
    """What stays there is in flight; what was still being stored is stored before the end."""
    async with Running(exporters="probe/disk") as running:
        running.made["probe/disk"].gate.clear()
        if not is_stored:
            running.stored.hold()
        running.send(5)
        await eventually(lambda: running.stored.totals.item_count == 5)
    row = running.row("exporters/probe/disk")
    assert (row.held, row.dropped, len(running.stored.batches)) == (5, {}, 1)
