"""Which metric a Prometheus series belongs to, and what the sample is in it.

Source: the Collector's prometheusreceiver (metadataForMetric, normalizeMetricName) and its translator package (units,
suffixes).
"""

import math
from collections.abc import Mapping
from typing import Final, NamedTuple

from collector.exposition.write import (
    GAUGE,
    HISTOGRAM,
    ROLE_BUCKET,
    ROLE_COUNT,
    ROLE_CREATED,
    ROLE_SUM,
    ROLE_VALUE,
    SUM,
    SUMMARY,
)

__all__ = ["BOUND_LABELS", "REPORT", "Family", "Metadata", "family_of", "role_of", "trim_suffixes", "ucum_unit"]

Metadata = Mapping[str, Mapping[str, str]]
"""Of each family, by its name: ``HELP``, ``TYPE`` and ``UNIT``, as far as they are known."""

_SUFFIXES: Final = ("_bucket", "_count", "_sum", "_total", "_info", "_created")
_KINDS: Final = {
    "counter": (SUM, True),
    "histogram": (HISTOGRAM, False),
    "summary": (SUMMARY, False),
    "info": (SUM, False),
    "stateset": (SUM, False),
}
BOUND_LABELS: Final = {HISTOGRAM: "le", SUMMARY: "quantile"}
"""The label that tells the parts of a point apart, by the kind of the metric."""
_UNITS: Final = {
    "days": "d", "hours": "h", "minutes": "min", "seconds": "s", "milliseconds": "ms", "microseconds": "us",
    "nanoseconds": "ns", "bytes": "By", "kibibytes": "KiBy", "mebibytes": "MiBy", "gibibytes": "GiBy",
    "tibibytes": "TiBy", "kilobytes": "KBy", "megabytes": "MBy", "gigabytes": "GBy", "terabytes": "TBy",
    "meters": "m", "volts": "V", "amperes": "A", "joules": "J", "watts": "W", "grams": "g", "celsius": "Cel",
    "hertz": "Hz", "ratio": "1", "percent": "%",
}  # fmt: skip
_PER_UNITS: Final = {
    "second": "s", "minute": "m", "hour": "h", "day": "d", "week": "w", "month": "mo", "year": "y"
}  # fmt: skip
REPORT: Final[Metadata] = {
    "up": {"TYPE": "gauge", "HELP": "The scraping was successful"},
    "scrape_duration_seconds": {"TYPE": "gauge", "HELP": "Duration of the scrape", "UNIT": "seconds"},
    "scrape_samples_scraped": {"TYPE": "gauge", "HELP": "The number of samples the target exposed"},
    "scrape_samples_post_metric_relabeling": {
        "TYPE": "gauge",
        "HELP": "The number of samples remaining after metric relabeling was applied",
    },
    "scrape_series_added": {"TYPE": "gauge", "HELP": "The approximate number of new series in this scrape"},
}
"""The metrics that a scraper adds about each scrape."""


class Family(NamedTuple):
    """A metric: its name, and what is known about it."""

    name: str
    base: str
    """The name that the metadata is given for."""
    type: str
    help: str
    unit: str

    @property
    def kind(self) -> int:
        """The kind of the metric; whatever has no counterpart in OTLP is a gauge."""
        return _KINDS.get(self.type, (GAUGE, False))[0]

    @property
    def is_monotonic(self) -> bool:
        """Whether a sum only grows."""
        return _KINDS.get(self.type, (GAUGE, False))[1]


def _normalized(name: str) -> str:
    for suffix in _SUFFIXES:
        if name.endswith(suffix) and name != suffix:
            return name.removesuffix(suffix)
    return name


def family_of(name: str, metadata: Metadata) -> Family:
    """The metric that the samples with this name belong to. Without metadata, it is of unknown type."""
    found = REPORT.get(name) or metadata.get(name)
    base = family = name
    if found is None:
        base = _normalized(name)
        found = metadata.get(base)
        if found is None:
            return Family(name, name, "unknown", "", "")
        if found.get("TYPE") != "counter":
            family = base
        elif name == f"{base}_created":
            family = f"{base}_total"
    kind = found.get("TYPE", "unknown")
    return Family(family, base, "unknown" if kind == "untyped" else kind, found.get("HELP", ""), found.get("UNIT", ""))


def role_of(name: str, labels: Mapping[str, str], family: Family) -> tuple[int, float] | None:
    """The role of a sample in its point, and its bound; None if it has none that can be read."""
    kind = family.kind
    if kind in BOUND_LABELS:
        if name.endswith("_sum"):
            return ROLE_SUM, 0.0
        if name.endswith("_count"):
            return ROLE_COUNT, 0.0
        if name == f"{family.base}_created":
            return ROLE_CREATED, 0.0
        try:
            bound = float(labels[BOUND_LABELS[kind]])
        except (KeyError, ValueError):
            return None
        return None if math.isnan(bound) else (ROLE_BUCKET, bound)
    if kind == SUM and name == f"{family.base}_created":
        return ROLE_CREATED, 0.0
    return ROLE_VALUE, 0.0


def ucum_unit(unit: str) -> str:
    """The unit as OTLP writes it: ``seconds`` is ``s``, ``bytes_per_second`` is ``By/s``."""
    main, _, per = unit.partition("_per_")
    text = _UNITS.get(main, main)
    return f"{text}/{_PER_UNITS.get(per, per)}" if per else text


def trim_suffixes(name: str, kind: int, unit: str) -> str:
    """The name without the suffixes for its type and unit."""
    tokens = name.split("_")
    if kind == SUM and len(tokens) > 1 and tokens[-1] == "total":
        tokens.pop()
    units = unit.split("_")
    if len(tokens) > len(units) and tokens[-len(units) :] == units:
        tokens = tokens[: -len(units)]
    return "_".join(tokens)
