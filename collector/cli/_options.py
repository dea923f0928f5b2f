"""Options and output that the subcommands share."""

from collections.abc import Callable, Iterable
from typing import Any, NoReturn, TypeVar

import click

from collector.registry import Registry
from config.errors import ConfigError, ConfigErrors
from config.load import load
from config.model import Config

__all__ = ["config_options", "fail", "load_or_fail", "show_errors", "show_warnings"]

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def config_options(command: CommandT) -> CommandT:
    """``--config`` and ``--set``, both repeatable, as ``sources`` and ``sets``."""
    command = click.option(
        "--set",
        "sets",
        multiple=True,
        metavar="KEY=VALUE",
        help="Override a single value, for example exporters.debug.verbosity=detailed. Repeatable.",
    )(command)
    return click.option(
        "--config",
        "sources",
        multiple=True,
        required=True,
        metavar="LOCATION",
        help="Configuration to load: a path, file:PATH, env:NAME or yaml:TEXT. Repeatable; the last one wins.",
    )(command)


def show_errors(errors: Iterable[ConfigError]) -> None:
    """Print every error on a line of its own, to standard error."""
    for error in errors:
        click.echo(f"{click.style('error', fg='red')}: {error}", err=True)


def show_warnings(warnings: Iterable[ConfigError]) -> None:
    """Print every warning on a line of its own, to standard error."""
    for warning in warnings:
        click.echo(f"{click.style('warning', fg='yellow')}: {warning}", err=True)


def fail(message: str) -> NoReturn:
    """Print the error and end with exit code 1."""
    click.echo(f"{click.style('error', fg='red')}: {message}", err=True)
    raise SystemExit(1)


def load_or_fail(
    sources: Iterable[str],
    sets: Iterable[str],
    registry: Registry,
    *,
    skip_missing: bool = False,
    allow_unprotected: bool = False,
) -> Config:
    """The checked configuration. If there are errors, shows them and ends with exit code 1."""
    try:
        return load(
            tuple(sources), tuple(sets), registry, skip_missing=skip_missing, allow_unprotected=allow_unprotected
        )
    except ConfigErrors as exc:
        show_warnings(exc.warnings)  # first, because a variable that is not set often explains the errors
        show_errors(exc.errors)
        fail(f"the configuration has {len(exc.errors)} error{'s' if len(exc.errors) != 1 else ''}")
