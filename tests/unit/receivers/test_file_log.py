"""file_log reads files that grow, rotate, vanish and are not what they should be."""

import gzip
import json
import logging
import logging.handlers
import os
import shutil

import pytest
from pydantic import ValidationError

from collector.api import RetryableError
from collector.model import Signal
from collector.service.process import SystemClock
from collector.testing import FakeHost, FakeStorage, RecordingTelemetry, Sink, eventually, make_settings
from receivers.file_log import factory


class Running:
    """A receiver of the files in a folder, with a sink behind it."""

    def __init__(self, folder, config=None, *, sink=None, storage=None, predecessor=None):
        self.sink = sink or Sink(Signal.LOGS)
        self.telemetry = RecordingTelemetry()
        self.host = FakeHost(extensions={"file_storage": storage} if storage else {})
        settings = make_settings(
            signals={Signal.LOGS}, outputs={Signal.LOGS: self.sink}, telemetry=self.telemetry, clock=SystemClock()
        )
        made = {
            "include": [f"{folder}/*.log*"],
            "start_at": "beginning",
            "poll_interval": "5ms",
            "force_flush_period": "50ms",
            **({"storage": "file_storage"} if storage else {}),
            **(config or {}),
        }
        self.config = factory.config_type.model_validate(made)
        self.receiver = factory.create(settings, self.config)
        if predecessor is not None:
            assert self.receiver.take_over(predecessor)

    async def __aenter__(self):
        await self.receiver.start(self.host)
        return self

    async def __aexit__(self, *_):
        await self.receiver.shutdown()

    def bodies(self):
        return [text for batch in self.sink.batches for text in batch.field("body").as_text().to_list()]

    def attribute(self, key):
        return [text for batch in self.sink.batches for text in batch.attribute(key).as_text().to_list()]

    async def until(self, count):
        await eventually(lambda: self.sink.item_count >= count)


def append(path, text):
    with path.open("ab") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def lines(first, count):
    return "".join(f"line {number:06}\n" for number in range(first, first + count))


def expected(first, count):
    return lines(first, count).splitlines()


async def test_lines_that_are_appended_become_records(tmp_path):
    """What is there at the start and what follows comes once, in order, with the name of the file."""
    path = tmp_path / "a.log"
    append(path, "one\r\n two \n\nthr")
    async with Running(tmp_path, {"force_flush_period": 0}) as running:
        await running.until(2)
        append(path, "ee\nfour\n")
        await running.until(4)
        assert running.bodies() == ["one", "two", "three", "four"]
        assert set(running.attribute("log.file.name")) == {"a.log"}


async def test_start_at_end_skips_what_is_there_only(tmp_path):
    """Of files that are there at the start, new lines are read; later files are read from the beginning."""
    append(tmp_path / "old.log", lines(0, 10))
    async with Running(tmp_path, {"start_at": "end"}) as running:
        await eventually(lambda: len(running.receiver._follower.tails) == 1)
        append(tmp_path / "old.log", "new\n")
        await running.until(1)
        append(tmp_path / "later.log", "first\n")
        await running.until(2)
        assert running.bodies() == ["new", "first"]


async def test_an_incomplete_line_is_taken_after_the_flush_period(tmp_path):
    """What has no line feed comes when nothing follows for a time."""
    append(tmp_path / "a.log", "done\nincomplete")
    async with Running(tmp_path) as running:
        await running.until(2)
        assert running.bodies() == ["done", "incomplete"]


@pytest.mark.parametrize("is_matched", [True, False])
async def test_rotation_by_python_handlers(tmp_path, is_matched):
    """RotatingFileHandler renames files; every line comes once, whether the pattern matches renamed files or not."""
    handler = logging.handlers.RotatingFileHandler(tmp_path / "a.log", maxBytes=20_000, backupCount=50)
    config = {} if is_matched else {"include": [f"{tmp_path}/a.log"]}
    async with Running(tmp_path, config) as running:
        for number in range(8000):
            handler.emit(logging.LogRecord("t", logging.INFO, "", 0, f"line {number:06}", None, None))
            if number % 500 == 0:
                await running.until(number - 200)
        handler.close()
        await running.until(8000)
        assert sorted(running.bodies()) == expected(0, 8000)


@pytest.mark.parametrize("is_found_before", [True, False])
async def test_copytruncate_reads_each_line_once(tmp_path, is_found_before):
    """A copy is not read again; after the file was cut off, it is read from the beginning."""
    path = tmp_path / "a.log"
    append(path, lines(0, 1000))
    async with Running(tmp_path) as running:
        await running.until(1000)
        append(path, lines(1000, 10))
        shutil.copy(path, tmp_path / "a.log.1")
        if is_found_before:
            await eventually(lambda: len(running.receiver._follower.tails) == 2)
        os.truncate(path, 0)
        append(path, lines(5000, 2000))
        await running.until(3010)
        append(path, "last\n")
        await eventually(lambda: "last" in running.bodies())
        assert sorted(running.bodies()) == sorted([*expected(0, 1010), *expected(5000, 2000), "last"])


async def test_compressed_rotated_files(tmp_path):
    """A file that was read, then compressed, is not read again; other compressed files are."""
    path = tmp_path / "a.log"
    append(path, lines(0, 1000))
    (tmp_path / "old.log.gz").write_bytes(gzip.compress(lines(9000, 5000).encode()))
    async with Running(tmp_path, {"compression": "auto"}) as running:
        await running.until(6000)
        (tmp_path / "a.gz").write_bytes(gzip.compress(lines(0, 1000).encode()))
        (tmp_path / "a.gz").rename(tmp_path / "a.log.2.gz")
        path.unlink()
        append(path, lines(2000, 10))
        await running.until(6010)
        assert sorted(running.bodies()) == sorted([*expected(0, 1000), *expected(9000, 5000), *expected(2000, 10)])


async def test_files_that_begin_alike_are_all_read(tmp_path):
    """Two files with the same first line are two files."""
    append(tmp_path / "a.log", "started\n")
    async with Running(tmp_path) as running:
        await running.until(1)
        append(tmp_path / "b.log", "started\nb\n")
        append(tmp_path / "a.log", "a\n")
        await eventually(lambda: "b" in running.bodies() and "a" in running.bodies())
        assert sorted(running.bodies()) == ["a", "b", "started", "started"]


async def test_offsets_survive_a_restart(tmp_path):
    """After a restart, exactly what was written in the meantime follows, over a rotation as well."""
    storage, path = FakeStorage(), tmp_path / "a.log"
    append(path, lines(0, 100))
    async with Running(tmp_path, storage=storage) as running:
        await running.until(100)
    append(path, lines(100, 10))
    path.rename(tmp_path / "a.log.1")
    append(path, lines(110, 10))
    async with Running(tmp_path, {"start_at": "end"}, storage=storage) as running:
        await running.until(20)
        assert sorted(running.bodies()) == expected(100, 20)


async def test_lines_that_were_not_accepted_are_read_again(tmp_path):
    """What the pipeline had not accepted at the end comes after the restart: the offset was not saved."""
    storage = FakeStorage()
    append(tmp_path / "a.log", lines(0, 50))
    refusing = Sink(Signal.LOGS, fail_with=RetryableError("full", reason="queue_full"))
    async with Running(tmp_path, sink=refusing, storage=storage) as running:
        await eventually(lambda: running.receiver._token > 0)
    async with Running(tmp_path, storage=storage) as running:
        await running.until(50)
        assert running.bodies() == expected(0, 50)


async def test_a_reload_continues(tmp_path):
    """The successor reads on where its predecessor ended."""
    append(tmp_path / "a.log", lines(0, 10))
    async with Running(tmp_path) as old:
        await old.until(10)
        state = old.receiver.hand_over(old.config)
    append(tmp_path / "a.log", lines(10, 10))
    async with Running(tmp_path, predecessor=state) as running:
        await running.until(10)
        assert running.bodies() == expected(10, 10)


async def test_held_entries_hold_the_offset(tmp_path):
    """Lines that recombine holds are not committed, and come out at the end."""
    storage = FakeStorage()
    operators = [
        {"type": "recombine", "combine_field": "body", "is_first_entry": "body matches '^START'", "combine_with": "\n"}
    ]
    append(tmp_path / "a.log", "START 1\n more\nSTART 2\n more\n")
    config = {"operators": operators, "preserve_leading_whitespaces": True}
    async with Running(tmp_path, config, storage=storage) as running:
        await running.until(1)
        await eventually(lambda: storage.state(str(running.receiver._id)).value is not None)
        (tail,) = running.receiver._follower.tails.values()
        assert tail.committed[0] == 0
        assert tail.offset == 28
    assert running.bodies() == ["START 1\n more", "START 2\n more"]
    assert tail.committed[0] == 28


async def test_attributes_numbers_and_offsets(tmp_path):
    """All attributes log.file.* can be had."""
    path = tmp_path / "a.log"
    append(path, "one\n\ntwo\n")
    (tmp_path / "link.txt").symlink_to(path)
    names = ("name", "path", "name_resolved", "path_resolved", "owner_name", "owner_group_name")
    config = {
        "include": [f"{tmp_path}/link.txt"],
        **{f"include_file_{name}": True for name in (*names, "record_number", "record_offset")},
    }
    async with Running(tmp_path, config) as running:
        await running.until(2)
        assert running.attribute("log.file.record_number") == ["1", "3"]
        assert running.attribute("log.file.record_offset") == ["0", "5"]
        found = [running.attribute(f"log.file.{name}")[0] for name in (*names[:4], "owner.name", "owner.group.name")]
        link = str(tmp_path / "link.txt")
        assert found == ["link.txt", link, "a.log", str(path), path.owner(), path.group()]


async def test_header(tmp_path):
    """The lines of a header become attributes of all entries, also after a restart."""
    storage = FakeStorage()
    config = {
        "header": {
            "pattern": "^#",
            "metadata_operators": [{"type": "regex_parser", "regex": "# (?P<key>[a-z]+): (?P<value>.*)"}],
        }
    }
    append(tmp_path / "a.log", "# host: h1\nfirst\n# no header\n")
    async with Running(tmp_path, config, storage=storage) as running:
        await running.until(2)
        assert running.bodies() == ["first", "# no header"]
        assert running.attribute("value") == ["h1", "h1"]
    append(tmp_path / "a.log", "later\n")
    async with Running(tmp_path, config, storage=storage) as running:
        await running.until(1)
        assert running.attribute("value") == ["h1"]


async def test_delete_after_read(tmp_path):
    """Files are deleted when their entries have been accepted."""
    append(tmp_path / "a.log", lines(0, 3) + "end")
    async with Running(tmp_path, {"delete_after_read": True}) as running:
        await eventually(lambda: not (tmp_path / "a.log").exists())
        assert running.bodies() == [*expected(0, 3), "end"]


async def test_multiline_and_encoding(tmp_path):
    """Entries are found by patterns, in other encodings as well."""
    (tmp_path / "a.log").write_bytes("START é\n more\nSTART b\n".encode("utf-16-le"))
    config = {"encoding": "utf-16le", "multiline": {"line_start_pattern": "^START"}}
    async with Running(tmp_path, config) as running:
        await running.until(2)
        assert running.bodies() == ["START é\n more", "START b"]


async def test_long_lines_and_junk_are_bounded(tmp_path):
    """A line without end is cut; binary bytes do no harm; nothing that follows is lost."""
    (tmp_path / "a.log").write_bytes(b"x" * 5_000_000 + b"\n\x00\xff\xfe\nend\n")
    async with Running(tmp_path, {"max_log_size": "64KiB", "initial_buffer_size": 100}) as running:
        await eventually(lambda: "end" in running.bodies())
        bodies = running.bodies()
        assert sum(map(len, bodies[:-2])) == 5_000_000
        assert max(map(len, bodies)) == 65_536


async def test_unreadable_files_are_counted(tmp_path):
    """A damaged compressed file is counted; others are read."""
    (tmp_path / "a.log.gz").write_bytes(b"no gzip\n")
    (tmp_path / "fifo.log").mkdir()
    os.mkfifo(tmp_path / "pipe.log")
    append(tmp_path / "b.log", "fine\n")
    async with Running(tmp_path, {"compression": "auto"}) as running:
        await running.until(1)
        await eventually(lambda: running.telemetry.value("tailrace_file_log_errors", reason="unreadable") >= 1)
        assert running.bodies() == ["fine"]


async def test_ordering_reads_the_first_files(tmp_path):
    """Only the first files of each group in the order are read."""
    for name in ("a-1", "a-2", "a-10", "b-3", "other"):
        append(tmp_path / f"{name}.log", f"{name}\n")
    config = {
        "ordering_criteria": {
            "regex": r"-(?P<number>\d+)\.log$",
            "group_by": r"/(\w)-\d+\.log$",
            "top_n": 1,
            "sort_by": [{"sort_type": "numeric", "regex_key": "number"}],
        }
    }
    async with Running(tmp_path, config) as running:
        await running.until(2)
        assert sorted(running.bodies()) == ["a-10", "b-3"]


async def test_refused_lines_are_offered_again(tmp_path):
    """A pipeline that is full for a time loses nothing."""
    sink = Sink(Signal.LOGS, fail_with=RetryableError("full", reason="queue_full"))
    append(tmp_path / "a.log", lines(0, 5))
    async with Running(tmp_path, {"retry_on_failure": {"initial_interval": "5ms"}}, sink=sink) as running:
        await eventually(lambda: running.receiver._token > 0)
        sink.fail_with = None
        await running.until(5)
        assert running.bodies() == expected(0, 5)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"delete_after_read": True, "start_at": "end"}, "delete_after_read"),
        ({"include": []}, "include"),
        ({"include": ["/var/log/[a.log"]}, r"'\[' has no"),
        ({"fingerprint_size": 3}, "fingerprint_size"),
        ({"ordering_criteria": {"sort_by": [{"sort_type": "numeric", "regex_key": "n"}]}}, "regex is required"),
        ({"header": {"pattern": "^#", "metadata_operators": []}}, "metadata_operators"),
    ],
)
def test_wrong_configurations_are_explained(config, words):
    """The message names the key."""
    with pytest.raises(ValidationError, match=words):
        factory.config_type.model_validate({"include": ["/tmp/x"], "start_at": "beginning", **config})


async def test_globs_find_files(tmp_path):
    """Patterns with ** and braces find files in folders; exclude leaves some out."""
    for name in ("a/x.log", "a/b/y.txt", "a/b/c/z.log", "a/b/skip.log"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        append(tmp_path / name, f"{name}\n")
    config = {"include": [f"{tmp_path}/**/*.{{log,txt}}"], "exclude": ["**/skip.*"]}
    async with Running(tmp_path, config) as running:
        await running.until(3)
        assert sorted(running.bodies()) == ["a/b/c/z.log", "a/b/y.txt", "a/x.log"]


async def test_a_damaged_checkpoint_is_not_used(tmp_path):
    """Offsets that cannot be understood are like none."""
    storage = FakeStorage()
    append(tmp_path / "a.log", "one\n")
    probe = Running(tmp_path, storage=storage)
    await storage.state(str(probe.receiver._id)).save(json.dumps({"version": 1, "files": [[1]]}).encode())
    async with Running(tmp_path, storage=storage) as running:
        await running.until(1)
        assert running.bodies() == ["one"]
