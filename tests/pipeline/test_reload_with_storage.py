"""Reload of exporters that still have data, most of them in a real ``file_storage``: nothing is sent twice or lost."""

import asyncio

import pytest
from fault_rig import FaultRig
from fault_sinks import HttpSink

from collector.service.lifecycle import LAST_CHANCE_S
from collector.testing import eventually
from config.load import load


class HeldSink(HttpSink):
    """A backend that answers when ``gate`` is open; ``begun`` counts the requests that it was sent."""

    def __init__(self):
        super().__init__()
        self.begun, self.gate = 0, asyncio.Event()

    async def on_request(self):
        self.begun += 1
        await self.gate.wait()


def changed(rig, number):
    text = rig.text.replace("max_interval: 50ms", f"max_interval: {51 + number}ms")
    return load([f"yaml:{text}"], (), rig.registry)


@pytest.fixture
def sink():
    return HeldSink()


async def test_requests_in_flight_end_before_the_successor_starts(sink, tmp_path):
    """The backend takes its time; requests are answered meanwhile, and each item is sent once."""
    async with sink:
        rig = FaultRig("otlp_http", sink, storage=tmp_path / "storage")
        rig.text = rig.text.replace("timeout: 300ms", "timeout: 60s")
        async with rig.running():
            await rig.send(6)
            await eventually(lambda: sink.begun == 2)
            reloading = asyncio.ensure_future(rig.service.reload(changed(rig, 1)))
            await rig.send(4)
            assert not reloading.done()
            sink.gate.set()
            assert await reloading
            await rig.settled()
            assert (rig.acknowledged, rig.refused, sink.taken, sink.begun) == (100, 0, 100, 10)
            rig.check_books()
            assert not rig.row().created


async def test_what_is_never_answered_is_sent_again_by_the_successor(sink, tmp_path):
    """The backend hangs for longer than the service may take to shut down."""
    async with sink:
        rig = FaultRig("otlp_http", sink, storage=tmp_path / "storage")
        rig.text = rig.text.replace("timeout: 300ms", "timeout: 60s")
        async with rig.running(shutdown_timeout_s=0.3):
            await rig.send(2)
            await eventually(lambda: sink.begun == 2)
            assert await rig.service.reload(changed(rig, 1))
            sink.gate.set()
            await rig.settled()
            assert rig.row().delivered == 20


async def test_a_replaced_exporter_may_take_longer_than_a_shutdown(sink):
    """Its queue is in memory; what it was sending is delivered, however short the time for a shutdown is."""
    async with sink:
        rig = FaultRig("otlp_http", sink)
        rig.text = rig.text.replace("timeout: 300ms", "timeout: 60s")
        async with rig.running(shutdown_timeout_s=0.1):
            await rig.send(2)
            await eventually(lambda: sink.begun == 2)
            assert await rig.service.reload(changed(rig, 1))
            over_s = asyncio.get_running_loop().time() + 0.1 + LAST_CHANCE_S
            await eventually(lambda: asyncio.get_running_loop().time() > over_s)
            sink.gate.set()
            await rig.settled()
            assert (rig.row().delivered, sink.begun) == (20, 2)


async def test_a_shutdown_that_gives_the_reload_up_lets_the_exporter_send_again(sink, tmp_path):
    """The exporter, which had been held back for the reload, delivers what it has within the time of the shutdown."""
    async with sink:
        rig = FaultRig("otlp_http", sink, storage=tmp_path / "storage")
        rig.text = rig.text.replace("timeout: 300ms", "timeout: 60s")
        async with rig.running():
            await rig.send(4)
            await eventually(lambda: sink.begun == 2)
            reloading = asyncio.ensure_future(rig.service.reload(changed(rig, 1)))
            await eventually(lambda: rig.service._reloading is not None)
            stopping = asyncio.ensure_future(rig.service.shutdown())
            assert not await reloading
            sink.gate.set()
            await stopping
            assert (sink.taken, sink.begun, rig.row().delivered, rig.row().held) == (40, 4, 40, 0)


async def test_reloads_under_load_with_a_queue_on_disk(sink, tmp_path):
    """Ten reloads while requests arrive: none is refused, and no item arrives twice."""
    sink.gate.set()
    async with sink:
        rig = FaultRig("otlp_http", sink, storage=tmp_path / "storage")
        rig.text = rig.text.replace("timeout: 300ms", "timeout: 60s")
        async with rig.running():
            sending = asyncio.ensure_future(rig.send(300))
            for number in range(10):
                assert await rig.service.reload(changed(rig, number))
            await sending
            await rig.settled()
            assert (rig.refused, rig.check_books().delivered) == (0, 3000)
            assert not rig.row().created
