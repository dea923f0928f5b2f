"""Converters of lists and maps, severities and logarithms. They are called once per distinct value.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from collector.model.values import any_value_text, double_text
from collector.ottl.text import parse_double
from collector.ottl.values import EvaluationError, Scalar
from collector.wire.encode import encode_value

__all__ = [
    "as_text",
    "check_order",
    "check_severities",
    "keys",
    "logarithm",
    "severity",
    "slice_to_map",
    "sort",
    "values",
]


def as_text(value: Scalar) -> str:
    """The text of an attribute value, as the Collector's ``AsString`` writes it."""
    if type(value) is str:
        return value
    if type(value) is float:
        return double_text(value) if math.isfinite(value) else {"Infinity": "+Inf", "-Infinity": "-Inf"}.get(
            double_text(value), "NaN"
        )  # fmt: skip
    return any_value_text(b"" if value is None else encode_value(value))


def keys(target: Scalar) -> list[str]:
    """The keys of a map."""
    if type(target) is not dict:
        raise EvaluationError
    return list(target)


def values(target: Scalar) -> list[Scalar]:
    """The values of a map."""
    if type(target) is not dict:
        raise EvaluationError
    return list(target.values())


def sort(target: Scalar, order: Scalar = "asc") -> list[Scalar]:
    """The items of a list in order: numbers as numbers, others as texts; lists of other types stay as they are."""
    if type(target) is not list:
        raise EvaluationError
    reverse = order == "desc"
    types = {type(item) for item in target}
    if types & {list, dict, bytes}:
        return target
    if types <= {int, float}:
        return sorted(target, key=lambda item: (not math.isnan(item), item) if type(item) is float else (True, item),
                      reverse=reverse)  # fmt: skip
    return sorted(target, key=as_text, reverse=reverse)


def check_order(literals: Mapping[int, Scalar]) -> None:
    """Check the order of ``Sort``."""
    if literals.get(1, "asc") not in {"asc", "desc"}:
        raise ValueError(f'order must be "asc" or "desc", got {literals[1]!r}')


def slice_to_map(target: Scalar, key_path: Scalar = None, value_path: Scalar = None) -> dict[str, Scalar]:
    """A map of the items of a list, by their index or by what is found under ``key_path`` in each."""
    if type(target) is not list:
        raise EvaluationError
    made: dict[str, Scalar] = {}
    for index, item in enumerate(target):
        if (key_path is not None or value_path is not None) and type(item) is not dict:
            raise EvaluationError
        key = str(index) if key_path is None else _under(item, key_path)
        if type(key) is not str:
            raise EvaluationError
        made[key] = item if value_path is None else _under(item, value_path)
    return made


def _under(value: Scalar, path: Sequence[str]) -> Scalar:
    if not path:
        raise EvaluationError
    for name in path:
        if type(value) is not dict or name not in value:
            raise EvaluationError
        value = value[name]
    return value


def logarithm(value: Scalar) -> float:
    """The natural logarithm of a number or of a text that is one."""
    if type(value) is str:
        value = parse_double(value)
    if type(value) not in {int, float, bool}:
        raise EvaluationError
    number = float(value)
    if math.isnan(number):
        return number
    if number <= 0:
        raise EvaluationError
    return math.log(number)


_RANGES: Final = {f"{digit}xx": (digit * 100, digit * 100 + 99) for digit in (2, 3, 4, 5)}


def severity(value: Scalar, mapping: Scalar) -> str:
    """The name of the severity whose criteria a value meets. The mapping is checked by ``check_severities``."""
    if type(value) not in {str, int}:
        raise EvaluationError
    for level, criteria in _criteria(mapping).items():
        for texts, limits in criteria:
            if type(value) is str and value in texts:
                return level
            if type(value) is int and limits is not None and limits[0] <= value <= limits[1]:
                return level
    raise EvaluationError


def _criteria(mapping: Any) -> dict[str, list[tuple[list[str], tuple[int, int] | None]]]:
    """Of each level the texts and the range of its criteria.

    Raises:
        EvaluationError: the mapping is not valid.
    """
    made: dict[str, list[tuple[list[str], tuple[int, int] | None]]] = {}
    if type(mapping) is not dict:
        raise EvaluationError
    for level, criteria in mapping.items():
        if type(criteria) is not list:
            raise EvaluationError
        for criterion in criteria:
            if type(criterion) is not dict:
                raise EvaluationError
            texts = criterion.get("equals", [])
            if type(texts) is not list or not all(type(text) is str for text in texts):
                raise EvaluationError
            made.setdefault(level, []).append((texts, _limits(criterion.get("range"))))
    return made


def _limits(limits: Any) -> tuple[int, int] | None:
    if limits is None:
        return None
    if type(limits) is str and limits in _RANGES:
        return _RANGES[limits]
    if type(limits) is dict and type(limits.get("min")) is int and type(limits.get("max")) is int:
        return limits["min"], limits["max"]
    raise EvaluationError


def check_severities(literals: Mapping[int, Scalar]) -> None:
    """Check the mapping of ``ParseSeverity``."""
    if 1 not in literals:
        raise ValueError("the mapping must be a map literal")
    try:
        _criteria(literals[1])
    except EvaluationError:
        raise ValueError(
            'the mapping must be like {"error": [{"equals": ["err"]}, {"range": {"min": 3, "max": 4}}, '
            '{"range": "5xx"}]}'
        ) from None
