"""Paths that the index of a batch does not have: they are read and written row by row, in protobuf messages.

Source: opentelemetry-collector-contrib pkg/ottl/contexts/internal (v0.156).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model.values import any_value
from collector.ottl.contexts import TABLES
from collector.ottl.draft import Draft
from collector.ottl.stored import encoded
from collector.ottl.targets import Target
from collector.ottl.values import EvaluationError, Values
from collector.ottl.view import View, every_scalar, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from collector.model.arrays import Mask
    from collector.ottl.values import Scalar

__all__ = ["MESSAGE_PATHS", "MessagePath", "MessageTarget", "read_message"]

_UINT32: Final = 2**32
_UINT64: Final = 2**64
_INT64_SIGN: Final = 2**63


@dataclass(frozen=True, slots=True)
class MessagePath:
    """How a path is read from and written to the message of a row. A setter raises EvaluationError."""

    get: Callable[[Any], Scalar]
    set: Callable[[Any, Scalar], None] | None = None


class MessageTarget(Target):
    """A path of messages as a target."""

    def __init__(self, owner: str, name: str) -> None:
        self.table = TABLES[owner]
        self._path, self._key = MESSAGE_PATHS[owner][name], (self.table, name)
        self.location = (name,)

    def read(self, view: View) -> Values:
        """The value of each row."""
        return read_message(view, self._key, self._path)

    def write(self, view: View, values: Values, rows: Mask) -> Mask:
        """Write the value of each row."""
        setter = self._path.set
        assert setter is not None
        below, rows_below = view.lowered(self.table, values, rows)
        draft = view.draft
        scalars = every_scalar(spread(below, len(rows_below)))
        messages = draft.messages(self.table)  # after all reads of columns, which may write the request
        failed_below = np.zeros(len(messages), np.bool_)
        changed = False
        for row in np.flatnonzero(rows_below).tolist():
            value = scalars[row]
            if value is None:
                continue
            try:
                setter(messages[row], value)
                changed = True
            except (EvaluationError, TypeError, ValueError, AttributeError):
                failed_below[row] = True
        if changed:
            draft.changed()
            view.forget(self.table)
        if self.table == view.table:
            return rows & failed_below
        failed: Mask = rows & failed_below[view.batch.ancestor(self.table, view.table)]
        return failed


def read_message(view: View, key: tuple[str, str], path: MessagePath) -> Values:
    """The value of a path for each row of the view."""
    table = key[0]

    def make(batch: Any) -> Values:
        messages = batch.messages(table) if isinstance(batch, Draft) else Draft(batch).messages(table)
        return Values.of([path.get(message) for message in messages])

    return view.column(key, table, make)


def _int(value: Scalar) -> int:
    if type(value) is not int:
        raise EvaluationError
    return value


def _float(value: Scalar) -> float:
    if type(value) is not float:
        raise EvaluationError
    return value


def _signed(value: int) -> int:
    return value - _UINT64 if value >= _INT64_SIGN else value


def _field(name: str, inner: str = "") -> MessagePath:
    """A count of 32 bits without a sign."""

    def owner(message: Any) -> Any:
        return getattr(message, inner) if inner else message

    def put(message: Any, value: Scalar) -> None:
        setattr(owner(message), name, _int(value) % _UINT32)

    return MessagePath(lambda message: int(getattr(owner(message), name)), put)


def _form_of(metric: Any) -> str:
    return metric.WhichOneof("data") or ""


def _temporality(metric: Any) -> Scalar:
    form = _form_of(metric)
    return getattr(metric, form).aggregation_temporality if form in _WITH_TEMPORALITY else None


_WITH_TEMPORALITY: Final = ("sum", "histogram", "exponential_histogram")


def _set_temporality(metric: Any, value: Scalar) -> None:
    number = _int(value)
    form = _form_of(metric)
    if form in _WITH_TEMPORALITY:
        getattr(metric, form).aggregation_temporality = _int32(number)


def _int32(value: int) -> int:
    return (value + 2**31) % _UINT32 - 2**31


def _set_monotonic(metric: Any, value: Scalar) -> None:
    if type(value) is not bool:
        raise EvaluationError
    if _form_of(metric) == "sum":
        metric.sum.is_monotonic = value


def _set_type(metric: Any, value: Scalar) -> None:
    """Does nothing, as in the Collector: the functions ``convert_…`` change the type."""


def _of_type(*types: str) -> Callable[[Any], bool]:
    return lambda point: type(point).__name__ in types


_NUMBER: Final = "NumberDataPoint"
_HISTOGRAM: Final = "HistogramDataPoint"
_EXPONENTIAL: Final = "ExponentialHistogramDataPoint"
_SUMMARY: Final = "SummaryDataPoint"


def _point(
    types: tuple[str, ...], get: Callable[[Any], Scalar], put: Callable[[Any, Scalar], None] | None
) -> MessagePath:
    """A path of points of these types: nil for others, which cannot be written either."""
    fits = _of_type(*types)

    def read(point: Any) -> Scalar:
        return get(point) if fits(point) else None

    def write(point: Any, value: Scalar) -> None:
        if not fits(point):
            raise EvaluationError
        assert put is not None
        put(point, value)

    return MessagePath(read, None if put is None else write)


def _set_count(name: str) -> Callable[[Any, Scalar], None]:
    return lambda point, value: setattr(point, name, _int(value) % _UINT64)


def _set_counts(message: Any, value: Scalar) -> None:
    if type(value) is not list:
        raise EvaluationError
    message[:] = [_int(item) % _UINT64 for item in value]


def _set_bounds(message: Any, value: Scalar) -> None:
    if type(value) is not list:
        raise EvaluationError
    message[:] = [_float(item) for item in value]


def _buckets(sign: str) -> dict[str, MessagePath]:
    def offset(point: Any, value: Scalar) -> None:
        getattr(point, sign).offset = _int32(_int(value))

    return {
        f"{sign}.offset": _point((_EXPONENTIAL,), lambda point: int(getattr(point, sign).offset), offset),
        f"{sign}.bucket_counts": _point(
            (_EXPONENTIAL,),
            lambda point: [_signed(count) for count in getattr(point, sign).bucket_counts],
            lambda point, value: _set_counts(getattr(point, sign).bucket_counts, value),
        ),
    }


def _metadata(metric: Any) -> Scalar:
    return {entry.key: any_value(entry.value.SerializeToString()) for entry in metric.metadata}


def _set_metadata(metric: Any, value: Scalar) -> None:
    if type(value) is not dict:
        raise EvaluationError
    contents = {key: encoded(item) for key, item in value.items()}
    if None in contents.values():
        raise EvaluationError
    del metric.metadata[:]
    for key, content in contents.items():
        metric.metadata.add(key=key).value.ParseFromString(content)


def _value(name: str, check: Callable[[Scalar], Any]) -> MessagePath:
    def get(point: Any) -> Scalar:
        return getattr(point, name)

    return _point((_NUMBER,), get, lambda point, value: setattr(point, name, check(value)))


_MANY: Final = (_HISTOGRAM, _EXPONENTIAL, _SUMMARY)
MESSAGE_PATHS: Final[Mapping[str, Mapping[str, MessagePath]]] = {
    "resource": {"dropped_attributes_count": _field("dropped_attributes_count", "resource")},
    "scope": {"dropped_attributes_count": _field("dropped_attributes_count", "scope")},
    "instrumentation_scope": {"dropped_attributes_count": _field("dropped_attributes_count", "scope")},
    "span": {
        name: _field(name) for name in ("dropped_attributes_count", "dropped_events_count", "dropped_links_count")
    },
    "spanevent": {"dropped_attributes_count": _field("dropped_attributes_count")},
    "log": {"dropped_attributes_count": _field("dropped_attributes_count")},
    "metric": {
        "type": MessagePath(lambda _: 0, _set_type),
        "aggregation_temporality": MessagePath(_temporality, _set_temporality),
        "is_monotonic": MessagePath(
            lambda metric: metric.sum.is_monotonic if _form_of(metric) == "sum" else None, _set_monotonic
        ),
        "metadata": MessagePath(_metadata, _set_metadata),
    },
    "datapoint": {
        "value_double": _value("as_double", _float),
        "value_int": _value("as_int", _int),
        "count": _point(_MANY, lambda point: _signed(point.count), _set_count("count")),
        "sum": _point(_MANY, lambda point: point.sum, lambda point, value: setattr(point, "sum", _float(value))),
        "scale": _point(
            (_EXPONENTIAL,), lambda p: int(p.scale), lambda p, value: setattr(p, "scale", _int32(_int(value)))
        ),
        "zero_count": _point((_EXPONENTIAL,), lambda point: _signed(point.zero_count), _set_count("zero_count")),
        "bucket_counts": _point(
            (_HISTOGRAM,),
            lambda point: [_signed(count) for count in point.bucket_counts],
            lambda point, value: _set_counts(point.bucket_counts, value),
        ),
        "explicit_bounds": _point(
            (_HISTOGRAM,),
            lambda point: list(point.explicit_bounds),
            lambda point, value: _set_bounds(point.explicit_bounds, value),
        ),
        **_buckets("positive"),
        **_buckets("negative"),
    },
}
"""The paths, by context and name. What can also be read from columns is read there, and only written here."""
