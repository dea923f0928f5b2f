"""The contexts of conditions: the table of each, what its conditions may read, and its symbols.

Source: opentelemetry-collector-contrib pkg/ottl/contexts (one README per context; v0.156).
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

from collector.model import Signal
from collector.otlp.semantics import NO_RECORDED_VALUE, SEVERITIES, SPAN_KINDS, STATUS_CODES, TEMPORALITIES

__all__ = ["CONTEXTS", "SIGNALS", "SYMBOLS", "TABLES", "Context"]

Context: TypeAlias = Literal["resource", "scope", "span", "spanevent", "metric", "datapoint", "log"]

TABLES: Final[Mapping[str, str]] = {
    "resource": "resources",
    "scope": "scopes",
    "instrumentation_scope": "scopes",
    "span": "spans",
    "spanevent": "events",
    "metric": "metrics",
    "datapoint": "points",
    "log": "records",
}
_ABOVE: Final = ("resource", "scope", "instrumentation_scope")
CONTEXTS: Final[Mapping[Context, tuple[str, ...]]] = {
    "resource": ("resource",),
    "scope": ("scope", "instrumentation_scope", "resource"),
    "span": ("span", *_ABOVE),
    "spanevent": ("spanevent", "span", *_ABOVE),
    "metric": ("metric", *_ABOVE),
    "datapoint": ("datapoint", "metric", *_ABOVE),
    "log": ("log", *_ABOVE),
}
"""The contexts whose paths a condition may read, its own first."""
SIGNALS: Final[Mapping[Context, frozenset[Signal]]] = {
    "resource": frozenset(Signal),
    "scope": frozenset(Signal),
    "span": frozenset({Signal.TRACES}),
    "spanevent": frozenset({Signal.TRACES}),
    "metric": frozenset({Signal.METRICS}),
    "datapoint": frozenset({Signal.METRICS}),
    "log": frozenset({Signal.LOGS}),
}

_SPAN_SYMBOLS: Final = {
    **{f"SPAN_KIND_{name}": number for number, name in enumerate(SPAN_KINDS)},
    **{f"STATUS_CODE_{name}": number for number, name in enumerate(STATUS_CODES)},
}
_METRIC_SYMBOLS: Final = {
    **{f"AGGREGATION_TEMPORALITY_{name}": number for number, name in enumerate(TEMPORALITIES)},
    **{
        f"METRIC_DATA_TYPE_{name}": number
        for number, name in enumerate(("NONE", "GAUGE", "SUM", "HISTOGRAM", "EXPONENTIAL_HISTOGRAM", "SUMMARY"))
    },
}
_LOG_SYMBOLS: Final = {f"SEVERITY_NUMBER_{name}": number for number, name in enumerate(SEVERITIES)}
SYMBOLS: Final[Mapping[Context, Mapping[str, int]]] = {
    "resource": {},
    "scope": {},
    "span": _SPAN_SYMBOLS,
    "spanevent": _SPAN_SYMBOLS,
    "metric": _METRIC_SYMBOLS,
    "datapoint": {"FLAG_NONE": 0, "FLAG_NO_RECORDED_VALUE": NO_RECORDED_VALUE, **_METRIC_SYMBOLS},
    "log": _LOG_SYMBOLS,
}
