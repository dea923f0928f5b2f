"""Changes the values of points: scales them, and turns integers into doubles and back."""

from typing import Final

import numpy as np

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_HISTOGRAM,
    PRESENT_MAX,
    PRESENT_MIN,
    PRESENT_SUM,
    Metrics,
)
from collector.model.arrays import F64, I64, Indices, Mask, Records, offsets_of, take_records
from collector.model.point_edit import PointEdit
from collector.otlp.exponential_buckets import SIDES, bucket_messages, read_varints
from collector.wire.layout import VALUE_DOUBLE, VALUE_INT

__all__ = ["scale_points", "to_int", "toggle_numbers"]

_AS_DOUBLE, _AS_INT = 4, 6  # field numbers of metrics.proto
_EXEMPLAR_AS_DOUBLE, _EXEMPLAR_AS_INT = 3, 6
_SUM, _BOUNDS, _ZERO_THRESHOLD = 5, 7, 14
_EXTREMES: Final = {METRIC_HISTOGRAM: (11, 12), METRIC_EXPONENTIAL_HISTOGRAM: (12, 13)}
_INT32: Final = np.iinfo(np.int32)


def to_int(values: F64) -> I64:
    """The values without their fractions; what does not fit becomes the smallest integer, as in Go on x86-64."""
    fits = (values >= -(2.0**63)) & (values < 2.0**63)
    return np.where(fits, np.where(fits, values, 0.0).astype(np.int64), np.iinfo(np.int64).min)


def toggle_numbers(batch: Metrics, rows: Indices, edit: PointEdit) -> None:
    """Makes doubles of the integers among the points ``rows`` of gauges and sums, and integers of the doubles."""
    points = take_records(batch.table().rows, rows)
    is_int, is_double = points["value_kind"] == VALUE_INT, points["value_kind"] == VALUE_DOUBLE
    edit.remove(_AS_INT, rows[is_int])
    edit.set_fixed64(_AS_DOUBLE, points["int_value"][is_int].astype(np.float64), rows[is_int])
    edit.remove(_AS_DOUBLE, rows[is_double])
    edit.set_fixed64(_AS_INT, to_int(points["double_value"][is_double]), rows[is_double])


def scale_points(batch: Metrics, where: Mask, factor: float, edit: PointEdit) -> None:
    """Multiplies the values of the points of the mask; summaries are left alone.

    Sums, extremes, bounds and exemplars of histograms are multiplied. The buckets of exponential histograms are moved
    by whole buckets, so they are as exact as their scale is.
    """
    points = batch.table().rows
    types = batch.table("metrics").rows["type"][points["parent"]]
    with np.errstate(over="ignore", invalid="ignore"):
        for type_ in _EXTREMES:
            rows = np.flatnonzero(where & (types == type_))
            if len(rows):
                _scale_histograms(points, rows, factor, edit, type_)
        _scale_bounds(batch, np.flatnonzero(where & (types == METRIC_HISTOGRAM)), factor, edit)
        _move_buckets(batch, np.flatnonzero(where & (types == METRIC_EXPONENTIAL_HISTOGRAM)), factor, edit)
        is_number = where & ~np.isin(types, list(_EXTREMES))
        _scale_numbers(points, np.flatnonzero(is_number), factor, edit, "points", _AS_DOUBLE, _AS_INT)
        exemplars = batch.table("exemplars").rows
        owners = exemplars["parent"]
        scaled = np.flatnonzero(where[owners] & np.isin(types[owners], list(_EXTREMES)))
        _scale_numbers(exemplars, scaled, factor, edit, "exemplars", _EXEMPLAR_AS_DOUBLE, _EXEMPLAR_AS_INT)


def _scale_numbers(
    records: Records, rows: Indices, factor: float, edit: PointEdit, table: str, double_number: int, int_number: int
) -> None:
    kinds = records["value_kind"][rows]
    ints, doubles = rows[kinds == VALUE_INT], rows[kinds == VALUE_DOUBLE]
    edit.set_fixed64(
        int_number, to_int(records["int_value"][ints].astype(np.float64) * factor), ints, table, column="int_value"
    )
    edit.set_fixed64(double_number, records["double_value"][doubles] * factor, doubles, table, column="double_value")


def _scale_histograms(points: Records, rows: Indices, factor: float, edit: PointEdit, type_: int) -> None:
    present = points["present"][rows]
    minimum, maximum = _EXTREMES[type_]
    for name, bit, number in (
        ("sum", PRESENT_SUM, _SUM),
        ("min", PRESENT_MIN, minimum),
        ("max", PRESENT_MAX, maximum),
    ):
        has = rows[present & bit != 0]
        edit.set_fixed64(number, points[name][has] * factor, has, column=name)
    if type_ == METRIC_EXPONENTIAL_HISTOGRAM:
        has = rows[points["zero_threshold"][rows] != 0]
        edit.set_fixed64(_ZERO_THRESHOLD, points["zero_threshold"][has] * factor, has, column="zero_threshold")


def _scale_bounds(batch: Metrics, rows: Indices, factor: float, edit: PointEdit) -> None:
    points = take_records(batch.table().rows, rows)
    has = points["bounds_len"] > 0
    rows, points = rows[has], take_records(points, has)
    if not len(rows):
        return
    sizes = points["bounds_len"].astype(np.int64)
    offsets = offsets_of(sizes)
    places = np.repeat(points["bounds"] - offsets[:-1], sizes) + np.arange(int(offsets[-1]))
    bounds = np.frombuffer(np.frombuffer(batch.wire, np.uint8)[places].tobytes(), "<f8") * factor
    edit.set_bytes(_BOUNDS, bounds.tobytes(), offsets[:-1], sizes, rows)


def _move_buckets(batch: Metrics, rows: Indices, factor: float, edit: PointEdit) -> None:
    if not len(rows):
        return
    points = take_records(batch.table().rows, rows)
    scales = points["scale"].astype(np.float64)
    for name, number in SIDES:
        counts, owner, within = read_varints(batch.wire, points[name], points[f"{name}_len"])
        offsets = points[f"{name}_offset"]
        # The bucket in which the scaled middle of the first one falls; the others follow.
        middle = np.log2((1 + np.exp2(np.exp2(-scales))) / 2)
        exact = np.ceil((offsets * np.exp2(-scales) + middle + np.log2(factor)) * np.exp2(scales)) - 1
        lowest = np.clip(np.nan_to_num(exact, nan=_INT32.min), _INT32.min, _INT32.max).astype(np.int64)
        has = np.zeros(len(rows), np.bool_)
        has[owner] = True
        content, starts, sizes = bucket_messages(lowest, owner, lowest[owner] + within, counts)
        edit.set_bytes(number, content, starts[has], sizes[has], rows[has])
