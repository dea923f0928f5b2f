"""The extension: its keys, its health, and what it refuses to start with."""

import asyncio
import errno
import os

import pytest

from collector.api import StorageExtension, find_storage
from collector.service.process import SystemClock
from collector.storage import segment
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, make, traces
from extensions.file_storage import factory


async def started(folder, host=None, **config):
    config = factory.config_type.model_validate({"directory": str(folder), "create_directory": True, **config})
    extension = make(factory, config, clock=SystemClock(), telemetry=RecordingTelemetry())
    await extension.start(host or FakeHost())
    return extension


async def stored(queue, batch):
    outcome = asyncio.get_running_loop().create_future()
    queue.append(batch, outcome.set_result)
    return await outcome


async def test_others_find_it_by_its_id(tmp_path):
    """By both spellings of the type; anything else is refused with the key that names it."""
    extension = await started(tmp_path / "a")
    assert isinstance(extension, StorageExtension)
    assert factory.aliases == ("filestorage",)
    host = FakeHost(extensions={"file_storage": extension, "health_check": object()})
    assert find_storage(host, "file_storage", key="k") is extension
    for other in ("health_check", "file_storage/b"):
        with pytest.raises(ValueError, match=r"^processors::x::storage: "):
            find_storage(host, other, key="processors::x::storage")
    await extension.state("x").save(b"1")
    assert await extension.state("x").load() == b"1"
    await extension.shutdown()


@pytest.mark.parametrize("fsync", [True, False])
async def test_fsync_decides_whether_a_write_is_synced(tmp_path, monkeypatch, fsync):
    """With the flag of the write itself, so that it takes one call."""
    flags = []
    real = os.pwritev
    monkeypatch.setattr(
        segment.os, "pwritev", lambda fd, data, at, flag=0: flags.append(flag) or real(fd, data, at, flag)
    )
    extension = await started(tmp_path / "a", fsync=fsync)
    queue = await extension.queue("q")
    assert await stored(queue, traces(spans=1)) is None
    assert (os.RWF_DSYNC in flags) == fsync
    await extension.shutdown()


async def test_a_file_system_that_cannot_sync_in_the_write_syncs_after_it(tmp_path, monkeypatch):
    """Some network file systems refuse the flag."""
    synced = []
    real_write, real_sync = os.pwritev, os.fdatasync

    def refuse(fd, data, at, flag=0):
        if flag:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return real_write(fd, data, at)

    monkeypatch.setattr(segment.os, "pwritev", refuse)
    monkeypatch.setattr(segment.os, "fdatasync", lambda fd: synced.append(fd) or real_sync(fd))
    extension = await started(tmp_path / "a")
    queue = await extension.queue("q")
    for _ in range(2):
        assert await stored(queue, traces(spans=1)) is None
    assert len(synced) == 2
    assert queue.totals.batch_count == 2
    await extension.shutdown()


async def test_health_names_a_queue_that_cannot_be_written(tmp_path, monkeypatch):
    """Until a write succeeds again."""
    host = FakeHost()
    extension = await started(tmp_path / "a", host)
    queue = await extension.queue("otlp_grpc traces")
    (check,) = host.health()
    assert check.healthy

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segment.os, "pwritev", fail)
    assert "No space" in str(await stored(queue, traces(spans=1)))
    (check,) = host.health()
    assert not check.healthy
    assert "otlp_grpc traces" in check.message
    assert "No space" in check.message
    monkeypatch.undo()
    assert await stored(queue, traces(spans=1)) is None
    (check,) = host.health()
    assert check.healthy
    await extension.shutdown()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"directory": ""}, "directory must not be empty"),
        ({"directory_permissions": "rwx"}, "not octal permissions"),
        ({"directory_permissions": "7777"}, "not octal permissions"),
        ({"when_full": "drop"}, "drop_oldest"),
        ({"max_size": -1}, "max_size"),
    ],
)
def test_wrong_values_are_refused(config, message):
    """With what would be right."""
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


async def test_a_directory_that_is_missing_refuses_the_start(tmp_path):
    """The message has the key and what to do."""
    with pytest.raises(OSError, match=r"extensions::file_storage::directory: .* set create_directory: true"):
        await started(tmp_path / "a", create_directory=False)


async def test_a_queue_without_an_exporter_is_named(tmp_path):
    """A minute after the start, if there is something in it."""
    extension = await started(tmp_path)
    assert await stored(await extension.queue("gone traces"), traces(spans=1)) is None
    await extension.queue("empty traces")
    assert await stored(await extension.queue("kept traces"), traces(spans=1)) is None
    await extension.shutdown()
    clock, telemetry = FakeClock(), RecordingTelemetry()
    again = make(factory, factory.config_type(directory=str(tmp_path)), clock=clock, telemetry=telemetry)
    await again.start(FakeHost())
    await again.queue("kept traces")
    await clock.advance(59)
    assert telemetry.log.events == []
    await clock.advance(2)
    await eventually(lambda: telemetry.log.events)
    assert [event.fields["queue"] for event in telemetry.log.of_level("warning")] == ["gone traces"]
    await again.shutdown()


async def test_compaction_is_named_as_without_effect(tmp_path):
    """Configurations of the Collector keep working."""
    telemetry = RecordingTelemetry()
    config = factory.config_type.model_validate(
        {"directory": str(tmp_path), "compaction": {"on_start": True, "max_transaction_size": 65536}, "recreate": True}
    )
    extension = make(factory, config, clock=SystemClock(), telemetry=telemetry)
    await extension.start(FakeHost())
    assert [event.event for event in telemetry.log.of_level("warning")] == [
        "compaction has no effect: files are deleted when all of their content is delivered"
    ]
    await extension.shutdown()
