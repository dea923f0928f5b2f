"""The texts that stand for severities.

Source: opentelemetry-collector-contrib pkg/stanza/operator/helper/severity_builder.go (v0.156).
"""

from collections.abc import Mapping
from typing import Any, Final

from collector.log_operators.records import SEVERITY_TEXTS, SeverityTable

__all__ = ["severity_table"]

_NUMBERS: Final = {text.lower(): number for number, text in enumerate(SEVERITY_TEXTS) if number}
_BY_NUMBER: Final = {str(number): number for number in range(1, 25)}
_ALIASES: Final = {
    f"{alias}{suffix}": _NUMBERS[f"{name}{suffix}"]
    for alias, name in (("warning", "warn"), ("err", "error"))
    for suffix in ("", "2", "3", "4")
}
_OTEL: Final = {**_NUMBERS, **_BY_NUMBER}
_RANGE_MAX: Final = 100_000


def severity_table(preset: str, mapping: Mapping[str, Any], *, overwrite_text: bool) -> SeverityTable:
    """The severities by text.

    Raises:
        ValueError: The mapping is not valid.
    """
    texts: dict[str, int]
    if preset == "none":
        texts = {}
    elif preset in {"otel", "aliases"}:
        texts = dict(_OTEL)
    else:
        texts = {**_OTEL, **_ALIASES}
    for name, values in mapping.items():
        severity = _OTEL.get(str(name).lower())
        if severity is None:
            raise ValueError(f"mapping: {name!r} is not a severity (examples: info, warn, error2, 9)")
        for value in values if isinstance(values, (list, tuple)) else (values,):
            texts.update(dict.fromkeys(_texts(name, value), severity))
    return SeverityTable(texts, overwrite_text)


def _texts(name: str, value: Any) -> list[str]:
    if isinstance(value, str):
        if value in {"2xx", "3xx", "4xx", "5xx"}:
            return [str(number) for number in range(int(value[0]) * 100, int(value[0]) * 100 + 100)]
        return [value.lower()]
    if isinstance(value, int) and not isinstance(value, bool):
        return [str(value)]
    if isinstance(value, Mapping):
        low, high = value.get("min"), value.get("max")
        if type(low) is int and type(high) is int:
            low, high = min(low, high), max(low, high)
            if high - low > _RANGE_MAX:
                raise ValueError(f"mapping: the range of {name} has more than {_RANGE_MAX} numbers")
            return [str(number) for number in range(low, high + 1)]
    raise ValueError(
        f"mapping: {value!r} under {name} must be a text, an integer, or a range such as {{min: 400, max: 499}}"
    )
