"""``include`` and ``exclude`` of processors: the spans, data points or log records they apply to.

All given properties must match; of a list of names, one must match. ``regexp`` patterns are not anchored. Text is
matched once per distinct value.

Source: opentelemetry-collector-contrib internal/filter (filterconfig, filtermatcher, filterspan, filterlog).
"""

import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal, Self, TypeAlias

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from collector.model import (
    ITEM,
    KIND_ARRAY,
    KIND_BOOL,
    KIND_BYTES,
    KIND_DOUBLE,
    KIND_EMPTY,
    KIND_INT,
    KIND_MAP,
    KIND_STRING,
    AttributeColumn,
    Batch,
    Signal,
    StringColumn,
)
from collector.model.arrays import Mask
from collector.otlp.semantics import SPAN_KINDS
from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig

__all__ = ["MatchConfig", "MatchType", "Matcher", "no_expr"]

_Rule = Callable[[Batch], Mask]

_NO_SERVICE: Final = "<nil-service-name>"
_SPANS_ONLY: Final = ("services", "span_names", "span_kinds")
_LOGS_ONLY: Final = ("log_bodies", "log_severity_texts", "log_severity_number")
_ALLOWED: Final = {
    Signal.TRACES: (*_SPANS_ONLY, "attributes", "resources", "libraries"),
    Signal.LOGS: (*_LOGS_ONLY, "attributes", "resources", "libraries"),
    Signal.METRICS: ("metric_names", "attributes", "resources", "libraries"),
}


MatchType: TypeAlias = Literal["", "strict", "regexp"]


def no_expr(advice: str) -> BeforeValidator:
    """Refuses ``match_type: expr``, another language for conditions; ``advice`` says what to do instead."""

    def check(value: object) -> object:
        if value == "expr":
            raise ValueError(f"expr is not supported; {advice}")
        return value

    return BeforeValidator(check)


class AttributeMatch(ComponentConfig):
    """An attribute that must be present, with this value if one is given."""

    key: str = Field(min_length=1)
    """The key of the attribute."""
    value: Any = None
    """The value to compare with. Absent: any value matches."""


class LibraryMatch(ComponentConfig):
    """An instrumentation scope."""

    name: str
    """The name of the scope."""
    version: str | None = None
    """The version of the scope. Absent: any version matches."""


class SeverityMatch(ComponentConfig):
    """A range of severity numbers: 1 trace … 9 info, 13 warn, 17 error, 21 fatal."""

    min: int = Field(default=0, ge=0, le=24)
    """The lowest severity number that matches."""
    match_undefined: bool = False
    """Whether records without a severity number match."""


class RegexpConfig(ComponentConfig):
    """Accepted for compatibility with the Collector; has no effect, since text is matched once per distinct value."""

    cacheenabled: bool = False
    """Accepted for compatibility with the Collector; has no effect."""
    cachemaxnumentries: int = Field(default=0, ge=0)
    """Accepted for compatibility with the Collector; has no effect."""


class MatchConfig(ComponentConfig):
    """Properties that items must have. A list of texts matches if one of them does; all given properties must match."""

    match_type: Annotated[MatchType, no_expr("use strict or regexp")] = ""
    """Whether texts are compared as they are (strict) or are regular expressions (regexp). Required, unless only a
    severity number or the presence of attributes is matched.
    """
    regexp: RegexpConfig | None = None
    """Accepted for compatibility with the Collector; has no effect."""
    services: tuple[str, ...] = ()
    """For traces: values of the resource attribute ``service.name``."""
    span_names: tuple[str, ...] = ()
    """For traces: names of spans."""
    span_kinds: tuple[str, ...] = ()
    """For traces: kinds of spans, such as ``SPAN_KIND_SERVER``."""
    log_bodies: tuple[str, ...] = ()
    """For logs: bodies that are text."""
    log_severity_texts: tuple[str, ...] = ()
    """For logs: severity texts."""
    log_severity_number: SeverityMatch | None = None
    """For logs: a range of severity numbers."""
    metric_names: tuple[str, ...] = ()
    """For metrics: names of metrics."""
    attributes: tuple[AttributeMatch, ...] = ()
    """Attributes of the item; all of them must match."""
    resources: tuple[AttributeMatch, ...] = ()
    """Attributes of the resource; all of them must match."""
    libraries: tuple[LibraryMatch, ...] = ()
    """Instrumentation scopes; all of them must match."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.given():
            raise ValueError(
                "nothing to match is configured; set at least one property, for example 'attributes' or 'services'"
            )
        if not self.match_type and (compared := self._compared()):
            raise ValueError(f"match_type is required with {compared}; set it to strict or regexp")
        if self.match_type == "regexp":
            for name in ("services", "span_names", "span_kinds", "log_bodies", "log_severity_texts", "metric_names"):
                for pattern in getattr(self, name):
                    compile_pattern(pattern)
            for match in (*self.attributes, *self.resources):
                if match.value is not None:
                    if not isinstance(match.value, str):
                        raise ValueError(
                            f"the value of {match.key!r} must be a string with match_type: regexp, got {match.value!r}"
                        )
                    compile_pattern(match.value)
            for library in self.libraries:
                compile_pattern(library.name)
                compile_pattern(library.version or "")
        else:
            allowed = {f"SPAN_KIND_{kind}" for kind in SPAN_KINDS[1:]}
            for kind in self.span_kinds:
                if kind not in allowed:
                    raise ValueError(
                        f"span_kinds: {kind!r} is not a valid span kind; expected one of {', '.join(sorted(allowed))}"
                    )
        return self

    def _compared(self) -> str:
        """The first given property whose texts are compared as ``match_type`` says; empty if there is none."""
        for name in self.given():
            matches = getattr(self, name)
            if name in {"attributes", "resources"}:
                if any(match.value is not None for match in matches):
                    return name
            elif name != "log_severity_number":
                return name
        return ""

    def given(self) -> list[str]:
        """The names of the given properties."""
        return [
            name for name in type(self).model_fields if name not in {"match_type", "regexp"} and getattr(self, name)
        ]


class Matcher:
    """``include`` and ``exclude`` of one processor for one signal.

    Raises:
        ValueError: a property does not exist for this signal.
    """

    def __init__(self, include: MatchConfig | None, exclude: MatchConfig | None, signal: Signal) -> None:
        self._include = _rules(include, signal, "include")
        self._exclude = _rules(exclude, signal, "exclude")

    def rows(self, batch: Batch) -> Mask | None:
        """bool[n]: the items that the processor applies to; None means all of them."""
        mask: Mask | None = None
        for rule in self._include:
            mask = rule(batch) if mask is None else mask & rule(batch)
        if self._exclude:
            excluded = self._exclude[0](batch)
            for rule in self._exclude[1:]:
                excluded = excluded & rule(batch)
            mask = ~excluded if mask is None else mask & ~excluded
        return mask


def _rules(config: MatchConfig | None, signal: Signal, section: str) -> list[_Rule]:
    if config is None:
        return []
    for name in config.given():
        if name not in _ALLOWED[signal]:
            raise ValueError(f"{section}: {name} cannot be used for {signal}; expected {', '.join(_ALLOWED[signal])}")
    text = _text_test(config.match_type)
    rules: list[_Rule] = []
    if config.services:
        services = text(config.services)
        rules.append(
            lambda batch: services(batch.attribute("service.name", "resources").as_text().fill(_NO_SERVICE))[
                batch.ancestor("resources")
            ]
        )
    if config.span_names:
        rules.append(_item_text("name", text(config.span_names)))
    if config.span_kinds:
        kinds = _kinds(text(config.span_kinds))
        rules.append(lambda batch: kinds[np.clip(batch.field("kind"), 0, len(SPAN_KINDS))])
    if config.metric_names:
        names = text(config.metric_names)
        rules.append(lambda batch: names(batch.field("name", "metrics").fill(""))[batch.ancestor("metrics")])
    if config.log_bodies:
        bodies = text(config.log_bodies)
        rules.append(lambda batch: bodies(batch.field("body").as_text().fill("")))
    if config.log_severity_texts:
        rules.append(_item_text("severity_text", text(config.log_severity_texts)))
    if config.log_severity_number is not None:
        rules.append(_severity(config.log_severity_number))
    rules += [_attribute(match, config.match_type, ITEM) for match in config.attributes]
    rules += [_attribute(match, config.match_type, "resources") for match in config.resources]
    rules += [_library(match, text) for match in config.libraries]
    return rules


def _text_test(match_type: str) -> Callable[[Sequence[str]], Callable[[StringColumn], Mask]]:
    """A function that turns a list of names or patterns into a test of a column."""

    def strict(wanted: Sequence[str]) -> Callable[[StringColumn], Mask]:
        return lambda column: column.isin(wanted)

    def regexp(wanted: Sequence[str]) -> Callable[[StringColumn], Mask]:
        patterns = [compile_pattern(pattern) for pattern in wanted]
        return lambda column: column.where(lambda value: any(pattern.search(value) for pattern in patterns))

    return regexp if match_type == "regexp" else strict


def _item_text(field: Any, test: Callable[[StringColumn], Mask]) -> _Rule:
    return lambda batch: test(batch.field(field).fill(""))


def _kinds(test: Callable[[StringColumn], Mask]) -> Mask:
    """bool[kinds + 1]: which span kinds match; the last element is for unknown numbers."""
    return test(StringColumn.of([*(f"SPAN_KIND_{kind}" for kind in SPAN_KINDS), ""]))


def _severity(config: SeverityMatch) -> _Rule:
    def matches(batch: Batch) -> Mask:
        number = batch.field("severity_number")
        found: Mask = np.where(number == 0, config.match_undefined, number >= config.min)
        return found

    return matches


def _attribute(config: AttributeMatch, match_type: str, table: str) -> _Rule:
    test = _value_test(config, match_type)
    if table == ITEM:
        return lambda batch: test(batch.attribute(config.key))
    return lambda batch: test(batch.attribute(config.key, table))[batch.ancestor(table)]


def _value_test(config: AttributeMatch, match_type: str) -> Callable[[AttributeColumn], Mask]:
    value = config.value
    if value is None:
        return lambda column: column.present
    if match_type == "regexp":
        pattern = compile_pattern(value)
        scalars = (KIND_STRING, KIND_BOOL, KIND_DOUBLE, KIND_INT)
        return lambda column: (
            np.isin(column.kind, scalars) & column.as_text().where(lambda text: pattern.search(text) is not None)
        )
    if isinstance(value, str):
        return lambda column: column.text.equals(value)
    if isinstance(value, bool):
        return lambda column: (column.kind == KIND_BOOL) & (column.bool == value)
    if isinstance(value, int):
        return lambda column: (column.kind == KIND_INT) & (column.int == value)
    if isinstance(value, float):
        return lambda column: (column.kind == KIND_DOUBLE) & (column.double == value)
    wanted = json.loads(AttributeColumn.of([value]).as_text().distinct[0])
    kind = int(AttributeColumn.of([value]).kind[0])
    assert kind in {KIND_ARRAY, KIND_MAP, KIND_BYTES, KIND_EMPTY}
    return lambda column: (column.kind == kind) & column.as_text().where(lambda text: _json(text) == wanted)


def _json(text: str) -> Any:
    """The value of a JSON text; None for other texts in the same column."""
    try:
        return json.loads(text)
    except ValueError:
        return None


def _library(config: LibraryMatch, text: Callable[[Sequence[str]], Callable[[StringColumn], Mask]]) -> _Rule:
    name = text([config.name])
    version = None if config.version is None else text([config.version])

    def matches(batch: Batch) -> Mask:
        found = name(batch.field("name", "scopes").fill(""))
        if version is not None:
            found = found & version(batch.field("version", "scopes").fill(""))
        return found[batch.ancestor("scopes")]

    return matches
