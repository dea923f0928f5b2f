"""Configuration of ``filter``: the Collector's ``include`` and ``exclude`` keys. Its expression language is refused by name.

Source: opentelemetry-collector-contrib processor/filterprocessor/config.go.
"""

from typing import Any, Final, Literal, Self

from pydantic import model_validator

from collector.helpers.match import AttributeMatch, MatchConfig, RegexpConfig, SeverityMatch
from config.blocks import ComponentConfig

__all__ = ["FilterConfig", "LogMatchConfig", "MetricMatchConfig"]

_NO_EXPRESSIONS: Final = "the expression language is not available in this version; use include and exclude"
_CONDITIONS: Final = {
    "spans": (),
    "traces": ("resource", "span", "spanevent"),
    "metrics": ("resource", "metric", "datapoint"),
    "logs": ("resource", "log_record"),
    "profiles": ("resource", "profile"),
}
_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")
_SEVERITIES: Final = {f"{level}{i + 1 if i else ''}": 4 * n + i + 1 for n, level in enumerate(_LEVELS) for i in range(4)}


class SeverityConfig(ComponentConfig):
    """Severity numbers from a level upward."""

    min: str | int = ""
    """``INFO``, ``warn2``, or the number 1 to 24."""
    match_undefined: bool = False
    """Whether records without a severity number match; without ``min`` it is ignored."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        text = str(self.min).upper()
        if text and text not in _SEVERITIES and text not in {str(number) for number in _SEVERITIES.values()}:
            raise ValueError(f"min: {self.min!r} is no severity: write TRACE, DEBUG, INFO, WARN, ERROR, FATAL (also INFO2 …) or 1 to 24")
        return self

    @property
    def number(self) -> int:
        """``min`` as a severity number; 0: none given."""
        text = str(self.min).upper()
        return int(text) if text.isdigit() else _SEVERITIES.get(text, 0)


class LogMatchConfig(ComponentConfig):
    """``include`` or ``exclude`` of log records."""

    match_type: Literal["strict", "regexp"]
    """Required."""
    resource_attributes: tuple[AttributeMatch, ...] = ()
    """All of them must match."""
    record_attributes: tuple[AttributeMatch, ...] = ()
    """All of them must match."""
    severity_texts: tuple[str, ...] = ()
    severity_number: SeverityConfig | None = None
    bodies: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.match()
        return self

    def match(self) -> MatchConfig:
        """The same in the words of the shared matcher."""
        severity = self.severity_number
        given = {
            "resources": self.resource_attributes,
            "attributes": self.record_attributes,
            "log_severity_texts": self.severity_texts,
            "log_bodies": self.bodies,
            "log_severity_number": severity
            and severity.number
            and SeverityMatch(min=severity.number, match_undefined=severity.match_undefined),
        }
        return MatchConfig.model_validate({"match_type": self.match_type} | {key: value for key, value in given.items() if value})


class MetricMatchConfig(ComponentConfig):
    """``include`` or ``exclude`` of metrics: all points of a metric go or stay."""

    match_type: Literal["strict", "regexp"]
    """Required. The Collector's ``expr`` is refused."""
    regexp: RegexpConfig | None = None
    metric_names: tuple[str, ...] = ()
    resource_attributes: tuple[AttributeMatch, ...] = ()
    """All of them must match."""

    @model_validator(mode="before")
    @classmethod
    def _no_expressions(cls, value: Any) -> Any:
        if isinstance(value, dict) and (value.get("match_type") == "expr" or value.get("expressions")):
            raise ValueError(f"match_type: expr and expressions: {_NO_EXPRESSIONS}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.match()
        return self

    def match(self) -> MatchConfig:
        """The same in the words of the shared matcher."""
        given = {"metric_names": self.metric_names, "resources": self.resource_attributes}
        return MatchConfig.model_validate({"match_type": self.match_type} | {key: value for key, value in given.items() if value})


class SpanFilters(ComponentConfig):
    """Key ``spans``."""

    include: MatchConfig | None = None
    """Only spans that match stay."""
    exclude: MatchConfig | None = None
    """And of those, what matches goes."""


class LogFilters(ComponentConfig):
    """Key ``logs``."""

    include: LogMatchConfig | None = None
    """Only records that match stay."""
    exclude: LogMatchConfig | None = None
    """And of those, what matches goes."""


class MetricFilters(ComponentConfig):
    """Key ``metrics``."""

    include: MetricMatchConfig | None = None
    """Only metrics that match stay."""
    exclude: MetricMatchConfig | None = None
    """And of those, what matches goes."""
    regexp: RegexpConfig | None = None


class FilterConfig(ComponentConfig):
    """``filter``."""

    error_mode: Literal["ignore", "silent", "propagate"] = "ignore"
    """Accepted: matches cannot fail."""
    spans: SpanFilters = SpanFilters()
    metrics: MetricFilters = MetricFilters()
    logs: LogFilters = LogFilters()

    @model_validator(mode="before")
    @classmethod
    def _no_expressions(cls, value: Any) -> Any:
        """Conditions are refused by name; empty ones are as if not written."""
        if not isinstance(value, dict):
            return value
        kept = dict(value)
        for section, names in _CONDITIONS.items():
            inner = kept.get(section)
            if isinstance(inner, dict):
                for name in names:
                    if inner.get(name):
                        raise ValueError(f"{section}.{name}: {_NO_EXPRESSIONS}")
                kept[section] = {key: entry for key, entry in inner.items() if key not in names}
        for name in ("trace_conditions", "metric_conditions", "log_conditions", "profile_conditions"):
            if kept.pop(name, None):
                raise ValueError(f"{name}: {_NO_EXPRESSIONS}")
        for section in ("traces", "profiles"):
            if section in kept and not kept[section]:
                del kept[section]
        return kept
