"""``tailrace run``: load, start, serve until stopped, drain."""

import asyncio
import sys
from collections.abc import Callable

import click
import structlog

from collector.api import ConsumeError
from collector.cli._logs import logging_to
from collector.cli._options import config_options, fail, load_or_fail
from collector.registry import Registry, check_top_level_names
from config.model import Config

__all__ = ["command", "new_event_loop", "serve"]


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A uvloop loop; asyncio's own where there is no uvloop."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop  # noqa: PLC0415 - not on every platform

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def serve(config: Config, registry: Registry) -> None:
    """Run the service until it is told to stop; what it holds is flushed before this returns."""
    from collector.service import Service  # noqa: PLC0415 - the commands that only read do without it

    service = Service(config, registry)
    try:
        await service.start()
        await service.run_until_stopped()
    finally:
        await service.shutdown()


def run(config: Config, registry: Registry, loop_factory: Callable[[], asyncio.AbstractEventLoop] = new_event_loop) -> int:
    """Serve ``config``; the exit code."""
    try:
        with logging_to(config.service.telemetry.logs):
            log = structlog.get_logger("tailrace")
            for warning in config.warnings:
                log.warning("configuration note", finding=str(warning))
            try:
                with asyncio.Runner(loop_factory=loop_factory) as runner:
                    runner.run(serve(config, registry))
            except KeyboardInterrupt:
                return 130
            except Exception as exc:  # the edge of the process: whatever stopped the service is said in one line
                defect = not isinstance(exc, OSError | ValueError | ConsumeError)
                log.error("the service failed", error=str(exc) or type(exc).__name__, exc_info=defect)  # noqa: TRY400 - no traceback for what the operator can mend
                return 1
    except OSError as exc:
        fail(f"service::telemetry::logs::output_paths: {exc}")
    return 0


@click.command()
@config_options
def command(sources: tuple[str, ...], sets: tuple[str, ...]) -> None:
    """Run the pipelines of a configuration until SIGTERM or Ctrl-C."""
    problems = check_top_level_names()
    if problems:
        fail("; ".join(problems))
    registry = Registry()
    raise SystemExit(run(load_or_fail(sources, sets, registry), registry))
