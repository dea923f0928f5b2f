"""``tailrace components``: the component types that this installation can run, as YAML.

Components of other distributions are marked with ``third_party: true``.
"""

from typing import Any

import click

from collector.api import ComponentKind, Factory
from collector.cli import version
from collector.registry import ComponentDescription, Registry
from config.dump import to_yaml

__all__ = ["command"]


@click.command()
def command() -> None:
    """List the component types with distribution, module, stability and signals."""
    document: dict[str, Any] = {"buildinfo": {"command": "tailrace", "version": version()}}
    descriptions = Registry().describe()
    for kind in ComponentKind:
        document[str(kind)] = [_entry(description) for description in descriptions if description.kind is kind]
    click.echo(to_yaml(document), nl=False)


def _entry(description: ComponentDescription) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": description.type}
    if description.distribution:
        entry["distribution"] = description.distribution
    if description.is_third_party:
        entry["third_party"] = True
    entry["module"] = description.module
    factory = description.factory
    if factory is None:
        return {**entry, "unavailable": description.problem}
    aliases = sorted({factory.component_type, *factory.aliases} - {description.type})
    if aliases:
        entry["aliases"] = aliases
    entry["stability"] = str(factory.stability)
    return {**entry, **_signals(factory)}


def _signals(factory: Factory) -> dict[str, Any]:
    if factory.kind is ComponentKind.CONNECTOR:
        return {"connects": [f"{before} to {after}" for before, after in sorted(factory.connects)]}
    return {"signals": sorted(str(signal) for signal in factory.signals)} if factory.signals else {}
