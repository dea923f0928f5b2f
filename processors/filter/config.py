"""Configuration of ``filter``: conditions in OTTL, and the Collector's older ``include`` and ``exclude``.

Source: opentelemetry-collector-contrib processor/filterprocessor/config.go (v0.156).
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, Self, TypeAlias, get_args

from pydantic import AfterValidator, BeforeValidator, Discriminator, Tag, model_validator

from collector.model import Signal
from collector.otlp.semantics import SEVERITY_NUMBERS
from collector.ottl import Context, ErrorMode, compile_conditions, infer_context
from collector.ottl.match import AttributeMatch, MatchConfig, MatchType, RegexpConfig, SeverityMatch, no_expr
from config.blocks import ComponentConfig
from processors.filter.conditions import Group, Groups

__all__ = ["FilterConfig", "LogMatchConfig", "MetricMatchConfig"]

_NO_PROFILES: Final = "this setting has no effect: Tailrace does not process profiles"


class SeverityConfig(ComponentConfig):
    """Severity numbers from a minimum on."""

    null_means_default: ClassVar[bool] = False

    min: str | int = ""
    """Lowest severity that matches: a name such as ``INFO`` or ``warn2``, or a number from 1 to 24."""
    match_undefined: bool = False
    """Whether records without a severity number match. Needs ``min``."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        text = str(self.min).upper()
        if text and text not in SEVERITY_NUMBERS and text not in map(str, SEVERITY_NUMBERS.values()):
            raise ValueError(
                f"min: {self.min!r} is not a severity; expected TRACE, DEBUG, INFO, WARN, ERROR or FATAL, "
                "with a step such as INFO2, or a number from 1 to 24"
            )
        return self

    @property
    def number(self) -> int:
        """``min`` as a severity number; 0 if it is not given, which every severity reaches."""
        text = str(self.min).upper()
        return int(text) if text.isdigit() else SEVERITY_NUMBERS.get(text, 0)


class LogMatchConfig(ComponentConfig):
    """Log records to include or exclude; all given properties must match."""

    match_type: Annotated[MatchType, no_expr("write OTTL conditions (logs.log_record, log_conditions) instead")] = ""
    """Whether texts are compared as they are (strict) or are regular expressions (regexp). Required, unless only
    ``severity_number`` or the presence of attributes is matched.
    """
    resource_attributes: tuple[AttributeMatch, ...] = ()
    """Attributes of the resource; all of them must match."""
    record_attributes: tuple[AttributeMatch, ...] = ()
    """Attributes of the record; all of them must match."""
    severity_texts: tuple[str, ...] = ()
    """Severity texts, one of which must match."""
    severity_number: SeverityConfig | None = None
    """Severity numbers from a minimum on."""
    bodies: tuple[str, ...] = ()
    """Bodies as text, one of which must match."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.match()
        return self

    def match(self) -> MatchConfig | None:
        """The same as a configuration of the shared matcher; None if nothing is given to match."""
        severity = self.severity_number
        given = {
            "resources": self.resource_attributes,
            "attributes": self.record_attributes,
            "log_severity_texts": self.severity_texts,
            "log_bodies": self.bodies,
            "log_severity_number": severity
            and SeverityMatch(min=severity.number, match_undefined=severity.match_undefined),
        }
        return _match(self.match_type, given)


class MetricMatchConfig(ComponentConfig):
    """Metrics to include or exclude; a metric is kept or dropped with all its points."""

    match_type: Annotated[
        MatchType, no_expr("write OTTL conditions (metrics.metric, metrics.datapoint, metric_conditions) instead")
    ] = ""
    """Whether texts are compared as they are (strict) or are regular expressions (regexp). Required if something is
    given to match. The Collector's ``expr`` is not supported.
    """
    regexp: RegexpConfig | None = None
    """Accepted for compatibility with the Collector; has no effect."""
    metric_names: tuple[str, ...] = ()
    """Names of metrics, one of which must match."""
    resource_attributes: tuple[AttributeMatch, ...] = ()
    """Attributes of the resource; all of them must match."""
    expressions: tuple[str, ...] = ()
    """Accepted for compatibility with the Collector; has no effect without its ``match_type: expr``."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.expressions:
            sentence = (
                "this setting has no effect without match_type: expr, which is not supported; write OTTL conditions "
                "(metrics.metric, metrics.datapoint, metric_conditions) instead"
            )
            yield "expressions", sentence

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.match()
        return self

    def match(self) -> MatchConfig | None:
        """The same as a configuration of the shared matcher; None if nothing is given to match."""
        given = {"metric_names": self.metric_names, "resources": self.resource_attributes}
        return _match(self.match_type, given)


def _match(match_type: str, given: Mapping[str, object]) -> MatchConfig | None:
    properties = {key: value for key, value in given.items() if value}
    return MatchConfig.model_validate({"match_type": match_type} | properties) if properties else None


def _of_context(context: Context) -> AfterValidator:
    """Validates a condition that is listed under its context."""

    def check(text: str) -> str:
        compile_conditions([text], context)
        return text

    return AfterValidator(check)


def _inferred(signal: Signal) -> AfterValidator:
    """Validates a condition whose context is inferred from its paths."""

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
    """A group of conditions with common settings."""

    conditions: tuple[str, ...]
    """A row is dropped if one of these conditions holds for it."""
    error_mode: ErrorMode | None = None
    """Overrides the processor's ``error_mode``."""

    def check(self, context: Context | None, signal: Signal) -> Self:
        """The group itself; raises ValueError if one of its conditions is not valid."""
        if not self.conditions:
            raise ValueError("conditions is empty; at least one condition is required")
        for text in self.conditions:
            compile_conditions([text], context or infer_context(text, signal), prefixed=context is None)
        return self


class TraceGroupConfig(_GroupConfig):
    """One group of ``trace_conditions``."""

    context: Annotated[Literal["resource", "scope", "span", "spanevent"], _lower_case] | None = None
    """The context of all conditions. Absent: inferred from their paths."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.TRACES)


class MetricGroupConfig(_GroupConfig):
    """One group of ``metric_conditions``."""

    context: Annotated[Literal["resource", "scope", "metric", "datapoint"], _lower_case] | None = None
    """The context of all conditions. Absent: inferred from their paths."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.METRICS)


class LogGroupConfig(_GroupConfig):
    """One group of ``log_conditions``."""

    context: Annotated[Literal["resource", "scope", "log"], _lower_case] | None = None
    """The context of all conditions. Absent: inferred from their paths."""

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        return self.check(self.context, Signal.LOGS)


def _entry_type(value: Any) -> str:
    return "condition" if isinstance(value, str) else "group"


_TraceCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.TRACES), Tag("condition")] | Annotated[TraceGroupConfig, Tag("group")],
    Discriminator(_entry_type),
]
_MetricCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.METRICS), Tag("condition")] | Annotated[MetricGroupConfig, Tag("group")],
    Discriminator(_entry_type),
]
_LogCondition: TypeAlias = Annotated[
    Annotated[str, _inferred(Signal.LOGS), Tag("condition")] | Annotated[LogGroupConfig, Tag("group")],
    Discriminator(_entry_type),
]


class TraceConditions(ComponentConfig):
    """Conditions for spans and span events, by context."""

    resource: tuple[_Resource, ...] = ()
    """A resource is dropped with all its spans if one of these conditions holds for it."""
    span: tuple[_Span, ...] = ()
    """A span is dropped if one of these conditions holds for it."""
    spanevent: tuple[_SpanEvent, ...] = ()
    """An event is removed from its span if one of these conditions holds for it."""


class SpanFilters(ComponentConfig):
    """Spans to include or exclude."""

    include: MatchConfig | None = None
    """Only spans that match are kept. Absent: all spans."""
    exclude: MatchConfig | None = None
    """Of the included spans, those that match are dropped."""


class LogFilters(ComponentConfig):
    """Log records to include or exclude, or conditions by context."""

    include: LogMatchConfig | None = None
    """Only records that match are kept. Absent: all records."""
    exclude: LogMatchConfig | None = None
    """Of the included records, those that match are dropped."""
    resource: tuple[_Resource, ...] = ()
    """A resource is dropped with all its records if one of these conditions holds for it."""
    log_record: tuple[_Record, ...] = ()
    """A record is dropped if one of these conditions holds for it."""


class MetricFilters(ComponentConfig):
    """Metrics to include or exclude, or conditions by context."""

    include: MetricMatchConfig | None = None
    """Only metrics that match are kept. Absent: all metrics."""
    exclude: MetricMatchConfig | None = None
    """Of the included metrics, those that match are dropped."""
    regexp: RegexpConfig | None = None
    """Accepted for compatibility with the Collector; has no effect."""
    resource: tuple[_Resource, ...] = ()
    """A resource is dropped with all its metrics if one of these conditions holds for it."""
    metric: tuple[_Metric, ...] = ()
    """A metric is dropped with all its points if one of these conditions holds for it."""
    datapoint: tuple[_Datapoint, ...] = ()
    """A point is dropped if one of these conditions holds for it."""


class ProfileConditions(ComponentConfig):
    """Accepted for compatibility with the Collector; has no effect, since profiles are not supported."""

    resource: tuple[str, ...] = ()
    """Conditions on resources."""
    profile: tuple[str, ...] = ()
    """Conditions on profiles."""


class FilterConfig(ComponentConfig):
    """Configuration of ``filter``: drops items that match."""

    error_mode: ErrorMode = "ignore"
    """If a condition cannot be evaluated for a row: ``ignore`` treats it as no match and logs it, ``silent`` does not
    log it, ``propagate`` drops the batch."""
    spans: SpanFilters = SpanFilters()
    """Spans to include or exclude."""
    traces: TraceConditions = TraceConditions()
    """Conditions for spans and span events, by context."""
    metrics: MetricFilters = MetricFilters()
    """Metrics to include or exclude, or conditions by context."""
    logs: LogFilters = LogFilters()
    """Log records to include or exclude, or conditions by context."""
    trace_conditions: tuple[_TraceCondition, ...] = ()
    """Conditions, or groups of them, for spans and span events. Paths start with their context."""
    metric_conditions: tuple[_MetricCondition, ...] = ()
    """Conditions, or groups of them, for metrics and data points. Paths start with their context."""
    log_conditions: tuple[_LogCondition, ...] = ()
    """Conditions, or groups of them, for log records. Paths start with their context."""
    profiles: ProfileConditions = ProfileConditions()
    """Accepted for compatibility with the Collector; has no effect, since profiles are not supported."""
    profile_conditions: tuple[Any, ...] = ()
    """Accepted for compatibility with the Collector; has no effect, since profiles are not supported."""

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.profiles.resource or self.profiles.profile:
            yield "profiles", _NO_PROFILES
        if self.profile_conditions:
            yield "profile_conditions", _NO_PROFILES

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        """Each signal is filtered in only one way, and a list has either conditions or groups."""
        for name, ways in self._ways().items():
            used = [way for way, keys in ways.items() if keys]
            if len(used) > 1:
                raise ValueError(f"{name}: use only one of {' and '.join(used)}")
        for name in ("trace_conditions", "metric_conditions", "log_conditions"):
            if len({_entry_type(entry) for entry in getattr(self, name)}) > 1:
                raise ValueError(f"{name}: the list must contain either conditions or groups, not both")
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
        """The conditions for one signal, in the order in which they are evaluated."""
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
        context: tuple(text for text, text_context in zip(texts, contexts, strict=True) if text_context == context)
        for context in get_args(Context)
        if context in contexts
    }
