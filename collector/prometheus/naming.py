"""Translation of metric and label names from OpenTelemetry to Prometheus.

Where implementations differ, the default is that of Prometheus' own OTLP endpoint, and a setting selects the other one.
Source: prometheus/otlptranslator (metric_namer, unit_namer, label_namer); the specification's "Prometheus and
OpenMetrics compatibility".
"""

import re
from functools import lru_cache
from typing import Final, Literal

from collector.model import (
    METRIC_EXPONENTIAL_HISTOGRAM,
    METRIC_GAUGE,
    METRIC_HISTOGRAM,
    METRIC_SUM,
    METRIC_SUMMARY,
    TEMPORALITY_CUMULATIVE,
)

__all__ = ["TranslationStrategy", "escape_label_name", "metric_name", "prometheus_type"]

TranslationStrategy = Literal[
    "UnderscoreEscapingWithSuffixes", "UnderscoreEscapingWithoutSuffixes", "NoUTF8EscapingWithSuffixes", "NoTranslation"
]

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
_CACHE_SIZE: Final = 65536


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


def _unit_words(unit: str) -> tuple[str, str]:
    """The suffixes for the unit before and after the slash; ``""`` if there is none."""
    main, _, per = unit.strip().partition("/")
    main, per = main.strip(), per.strip()
    main_word = "" if "{" in main or "}" in main else _UNITS.get(main, main)
    per_word = "" if not per or "{" in per or "}" in per else _PER_UNITS.get(per, per)
    clean = "_".join(token for token in _NOT_TOKEN.split(main_word) if token)
    return clean, "_".join(token for token in _NOT_TOKEN.split(per_word) if token)


@lru_cache(maxsize=_CACHE_SIZE)
def metric_name(
    name: str,
    unit: str,
    kind: str,
    strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes",
    namespace: str = "",
) -> str:
    """The Prometheus name of a metric with the Prometheus type ``kind``; ``""`` if no valid character remains."""
    if strategy == "NoTranslation":
        return f"{namespace}_{name}" if namespace and name else name
    if strategy == "UnderscoreEscapingWithoutSuffixes":
        text = "_".join(token for token in _NOT_NAME.split(name) if token)
        return _finish(f"{namespace}_{text}" if namespace and text else text)
    is_ratio = kind == "gauge" and unit == "1"
    main, per = _unit_words(unit)
    if strategy == "NoUTF8EscapingWithSuffixes":
        text = f"{namespace}_{name}" if namespace and name else name
        for suffix in (
            main,
            f"per_{per}" if per else "",
            "total" if kind == "counter" else "",
            "ratio" if is_ratio else "",
        ):
            if text and suffix and not text.endswith(suffix):
                text += "_" + suffix
        return text
    tokens = [token for token in _NOT_TOKEN.split(name) if token]
    if main and main not in tokens:
        tokens.append(main)
    if per and per not in tokens:
        tokens += ["per", per]
    for word, is_needed in (("total", kind == "counter"), ("ratio", is_ratio)):
        if is_needed:
            tokens = [token for token in tokens if token != word] + [word]
    if not tokens:
        return ""
    return _finish("_".join([namespace, *tokens] if namespace else tokens))


def _finish(text: str) -> str:
    if not text or not text.strip("_"):
        return ""
    return "_" + text if text[0].isdigit() else text


@lru_cache(maxsize=_CACHE_SIZE)
def escape_label_name(
    name: str,
    *,
    utf8: bool = False,
    sanitize_leading_underscore: bool = True,
    preserve_multiple_underscores: bool = True,
) -> str:
    """The Prometheus label name of an attribute key; ``""`` if no valid character remains.

    ``sanitize_leading_underscore``: ``_x`` becomes ``key_x`` (``__x`` stays). The defaults are those of Prometheus'
    OTLP endpoint; the Collector collapses runs of underscores.
    """
    if utf8:
        return name
    text = _NOT_LABEL.sub("_", name)
    if not preserve_multiple_underscores:
        text = re.sub("__+", "_", text)
    if not text.strip("_"):
        return ""
    if text[0].isdigit():
        return "key_" + text
    if sanitize_leading_underscore and text[0] == "_" and not text.startswith("__"):
        return "key" + text
    return text
