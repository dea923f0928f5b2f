"""The enumerations of OTLP and the names of their values: span kinds, status codes, severities, temporalities, flags.

The tuples are indexed by the value on the wire. The kinds of attribute values and the types of metrics are constants of
``collector.model``, because the index itself needs them.

Source: opentelemetry-proto trace/v1/trace.proto, logs/v1/logs.proto, metrics/v1/metrics.proto.
"""

from collections.abc import Mapping
from typing import Final, Literal, TypeAlias

__all__ = [
    "NO_RECORDED_VALUE",
    "SEVERITIES",
    "SEVERITY_LEVELS",
    "SEVERITY_NUMBERS",
    "SPAN_KINDS",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_CONSUMER",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_SERVER",
    "STATUS_CODES",
    "STATUS_CODE_ERROR",
    "TEMPORALITIES",
    "TRACE_FLAG_SAMPLED",
    "SeverityLevel",
    "SpanKind",
    "severity_number_of",
]

SpanKind: TypeAlias = Literal["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"]
"""A span kind as it is written in configurations, without the prefix ``SPAN_KIND_``."""
SPAN_KINDS: Final[tuple[SpanKind, ...]] = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
SPAN_KIND_SERVER: Final = 2
SPAN_KIND_CLIENT: Final = 3
SPAN_KIND_PRODUCER: Final = 4
SPAN_KIND_CONSUMER: Final = 5

STATUS_CODES: Final = ("UNSET", "OK", "ERROR")
STATUS_CODE_ERROR: Final = 2

TRACE_FLAG_SAMPLED: Final = 1
"""The W3C trace flag "sampled" in the flags of a span. Source: W3C Trace Context."""

SeverityLevel: TypeAlias = Literal["trace", "debug", "info", "warn", "error", "fatal"]
"""A severity level as it is written in configurations."""
SEVERITY_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
SEVERITIES: Final = (
    "UNSPECIFIED",
    *(f"{level}{step}" for level in SEVERITY_LEVELS for step in ("", "2", "3", "4")),
)
SEVERITY_NUMBERS: Final[Mapping[str, int]] = {name: number for number, name in enumerate(SEVERITIES) if number}
"""``TRACE`` to 1, ``TRACE2`` to 2 … ``FATAL4`` to 24."""

TEMPORALITIES: Final = ("UNSPECIFIED", "DELTA", "CUMULATIVE")

NO_RECORDED_VALUE: Final = 1
"""The flag of a data point that only marks the end of its series."""

_NUMBERS_OF_WORDS: Final[Mapping[str, int]] = {
    **{level.lower(): SEVERITY_NUMBERS[level] for level in SEVERITY_LEVELS},
    **dict.fromkeys(("information", "notice"), SEVERITY_NUMBERS["INFO"]),
    "warning": SEVERITY_NUMBERS["WARN"],
    "err": SEVERITY_NUMBERS["ERROR"],
    **dict.fromkeys(("critical", "crit", "panic", "alert", "emerg", "emergency"), SEVERITY_NUMBERS["FATAL"]),
}


def severity_number_of(text: str) -> int:
    """The severity number that a severity text such as ``warning`` or ``Crit`` means; 0 if it is not a known word."""
    return _NUMBERS_OF_WORDS.get(text.strip().lower(), 0)
