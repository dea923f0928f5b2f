"""The editors of metrics and data points that work on protobuf messages, one metric after the other.

Source: opentelemetry-collector-contrib processor/transformprocessor/internal/metrics (v0.156).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.ottl import histogram_edits, metric_aggregation
from collector.ottl import metric_edits as edits
from collector.ottl.editors import Editor
from collector.ottl.functions import Parameter
from collector.ottl.text import parse_double
from collector.ottl.values import EvaluationError
from collector.ottl.view import every_scalar, spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.model.arrays import Mask
    from collector.ottl.contexts import Context
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["METRIC_EDITORS"]

_METRIC: Final[frozenset[Context]] = frozenset({"metric"})
_DATAPOINT: Final[frozenset[Context]] = frozenset({"datapoint"})


def _run(change: Callable[..., Any], getters: Sequence[Any] = ()) -> Callable[[View, Mask], Mask]:
    """An editor by a function of a message, the arguments' values and, for a point, its metric.

    What the function returns, if anything, is a metric to add to the scope once all statements have run.
    """

    def run(view: View, rows: Mask) -> Mask:
        draft = view.draft
        columns = [
            [None] * view.row_count if getter is None else every_scalar(spread(getter(view), view.row_count))
            for getter in getters
        ]
        scope_of = draft.ancestor("scopes", view.table)
        metric_of = draft.ancestor("metrics", "points") if view.table == "points" else np.arange(view.row_count)
        messages = draft.messages(view.table)  # after all reads of columns, which may write the request
        metrics = draft.messages("metrics")
        failed = view.nothing()
        for row in np.flatnonzero(rows).tolist():
            metric = metrics[metric_of[row]]
            try:
                new = change(messages[row], metric, [column[row] for column in columns])
            except EvaluationError:
                failed[row] = True
                continue
            if new is not None:
                draft.add_metric(int(scope_of[row]), row, new)
        draft.changed()
        for table in ("metrics", "points"):
            view.forget(table)
        return failed

    return run


def _temporality(text: str) -> int:
    if text not in edits.TEMPORALITIES:
        raise ValueError(f"the temporality must be 'delta' or 'cumulative', got {text!r}")
    return edits.TEMPORALITIES[text]


def _sum_to_gauge(_arguments: Sequence[Any], _literals: Mapping[int, Scalar]) -> Any:
    return _run(lambda metric, _, __: edits.sum_to_gauge(metric))


def _gauge_to_sum(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    temporality = _temporality(literals[0])
    return _run(lambda metric, _, __: edits.gauge_to_sum(metric, temporality, monotonic=literals[1]))


def _extract(make: Callable[..., Any], default: str) -> Callable[[Sequence[Any], Mapping[int, Scalar]], Any]:
    def made(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
        suffix = literals.get(1, default)
        return _run(lambda metric, _, __: make(metric, suffix, monotonic=literals[0]))

    return made


def _extract_percentile(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    percentile, suffix = literals[0], literals.get(1, "")
    if not 0 < percentile < 100:
        raise ValueError(f"percentile must be between 0 and 100, got {percentile}")
    return _run(lambda metric, _, __: histogram_edits.extract_percentile(metric, percentile, suffix))


def _summary(field: str, default: str) -> Callable[[Sequence[Any], Mapping[int, Scalar]], Any]:
    def made(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
        temporality, suffix = _temporality(literals[0]), literals.get(2, default)
        return _run(
            lambda _, metric, __: edits.summary_to_sum(metric, field, suffix, temporality, monotonic=literals[1])
        )

    return made


def _quantiles(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    key, suffix = literals.get(0, "quantile"), literals.get(1, ".quantiles")
    return _run(lambda metric, _, __: edits.quantiles_to_gauge(metric, key, suffix))


def _copy(arguments: Sequence[Any], _literals: Mapping[int, Scalar]) -> Any:
    given = [argument is not None for argument in arguments]

    def change(metric: Any, _: Any, values: list[Scalar]) -> Any:
        new = type(metric)()
        new.CopyFrom(metric)
        for name, value, is_given in zip(("name", "description", "unit"), values, given, strict=True):
            if is_given:
                if type(value) is not str:
                    raise EvaluationError
                setattr(new, name, value)
        return new

    return _run(change, arguments)


def _scale(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    factor = literals[0]
    has_unit = arguments[1] is not None

    def change(metric: Any, _: Any, values: list[Scalar]) -> None:
        if has_unit and type(values[0]) is not str:
            raise EvaluationError
        edits.scale(metric, factor)
        if has_unit:
            metric.unit = values[0]

    return _run(change, arguments[1:])


def _aggregation(name: str) -> str:
    if name not in metric_aggregation.AGGREGATIONS:
        raise ValueError(
            f"{name!r} is not an aggregation; expected one of {', '.join(metric_aggregation.AGGREGATIONS)}"
        )
    return name


def _aggregate(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    function, keys = _aggregation(literals[0]), literals.get(1)
    return _run(lambda metric, _, __: metric_aggregation.aggregate(metric, function, keys))


def _aggregate_value(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    function = _aggregation(literals[0])
    return _run(
        lambda metric, _, __: metric_aggregation.aggregate_value(
            metric, function, literals[1], literals[2], literals[3]
        )
    )


def _to_explicit(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    distribution, bounds = literals[0] or "random", literals[1]
    if distribution not in histogram_edits.DISTRIBUTIONS:
        raise ValueError(
            f"{distribution!r} is not a distribution; expected one of {', '.join(histogram_edits.DISTRIBUTIONS)}"
        )
    if not bounds:
        raise ValueError("the explicit bounds must not be empty")
    return _run(lambda metric, _, __: histogram_edits.exponential_to_explicit(metric, distribution, bounds))


def _merge_buckets(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Any:
    method = literals.get(1, "remove_explicit_bound")
    if method not in {"remove_explicit_bound", "limit_buckets"}:
        raise ValueError(f"method must be 'remove_explicit_bound' or 'limit_buckets', got {method!r}")
    if 0 in literals:
        try:
            _bucket_target(literals[0], method)
        except EvaluationError:
            raise ValueError(
                f"target_value must be a number{', positive and whole' * (method == 'limit_buckets')}"
            ) from None

    def change(point: Any, metric: Any, values: list[Scalar]) -> None:
        if edits.form_of(metric) == "histogram":
            target = _bucket_target(values[0], method)
            if method == "limit_buckets":
                histogram_edits.limit_buckets(point, int(target))
            else:
                histogram_edits.merge_bucket(point, target)

    return _run(change, arguments[:1])


def _bucket_target(value: Scalar, method: str) -> float:
    if type(value) is str:
        value = parse_double(value)
    if type(value) not in {int, float, bool}:
        raise EvaluationError
    number = float(value)
    if method == "limit_buckets" and (not number >= 1 or number != int(number) or number > 2**63):
        raise EvaluationError
    return number


def _suffix(name: str = "suffix") -> Parameter:
    return Parameter(name, "literal text", optional=True)


_MONOTONIC: Final = Parameter("monotonic", "literal bool")
_TEMPORALITY: Final = Parameter("aggregation_temporality", "literal text")


def _editor(
    parameters: tuple[Parameter, ...], make: Any, contexts: frozenset[Context] = _METRIC, *, adds: bool = False
) -> Editor:
    return Editor(parameters, make, contexts, vectorised=False, adds_metrics=adds)


METRIC_EDITORS: Final[dict[str, Editor]] = {
    "aggregate_on_attribute_value": _editor(
        (
            Parameter("aggregation_function", "literal text"),
            Parameter("attribute", "literal text"),
            Parameter("values", "literal texts"),
            Parameter("new_value", "literal text"),
        ),
        _aggregate_value,
    ),
    "aggregate_on_attributes": _editor(
        (
            Parameter("aggregation_function", "literal text"),
            Parameter("attributes", "literal texts", optional=True),
        ),
        _aggregate,
    ),
    "convert_exponential_histogram_to_histogram": _editor(
        (Parameter("distribution_fn", "literal text"), Parameter("explicit_bounds", "literal floats")), _to_explicit
    ),
    "convert_gauge_to_sum": _editor((_TEMPORALITY, _MONOTONIC), _gauge_to_sum),
    "convert_sum_to_gauge": _editor((), _sum_to_gauge),
    "convert_summary_count_val_to_sum": _editor(
        (_TEMPORALITY, _MONOTONIC, _suffix()), _summary("count", "_count"), _DATAPOINT, adds=True
    ),
    "convert_summary_quantile_val_to_gauge": _editor((_suffix("attribute_key"), _suffix()), _quantiles, adds=True),
    "convert_summary_sum_val_to_sum": _editor(
        (_TEMPORALITY, _MONOTONIC, _suffix()), _summary("sum", "_sum"), _DATAPOINT, adds=True
    ),
    "copy_metric": _editor(
        (
            Parameter("name", optional=True),
            Parameter("description", optional=True),
            Parameter("unit", optional=True),
        ),
        _copy,
        adds=True,
    ),
    "extract_count_metric": _editor((_MONOTONIC, _suffix()), _extract(edits.extract_count, "_count"), adds=True),
    "extract_percentile_metric": _editor(
        (Parameter("percentile", "literal float"), _suffix()), _extract_percentile, adds=True
    ),
    "extract_sum_metric": _editor((_MONOTONIC, _suffix()), _extract(edits.extract_sum, "_sum"), adds=True),
    "merge_histogram_buckets": _editor(
        (Parameter("target_value", "any"), Parameter("method", "literal text", optional=True)),
        _merge_buckets,
        _DATAPOINT,
    ),
    "scale_metric": _editor((Parameter("multiplier", "literal float"), Parameter("unit", optional=True)), _scale),
}
