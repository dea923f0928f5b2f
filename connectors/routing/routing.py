"""Sends the items of a batch to pipelines by conditions. Source: the Collector's routingconnector."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.api import Connector, ConsumeError, Settings
from collector.delivery.log import RateLimitedLog
from collector.model import Batch, Signal
from collector.model.arrays import Mask
from collector.ottl import Context, OttlError, compile_conditions, infer_context
from config.blocks import InvalidSettings
from connectors.routing.config import RouteConfig, RoutingConfig

__all__ = ["RoutingConnector"]

_CONTEXTS: Final[dict[Signal, tuple[Context, ...]]] = {
    Signal.TRACES: ("resource", "scope", "span"),
    Signal.METRICS: ("resource", "scope", "metric", "datapoint"),
    Signal.LOGS: ("resource", "scope", "log"),
}


@dataclass(frozen=True, slots=True)
class _Route:
    matched: Callable[[Batch], tuple[Mask, Mask]]
    """(matched, failed): bool[n] each, over the items."""
    pipelines: tuple[str, ...]
    is_copy: bool


class RoutingConnector(Connector):
    """The connector, for all its signals; it holds nothing."""

    def __init__(self, settings: Settings, config: RoutingConfig) -> None:
        self._settings, self._config, self._telemetry = settings, config, settings.telemetry
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        found = list(_unknown_pipelines(config, settings.pipelines)) if settings.pipelines else []
        self._tables: dict[Signal, list[_Route]] = {signal: [] for signal in sorted(settings.signals)}
        for signal, routes in self._tables.items():
            for place, route in enumerate(config.table):
                try:
                    routes.append(_Route(_matcher(route, signal), route.pipelines, route.action == "copy"))
                except (OttlError, ValueError) as error:
                    found.append((("table", place), str(error)))
        if found:
            raise InvalidSettings(*found)

    async def consume(self, batch: Batch) -> None:
        """Send each item to the pipelines of the first route that it matches."""
        rest = np.ones(batch.item_count, np.bool_)
        parts: dict[str, Mask] = {}
        for route in self._tables[batch.signal]:
            matched, failed = route.matched(batch)
            matched = matched & rest
            if (failed & rest).any() and not self._goes_on(batch, int(np.count_nonzero(failed & rest))):
                return
            for name in route.pipelines if matched.any() else ():
                parts[name] = parts[name] | matched if name in parts else matched
            if not route.is_copy:
                rest &= ~matched
        for name in self._config.default_pipelines if rest.any() else ():
            parts[name] = parts[name] | rest if name in parts else rest
        await self._send(batch, parts)

    async def _send(self, batch: Batch, parts: dict[str, Mask]) -> None:
        outputs = {name: self._settings.pipelines[name] for name in parts if name in self._settings.pipelines}
        sent_count = sum(int(np.count_nonzero(parts[name])) for name in outputs)
        reached = np.zeros(batch.item_count, np.bool_)
        for name in outputs:
            reached |= parts[name]
        lost_count = batch.item_count - int(np.count_nonzero(reached))
        if lost_count:
            self._telemetry.dropped(batch.signal, lost_count, "unrouted")
        if sent_count > batch.item_count - lost_count:  # some items go to several pipelines
            self._telemetry.created(batch.signal, sent_count - (batch.item_count - lost_count))
        failure: ConsumeError | None = None
        for name, output in outputs.items():
            part = batch if parts[name].all() else batch.select(parts[name])
            try:
                await output.consume(part)
            except ConsumeError as error:  # of an exporter that waits for its result; the others get theirs first
                failure = error
        if failure is not None:
            raise failure

    def _goes_on(self, batch: Batch, row_count: int) -> bool:
        """Whether the batch is routed although a condition could not be evaluated for some items."""
        if self._config.error_mode == "propagate":
            self._telemetry.dropped(batch.signal, batch.item_count, "error")
            self._log.error(
                "a condition could not be evaluated; the batch is dropped (error_mode: propagate)",
                items=batch.item_count,
            )
            return False
        if self._config.error_mode == "ignore":
            self._log.warning("a condition could not be evaluated; the items do not match it", items=row_count)
        return True


def _unknown_pipelines(config: RoutingConfig, known: Collection[str]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """The places in ``config`` of pipelines that are not ``known``, and what is wrong."""
    places: list[tuple[tuple[str | int, ...], tuple[str, ...]]] = [(("default_pipelines",), config.default_pipelines)]
    places += [(("table", place, "pipelines"), route.pipelines) for place, route in enumerate(config.table)]
    for keys, names in places:
        for number, name in enumerate(names):
            if name not in known:
                message = f"there is no pipeline {name!r} that has this connector as a receiver, only: "
                yield (*keys, number), message + ", ".join(known)


def _matcher(config: RouteConfig, signal: Signal) -> Callable[[Batch], tuple[Mask, Mask]]:
    if config.context == "request":
        return _request_matcher(*config.request())
    text = config.text()
    if not text:
        return lambda batch: (np.ones(batch.item_count, np.bool_), np.zeros(batch.item_count, np.bool_))
    if config.context:
        context: Context = config.context
    else:
        try:
            context = infer_context(text, signal)
        except OttlError:
            context = "resource"  # no path names a context
    if context not in _CONTEXTS[signal]:
        raise ValueError(f"the context {context!r} is not available for {signal.value}")
    conditions = compile_conditions([text], context)

    def matched(batch: Batch) -> tuple[Mask, Mask]:
        rows, failed = conditions.mask(batch)
        if conditions.table == batch.table_name("item"):
            return rows, failed
        owner = batch.ancestor(conditions.table)
        return rows[owner], failed[owner]

    return matched


def _request_matcher(header: str, is_equal: bool, value: str) -> Callable[[Batch], tuple[Mask, Mask]]:
    """As in the Collector, a request without the header matches neither == nor !=."""

    def matched(batch: Batch) -> tuple[Mask, Mask]:
        values = dict(batch.context.metadata).get(header, ())
        is_match = any((found == value) is is_equal for found in values)
        return np.full(batch.item_count, is_match), np.zeros(batch.item_count, np.bool_)

    return matched
