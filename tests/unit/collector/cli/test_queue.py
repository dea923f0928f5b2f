"""``tailrace queue``: what it shows of queues on disk, and that it changes nothing unless told to."""

import asyncio
import json

import pytest

from collector.model import Context
from collector.service.process import SystemClock
from collector.storage import FileStorage, FileStorageSettings
from collector.testing import RecordingTelemetry, logs, traces

NAME = "otlp_grpc/a traces"
EVIL = "\x1b[2J\x9b\u202eevil"


async def fill(folder, body):
    """Two batches in the queue ``NAME``; ``body`` runs while the storage is open."""
    storage = FileStorage(FileStorageSettings(folder), "s", SystemClock(), RecordingTelemetry())
    await storage.open()
    queue = await storage.queue(NAME)
    context = Context(metadata=(("x-evil", (EVIL,)),), tenant=EVIL)
    for batch in (traces(spans=3, context=context), logs(records=4)):
        outcome = asyncio.get_running_loop().create_future()
        queue.append(batch, outcome.set_result, {"reason": EVIL})
        assert await outcome is None
    found = body()
    await storage.close()
    return found


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "storage"
    asyncio.run(fill(folder, lambda: None))
    return folder


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_lists_what_waits(tailrace, folder):
    """For people and for programs."""
    shown = tailrace("queue", "ls", "--directory", str(folder))
    assert shown.exit_code == 0
    assert shown.output.startswith(f'"{NAME}": 2 batches (2 requests, 7 items, ')
    row = json.loads(tailrace("queue", "ls", "--directory", str(folder), "--json").output)
    assert (row["queue"], row["items"], row["corrupt_files"]) == (NAME, 7, 0)


def test_shows_batches_without_obeying_them(tailrace, folder):
    """Nothing in a name or header reaches the terminal as it is, and the files stay as they are."""
    before = files(folder)
    shown = tailrace("queue", "peek", "--directory", str(folder), NAME, "--content")
    assert shown.exit_code == 0
    assert shown.output.isascii()
    assert all(char.isprintable() or char == "\n" for char in shown.output)
    first, second = map(json.loads, shown.output.splitlines())
    assert (first["signal"], first["items"], first["tenant"]) == ("traces", 3, EVIL)
    assert (first["labels"], first["metadata"]) == ({"reason": EVIL}, {"x-evil": [EVIL]})
    assert (second["signal"], second["content"].keys()) == ("logs", {"resourceLogs"})
    assert files(folder) == before


def test_works_while_the_service_runs(tailrace, tmp_path):
    """Except for ``purge``, which names the process."""

    def look():
        folder = tmp_path / "storage"
        return (
            tailrace("queue", "ls", "--directory", str(folder), "--json"),
            tailrace("queue", "peek", "--directory", str(folder), NAME),
            tailrace("queue", "purge", "--directory", str(folder), NAME, "--yes"),
        )

    listed, peeked, purged = asyncio.run(fill(tmp_path / "storage", look))
    assert json.loads(listed.output)["items"] == 7
    assert len(peeked.output.splitlines()) == 2
    assert purged.exit_code == 1
    assert "is in use by process" in purged.output


def test_exports_requests_that_can_be_sent_again(tailrace, folder, tmp_path):
    """As protobuf, or as the lines that the file exporter writes."""
    for form in ("protobuf", "json"):
        arguments = ("--directory", str(folder), NAME, "--output", str(tmp_path / form), "--format", form)
        assert "2 batches with 7 items" in tailrace("queue", "export", *arguments).output
    (trace_file,) = (tmp_path / "protobuf").glob("*.traces.pb")
    assert trace_file.read_bytes() == traces(spans=3).wire
    (line,) = (tmp_path / "json" / "logs.jsonl").read_text().splitlines()
    assert "resourceLogs" in json.loads(line)


def test_purges_only_what_is_named(tailrace, folder):
    """Once the user agrees."""
    arguments = ("queue", "purge", "--directory", str(folder), NAME)
    assert tailrace(*arguments).exit_code == 1  # nobody answered
    assert json.loads(tailrace("queue", "ls", "--directory", str(folder), "--json").output)["items"] == 7
    assert "2 batches with 7 items were deleted" in tailrace(*arguments, "--yes").output
    assert "there are no queues" in tailrace("queue", "ls", "--directory", str(folder)).output


@pytest.mark.parametrize("action", ["ls", "peek", "export", "purge"])
def test_says_what_is_wrong_with_the_arguments(tailrace, folder, tmp_path, action):
    """A directory that is none, and a queue that is not there."""
    more = {"ls": [], "export": ["x", "--output", str(tmp_path / "out")]}.get(action, ["x"])
    wrong = tailrace("queue", action, "--directory", str(tmp_path), *more)
    assert wrong.exit_code == 1
    assert "is not the directory of a file_storage" in wrong.output
    if action != "ls":
        wrong = tailrace("queue", action, "--directory", str(folder), *more)
        assert wrong.exit_code == 1
        assert f"there are: {NAME}" in wrong.output
