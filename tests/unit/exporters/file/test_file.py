"""The file exporter: complete lines only, length-prefixed records, rotation, and full disks."""

import asyncio
import errno
import os
import posixpath
import shutil
from pathlib import Path

import orjson
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.model import LogsBuilder, Signal, TracesBuilder, batch_type, from_json
from collector.testing import (
    FakeClock,
    FakeHost,
    RecordingTelemetry,
    batch,
    eventually,
    hand_over,
    logs,
    make_settings,
    traces,
)
from collector.transport.compression import decompress
from exporters.file import factory
from exporters.file.config import RotationConfig
from exporters.file.grouped_files import GroupedFiles
from exporters.file.rotation import RotatingFile


class Rig:
    def __init__(self, path, previous=None, **config):
        self.telemetry = RecordingTelemetry()
        self.settings = make_settings(factory, telemetry=self.telemetry)
        self.clock = self.settings.clock
        loaded = factory.config_type.model_validate({"path": str(path)} | config)
        self.exporter = hand_over(previous, factory.create(self.settings, loaded), loaded)

    async def __aenter__(self):
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
            await asyncio.wait({stopping}, timeout=0.01)
        await stopping

    async def take(self, *batches):
        for one in batches:
            await self.exporter.consume(one)
        await eventually(lambda: not any(self.exporter.in_flight_items().values()))


def records(content):
    found = []
    while content:
        size = int.from_bytes(content[:4], "big")
        found.append(content[4 : 4 + size])
        content = content[4 + size :]
    return found


async def test_a_batch_is_a_line_of_otlp_json(tmp_path):
    sent = [batch(signal, items=20) for signal in Signal]
    async with Rig(tmp_path / "x.jsonl") as rig:
        await rig.take(*sent)
        lines = (tmp_path / "x.jsonl").read_bytes().splitlines()  # there at once, not only after the shutdown
    keys = {"resourceSpans": Signal.TRACES, "resourceMetrics": Signal.METRICS, "resourceLogs": Signal.LOGS}
    found = {keys[next(iter(orjson.loads(line)))]: line for line in lines}
    for one in sent:
        assert batch_type(one.signal).from_wire(from_json(one.signal, found[one.signal])).item_count == 20
        assert rig.telemetry.ledger.delivered[one.signal] == 20
    assert (tmp_path / "x.jsonl").stat().st_mode & 0o777 == 0o600


async def test_proto_is_length_prefixed(tmp_path):
    async with Rig(tmp_path / "x", format="proto") as rig:
        await rig.take(first := traces(spans=3), second := logs(records=4))
    assert sorted(records((tmp_path / "x").read_bytes())) == sorted([first.wire, second.wire])


@pytest.mark.parametrize("form", ["json", "proto"])
async def test_compressed_records_are_length_prefixed_and_each_whole(tmp_path, form):
    async with Rig(tmp_path / "x", format=form, compression="zstd") as rig:
        await rig.take(sent := traces(spans=30))
    (record,) = records((tmp_path / "x").read_bytes())
    body = decompress("zstd", record, 1_000_000)
    assert body == sent.wire if form == "proto" else orjson.loads(body)["resourceSpans"]


async def test_batches_keep_their_order(tmp_path):
    async with Rig(tmp_path / "x", format="proto") as rig:
        sent = [traces(spans=1, seed=seed) for seed in range(50)]
        await rig.take(*sent)
    assert records((tmp_path / "x").read_bytes()) == [one.wire for one in sent]


@pytest.mark.parametrize(("config", "kept"), [({}, False), ({"append": True}, True), ({"rotation": {}}, True)])
async def test_existing_content_is_kept_if_configured(tmp_path, config, kept):
    (tmp_path / "x").write_text("old\n")
    async with Rig(tmp_path / "x", **config):
        pass
    assert (tmp_path / "x").read_text() == ("old\n" if kept else "")


async def test_a_reload_continues_the_file(tmp_path):
    async with Rig(tmp_path / "x") as first:
        await first.take(traces(spans=1))
        async with Rig(tmp_path / "x", previous=first.exporter) as second:
            await second.take(traces(spans=1))
    assert len((tmp_path / "x").read_bytes().splitlines()) == 2


async def test_the_directory_is_created_if_configured(tmp_path):
    path = tmp_path / "a" / "b" / "x"
    with pytest.raises(ValueError, match=r"exporters::file::path: cannot write .*create_directory"):
        async with Rig(path):
            pass
    async with Rig(path, create_directory=True, directory_permissions="0700"):
        assert path.exists()
    assert path.parent.stat().st_mode & 0o777 == 0o700


async def test_writing_to_a_full_disk_is_retried_and_leaves_no_half_line(tmp_path, monkeypatch):
    full = [True]
    real = os.write

    def write(file, data):
        if full[0] and len(data) > 100:
            real(file, bytes(data[:50]))
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    async with Rig(tmp_path / "x", retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        await rig.exporter.consume(traces(spans=3))
        await eventually(lambda: rig.exporter.health.last_error != "")
        assert "No space left" in rig.exporter.health.last_error
        assert (tmp_path / "x").read_bytes() == b""
        full[0] = False
        await rig.clock.advance(10)
        await rig.take(traces(spans=4))
    assert len((tmp_path / "x").read_bytes().splitlines()) == 2
    assert rig.telemetry.ledger.delivered[Signal.TRACES] == 7
    assert not rig.telemetry.ledger.dropped


async def test_a_disk_that_stays_full_drops_with_a_reason(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is not here")
    async with Rig("/dev/full", append=True, retry_on_failure={"enabled": False}) as rig:
        await rig.take(traces(spans=3))
    assert rig.telemetry.ledger.dropped == {(Signal.TRACES, "retry_disabled"): 3}


def lines_of(path):
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("config", [{}, {"append": True}, {"rotation": {}}])
async def test_a_file_that_was_deleted_or_renamed_is_made_again(tmp_path, config):
    path = tmp_path / "x"
    async with Rig(path, **config) as rig:
        await rig.take(traces(spans=1))
        path.unlink()
        await rig.take(traces(spans=2))
        assert len(lines_of(path)) == 1
        path.rename(tmp_path / "x.1")
        await rig.take(traces(spans=3), traces(spans=3))
    assert len(lines_of(tmp_path / "x.1")) == 1
    assert len(lines_of(path)) == 2


async def test_a_file_that_was_replaced_is_continued(tmp_path):
    """As logrotate does with ``create``: the new file exists already."""
    path = tmp_path / "x"
    async with Rig(path) as rig:
        await rig.take(traces(spans=1))
        path.rename(tmp_path / "x.1")
        path.write_bytes(b"{}\n")
        await rig.take(traces(spans=1))
    assert len(lines_of(path)) == 2


async def test_a_directory_that_was_deleted_is_made_again_if_configured(tmp_path):
    path = tmp_path / "a" / "x"
    async with Rig(path, create_directory=True) as rig:
        await rig.take(traces(spans=1))
        shutil.rmtree(tmp_path / "a")
        await rig.take(traces(spans=1))
    assert len(lines_of(path)) == 1


async def test_a_missing_directory_is_retried(tmp_path):
    path = tmp_path / "a" / "x"
    path.parent.mkdir()
    async with Rig(path, retry_on_failure={"max_elapsed_time": "0s"}) as rig:
        shutil.rmtree(path.parent)
        await rig.exporter.consume(traces(spans=3))
        await eventually(lambda: "No such file" in rig.exporter.health.last_error)
        assert not rig.telemetry.ledger.delivered[Signal.TRACES]
        path.parent.mkdir()
        await rig.clock.advance(10)
        await rig.take()
    assert len(lines_of(path)) == 1
    assert rig.telemetry.ledger.delivered[Signal.TRACES] == 3


async def test_nothing_in_a_deleted_file_counts_as_delivered(tmp_path, monkeypatch):
    path, real, deleted = tmp_path / "x", os.write, []

    def write(file, data):
        if not deleted and len(data) > 100:
            deleted.append(path.unlink())  # between the check of the path and the write
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    async with Rig(path) as rig:
        await rig.exporter.consume(traces(spans=3))
        await eventually(lambda: "deleted" in rig.exporter.health.last_error)
        assert not rig.telemetry.ledger.delivered[Signal.TRACES]
        await rig.clock.advance(10)
        await rig.take()
    assert len(lines_of(path)) == 1
    assert rig.telemetry.ledger.delivered[Signal.TRACES] == 3


async def test_a_file_that_was_emptied_has_no_gap_after_a_full_disk(tmp_path, monkeypatch):
    real, full = os.write, []

    def write(file, data):
        if full:
            full.clear()
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, data)

    monkeypatch.setattr(os, "write", write)
    path = tmp_path / "x"
    async with Rig(path) as rig:
        await rig.take(traces(spans=3))
        os.truncate(path, 0)
        full.append(True)
        await rig.exporter.consume(traces(spans=1))
        await eventually(lambda: rig.exporter.health.last_error != "")
        await rig.clock.advance(10)
        await rig.take()
    assert len(lines_of(path)) == 1


async def test_rotation_keeps_every_line(tmp_path):
    async with Rig(tmp_path / "x.jsonl", rotation={"max_megabytes": 1}) as rig:
        for seed in range(40):
            await rig.take(traces(spans=100, seed=seed))
    files = sorted(tmp_path.iterdir())
    assert len(files) > 1
    assert all(path.stat().st_size <= 1024 * 1024 for path in files)
    lines = [line for path in files for line in path.read_bytes().splitlines()]
    assert len(lines) == 40
    for line in lines:
        orjson.loads(line)


class TestRotatingFile:
    def make(self, tmp_path, clock, **rotation):
        file = RotatingFile(
            str(tmp_path / "x.log"), RotationConfig(max_megabytes=1, **rotation), clock, keep=True, directory_mode=None
        )
        file.open()
        return file

    RECORD = b"r" * 700_000 + b"\n"

    @pytest.fixture
    def clock(self):
        return make_settings(factory).clock

    def test_old_files_are_named_after_the_time_of_their_rotation(self, tmp_path, clock):
        file = self.make(tmp_path, clock)
        file.write(self.RECORD)
        file.write(self.RECORD)
        file.close()
        assert sorted(path.name for path in tmp_path.iterdir()) == ["x-2023-11-14T22-13-20.000.log", "x.log"]

    def test_two_rotations_in_one_millisecond_do_not_overwrite_each_other(self, tmp_path, clock):
        file = self.make(tmp_path, clock)
        for _ in range(4):
            file.write(self.RECORD)
        file.close()
        assert len(list(tmp_path.iterdir())) == 4

    def test_only_max_backups_are_kept_and_no_other_file_is_removed(self, tmp_path, clock):
        (tmp_path / "x-important.log").write_text("mine")
        file = self.make(tmp_path, clock, max_backups=2)
        for _ in range(6):
            clock.move(1)
            file.write(self.RECORD)
        file.close()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == ["x-2023-11-14T22-13-25.000.log", "x-2023-11-14T22-13-26.000.log", "x-important.log", "x.log"]

    def test_old_backups_are_removed(self, tmp_path, clock):
        file = self.make(tmp_path, clock, max_days=1, max_backups=0)
        file.write(self.RECORD)
        file.write(self.RECORD)
        clock.move(25 * 3600)
        file.write(self.RECORD)
        file.close()
        assert len(list(tmp_path.iterdir())) == 2

    def test_a_record_larger_than_the_limit_gets_a_file_of_its_own(self, tmp_path, clock):
        file = self.make(tmp_path, clock)
        for record in (b"a\n", b"b" * 2_000_000, b"c\n"):
            file.write(record)
        file.close()
        assert sorted(path.stat().st_size for path in tmp_path.iterdir()) == [2, 2, 2_000_000]

    def test_a_file_that_was_removed_is_created_again(self, tmp_path, clock):
        file = self.make(tmp_path, clock)
        file.write(self.RECORD)
        (tmp_path / "x.log").unlink()
        file.write(self.RECORD)
        file.close()
        assert (tmp_path / "x.log").read_bytes() == self.RECORD

    def test_a_rotation_that_fails_continues_the_old_file(self, tmp_path, clock, monkeypatch):
        file = self.make(tmp_path, clock)
        file.write(self.RECORD)
        real = os.open

        def refuse(*_, **__):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(os, "open", refuse)
        with pytest.raises(OSError, match="Too many"):
            file.write(self.RECORD)
        monkeypatch.setattr(os, "open", real)
        assert (tmp_path / "x.log").read_bytes() == self.RECORD
        file.write(self.RECORD)
        file.close()
        assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "path is required"),
        ({"path": "x", "append": True, "compression": "zstd"}, "append"),
        ({"path": "x", "append": True, "rotation": {}}, "append"),
        ({"path": "x", "encoding": "otlp_encoding"}, "encoding"),
        ({"path": "x", "directory_permissions": "rwx"}, "octal"),
        ({"path": "x", "compression": "gzip"}, "compression"),
    ],
)
def test_configurations_that_cannot_work_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate(config)


@pytest.mark.parametrize("value", [0o755, "0755", "755"])
def test_permissions_are_octal_however_yaml_reads_them(value):
    assert (
        int(factory.config_type.model_validate({"path": "x", "directory_permissions": value}).directory_permissions, 8)
        == 0o755
    )


def grouped(path, *values, signal=Signal.LOGS):
    """A batch with one resource for each value of the attribute that names the file; None: without it."""
    builder = {Signal.LOGS: LogsBuilder, Signal.TRACES: TracesBuilder}[signal]()
    for number, value in enumerate(values):
        scope = builder.scope(
            builder.resource({"n": number} | ({} if value is None else {"fileexporter.path_segment": value}))
        )
        if signal is Signal.LOGS:
            builder.records(scope, times=[1], bodies=[f"{number}"])
        else:
            builder.spans(scope, trace_ids=[[1, 1]], span_ids=[1], names=[f"{number}"], start_times=[1], end_times=[2])
    return builder.build()


def bodies(path):
    """The numbers of the records in a file of JSON lines."""
    return [
        record["body"]["stringValue"]
        for line in lines_of(path)
        for resource in line["resourceLogs"]
        for scope in resource["scopeLogs"]
        for record in scope["logRecords"]
    ]


async def test_each_group_has_a_file(tmp_path):
    """The value takes the place of the star; missing directories are made; resources of one group share a line."""
    async with Rig(tmp_path / "out" / "*.jsonl", group_by={"enabled": True}, directory_permissions="0700") as rig:
        assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
        await rig.take(grouped(tmp_path, "a", "b/c", "a"), grouped(tmp_path, "a"))
        assert bodies(tmp_path / "out" / "a.jsonl") == ["0", "2", "0"]
        assert bodies(tmp_path / "out" / "b" / "c.jsonl") == ["1"]
        assert len(lines_of(tmp_path / "out" / "a.jsonl")) == 2
        assert rig.telemetry.ledger.delivered[Signal.LOGS] == 4


async def test_items_without_the_attribute_are_dropped_with_a_reason(tmp_path):
    """So are those whose attribute is no text, as in the Collector; the others are written."""
    config = {"group_by": {"enabled": True, "resource_attribute": "n"}}
    async with Rig(tmp_path / "*.jsonl", **config) as rig:
        await rig.take(grouped(tmp_path, "a", "b"))  # n is a number
    async with Rig(tmp_path / "*.jsonl", group_by={"enabled": True}) as other:
        await other.take(grouped(tmp_path, None, "a", None))
    assert rig.telemetry.ledger.dropped == {(Signal.LOGS, "missing_attribute"): 2}
    assert other.telemetry.ledger.dropped == {(Signal.LOGS, "missing_attribute"): 2}
    assert other.telemetry.ledger.delivered[Signal.LOGS] == 1
    assert bodies(tmp_path / "a.jsonl") == ["1"]


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("../etc/x", "in/etc/x.jsonl"),
        ("/etc/x", "in/etc/x.jsonl"),
        ("//etc/x", "in/etc/x.jsonl"),
        ("a/../../../x", "in/x.jsonl"),
        ("./x", "in/x.jsonl"),
        ("a//b", "in/a/b.jsonl"),
        ("", "in/.jsonl"),
        ("..", "in/...jsonl"),
        ("x\n", "in/x\n.jsonl"),
        ("é", "in/é.jsonl"),
    ],
)
async def test_no_value_leads_out_of_the_directory(tmp_path, value, path):
    """A value is a path below the part in front of the star, whatever it contains."""
    async with Rig(tmp_path / "in" / "*.jsonl", group_by={"enabled": True}) as rig:
        await rig.take(grouped(tmp_path, value))
    assert rig.telemetry.ledger.delivered[Signal.LOGS] == 1
    assert [found.relative_to(tmp_path).as_posix() for found in tmp_path.rglob("*") if found.is_file()] == [path]


@given(
    value=st.text("./a\0*é ", max_size=12),
    suffix=st.sampled_from(["", ".jsonl", "/x"]),
    prefix=st.sampled_from(["/d/", "/d/app-", "d/"]),
)
def test_paths_stay_below_the_prefix(value, suffix, prefix):
    """The path begins with the prefix and has no part that leads upwards."""
    path = GroupedFiles(f"{prefix}*{suffix}", FakeClock(), max_open_files=1, directory_mode=0o755).path_of(value)
    assert not path or path.startswith(prefix)
    assert ".." not in path.split("/")
    assert posixpath.normpath(path) == path or not path


@pytest.mark.parametrize("value", ["a\0b", "x" * 300, "taken/x", "directory"])
async def test_a_value_that_cannot_be_a_path_loses_only_its_own_group(tmp_path, value):
    """It is refused at once, with a reason, instead of being retried in front of the others."""
    (tmp_path / "taken").write_text("a file")
    (tmp_path / "directory").mkdir()
    async with Rig(tmp_path / "*", group_by={"enabled": True}) as rig:
        await rig.take(grouped(tmp_path, value, "good"))
    assert rig.telemetry.ledger.refused == {(Signal.LOGS, "invalid_path"): 1}
    assert rig.telemetry.ledger.delivered[Signal.LOGS] == 1
    assert bodies(tmp_path / "good") == ["1"]


async def test_only_so_many_files_are_open(tmp_path):
    """The one not written to for the longest time is closed; when it is opened again, it is continued."""

    def open_files():
        paths = (Path(file.path) for file in psutil.Process().open_files())
        return {path.name for path in paths if path.is_relative_to(tmp_path)}

    async with Rig(tmp_path / "*", group_by={"enabled": True, "max_open_files": 2}) as rig:
        for value in ("a", "b", "a", "c"):
            await rig.take(grouped(tmp_path, value))
        assert open_files() == {"a", "c"}
        await rig.take(grouped(tmp_path, *(f"many-{number}" for number in range(50)), "b"))
        assert open_files() == {"many-49", "b"}
    assert open_files() == set()
    assert (bodies(tmp_path / "a"), bodies(tmp_path / "b")) == (["0", "0"], ["0", "50"])


async def test_grouped_records_are_compressed_and_prefixed(tmp_path):
    """Format and compression apply to each record of a group; other signals are grouped as well."""
    async with Rig(tmp_path / "*", group_by={"enabled": True}, format="proto", compression="zstd") as rig:
        await rig.take(sent := grouped(tmp_path, "a", signal=Signal.TRACES))
    (record,) = records((tmp_path / "a").read_bytes())
    assert decompress("zstd", record, 1_000_000) == sent.wire


async def test_the_level_of_compression_has_an_effect(tmp_path):
    """A higher level makes smaller files."""
    sizes = []
    for level in (1, 19):
        path = tmp_path / str(level)
        async with Rig(path, format="proto", compression="zstd", compression_params={"level": level}) as rig:
            await rig.take(traces(spans=500))
        sizes.append(path.stat().st_size)
    assert sizes[1] < sizes[0]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"path": "a"}, "must contain exactly one \\*"),
        ({"path": "a*b*"}, "must contain exactly one \\*"),
        ({"path": "*.jsonl"}, "not start with it"),
        (
            {"path": "a*", "group_by": {"enabled": True, "resource_attribute": ""}},
            "resource_attribute must not be empty",
        ),
        ({"path": "a*", "group_by": {"enabled": True, "max_open_files": 0}}, "greater than or equal to 1"),
        ({"path": "a", "group_by": {}, "compression_params": {"level": 23}}, "less than or equal to 22"),
    ],
)
def test_wrong_groups_are_refused(config, message):
    with pytest.raises(ValueError, match=message):
        factory.config_type.model_validate({"group_by": {"enabled": True}} | config)


@pytest.mark.parametrize(
    ("config", "keys"),
    [
        ({"path": "a"}, []),
        ({"path": "a*", "group_by": {"enabled": True}, "rotation": {}}, ["rotation"]),
        ({"path": "a", "compression_params": {"level": 3}}, ["compression_params"]),
        ({"path": "a", "compression_params": {"level": 3}, "compression": "zstd"}, []),
    ],
)
def test_settings_without_effect_are_named(config, keys):
    assert [key for key, _ in factory.config_type.model_validate(config).warnings()] == keys
