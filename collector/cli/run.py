"""``tailrace run``: load the configuration, start, serve until stopped, drain."""

import asyncio
import sys
from collections.abc import Callable

import click
import structlog

from collector.cli._logs import logging_to
from collector.cli._options import config_options, fail, load_or_fail
from collector.registry import Registry, check_top_level_names
from collector.service import Service, StartError
from config.load import load
from config.model import Config, LogsTelemetry

__all__ = ["command", "new_event_loop", "serve"]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop event loop, or asyncio's own on platforms without uvloop."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - not on every platform

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def serve(
    config: Config,
    load: Callable[[], Config] | None = None,
    configure_logs: Callable[[LogsTelemetry], None] | None = None,
) -> None:
    """Run the service until it is stopped, then flush its data. ``load`` reads the configuration for a reload."""
    service = Service(config, load=load, configure_logs=configure_logs)
    service.handle_signals()
    try:
        await service.start()
        await service.run_until_stopped()
    finally:
        await service.shutdown()


def run(config: Config, load: Callable[[], Config] | None = None) -> int:
    """Serve ``config`` and return the exit code."""
    try:
        with logging_to(config.service.telemetry.logs) as configure_logs:
            log = structlog.get_logger("tailrace")
            for warning in config.warnings:
                log.warning("the configuration has a warning", warning=str(warning))
            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(serve(config, load, configure_logs))
            except KeyboardInterrupt:
                return 130
            except (StartError, OSError) as exc:
                # An operator can fix this without a traceback.
                log.error("the service could not start", error=str(exc))  # noqa: TRY400
                return 1
            except Exception:  # the edge of the process
                log.exception("the service failed")
                return 1
    except OSError as exc:
        fail(f"service::telemetry::logs::output_paths: {exc}")
    return 0


@click.command()
@config_options
def command(sources: tuple[str, ...], sets: tuple[str, ...]) -> None:
    """Run the service until SIGTERM or Ctrl-C; reload its configuration on SIGHUP."""
    problems = check_top_level_names()
    if problems:
        fail("; ".join(problems))
    registry = Registry()
    raise SystemExit(run(load_or_fail(sources, sets, registry), lambda: load(sources, sets, registry)))
