"""``tailrace print-config``: the effective configuration, with all defaults."""

from typing import Literal

import click

from collector.cli._options import config_options, load_or_fail
from collector.registry import Registry
from config.dump import dump

__all__ = ["command"]


@click.command("print-config")
@config_options
@click.option(
    "--mode",
    type=click.Choice(["redacted", "unredacted"]),
    default="redacted",
    show_default=True,
    help="Whether to hide secrets.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="Format of the output.",
)
def command(sources: tuple[str, ...], sets: tuple[str, ...], mode: str, output_format: Literal["yaml", "json"]) -> None:
    """Print the merged configuration with all defaults."""
    config = load_or_fail(sources, sets, Registry())
    click.echo(dump(config, redact=mode == "redacted", output_format=output_format), nl=False)
