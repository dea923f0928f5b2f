"""``tailrace validate``: every error of a configuration at once, and which of its components are available.

The whole graph is built, so the checks in the components' constructors run as well. Nothing is started and no port is
opened. If some components do not exist here, the same is done for what remains without them, so that the number of
pipelines that would run is not a guess.
"""

import click

from collector.api import ComponentKind
from collector.cli._options import config_options, show_errors, show_warnings
from collector.registry import Registry
from collector.service import BuildError, Service
from config.errors import ConfigError
from config.load import ComponentOutcome, Examination, Outcome, WithoutMissing, examine
from config.model import Config, singular

__all__ = ["command"]

_HEADINGS = {
    Outcome.INVALID: "available, but not with these settings (see the errors)",
    Outcome.ELSEWHERE: "part of the OpenTelemetry Collector, but not available in Tailrace yet",
    Outcome.UNKNOWN: "of an unknown type",
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
    problems = _build(found.config)
    if compat and found.components:
        _show_compatibility(found.components)
    else:
        show_warnings(found.warnings)  # first, because a variable that is not set often explains the errors
        show_errors(found.errors)
        if any(component.outcome is not Outcome.RUNS for component in found.components):
            _show_compatibility(found.components)
    if found.without_missing is not None:
        _show_remainder(found.without_missing, found.errors)
    show_errors(problems)
    if found.errors or problems:
        error_count = len(found.errors) + len(problems)
        click.echo(f"{error_count} error{'s' if error_count != 1 else ''}", err=True)
        raise SystemExit(1)
    if not compat:
        click.echo(_summary(found))


def _build(config: Config | None) -> tuple[ConfigError, ...]:
    """What components refuse while the graph is built; nothing if the configuration is invalid anyway."""
    if config is None:
        return ()
    try:
        Service(config)
    except BuildError as exc:
        return exc.errors
    except Exception as exc:  # noqa: BLE001 - whatever it is, the user wants to know
        return (ConfigError(config.position("service"), ("service",), str(exc) or type(exc).__name__),)
    return ()


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


def _show_remainder(without: WithoutMissing, shown: tuple[ConfigError, ...]) -> None:
    """Say how many pipelines would run without what does not exist here, and what they or the others lack."""
    remainder, reduced = without.remainder, without.examination
    running_count, pipeline_count = len(remainder.running), remainder.pipeline_count
    if not running_count:
        condition = ""
    elif reduced.config is None:
        condition = " once the other errors are fixed"
    elif problems := _build(reduced.config):
        condition = ", but the pipelines cannot be built: " + "; ".join(map(str, problems))
    else:
        condition = "; tailrace run --skip-missing starts them"
    click.echo(
        f"{running_count} of {pipeline_count} pipeline{'s' if pipeline_count != 1 else ''} would run without the "
        f"components that do not exist here{condition}"
    )
    for finding in (*remainder.left_out, *remainder.changed):
        if finding not in shown:
            click.echo(f"  {finding}")
    show_errors(error for error in reduced.errors if running_count and error not in shown)
