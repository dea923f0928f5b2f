"""Faults of the disk under a queue or a file, of the clock, and restarts: what was acknowledged arrives or is counted."""

import asyncio
import errno
import json
import os

import pytest
from fault_rig import EXPORTERS, GRPC, FaultRig
from fault_sinks import GrpcSink, HttpSink

from collector.service.process import SystemClock
from collector.storage import segment
from collector.testing import eventually
from config.load import load
from exporters.file import rotation

CODES = [errno.ENOSPC, errno.EROFS, errno.EIO]
ONE_OF_EACH = [pytest.param(name, marks=[] if name == "otlp_grpc" else [pytest.mark.slow]) for name in EXPORTERS]


def sink_of(exporter, fault=""):
    return (GrpcSink if exporter in GRPC else HttpSink)(fault)


class FailingCalls:
    """Makes ``os.<call>`` of a module fail while ``code`` is set."""

    def __init__(self, monkeypatch, module, call):
        self.code, real = 0, getattr(os, call)

        def function(*arguments):
            if self.code:
                raise OSError(self.code, os.strerror(self.code))
            return real(*arguments)

        class Os:
            def __getattr__(self, name):
                return function if name == call else getattr(os, name)

        monkeypatch.setattr(module, "os", Os())


@pytest.mark.parametrize("exporter", ONE_OF_EACH)
@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
async def test_a_queue_whose_disk_cannot_be_written_refuses_and_recovers(exporter, code, tmp_path, monkeypatch):
    """The senders are told to retry, and what was acknowledged before and afterwards arrives."""
    monkeypatch.setattr("collector.storage.queue._FULL_RETRY_S", 0.05)
    disk = FailingCalls(monkeypatch, segment, "pwritev")
    async with sink_of(exporter) as sink:
        rig = FaultRig(exporter, sink, storage=tmp_path / "storage")
        async with rig.running():
            await rig.send()
            disk.code = code
            await rig.send()
            assert rig.refused == 50
            disk.code = 0
            while rig.acknowledged < 100:
                await rig.send(1)
            await rig.settled()
            door, end = rig.row("receivers/otlp"), rig.row()
            assert rig.service.ledger.imbalances() == []
            assert end.delivered == sink.taken == rig.acknowledged
            assert door.received == rig.acknowledged + rig.refused


@pytest.mark.parametrize("exporter", ONE_OF_EACH)
async def test_the_ledger_closes_over_restarts(exporter, tmp_path):
    """What three lives of the process held at their ends is what the next ones began with, and all of it arrives."""
    async with sink_of(exporter, "hangs") as sink:
        rig = FaultRig(exporter, sink, storage=tmp_path / "storage")
        received = kept = 0
        for _ in range(3):
            async with rig.running(shutdown_timeout_s=1.0):
                await rig.send()
                row = rig.row()
                assert row.created == kept
                received, kept = received + row.received, row.held
                assert kept == received
        await sink.heal()
        async with rig.running():
            await rig.settled()
            row = rig.row()
            assert (row.created, row.delivered, dict(row.dropped), dict(row.refused)) == (received, received, {}, {})
            assert sink.taken == received == 150


@pytest.mark.parametrize("exporter", ONE_OF_EACH)
@pytest.mark.parametrize("damage", ["corrupt", "corrupt without a footer", "truncated"])
async def test_a_damaged_queue_is_opened_and_what_is_lost_is_counted(exporter, damage, tmp_path):
    """The rest arrives; the start is not blocked."""
    async with sink_of(exporter, "hangs") as sink:
        rig = FaultRig(exporter, sink, storage=tmp_path / "storage")
        async with rig.running(shutdown_timeout_s=1.0):
            await rig.send(10)
        files = sorted((tmp_path / "storage").rglob("*.seg"))
        assert files
        content = bytearray(files[0].read_bytes())
        if damage == "truncated":
            del content[len(content) // 2 :]
        else:
            content[len(content) // 3] ^= 0xFF
            content[-1] ^= 0xFF if damage == "corrupt without a footer" else 0
        files[0].write_bytes(content)
        await sink.heal()
        async with rig.running():
            await rig.settled()
            row = rig.row()
            lost = sum(row.dropped.values())
            assert 0 < sink.taken < 100
            assert row.delivered == sink.taken
            assert row.created == row.delivered + lost
            if damage != "truncated":
                assert (row.created, set(row.dropped)) == (100, {"storage_damaged"})


@pytest.mark.parametrize("exporter", ONE_OF_EACH)
@pytest.mark.parametrize("step_s", [43_200, -43_200], ids=["forward", "back"])
async def test_a_step_of_the_wall_clock_changes_nothing_that_is_under_way(exporter, step_s, tmp_path):
    """Retries, the queue on disk and the books do not depend on the wall clock."""

    class Clock(SystemClock):
        offset_s = 0

        def time_unix_nano(self):
            return super().time_unix_nano() + self.offset_s * 1_000_000_000

    clock = Clock()
    async with sink_of(exporter, "hangs") as sink:
        rig = FaultRig(exporter, sink, storage=tmp_path / "storage", clock=clock)
        async with rig.running():
            await rig.send()
            await eventually(lambda: sink.hits, timeout_s=20)
            clock.offset_s = step_s
            await sink.heal()
            await rig.settled()
            row = rig.check_books()
            assert (row.delivered, dict(row.dropped), dict(row.refused)) == (50, {}, {})


@pytest.mark.parametrize("exporter", ONE_OF_EACH)
async def test_reloads_under_load(exporter):
    """Requests go on while the exporter is exchanged ten times; nothing is refused or lost."""
    async with sink_of(exporter) as sink:
        rig = FaultRig(exporter, sink)
        async with rig.running():
            sending = asyncio.ensure_future(rig.send(300))
            for number in range(10):
                text = rig.text.replace("max_interval: 50ms", f"max_interval: {51 + number}ms")
                assert await rig.service.reload(load([f"yaml:{text}"], (), rig.registry))
            await sending
            await rig.settled()
            assert rig.refused == 0
            assert rig.check_books().delivered == 3000


@pytest.mark.parametrize("code", CODES, ids=errno.errorcode.get)
async def test_a_file_that_cannot_be_written_is_written_later(code, tmp_path, monkeypatch):
    """Each record stands in it exactly once."""
    disk = FailingCalls(monkeypatch, rotation, "write")
    path = tmp_path / "out.jsonl"

    class Lines:
        port = 0

        @property
        def taken(self):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            return sum(len(s["logRecords"]) for b in lines for r in b["resourceLogs"] for s in r["scopeLogs"])

    rig = FaultRig("file", Lines(), file=path)
    async with rig.running():
        await rig.send()
        await rig.settled()
        disk.code = code
        await rig.send()
        assert rig.row().held == 50
        disk.code = 0
        await rig.settled()
        assert rig.check_books().delivered == 100
