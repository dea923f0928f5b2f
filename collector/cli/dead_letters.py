"""``tailrace dead-letters``: look into the dead-letter stores of a configuration, and empty them."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from collector.cli._letters import LetterRow, LetterStores, OfflineService, where_option
from collector.cli._options import config_options, fail, load_or_fail
from collector.cli._running import ask_service
from collector.delivery.dead_letters import LetterFilter
from collector.delivery.letter_admin import LETTERS_PATH
from collector.delivery.log import printable
from collector.model import to_json
from collector.registry import Registry
from config.model import Config

__all__ = ["command"]

_NUMBERS: Final = frozenset({"key", "batches", "items", "bytes"})
_WIDE: Final = 1000


@click.group()
def command() -> None:
    """Show or remove what exporters could not deliver.

    `ls` also works while the service runs; for `export` and `purge` it must be stopped.
    """


@command.command()
@config_options
@where_option
@click.option("--summary", is_flag=True, help="Only count what there is, by exporter, signal and reason.")
def ls(sources: tuple[str, ...], sets: tuple[str, ...], where: LetterFilter, *, summary: bool) -> None:
    """List the batches with time, reason and size, oldest first."""
    letters = _collect(sources, sets, where)
    _print_table(*(_summary(letters) if summary else _listing(letters)))


@command.command()
@config_options
@where_option
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Number of batches at most. 0: all.")
@click.option("--output", type=click.File("wb"), default="-", help="File to write to. Default: standard output.")
def export(sources: tuple[str, ...], sets: tuple[str, ...], where: LetterFilter, limit: int, output: Any) -> None:
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
def purge(sources: tuple[str, ...], sets: tuple[str, ...], where: LetterFilter, *, yes: bool) -> None:
    """Remove the batches for good."""
    letters = _collect(sources, sets, where)
    items = sum(letter.item_count for letter in letters)
    if letters and not yes:
        click.confirm(f"Remove {len(letters)} batches with {items} items?", abort=True)

    async def run(stores: LetterStores) -> int:
        count = 0
        async for letter in stores.letters(where):
            letter.remove()
            count += 1
        return count

    click.echo(f"{_with_stores(sources, sets, run)} batches removed")


def _collect(sources: tuple[str, ...], sets: tuple[str, ...], where: LetterFilter) -> list[LetterRow]:
    async def run(stores: LetterStores) -> list[LetterRow]:
        return [LetterRow.of(letter.stored) async for letter in stores.letters(where)]

    async def ask(config: Config) -> list[LetterRow] | None:
        answer = await ask_service(config, "GET", LETTERS_PATH, where.to_query())
        return None if answer is None else [LetterRow.of_answer(row) for rows in answer.values() for row in rows]

    letters: list[LetterRow] = _with_stores(sources, sets, run, ask)
    return letters


def _with_stores(
    sources: tuple[str, ...],
    sets: tuple[str, ...],
    run: Callable[[LetterStores], Awaitable[Any]],
    ask: Callable[[Config], Awaitable[Any]] | None = None,
) -> Any:
    """Call ``run`` with the opened stores of the configuration, or ``ask`` if a service uses them.

    Returns the result of the one that was called.
    """
    config = load_or_fail(sources, sets, Registry())

    async def opened() -> Any:
        try:
            async with LetterStores(OfflineService(config)).opened() as stores:
                return await run(stores)
        except OSError:
            if ask is None or (answer := await ask(config)) is None:
                raise
            return answer

    try:
        return asyncio.run(opened())
    except (OSError, ValueError) as exc:
        fail(str(exc))


def _listing(letters: list[LetterRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows, one for each letter."""
    columns = ("key", "time", "exporter", "signal", "reason", "items", "bytes", "error")
    rows = [
        [str(each.key), each.time, *each[2:5], str(each.item_count), str(each.size_bytes), each.error]
        for each in letters
    ]
    return columns, rows


def _summary(letters: list[LetterRow]) -> tuple[tuple[str, ...], list[list[str]]]:
    """Columns and rows, one for each exporter, signal and reason."""
    totals: dict[tuple[str, ...], Counter[str]] = {}
    for each in letters:
        sizes = {"batches": 1, "items": each.item_count, "bytes": each.size_bytes}
        totals.setdefault((each.exporter, each.signal, each.reason), Counter()).update(sizes)
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
