"""``tailrace print-config``: the effective configuration, defaults filled in."""

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
    help="Show secrets or not.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["yaml", "json"]),
    default="yaml",
    show_default=True,
    help="The form of the output.",
)
def command(sources: tuple[str, ...], sets: tuple[str, ...], mode: str, output_format: Literal["yaml", "json"]) -> None:
    """Print the merged configuration with every default."""
    config = load_or_fail(sources, sets, Registry())
    click.echo(dump(config, redact=mode == "redacted", output_format=output_format), nl=False)
