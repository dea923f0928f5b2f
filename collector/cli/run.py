"""``tailrace run``: load the configuration, start, serve until stopped, drain."""

import asyncio
import sys
from collections.abc import Callable

import click
import structlog

from collector.cli._logs import logging_to
from collector.cli._options import config_options, fail, load_or_fail
from collector.registry import Registry, check_top_level_names
from collector.service import BuildError, Service, StartError
from collector.text.own_log import UNSAMPLED
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
                log.warning("the configuration has a warning", warning=str(warning), **UNSAMPLED)
            _log_left_out(config)
            try:
                with asyncio.Runner(loop_factory=new_event_loop) as runner:
                    runner.run(serve(config, load, configure_logs))
            except KeyboardInterrupt:
                return 130
            except BuildError as exc:
                for finding in exc.errors:
                    log.error("the service could not start", error=str(finding), **UNSAMPLED)  # noqa: TRY400
                return 1
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


def _log_left_out(config: Config) -> None:
    """Log what ``--skip-missing`` has left out, as errors, so that no log level hides it."""
    if not (config.left_out or config.changed_pipelines):
        return
    log = structlog.get_logger("tailrace")
    for finding in config.left_out:
        log.error("a component is left out because of --skip-missing", reason=str(finding), **UNSAMPLED)
    for finding in config.changed_pipelines:
        log.error("a pipeline is affected by --skip-missing", effect=str(finding), **UNSAMPLED)
    running = config.service.pipelines
    affected = [finding.path[-1] for finding in config.changed_pipelines]
    log.error(
        "only a part of the configuration runs because of --skip-missing",
        left_out=["::".join(finding.path) for finding in config.left_out],
        stopped_pipelines=[name for name in affected if name not in running],
        incomplete_pipelines=[name for name in affected if name in running],
    )


@click.command()
@config_options
@click.option(
    "--skip-missing",
    is_flag=True,
    help="Leave out components that do not exist here and start the pipelines that can run without them. Everything "
    "left out is logged as an error.",
)
@click.option(
    "--allow-unprotected",
    is_flag=True,
    help="With --skip-missing: also start pipelines without processors that may remove or mask data. Their data passes "
    "unchanged.",
)
def command(sources: tuple[str, ...], sets: tuple[str, ...], skip_missing: bool, allow_unprotected: bool) -> None:
    """Run the service until SIGTERM or Ctrl-C; reload its configuration on SIGHUP."""
    problems = check_top_level_names()
    if problems:
        fail("; ".join(problems))
    if allow_unprotected and not skip_missing:
        fail("--allow-unprotected has no meaning without --skip-missing")
    registry = Registry()

    def load_again() -> Config:
        config = load(sources, sets, registry, skip_missing=skip_missing, allow_unprotected=allow_unprotected)
        _log_left_out(config)
        return config

    config = load_or_fail(sources, sets, registry, skip_missing=skip_missing, allow_unprotected=allow_unprotected)
    raise SystemExit(run(config, load_again))
