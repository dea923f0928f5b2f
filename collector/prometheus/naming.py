"""Translation of metric and label names from OpenTelemetry to Prometheus.

Where implementations differ, the default is that of Prometheus' own OTLP endpoint, and a setting selects the other one.
Source: prometheus/otlptranslator (metric_namer, unit_namer, label_namer); the specification's "Prometheus and
OpenMetrics compatibility".
"""

import re
from collections.abc import Iterable
from typing import Final, Literal

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    TEMPORALITY_CUMULATIVE,
)

__all__ = [
    "UP_DOWN_COUNTER",
    "TranslationStrategy",
    "escape_by_values",
    "escape_label_name",
    "metric_name",
    "prometheus_type",
]

TranslationStrategy = Literal[
    "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation"
]

UP_DOWN_COUNTER: Final = "up_down_counter"
"""What :func:`metric_name` is told of a sum that is not monotonic: Prometheus has no type for it but gauge."""

# TiBy is "tibibytes" in both Prometheus and the Collector, a slip that has become part of metric names.
_UNITS: Final = {
    "d": "days", "h": "hours", "min": "minutes", "s": "seconds", "ms": "milliseconds", "us": "microseconds",
    "ns": "nanoseconds",
    "By": "bytes", "KiBy": "kibibytes", "MiBy": "mebibytes", "GiBy": "gibibytes", "TiBy": "tibibytes",
    "KBy": "kilobytes", "MBy": "megabytes", "GBy": "gigabytes", "TBy": "terabytes",
    "m": "meters", "V": "volts", "A": "amperes", "J": "joules", "W": "watts", "g": "grams",
    "Cel": "celsius", "Hz": "hertz", "1": "", "%": "percent",
}  # fmt: skip
_PER_UNITS: Final = {"s": "second", "m": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
_NOT_TOKEN: Final = re.compile(r"[^a-zA-Z0-9:]+")
_NOT_NAME: Final = re.compile(r"[^a-zA-Z0-9:_]+")
_NOT_LABEL: Final = re.compile(r"[^a-zA-Z0-9_]")
_LEGACY: Final = re.compile(r"[a-zA-Z0-9:]")
_UNDERSCORES: Final = re.compile(r"__+")


def prometheus_type(metric_type: int, temporality: int, monotonic: int) -> str:
    """The Prometheus type of an OTLP metric; ``""`` if there is none (delta or unspecified temporality, no data)."""
    if metric_type == METRIC_GAUGE:
        return "gauge"
    if metric_type == METRIC_SUMMARY:
        return "summary"
    if temporality != TEMPORALITY_CUMULATIVE:
        return ""
    if metric_type == METRIC_SUM:
        return "counter" if monotonic else "gauge"
    if metric_type in (METRIC_HISTOGRAM, METRIC_EXPONENTIAL_HISTOGRAM):
        return "histogram"
    return ""


def metric_name(
    name: str,
    unit: str,
    kind: str,
    strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes",
    namespace: str = "",
) -> str:
    """The Prometheus name of a metric; ``""`` if nothing of its name and unit remains.

    ``kind`` is the Prometheus type, or ``UP_DOWN_COUNTER``: a gauge that never is a ratio.

    >>> metric_name("disk.io", "By/s", "gauge"), metric_name("jobs", "1", UP_DOWN_COUNTER)
    ('disk_io_bytes_per_second', 'jobs')
    """
    is_ratio = kind == "gauge" and unit == "1"
    is_counter = kind == "counter"
    if strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation"):
        text = f"{namespace}_{name}" if namespace and name else name
        return text if strategy == "NoTranslation" else _with_suffixes(text, unit, is_counter, is_ratio)
    namespace = _joined(_NOT_NAME.split(namespace))
    if strategy == "UnderscoreEscapingWithoutSuffixes":
        text = _joined(_NOT_NAME.split(name))
    else:
        tokens = [token for token in _NOT_TOKEN.split(name) if token]
        text = _joined(_with_suffix_tokens(tokens, unit, is_counter, is_ratio))
    if not text.strip("_") and text != name:
        return ""
    text = f"{namespace}_{text}" if namespace and text else text
    return "_" + text if text and text[0].isdigit() else text


def _joined(tokens: Iterable[str]) -> str:
    return "_".join(token for token in tokens if token)


def _with_suffix_tokens(tokens: list[str], unit: str, is_counter: bool, is_ratio: bool) -> list[str]:
    """The words of an escaped name. A unit that is among them is not repeated; ``total`` and ``ratio`` are last."""
    main, per = map(_escape_unit, _unit_words(unit))
    per = "" if per == "per_" else per.removesuffix("_")
    if main not in tokens:
        tokens = [*tokens, main.removesuffix("_") if per else main]
    tokens = [*tokens, per]
    for word, is_needed in (("total", is_counter), ("ratio", is_ratio)):
        if is_needed:
            tokens = [*(token for token in tokens if token != word), word]
    return tokens


def _with_suffixes(text: str, unit: str, is_counter: bool, is_ratio: bool) -> str:
    """The name with the suffixes that it does not end with, in their order, and no character escaped.

    A suffix at the end is replaced with the character before it, whatever that is: a counter ``foo.total`` becomes
    ``foo_total``, and with the unit ``s`` it becomes ``foo_seconds_total``.
    """
    main, per = _unit_words(unit)
    suffixes = [suffix for suffix in (per, "total" if is_counter else "", "ratio" if is_ratio else "") if suffix]
    for suffix in reversed(suffixes):
        if text.endswith(suffix) and len(text) > len(suffix) + 1:
            text = text[: -len(suffix) - 1]
    if main and not text.endswith(main):
        text = f"{text}_{main}"
    return "_".join([text, *suffixes])


def _unit_words(unit: str) -> tuple[str, str]:
    """The words for the unit before the slash and, beginning with ``per_``, after it; ``""`` if there is none."""
    main, _, per = unit.partition("/")
    main, per = main.strip(), per.strip()
    main_word = "" if "{" in main or "}" in main else _UNITS.get(main, main)
    return main_word, "" if not per or "{" in per or "}" in per else f"per_{_PER_UNITS.get(per, per)}"


def _escape_unit(word: str) -> str:
    """The word with runs of invalid characters replaced by ``_``, but for one at the beginning."""
    return _UNDERSCORES.sub("_", _NOT_TOKEN.sub("_", word)).removeprefix("_")


def escape_label_name(
    name: str,
    *,
    utf8: bool = False,
    sanitize_leading_underscore: bool = True,
    preserve_multiple_underscores: bool = True,
) -> str:
    """The Prometheus label name of an attribute key; ``""`` only for an empty key.

    ``sanitize_leading_underscore``: ``_x`` becomes ``key_x`` (``__x`` stays). The defaults are those of Prometheus'
    OTLP endpoint; the Collector collapses runs of underscores.

    Both refuse data whose keys have no valid character. Here such keys are escaped as by :func:`escape_by_values`, so
    that series which differ only in such a key stay apart and none is lost.

    >>> escape_label_name("http.method"), escape_label_name("имя")
    ('http_method', 'U___438__43c__44f_')
    """
    if utf8:
        return name
    text = _NOT_LABEL.sub("_", name)
    if not preserve_multiple_underscores:
        text = _UNDERSCORES.sub("_", text)
    if not text:
        return ""
    if text[0].isdigit():
        return "key_" + text
    if sanitize_leading_underscore and text[0] == "_" and not text.startswith("__"):
        return "key" + text
    return text if text == name or text.strip("_") else escape_by_values(name).replace(":", "_3a_")


def escape_by_values(name: str) -> str:
    """The name with the legacy characters of metric names only; the original can be read from it.

    This is Prometheus' escaping scheme ``values``.

    Source: prometheus/common model/metric.go (EscapeName, ValueEncodingEscaping).
    """
    return "U__" + "".join(
        "__" if char == "_" else char if _LEGACY.fullmatch(char) and (i or not char.isdigit()) else f"_{ord(char):x}_"
        for i, char in enumerate(name)
    )
