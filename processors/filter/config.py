"""Configuration of ``filter``: conditions in OTTL, and the Collector's older ``include`` and ``exclude``.

Source: opentelemetry-collector-contrib processor/filterprocessor/config.go (v0.156).
"""

from typing import Annotated, Any, Final, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag, model_validator

from collector.model import Signal
from collector.otlp.semantics import SEVERITY_NUMBERS
from collector.ottl import Context, ErrorMode, compile_conditions, infer_context
from collector.ottl.match import AttributeMatch, MatchConfig, RegexpConfig, SeverityMatch
from config.blocks import ComponentConfig
from processors.filter.conditions import Group, Groups

__all__ = ["FilterConfig", "LogMatchConfig", "MetricMatchConfig"]

_NO_EXPR: Final = (
    "expr is not available; write conditions in OTTL (metrics.metric, metrics.datapoint) or use strict or regexp"
)


class SeverityConfig(ComponentConfig):
    """Severity numbers from a level upward."""

    min: str | int = ""
    """``INFO``, ``warn2``, or the number 1 to 24."""
    match_undefined: bool = False
    """Whether records without a severity number match; without ``min`` it is ignored."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        text = str(self.min).upper()
        if text and text not in SEVERITY_NUMBERS and text not in map(str, SEVERITY_NUMBERS.values()):
            raise ValueError(
                f"min: {self.min!r} is no severity: write TRACE, DEBUG, INFO, WARN, ERROR, FATAL (also INFO2 …) or 1 to 24"
            )
        return self

    @property
    def number(self) -> int:
        """``min`` as a severity number; 0: none given."""
        text = str(self.min).upper()
        return int(text) if text.isdigit() else SEVERITY_NUMBERS.get(text, 0)


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
        return MatchConfig.model_validate(
            {"match_type": self.match_type} | {key: value for key, value in given.items() if value}
        )


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
            raise ValueError(f"match_type: {_NO_EXPR}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.match()
        return self

    def match(self) -> MatchConfig:
        """The same in the words of the shared matcher."""
        given = {"metric_names": self.metric_names, "resources": self.resource_attributes}
        return MatchConfig.model_validate(
            {"match_type": self.match_type} | {key: value for key, value in given.items() if value}
        )


def _of_context(context: Context) -> AfterValidator:
    """A condition that stands under its context."""

    def check(text: str) -> str:
        compile_conditions([text], context)
        return text

    return AfterValidator(check)


def _inferred(signal: Signal) -> AfterValidator:
    """A condition whose paths say which context it is for."""

    def check(text: str) -> str:
        compile_conditions([text], infer_context(text, signal), prefixed=True)
        return text

    return AfterValidator(check)


_Resource: TypeAlias = Annotated[str, _of_context("resource")]
_Span: TypeAlias = Annotated[str, _of_context("span")]
_SpanEvent: TypeAlias = Annotated[str, _of_context("spanevent")]
_Metric: TypeAlias = Annotated[str, _of_context("metric")]
_Datapoint: TypeAlias = Annotated[str, _of_context("datapoint")]
_Record: TypeAlias = Annotated[str, _of_context("log")]

_lower_case: Final = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


class _GroupConfig(ComponentConfig):
    """Conditions with what they have in common."""

    conditions: tuple[str, ...]
    """A row that one of them holds for is dropped."""
    error_mode: ErrorMode | None = None
    """Instead of the processor's."""

    def check(self, context: Context | None, signal: Signal) -> Self:
        """Raises ValueError where a condition is none."""
        if not self.conditions:
            raise ValueError("conditions: at least one is needed")
        for text in self.conditions:
            compile_conditions([text], context or infer_context(text, signal), prefixed=context is None)
        return self


class TraceGroupConfig(_GroupConfig):
    """One group of ``trace_conditions``."""

    context: Annotated[Literal["resource", "scope", "span", "spanevent"], _lower_case] | None = None
    """Whose rows are asked; not given: the paths say it."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.TRACES)


class MetricGroupConfig(_GroupConfig):
    """One group of ``metric_conditions``."""

    context: Annotated[Literal["resource", "scope", "metric", "datapoint"], _lower_case] | None = None
    """Whose rows are asked; not given: the paths say it."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.METRICS)


class LogGroupConfig(_GroupConfig):
    """One group of ``log_conditions``."""

    context: Annotated[Literal["resource", "scope", "log"], _lower_case] | None = None
    """Whose rows are asked; not given: the paths say it."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.LOGS)


def _form(value: Any) -> str:
    return "condition" if isinstance(value, str) else "group"


_TraceCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.TRACES), Tag("condition")] | Annotated[TraceGroupConfig, Tag("group")],
    Discriminator(_form),
]
_MetricCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.METRICS), Tag("condition")] | Annotated[MetricGroupConfig, Tag("group")],
    Discriminator(_form),
]
_LogCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.LOGS), Tag("condition")] | Annotated[LogGroupConfig, Tag("group")],
    Discriminator(_form),
]


class TraceConditions(ComponentConfig):
    """Key ``traces``."""

    resource: tuple[_Resource, ...] = ()
    """A resource that one of them holds for is dropped with all its spans."""
    span: tuple[_Span, ...] = ()
    """A span that one of them holds for is dropped."""
    spanevent: tuple[_SpanEvent, ...] = ()
    """An event that one of them holds for is taken off its span."""


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
    resource: tuple[_Resource, ...] = ()
    """A resource that one of them holds for is dropped with all its records."""
    log_record: tuple[_Record, ...] = ()
    """A record that one of them holds for is dropped."""


class MetricFilters(ComponentConfig):
    """Key ``metrics``."""

    include: MetricMatchConfig | None = None
    """Only metrics that match stay."""
    exclude: MetricMatchConfig | None = None
    """And of those, what matches goes."""
    regexp: RegexpConfig | None = None
    resource: tuple[_Resource, ...] = ()
    """A resource that one of them holds for is dropped with all its metrics."""
    metric: tuple[_Metric, ...] = ()
    """A metric that one of them holds for is dropped with all its points."""
    datapoint: tuple[_Datapoint, ...] = ()
    """A point that one of them holds for is dropped."""


class FilterConfig(ComponentConfig):
    """``filter``."""

    error_mode: ErrorMode = "ignore"
    """What a condition does that cannot be evaluated for a row: no match, with a line in the log; ``silent``: without one;
    ``propagate``: the batch is dropped."""
    spans: SpanFilters = SpanFilters()
    traces: TraceConditions = TraceConditions()
    metrics: MetricFilters = MetricFilters()
    logs: LogFilters = LogFilters()
    trace_conditions: tuple[_TraceCondition, ...] = ()
    """Conditions or groups of them; a path begins with its context."""
    metric_conditions: tuple[_MetricCondition, ...] = ()
    """Likewise."""
    log_conditions: tuple[_LogCondition, ...] = ()
    """Likewise."""

    @model_validator(mode="before")
    @classmethod
    def _no_profiles(cls, value: Any) -> Any:
        """There is no such signal here; empty keys are as if not written."""
        if not isinstance(value, dict):
            return value
        kept = dict(value)
        for name in ("profiles", "profile_conditions"):
            section = kept.pop(name, None)
            if any(section.values()) if isinstance(section, dict) else section:
                raise ValueError(f"{name}: profiles are no signal here")
        return kept

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        """Each signal is filtered in one of the ways, and flat and grouped conditions do not mix."""
        for name, ways in self._ways().items():
            used = [way for way, keys in ways.items() if keys]
            if len(used) > 1:
                raise ValueError(f"{name}: use one of {' and '.join(used)}, not both")
        for name in ("trace_conditions", "metric_conditions", "log_conditions"):
            if len({_form(entry) for entry in getattr(self, name)}) > 1:
                raise ValueError(f"{name}: write conditions alone or groups alone, not both")
        return self

    def _ways(self) -> dict[str, dict[str, bool]]:
        return {
            "traces": {
                "spans.include/exclude": bool(self.spans.include or self.spans.exclude),
                "traces.resource/span/spanevent": bool(
                    self.traces.resource or self.traces.span or self.traces.spanevent
                ),
                "trace_conditions": bool(self.trace_conditions),
            },
            "metrics": {
                "metrics.include/exclude": bool(self.metrics.include or self.metrics.exclude),
                "metrics.resource/metric/datapoint": bool(
                    self.metrics.resource or self.metrics.metric or self.metrics.datapoint
                ),
                "metric_conditions": bool(self.metric_conditions),
            },
            "logs": {
                "logs.include/exclude": bool(self.logs.include or self.logs.exclude),
                "logs.resource/log_record": bool(self.logs.resource or self.logs.log_record),
                "log_conditions": bool(self.log_conditions),
            },
        }

    def groups(self, signal: Signal) -> Groups:
        """The conditions for one signal, in the order they are asked."""
        listed: dict[Context, tuple[str, ...]]
        entries: tuple[Any, ...]
        if signal is Signal.TRACES:
            listed = {"resource": self.traces.resource, "span": self.traces.span, "spanevent": self.traces.spanevent}
            entries = self.trace_conditions
        elif signal is Signal.METRICS:
            listed = {
                "resource": self.metrics.resource,
                "metric": self.metrics.metric,
                "datapoint": self.metrics.datapoint,
            }
            entries = self.metric_conditions
        else:
            listed = {"resource": self.logs.resource, "log": self.logs.log_record}
            entries = self.log_conditions
        if any(listed.values()):
            return (Group({context: texts for context, texts in listed.items() if texts}, self.error_mode),)
        texts = tuple(entry for entry in entries if isinstance(entry, str))
        if texts:
            return (Group(_by_context(texts, signal), self.error_mode, prefixed=True),)
        return tuple(
            Group(
                {entry.context: entry.conditions} if entry.context else _by_context(entry.conditions, signal),
                entry.error_mode or self.error_mode,
                prefixed=entry.context is None,
            )
            for entry in entries
            if not isinstance(entry, str)
        )


def _by_context(texts: tuple[str, ...], signal: Signal) -> dict[Context, tuple[str, ...]]:
    contexts = [infer_context(text, signal) for text in texts]
    return {
        context: tuple(text for text, of_text in zip(texts, contexts, strict=True) if of_text == context)
        for context in get_args(Context)
        if context in contexts
    }
