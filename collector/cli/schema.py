"""``tailrace schema``: the JSON Schema of the whole configuration, for editors."""

import json

import click

from collector.registry import Registry
from config.schema import json_schema

__all__ = ["command"]


@click.command()
def command() -> None:
    """Print the JSON Schema of the configuration, for editors."""
    descriptions = Registry().describe()
    # A factory is described once per spelling of its type.
    factories = {id(found.factory): found.factory for found in descriptions if found.factory is not None}
    click.echo(json.dumps(json_schema(factories.values()), indent=2, ensure_ascii=False))
