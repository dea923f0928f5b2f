"""``tailrace validate``: every error of a configuration at once, and what of it runs here.

The whole graph is built, so what a component checks when it is made is checked too; nothing is started, no port is
opened.
"""

import click

from collector.api import ComponentKind
from collector.cli._options import config_options, show_errors, show_notes
from collector.registry import Registry
from collector.service import Service
from config.load import ComponentOutcome, Examination, Outcome, examine

__all__ = ["command"]

_HEADINGS = {
    Outcome.INVALID: "we have these, but they cannot run as configured (the errors say why)",
    Outcome.ELSEWHERE: "the OpenTelemetry Collector has these, Tailrace does not yet",
    Outcome.UNKNOWN: "nobody knows these",
}


@click.command()
@config_options
@click.option(
    "--compat",
    is_flag=True,
    help="Only say which components run here, which the Collector alone has, which nobody knows.",
)
def command(sources: tuple[str, ...], sets: tuple[str, ...], compat: bool) -> None:
    """Check a configuration without starting anything."""
    registry = Registry()
    found = examine(sources, sets, registry)
    problem = _build(found)
    if compat and found.components:
        _show_compatibility(found.components)
    else:
        show_errors(found.errors)
        show_notes(found.warnings)
        if any(each.outcome is not Outcome.RUNS for each in found.components):
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
    """Why the graph cannot be built; empty if it can, or if the configuration is wrong already."""
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
        count = sum(each.kind is kind for each in found.components)
        if count:
            parts.append(f"{count} {str(kind) if count != 1 else str(kind).removesuffix('s')}")
    return f"OK: {', '.join(parts)} in {found.pipeline_count} pipeline{'s' if found.pipeline_count != 1 else ''}"


def _show_compatibility(components: tuple[ComponentOutcome, ...]) -> None:
    runs = sum(each.outcome is Outcome.RUNS for each in components)
    click.echo(f"{runs} of {len(components)} components run unchanged")
    for outcome, heading in _HEADINGS.items():
        concerned = [each for each in components if each.outcome is outcome]
        if concerned:
            click.echo(f"{len(concerned)}: {heading}")
        for each in concerned:
            click.echo(f"  {each.kind} {each.id} ({each.position})")
