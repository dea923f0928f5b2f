"""The operations of a transformation: changes of the points of the metrics that it is about.

Each is a function of the working batch and of the transformation's selector, made from its configuration. Some change
the points that match the labels, others only metrics all of whose points do. Source: the Collector's
metricstransformprocessor, operation_*.go.
"""

from collections.abc import Callable
from typing import Final, TypeAlias

import numpy as np

from collector.model import METRIC_EXPONENTIAL_HISTOGRAM, METRIC_GAUGE, METRIC_HISTOGRAM, METRIC_SUM, METRIC_SUMMARY
from collector.model.arrays import Mask
from collector.model.point_edit import PointEdit
from collector.otlp.merge_points import merge_points
from collector.otlp.point_values import scale_points, toggle_numbers
from processors.metrics_transform.config import OperationConfig
from processors.metrics_transform.selector import Selector
from processors.metrics_transform.working import Working

__all__ = ["Operation", "make_operation"]

Operation: TypeAlias = Callable[[Working, Selector], None]


def make_operation(config: OperationConfig, version: str) -> Operation:
    """The operation of one element of ``operations``."""
    return _MAKERS[config.action](config, version)


def _matching_points(working: Working, selector: Selector) -> Mask:
    """bool[n]: the point is in a metric to change, and has the labels."""
    mask = working.points_of(working.matched)
    labelled = selector.points(working)
    return mask if labelled is None else mask & labelled


def _with_version(text: str, version: str) -> str:
    return text.replace("{{version}}", version)


def _add_label(config: OperationConfig, version: str) -> Operation:
    key, value = config.new_label, _with_version(config.new_value, version)

    def run(working: Working, _: Selector) -> None:
        working.edit.set(key, value, working.points_of(working.whole), mode="insert")

    return run


def _update_label(config: OperationConfig, version: str) -> Operation:
    key, new_key = config.label, config.new_label
    texts = {action.value: _with_version(action.new_value, version) for action in config.value_actions}

    def run(working: Working, selector: Selector) -> None:
        column = working.label(key)
        where = _matching_points(working, selector) & column.present
        if not where.any():
            return
        if new_key:
            working.edit.set(new_key, column, where).delete(key, where)
        if texts:
            working.edit.set(new_key or key, column.text.fill("").map(texts.get), where)

    return run


def _delete_label_value(config: OperationConfig, _: str) -> Operation:
    key, text = config.label, config.label_value

    def run(working: Working, _: Selector) -> None:
        column = working.label(key)
        has_value = column.present & column.text.fill("").equals(text)
        working.keep(~(has_value & working.points_of(working.whole)))

    return run


def _numbers(working: Working) -> Mask:
    return _has_type(working, METRIC_GAUGE, METRIC_SUM)


def _has_type(working: Working, *types: int) -> Mask:
    return working.points_of(np.isin(working.tables.table("metrics").rows["type"], types))


def _toggle(_: OperationConfig, __: str) -> Operation:
    def run(working: Working, selector: Selector) -> None:
        where = np.flatnonzero(_matching_points(working, selector) & _numbers(working))
        if len(where):
            edit = PointEdit(working.written)
            toggle_numbers(working.written, where, edit)
            working.change_points(edit)

    return run


def _scale(config: OperationConfig, _: str) -> Operation:
    factor = config.experimental_scale

    def run(working: Working, selector: Selector) -> None:
        types = (METRIC_GAUGE, METRIC_SUM, METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM)
        where = _matching_points(working, selector) & _has_type(working, *types)
        if where.any():
            edit = PointEdit(working.written)
            scale_points(working.written, where, factor, edit)
            working.change_points(edit)

    return run


def _merge(working: Working, config: OperationConfig, keys: frozenset[str] | None = None) -> None:
    batch = working.written
    merged = merge_points(batch, working.whole, config.aggregation, keys)
    working.replace(merged)
    working.folded += batch.item_count - merged.item_count


def _can_be_merged(working: Working) -> Mask:
    """bool[n]: the point is in a metric to aggregate. Summaries cannot be merged; they are left alone."""
    is_summary = working.tables.table("metrics").rows["type"] == METRIC_SUMMARY
    return working.points_of(working.whole & ~is_summary)


def _aggregate_labels(config: OperationConfig, _: str) -> Operation:
    kept = frozenset(config.label_set)

    def run(working: Working, _: Selector) -> None:
        if not _can_be_merged(working).any():
            return
        _merge(working, config, kept)
        keys = [key.decode("utf-8", "replace") for key in working.written.attributes().keys]
        working.edit.delete([key for key in keys if key not in kept], _can_be_merged(working))

    return run


def _aggregate_label_values(config: OperationConfig, version: str) -> Operation:
    key, new_value = config.label, _with_version(config.new_value, version)
    values = frozenset(config.aggregated_values)

    def run(working: Working, _: Selector) -> None:
        where = _can_be_merged(working)
        column = working.label(key)
        replaced = where & column.present & column.text.fill("").isin(values)
        if replaced.any():
            working.edit.set(key, new_value, replaced)
        if where.any():
            _merge(working, config)

    return run


_MAKERS: Final[dict[str, Callable[[OperationConfig, str], Operation]]] = {
    "add_label": _add_label,
    "update_label": _update_label,
    "delete_label_value": _delete_label_value,
    "toggle_scalar_data_type": _toggle,
    "experimental_scale_value": _scale,
    "aggregate_labels": _aggregate_labels,
    "aggregate_label_values": _aggregate_label_values,
}
