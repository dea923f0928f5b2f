"""``tailrace dead-letters``: look into the dead-letter stores of a configuration, and empty them."""

import asyncio
from collections import Counter
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from collector.cli._letters import Letter, LetterStores, OfflineService, Where, where_option
from collector.cli._options import config_options, fail, load_or_fail
from collector.delivery.log import printable
from collector.model import to_json
from collector.registry import Registry

__all__ = ["command"]

_NUMBERS: Final = frozenset({"key", "batches", "items", "bytes"})
_WIDE: Final = 1000


@click.group()
def command() -> None:
    """Show or remove what exporters could not deliver. The service that uses the directory must not run."""


@command.command()
@config_options
@where_option
@click.option("--summary", is_flag=True, help="Only count what there is, by exporter, signal and reason.")
def ls(sources: tuple[str, ...], sets: tuple[str, ...], where: Where, *, summary: bool) -> None:
    """List the batches with time, reason and size, oldest first."""
    letters = _collect(sources, sets, where)
    _print_table(*(_summary(letters) if summary else _listing(letters)))


@command.command()
@config_options
@where_option
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Number of batches at most. 0: all.")
@click.option("--output", type=click.File("wb"), default="-", help="File to write to. Default: standard output.")
def export(sources: tuple[str, ...], sets: tuple[str, ...], where: Where, limit: int, output: Any) -> None:
    """Write the batches as OTLP/JSON, one on each line; nothing is removed."""

    async def run(stores: LetterStores) -> int:
        count = 0
        async for letter in stores.letters(where):
            output.write(to_json(await letter.read()) + b"\n")
            count += 1
            if count == limit:
                break
        return count

    click.echo(f"{_with_stores(sources, sets, run)} batches written", err=True)


@command.command()
@config_options
@where_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(sources: tuple[str, ...], sets: tuple[str, ...], where: Where, *, yes: bool) -> None:
    """Remove the batches for good."""
    letters = _collect(sources, sets, where)
    items = sum(letter.stored.item_count for letter in letters)
    if letters and not yes:
        click.confirm(f"Remove {len(letters)} batches with {items} items?", abort=True)

    async def run(stores: LetterStores) -> int:
        count = 0
        async for letter in stores.letters(where):
            letter.remove()
            count += 1
        return count

    click.echo(f"{_with_stores(sources, sets, run)} batches removed")


def _collect(sources: tuple[str, ...], sets: tuple[str, ...], where: Where) -> list[Letter]:
    async def run(stores: LetterStores) -> list[Letter]:
        return [letter async for letter in stores.letters(where)]

    letters: list[Letter] = _with_stores(sources, sets, run)
    return letters


def _with_stores(sources: tuple[str, ...], sets: tuple[str, ...], run: Any) -> Any:
    """Call ``run`` with the opened stores of the configuration, and return its result."""
    config = load_or_fail(sources, sets, Registry())

    async def opened() -> Any:
        async with LetterStores(OfflineService(config)).opened() as stores:
            return await run(stores)

    try:
        return asyncio.run(opened())
    except (OSError, ValueError) as exc:
        fail(str(exc))


def _listing(letters: list[Letter]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows, one for each letter."""
    columns = ("key", "time", "exporter", "signal", "reason", "items", "bytes", "error")
    rows = []
    for letter in letters:
        labels, stored = letter.labels, letter.stored
        names = [labels.get(name, "") for name in ("exporter", "signal", "reason")]
        sizes = [str(stored.item_count), str(stored.size_bytes)]
        rows.append([str(stored.key), letter.time, *names, *sizes, labels.get("error", "")])
    return columns, rows


def _summary(letters: list[Letter]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows, one for each exporter, signal and reason."""
    totals: dict[tuple[str, ...], Counter[str]] = {}
    for letter in letters:
        names = tuple(letter.labels.get(name, "") for name in ("exporter", "signal", "reason"))
        sizes = {"batches": 1, "items": letter.stored.item_count, "bytes": letter.stored.size_bytes}
        totals.setdefault(names, Counter()).update(sizes)
    columns = ("exporter", "signal", "reason", "batches", "items", "bytes")
    return columns, [[*names, *(str(counts[name]) for name in columns[3:])] for names, counts in totals.items()]


def _print_table(columns: tuple[str, ...], rows: list[list[str]]) -> None:
    """Print the rows; nothing is shortened if the output is not a terminal. Texts cannot control the terminal."""
    table = Table(box=None, header_style="bold")
    for name in columns:
        table.add_column(name, justify="right" if name in _NUMBERS else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(printable(text)) for text in row))
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDE)
    console.print(table)
