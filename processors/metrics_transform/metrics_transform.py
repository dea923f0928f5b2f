"""Transforms metrics. Source: the Collector's metricstransformprocessor, metrics_transform_processor_otlp.go.

A transformation runs over all scopes of a batch at once; the Collector goes from scope to scope. The results are the
same, because a transformation never looks beyond a scope, but metrics that are made stand before the others.
"""

from collections.abc import Callable
from functools import partial
from typing import Final

import numpy as np

from collector.api import Settings, Transform
from collector.delivery.log import RateLimitedLog
from collector.model import METRIC_SUMMARY, Batch, Metrics, Signal, StringColumn
from collector.model.arrays import Array, Mask
from collector.model.insert_metrics import insert_metrics
from collector.model.regroup import regroup
from collector.otlp.merge_points import merge_points
from collector.text.patterns import Pattern
from processors.metrics_transform.config import MetricsTransformConfig, TransformConfig
from processors.metrics_transform.operations import make_operation
from processors.metrics_transform.selector import Selector
from processors.metrics_transform.working import Working

__all__ = ["MetricsTransformProcessor"]

_CASES: Final[dict[str, Callable[[str], str]]] = {"": str, "lower": str.lower, "upper": str.upper}
_TYPE_NAMES: Final = ("Empty", "Gauge", "Sum", "Histogram", "ExponentialHistogram", "Summary")


class MetricsTransformProcessor(Transform):
    """The processor of one pipeline."""

    drop_reason = "label_value"

    def __init__(self, settings: Settings, config: MetricsTransformConfig) -> None:
        self._telemetry = settings.telemetry
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        version = settings.version or "unknown"
        self._transforms = [_Transformation(transform, version, self._log) for transform in config.transforms]

    def transform(self, batch: Batch) -> Batch:
        """The batch after all transformations."""
        assert isinstance(batch, Metrics)
        if not batch.item_count:
            return batch
        working = Working(batch)
        grouped: list[Metrics] = []
        for transformation in self._transforms:
            transformation.run(working, grouped)
            if not working.tables.item_count:
                break
        result = working.written
        if grouped:
            result = Metrics.concat([result, *grouped])
        self._telemetry.created(Signal.METRICS, working.created)
        self._telemetry.folded(Signal.METRICS, working.folded)
        if working.other_labels:
            self._telemetry.dropped(Signal.METRICS, working.other_labels, "other_labels")
        return result


class _Transformation:
    """One element of ``transforms``."""

    def __init__(self, config: TransformConfig, version: str, log: RateLimitedLog) -> None:
        self._config, self._log = config, log
        self._selector = Selector(config)
        self._operations = [make_operation(operation, version) for operation in config.operations]
        self._act = {
            "update": self._update,
            "insert": self._insert,
            "combine": self._combine,
            "group": self._group,
        }[config.action]

    def run(self, working: Working, grouped: list[Metrics]) -> None:
        """Change the working batch; what has been moved to other resources is added to ``grouped``."""
        named = self._selector.named(working.names())
        if not named.any():
            return
        labelled = self._selector.points(working)
        in_named = working.points_of(named)
        matching = in_named if labelled is None else in_named & labelled
        self._act(working, grouped, named, in_named, matching)

    def _update(self, working: Working, _: list[Metrics], named: Mask, in_named: Mask, matching: Mask) -> None:
        working.matched = working.whole = named
        if matching is not in_named:
            parents, count = working.tables.table().parent, len(named)
            totals = np.bincount(parents, minlength=count)
            found = np.bincount(parents[matching], minlength=count)
            working.matched = named & ((found > 0) | (totals == 0))
            working.whole = named & (found == totals)
        self._change(working)

    def _change(self, working: Working) -> None:
        if self._config.new_name and working.whole.any():
            names = self._selector.renamed(working.names())
            working.edit.set_field("name", names, working.whole, table="metrics")
        for operation in self._operations:
            if not working.matched.any():
                return
            operation(working, self._selector)

    def _insert(self, working: Working, _: list[Metrics], named: Mask, in_named: Mask, matching: Mask) -> None:
        del named, in_named
        if not matching.any():
            return
        batch = working.written
        copies = batch.select(matching)
        working.replace_all(*insert_metrics(batch, copies, _scopes_of(batch, matching)))
        working.created += copies.item_count
        self._change(working)

    def _combine(self, working: Working, _: list[Metrics], named: Mask, in_named: Mask, matching: Mask) -> None:
        batch = working.written
        has_match = np.zeros(len(named), np.bool_)
        has_match[batch.table().parent[matching]] = True
        refused = self._refused_scopes(batch, named & has_match)
        if refused.any():
            is_refused = refused[batch.ancestor("scopes")]
            in_named, matching = in_named & ~is_refused, matching & ~is_refused
        if not matching.any():
            return
        source = self._labelled(batch.select(matching))
        codes = source.ancestor("scopes")
        first = np.unique(codes, return_index=True)[1]
        description: StringColumn = source.field("description", "metrics")
        first_metric = source.table().parent[first]
        edit = source.edit().set_field("name", self._config.new_name, table="metrics")
        edit.set_field("description", _of_first(description, source, first_metric), table="metrics")
        joined = regroup(edit.apply(), codes)
        merged = merge_points(joined, np.ones(joined.table("metrics").row_count, np.bool_), self._config.aggregation)
        working.folded += joined.item_count - merged.item_count
        removed = in_named & has_match[batch.table().parent]
        working.other_labels += int(np.count_nonzero(removed & ~matching))
        scopes = np.unique(batch.ancestor("scopes")[matching])
        both, is_new = insert_metrics(batch, merged, scopes.astype(np.int32))
        keep = np.ones(both.item_count, np.bool_)
        old_points = np.flatnonzero(~is_new[both.table().parent])
        keep[old_points[removed]] = False
        working.replace_all(both, is_new)
        working.keep(keep)
        self._change(working)

    def _labelled(self, source: Metrics) -> Metrics:
        """The metrics with what groups of the pattern have matched in their names as labels."""
        pattern = self._selector.pattern
        if pattern is None or not pattern.groups:
            return source
        names = source.field("name", "metrics")
        change = _CASES[self._config.submatch_case]
        keys = {number: key for key, number in pattern.groupindex.items()}
        edit = source.edit()
        for number in range(1, pattern.groups + 1):
            texts = names.map(partial(_group_of, pattern, number, change))
            edit.set(keys.get(number, f"${number}"), texts.take(source.table().parent))
        return edit.apply()

    def _refused_scopes(self, batch: Metrics, metrics: Mask) -> Mask:
        """bool[s]: the metrics of the scope cannot be combined, because they differ in more than their names."""
        rows = batch.table("metrics").rows
        chosen = np.flatnonzero(metrics)
        refused = np.zeros(batch.table("scopes").row_count, np.bool_)
        parents = rows["parent"][chosen]
        _, first_place, counts = np.unique(parents, return_index=True, return_counts=True)
        first = np.repeat(chosen[first_place], counts)
        several = np.repeat(counts > 1, counts)
        units = batch.field("unit", "metrics").fill("").codes
        names: StringColumn = batch.field("name", "metrics")
        problems = (
            ("they are summaries", several & (rows["type"][chosen] == METRIC_SUMMARY)),
            ("they are of different types", rows["type"][chosen] != rows["type"][first]),
            ("they have different units", units[chosen] != units[first]),
            ("they have different labels", ~_have_equal_keys(batch, chosen, first)),
            ("they have different temporalities", rows["temporality"][chosen] != rows["temporality"][first]),
            ("they differ in being monotonic", rows["monotonic"][chosen] != rows["monotonic"][first]),
        )
        for reason, differs in problems:
            is_new = differs & ~refused[parents]
            if is_new.any():
                refused[parents[is_new]] = True
                place = int(np.argmax(is_new))
                pair = [names.take(np.array([number])).to_list()[0] for number in (first[place], chosen[place])]
                self._log.warning(
                    f"metrics cannot be combined: {reason}",
                    new_name=self._config.new_name,
                    metrics=pair,
                    types=[_TYPE_NAMES[rows["type"][number]] for number in (first[place], chosen[place])],
                )
        return refused

    def _group(self, working: Working, grouped: list[Metrics], named: Mask, in_named: Mask, matching: Mask) -> None:
        del named
        if not matching.any():
            return
        batch = working.written
        moved = batch.select(matching).edit()
        for key, value in (self._config.group_resource_labels or {}).items():
            moved.set(key, value, table="resources")
        grouped.append(moved.apply())
        removed = in_named
        if matching is not in_named:
            has_match = np.zeros(batch.table("metrics").row_count, np.bool_)
            has_match[batch.table().parent[matching]] = True
            removed = in_named & has_match[batch.table().parent]
            working.other_labels += int(np.count_nonzero(removed & ~matching))
        working.keep(~removed)


def _scopes_of(batch: Metrics, points: Mask) -> Array:
    """The scope of each metric that is left when these points are selected."""
    metrics = np.unique(batch.table().parent[points])
    return batch.table("metrics").parent[metrics]


def _of_first(column: StringColumn, source: Metrics, first_metric: Array) -> StringColumn:
    """For each metric, the text of the first metric of its scope."""
    scope_of_metric = source.table("metrics").parent
    return column.fill("").take(first_metric[scope_of_metric])


def _group_of(pattern: Pattern, number: int, change: Callable[[str], str], name: str) -> str | None:
    match = pattern.search(name)
    text = match.group(number) if match is not None else None
    return change(text) if text else None


def _have_equal_keys(batch: Metrics, metrics: Array, others: Array) -> Mask:
    """bool[k]: the points of each metric have the same labels as those of the other one."""
    attributes = batch.attributes()
    count = max(len(attributes.keys), 1)
    owner = batch.table().parent[attributes.owner].astype(np.int64)
    pairs = np.unique(owner * count + attributes.rows["key_code"])
    owners = pairs // count
    numbers = np.bincount(owners, minlength=batch.table("metrics").row_count)
    other_of = np.full(batch.table("metrics").row_count, -1, np.int64)
    other_of[metrics] = others
    checked = other_of[owners] >= 0
    is_missing = ~np.isin(other_of[owners[checked]] * count + pairs[checked] % count, pairs)
    missing = np.bincount(owners[checked][is_missing], minlength=len(numbers))
    equal: Mask = (numbers[metrics] == numbers[others]) & (missing[metrics] == 0)
    return equal
