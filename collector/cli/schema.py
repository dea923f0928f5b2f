"""``tailrace schema``: JSON Schema of the whole configuration, for editors."""

import json

import click

from collector.registry import Registry
from config.schema import json_schema

__all__ = ["command"]


@click.command()
def command() -> None:
    """Print the JSON Schema of the configuration with every component of this installation."""
    factories = {id(each.factory): each.factory for each in Registry().describe() if each.factory is not None}
    click.echo(json.dumps(json_schema(factories.values()), indent=2, ensure_ascii=False))
