"""What operators see: the processor's own metrics and ``GET /cardinality``.

Only the metrics with the largest demand have their name in the label ``metric``.
"""

from collections.abc import Mapping
from typing import Any, Final

import numpy as np

from collector.api import Telemetry
from processors.cardinality.config import CardinalityConfig
from processors.cardinality.state import State

__all__ = ["Overview"]

_OTHER: Final = "__other__"


class Overview:
    """Reads the state of one processor."""

    def __init__(self, name: str, state: State, config: CardinalityConfig) -> None:
        """``name``: the id of the processor and of its pipeline."""
        self._name, self._state, self._config = name, state, config

    def register(self, telemetry: Telemetry) -> None:
        """Register the gauges."""
        prefix = "tailrace_cardinality_"
        metric = ("metric",)
        telemetry.gauge(
            prefix + "series",
            "Named series, for the metrics with the largest demand",
            metric,
            read=lambda: self._by_metric("series"),
        )
        telemetry.gauge(
            prefix + "demand",
            "Estimated number of all series, named and rejected",
            metric,
            read=lambda: self._by_metric("demand"),
        )
        telemetry.gauge(
            prefix + "limit",
            "Series allowed in all groups of the metric; 0: unlimited",
            metric,
            read=lambda: self._by_metric("limit"),
        )
        telemetry.gauge(
            prefix + "state_bytes",
            "Memory used by the state of merged series, in bytes",
            read=lambda: float(self._state.fold.state_bytes),
        )
        telemetry.gauge(
            prefix + "attribute_values",
            "Estimated number of distinct values, for the attributes with the most values",
            ("metric", "attribute"),
            read=self._state.report.counts,
        )

    def _by_metric(self, name: str) -> dict[tuple[str, ...], float]:
        """The number of each of the ``top.n`` metrics with the largest demand; that of all others as ``__other__``."""
        limits = self._state.limits
        slots = limits.metric_budgets()
        demand = limits.demand_of(slots)
        numbers = demand if name == "demand" else limits.budgets.column(name)[slots].astype(np.float64)
        # A metric has a budget in each group, and there can be a hundred thousand of them.
        hashes = limits.budgets.column("name_hash")[slots]
        _, first, metric = np.unique(hashes, return_index=True, return_inverse=True)
        order = np.argsort(-np.bincount(metric, demand, len(first)), kind="stable")
        sums = np.bincount(metric, numbers, len(first))[order]
        found: dict[tuple[str, ...], float] = {}
        for slot, number in zip(slots[first[order[: self._config.top.n]]].tolist(), sums.tolist(), strict=False):
            key = (limits.names[slot][0],)
            found[key] = found.get(key, 0.0) + number
        if len(order) > self._config.top.n:
            found[(_OTHER,)] = found.get((_OTHER,), 0.0) + float(sums[self._config.top.n :].sum())
        return found

    async def show(self, query: Mapping[str, str]) -> dict[str, Any]:
        """``GET /cardinality``."""
        del query
        state, limits = self._state, self._state.limits
        slots = limits.metric_budgets()
        demand = limits.demand_of(slots)
        order = np.argsort(-demand, kind="stable")[: self._config.top.n]
        column = limits.budgets.column
        entries = []
        for slot, demand_of_slot in zip(slots[order].tolist(), demand[order].tolist(), strict=True):
            metric, values = limits.names[slot]
            shown = {
                key: state.report.shown(key, value)
                for key, value in zip(self._config.group_by, values, strict=True)
                if value is not None
            }
            numbers = {name: int(column(name)[slot]) for name in ("series", "limit", "folded", "overflow")}
            entries.append({"metric": metric, "group": shown, **numbers, "demand": int(demand_of_slot)})
        document = {
            "mode": self._config.mode,
            "series": len(limits.named),
            "demand": int(limits.demand_total),
            "process_series": state.process.count,
            "max_series": self._config.max_series,
            "folded_sources": state.fold.merged_source_count,
            "written_series": len(state.fold.accumulators),
            "state_bytes": state.fold.state_bytes,
            "state_limit_bytes": self._config.state_limit_mib * 1024 * 1024,
            "metrics": entries,
            "attributes": state.report.largest(),
        }
        return {self._name: document}
