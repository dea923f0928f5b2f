"""The ``tailrace`` command. Each module of this package that has a ``command`` is a subcommand of that name.

``tailrace --config F`` without a subcommand means ``tailrace run --config F``, as with the Collector.
Exit codes: 0 success, 1 the configuration is invalid or the service failed, 2 wrong usage.
"""

import importlib
import importlib.metadata
import pkgutil

import click

__all__ = ["main", "version"]

_OWN_OPTIONS = ("--help", "--version", "-h")


def version() -> str:
    """The installed version."""
    try:
        return importlib.metadata.version("tailrace")
    except importlib.metadata.PackageNotFoundError:
        return "0+unknown"


class _Commands(click.Group):
    """Finds subcommands as modules, and imports each only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of the modules of this package that have a ``command``."""
        names = (module.name for module in pkgutil.iter_modules(__path__))
        return sorted(
            name.replace("_", "-")
            for name in names
            if not name.startswith("_") and self.get_command(ctx, name) is not None
        )

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The ``command`` of the module named ``cmd_name``."""
        del ctx
        name = cmd_name.replace("-", "_")
        if name.startswith("_") or name not in {module.name for module in pkgutil.iter_modules(__path__)}:
            return None
        command = getattr(importlib.import_module(f"{__name__}.{name}"), "command", None)
        return command if isinstance(command, click.Command) else None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Without a command, options belong to ``run``."""
        if args and args[0].startswith("-") and args[0] not in _OWN_OPTIONS:
            args = ["run", *args]
        return super().parse_args(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="tailrace")
def main() -> None:
    """Tailrace receives, processes and exports OpenTelemetry traces, metrics and logs.

    Without a command, the options are those of `run`: `tailrace --config FILE`.
    """
