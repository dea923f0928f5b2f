"""``tailrace queue``: looks into the queues that ``file_storage`` keeps on disk.

``ls``, ``peek`` and ``export`` only read and may be used while the service runs. ``purge`` needs the directory for
itself. Names and contents come from senders, so they are printed as JSON in ASCII: a terminal acts on nothing in it.
"""

import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click
import orjson

from collector.cli._options import fail
from collector.model import to_json
from collector.storage.directory import DirectoryLock
from collector.storage.inspect import QueueSummary, StoredRecord, queue_directory, queue_names, records, summarize

__all__ = ["command"]

_DIRECTORY = click.option(
    "--directory",
    required=True,
    type=click.Path(path_type=Path),
    help="Directory of the extension file_storage (its key `directory`).",
)
_NAME = click.argument("name")


@click.group()
def command() -> None:
    """Look into queues on disk: what waits to be delivered, and since when."""


@command.command("ls")
@_DIRECTORY
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
def list_queues(directory: Path, as_json: bool) -> None:
    """List the queues with what is in them."""
    try:
        summaries = [summarize(directory, name) for name in queue_names(directory)]
    except OSError as error:
        fail(str(error))
    if as_json:
        for summary in summaries:
            click.echo(json.dumps(_row(summary)))
        return
    if not summaries:
        click.echo("there are no queues")
    for summary in summaries:
        totals = summary.totals
        content = f"{totals.request_count} requests, {totals.item_count} items, {totals.size_bytes} bytes"
        parts = [f"{totals.batch_count} batches ({content})", f"{summary.file_bytes} bytes on disk"]
        if summary.oldest_unix_nano:
            parts.append(f"oldest from {_time(summary.oldest_unix_nano)}")
        if summary.corrupt_files:
            parts.append(f"{summary.corrupt_files} damaged parts kept aside")
        if summary.unusable_files:
            parts.append(f"{summary.unusable_files} files cannot be read")
        click.echo(f"{json.dumps(summary.name)}: {', '.join(parts)}")


@command.command()
@_DIRECTORY
@_NAME
@click.option("-n", "--count", default=5, show_default=True, type=click.IntRange(min=1), help="How many batches.")
@click.option("--content", is_flag=True, help="Also print the content of each batch, as OTLP/JSON.")
def peek(directory: Path, name: str, count: int, content: bool) -> None:
    """Show the oldest batches of the queue NAME, one JSON object per line."""
    for record in islice(_records(directory, name), count):
        stored, batch = record.stored, record.batch
        row: dict[str, Any] = {
            "key": stored.key,
            "stored": _time(stored.stored_unix_nano),
            "signal": batch.signal if batch is not None else "damaged",
            "items": stored.item_count,
            "requests": stored.request_count,
            "bytes": stored.size_bytes,
        }
        if stored.context.tenant is not None:
            row["tenant"] = stored.context.tenant
        if stored.context.metadata:
            row["metadata"] = {key: list(values) for key, values in stored.context.metadata}
        if stored.labels:
            row["labels"] = dict(stored.labels)
        if content and batch is not None:
            row["content"] = orjson.loads(to_json(batch))
        click.echo(json.dumps(row))


@command.command()
@_DIRECTORY
@_NAME
@click.option(
    "--output", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder to write to; created."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["json", "protobuf"]),
    default="json",
    show_default=True,
    help="json: a file of OTLP/JSON lines per signal. protobuf: a file per batch, an OTLP export request.",
)
def export(directory: Path, name: str, output: Path, form: str) -> None:
    """Copy the content of the queue NAME into files. The queue stays as it is."""
    batch_count = item_count = damaged_count = 0
    try:
        output.mkdir(parents=True, exist_ok=True)
        for record in _records(directory, name):
            batch = record.batch
            if batch is None:
                damaged_count += 1
                continue
            if form == "json":
                with (output / f"{batch.signal}.jsonl").open("ab") as file:
                    file.write(to_json(batch) + b"\n")
            else:
                (output / f"{record.stored.key:020d}.{batch.signal}.pb").write_bytes(batch.wire)
            batch_count += 1
            item_count += record.stored.item_count
    except OSError as error:
        fail(str(error))
    click.echo(f"{batch_count} batches with {item_count} items were written to {output}")
    if damaged_count:
        fail(f"{damaged_count} batches are damaged and were left out")


@command.command()
@_DIRECTORY
@_NAME
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(directory: Path, name: str, yes: bool) -> None:
    """Delete the queue NAME with everything in it. The service must not be running."""
    try:
        path = queue_directory(directory, name)
        lock = DirectoryLock(directory)
        if not lock.try_acquire():
            fail(f"{directory} is in use by {lock.owner()}; stop it first")
        try:
            totals = summarize(directory, name).totals
            what = f"{totals.batch_count} batches with {totals.item_count} items"
            if not yes:
                click.confirm(f"Delete {what}, which were not delivered?", abort=True)
            shutil.rmtree(path)
        finally:
            lock.release()
    except OSError as error:
        fail(str(error))
    click.echo(f"{what} were deleted")


def _records(directory: Path, name: str) -> Iterator[StoredRecord]:
    try:
        yield from records(directory, name)
    except OSError as error:
        fail(str(error))


def _row(summary: QueueSummary) -> dict[str, Any]:
    return {
        "queue": summary.name,
        "batches": summary.totals.batch_count,
        "requests": summary.totals.request_count,
        "items": summary.totals.item_count,
        "bytes": summary.totals.size_bytes,
        "disk_bytes": summary.file_bytes,
        "oldest": _time(summary.oldest_unix_nano) if summary.oldest_unix_nano else None,
        "corrupt_files": summary.corrupt_files,
        "unusable_files": summary.unusable_files,
    }


def _time(unix_nano: int) -> str:
    return datetime.fromtimestamp(unix_nano / 1e9, UTC).isoformat(timespec="milliseconds")
