"""``tailrace validate``: every error of a configuration at once, and which of its components are available.

The whole graph is built, so the checks in the components' constructors run as well. Nothing is started and no port is
opened.
"""

import click

from collector.api import ComponentKind
from collector.cli._options import config_options, show_errors, show_warnings
from collector.registry import Registry
from collector.service import Service
from config.load import ComponentOutcome, Examination, Outcome, examine
from config.model import singular

__all__ = ["command"]

_HEADINGS = {
    Outcome.INVALID: "available, but not with these settings (see the errors)",
    Outcome.ELSEWHERE: "part of the OpenTelemetry Collector, but not available in Tailrace yet",
    Outcome.UNKNOWN: "unknown component types",
}


@click.command()
@config_options
@click.option(
    "--compat",
    is_flag=True,
    help="Only report which components are available here, exist only in the Collector, or are unknown.",
)
def command(sources: tuple[str, ...], sets: tuple[str, ...], compat: bool) -> None:
    """Check a configuration without starting anything."""
    registry = Registry()
    found = examine(sources, sets, registry)
    problem = _build(found)
    if compat and found.components:
        _show_compatibility(found.components)
    else:
        show_warnings(found.warnings)  # first, because a variable that is not set often explains the errors
        show_errors(found.errors)
        if any(component.outcome is not Outcome.RUNS for component in found.components):
            _show_compatibility(found.components)
    if problem:
        click.echo(f"{click.style('error', fg='red')}: {problem}", err=True)
    if found.errors or problem:
        error_count = len(found.errors) + bool(problem)
        click.echo(f"{error_count} error{'s' if error_count != 1 else ''}", err=True)
        raise SystemExit(1)
    if not compat:
        click.echo(_summary(found))


def _build(found: Examination) -> str:
    """Why the graph cannot be built; empty if it can be, or if the configuration is invalid anyway."""
    if found.config is None:
        return ""
    try:
        Service(found.config)
    except Exception as exc:  # noqa: BLE001 - a component's constructor may raise anything
        return f"the pipelines cannot be built: {str(exc) or type(exc).__name__}"
    return ""


def _summary(found: Examination) -> str:
    parts = []
    for kind in ComponentKind:
        count = sum(component.kind is kind for component in found.components)
        if count:
            parts.append(f"{count} {kind if count != 1 else singular(kind)}")
    return f"OK: {', '.join(parts)} in {found.pipeline_count} pipeline{'s' if found.pipeline_count != 1 else ''}"


def _show_compatibility(components: tuple[ComponentOutcome, ...]) -> None:
    running_count = sum(component.outcome is Outcome.RUNS for component in components)
    click.echo(f"{running_count} of {len(components)} components run unchanged")
    for outcome, heading in _HEADINGS.items():
        concerned = [component for component in components if component.outcome is outcome]
        if concerned:
            click.echo(f"{len(concerned)} {heading}:")
        for component in concerned:
            click.echo(f"  {component.kind} {component.id} ({component.position})")
