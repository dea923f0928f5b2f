"""What operators see: the processor's own metrics and ``GET /cardinality``. ``metric`` is a label of the worst ones alone."""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Telemetry
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.state import State

__all__ = ["Overview"]

_REST: Final = "__other__"


class Overview:
    """Reads the state; changes nothing."""

    def __init__(self, name: str, state: State, config: CardinalityConfig) -> None:
        """``name`` says which processor of which pipeline this is."""
        self._name, self._state, self._config = name, state, config

    def register(self, telemetry: Telemetry) -> None:
        """The gauges."""
        prefix = "tailrace_cardinality_"
        metric = ("metric",)
        telemetry.gauge(
            prefix + "series",
            "Named series; metric: those with most demand",
            metric,
            read=lambda: self._by_metric("series"),
        )
        telemetry.gauge(
            prefix + "demand",
            "Series asked for, about: named and rejected",
            metric,
            read=lambda: self._by_metric("demand"),
        )
        telemetry.gauge(
            prefix + "limit",
            "Series allowed, of all groups of the metric; 0: unlimited",
            metric,
            read=lambda: self._by_metric("limit"),
        )
        telemetry.gauge(
            prefix + "state_bytes", "Memory of folded state", read=lambda: float(self._state.fold.state_bytes)
        )
        telemetry.gauge(
            prefix + "attribute_values", "Distinct values, about, of the worst attributes", ("metric", "attribute"),
            read=self._state.report.counts,
        )  # fmt: skip

    def _by_metric(self, name: str) -> dict[tuple[str, ...], float]:
        """Metric → number, of the ``top.n`` metrics by demand; the others together as ``__other__``."""
        limits = self._state.limits
        slots = limits.metrics()
        demand = limits.demand_of(slots)
        numbers = demand if name == "demand" else limits.budgets.column(name)[slots].astype(np.float64)
        sums: dict[str, list[float]] = {}
        for slot, wanted, number in zip(slots.tolist(), demand.tolist(), numbers.tolist(), strict=True):
            entry = sums.setdefault(limits.names[slot][0], [0.0, 0.0])
            entry[0] += wanted
            entry[1] += number
        order = sorted(sums.items(), key=lambda item: -item[1][0])
        found: dict[tuple[str, ...], float] = {(metric,): number for metric, (_, number) in order[: self._config.top.n]}
        if rest := order[self._config.top.n :]:
            found[(_REST,)] = found.get((_REST,), 0.0) + sum(number for _, (_, number) in rest)
        return found

    async def show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """``GET /cardinality``."""
        del query
        state, limits = self._state, self._state.limits
        slots = limits.metrics()
        demand = limits.demand_of(slots)
        order = np.argsort(-demand, kind="stable")[: self._config.top.n]
        column = limits.budgets.column
        entries = []
        for slot, wanted in zip(slots[order].tolist(), demand[order].tolist(), strict=True):
            metric, values = limits.names[slot]
            shown = {
                key: state.report.shown(key, value)
                for key, value in zip(self._config.group_by, values, strict=True)
                if value is not None
            }
            numbers = {name: int(column(name)[slot]) for name in ("series", "limit", "folded", "overflow")}
            entries.append({"metric": metric, "group": shown, **numbers, "demand": int(wanted)})
        document = {
            "mode": self._config.mode,
            "series": len(limits.named),
            "demand": int(limits.demand_total),
            "process_series": state.process.count,
            "max_series": self._config.max_series,
            "folded_sources": int(
                np.count_nonzero(state.fold.sources.column("accumulator")[state.fold.sources.live()] >= 0)
            ),
            "written_series": len(state.fold.accumulators),
            "state_bytes": state.fold.state_bytes,
            "state_limit_bytes": self._config.state_limit_mib * 1024 * 1024,
            "metrics": entries,
            "attributes": state.report.worst(),
        }
        return {self._name: document}
