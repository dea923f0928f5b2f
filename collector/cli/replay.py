"""``tailrace replay``: send dead letters again and remove those that were delivered."""

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import click

from collector.api import ComponentId, ComponentKind, ConsumeError, Exporter, Factory, RetryableError
from collector.cli._letters import LetterStores, OfflineService, where_option
from collector.cli._options import config_options, fail, load_or_fail
from collector.cli._running import ask_service
from collector.delivery.dead_letters import LetterFilter
from collector.delivery.letter_admin import REPLAY_PATH
from collector.delivery.log import printable
from collector.model import Signal
from collector.registry import Registry
from config.blocks import QueueConfig, RetryConfig
from config.model import Config

__all__ = ["command"]

# Whoever replays waits for it, so a backend that is down is reported soon.
_RETRY: Final = RetryConfig.model_validate({"initial_interval": "1s", "max_interval": "5s", "max_elapsed_time": "20s"})


@dataclass
class _Outcome:
    """What became of the letters."""

    attempted: int = 0
    delivered: int = 0
    refused: int = 0
    unreadable: int = 0
    items: int = 0
    rejected_items: int = 0
    error: str = ""
    """Why the replay ended early."""
    reasons: dict[str, int] = field(default_factory=dict)


@click.command()
@config_options
@where_option
@click.option(
    "--to",
    "target",
    default="",
    metavar="EXPORTER|ENDPOINT",
    help="Where to send: the id of an exporter of the configuration, host:port (OTLP/gRPC without TLS), or a URL"
    " (OTLP/HTTP). Default: the exporter that could not deliver the data.",
)
@click.option("--keep", is_flag=True, help="Do not remove what was delivered.")
@click.option("--limit", type=click.IntRange(min=0), default=0, help="Number of batches at most. 0: all.")
def command(
    sources: tuple[str, ...], sets: tuple[str, ...], where: LetterFilter, target: str, limit: int, *, keep: bool
) -> None:
    """Send again what exporters could not deliver, oldest first, and remove what was delivered.

    If the service runs, it does the work itself; --to is then not possible.
    """
    registry = Registry()
    config = load_or_fail(sources, sets, registry)

    async def run() -> _Outcome:
        try:
            return await _replay(config, registry, where, target, limit=limit, keep=keep)
        except OSError as exc:  # a service has the directory
            outcome = None if target else await _ask(config, where, limit=limit, keep=keep)
            if outcome is None:
                hint = "; stop the service to use --to" if target else ""
                raise OSError(f"{exc}{hint}") from exc
            return outcome

    try:
        outcome = asyncio.run(run())
    except (OSError, ValueError) as exc:
        fail(str(exc))
    click.echo(f"{outcome.delivered} batches with {outcome.items} items delivered")
    if outcome.rejected_items:
        click.echo(f"{outcome.rejected_items} of these items were rejected by the backend")
    for reason, count in outcome.reasons.items():
        click.echo(f"{count} batches refused: {printable(reason)}")
    if outcome.unreadable:
        click.echo(f"{outcome.unreadable} batches cannot be read")
    if outcome.error:
        fail(f"the replay ended early: {printable(outcome.error)}")
    raise SystemExit(1 if outcome.refused or outcome.unreadable else 0)


async def _ask(config: Config, where: LetterFilter, *, limit: int, keep: bool) -> _Outcome | None:
    """Let the running service replay; None if there is none."""
    query = {**where.to_query(), "limit": str(limit), "keep": "true" if keep else "false"}
    answer = await ask_service(config, "POST", REPLAY_PATH, query)
    if answer is None:
        return None
    outcome = _Outcome()
    for exporter_id, each in answer.items():
        outcome.delivered += each["delivered"]
        outcome.items += each["items"]
        outcome.refused += each["refused"]
        outcome.unreadable += each["unreadable"]
        if each["refused"]:
            outcome.reasons[f"see the log of the service about {exporter_id}"] = each["refused"]
        if each["error"]:
            outcome.error = each["error"]
    return outcome


async def _replay(
    config: Config, registry: Registry, where: LetterFilter, target: str, *, limit: int, keep: bool
) -> _Outcome:
    service, outcome = OfflineService(config), _Outcome()
    async with AsyncExitStack() as stack:
        stores = await stack.enter_async_context(LetterStores(service).opened())
        targets = _Targets(service, registry, stack, target)
        letters = await stack.enter_async_context(aclosing(stores.letters(where)))
        async for letter in letters:
            if limit and outcome.attempted == limit:
                break
            outcome.attempted += 1
            try:
                batch = await letter.read()
            except (OSError, KeyError):
                outcome.unreadable += 1
                continue
            exporter = await targets.exporter(letter.labels, batch.signal)
            try:
                await exporter.consume(batch)
            except RetryableError as exc:
                outcome.error = str(exc)
                break
            except ConsumeError as exc:
                outcome.refused += 1
                outcome.reasons[str(exc)] = outcome.reasons.get(str(exc), 0) + 1
                continue
            outcome.delivered += 1
            outcome.items += batch.item_count
            if not keep:
                letter.remove()
        rows = service.ledger.snapshot()
        outcome.rejected_items = sum(row.refused.get("partial_success", 0) for row in rows)
    return outcome


class _Targets:
    """The exporters that letters are sent with; each is started when the first letter needs it."""

    def __init__(self, service: OfflineService, registry: Registry, stack: AsyncExitStack, target: str) -> None:
        self._service, self._registry, self._stack, self._target = service, registry, stack, target
        self._exporters: dict[str, Exporter] = {}

    async def exporter(self, labels: Mapping[str, str], signal: Signal) -> Exporter:
        """The started exporter for a letter with the labels.

        Raises:
            ValueError: there is no such exporter, or it does not take the signal.
        """
        name = self._target or labels.get("exporter", "")
        component_id, factory, config = self._find(name)
        if signal not in factory.signals:
            raise ValueError(f"--to: {name} does not take {signal}; add --where signal=... to leave them out")
        if name not in self._exporters:
            signals = factory.signals if self._target else self._service.signals_of(component_id)
            self._exporters[name] = await self._stack.enter_async_context(
                self._service.running(ComponentKind.EXPORTER, component_id, factory, direct(config), signals)
            )
        return self._exporters[name]

    def _find(self, name: str) -> tuple[ComponentId, Factory, Any]:
        for component_id, configured in self._service.config.exporters.items():
            if str(component_id) == name:
                return component_id, configured.factory, configured.config
        if ":" not in name:
            known = ", ".join(map(str, self._service.config.exporters))
            raise ValueError(f"--to: {name!r} is neither an exporter of the configuration ({known}) nor an endpoint")
        component_type = "otlp_http" if "://" in name else "otlp_grpc"
        factory = self._registry.find(ComponentKind.EXPORTER, component_type)
        assert factory is not None  # part of this distribution
        block = {"endpoint": name, **({} if "://" in name else {"tls": {"insecure": True}})}
        return ComponentId.parse(component_type), factory, factory.config_type.model_validate(block)


def direct(config: Any) -> Any:
    """The configuration of an exporter that sends while its caller waits, and keeps nothing itself."""
    fields = type(config).model_fields
    changes: dict[str, Any] = {"dead_letter": None, "retry_on_failure": _RETRY}
    if "sending_queue" in fields:
        changes["sending_queue"] = QueueConfig(enabled=False)
    if "remote_write_queue" in fields:
        changes["remote_write_queue"] = config.remote_write_queue.model_copy(update={"enabled": False})
    return config.model_copy(update={name: value for name, value in changes.items() if name in fields})
