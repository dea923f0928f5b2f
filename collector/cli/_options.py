"""Options and findings that the subcommands share."""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import click

from collector.registry import Registry
from config.errors import ConfigError, ConfigErrors
from config.load import load
from config.model import Config

__all__ = ["config_options", "fail", "load_or_fail", "show_errors", "show_notes"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def config_options(command: CommandT) -> CommandT:
    """``--config`` and ``--set``, both repeatable, as ``sources`` and ``sets``."""
    command = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Set one value: exporters.debug.verbosity=detailed. Applied last.",
    )(command)
    return click.option(
        "--config",
        "sources",
        multiple=True,
        required=True,
        metavar="LOCATION",
        help="A file, file:PATH, env:NAME or yaml:TEXT. Repeatable: merged in order, the later wins.",
    )(command)


def show_errors(errors: Iterable[ConfigError]) -> None:
    """Every finding on a line of its own, on standard error."""
    for error in errors:
        click.echo(f"{click.style('error', fg='red')}: {error}", err=True)


def show_notes(notes: Iterable[ConfigError]) -> None:
    """Findings that stop nothing, on standard error."""
    for note in notes:
        click.echo(f"{click.style('note', fg='yellow')}: {note}", err=True)


def fail(message: str) -> NoReturn:
    """End with exit code 1."""
    click.echo(f"{click.style('error', fg='red')}: {message}", err=True)
    raise SystemExit(1)


def load_or_fail(sources: Iterable[str], sets: Iterable[str], registry: Registry) -> Config:
    """The checked configuration; else every error is shown and the command ends with exit code 1."""
    try:
        return load(tuple(sources), tuple(sets), registry)
    except ConfigErrors as exc:
        show_errors(exc.errors)
        fail(f"the configuration has {len(exc.errors)} error{'s' if len(exc.errors) != 1 else ''}")
