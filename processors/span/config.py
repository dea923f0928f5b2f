"""Configuration of ``span``. Source: opentelemetry-collector-contrib processor/spanprocessor config.go, factory.go."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from collector.ottl.match import MatchConfig
from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig

__all__ = ["NameConfig", "SpanConfig", "StatusConfig", "ToAttributesConfig"]


class ToAttributesConfig(ComponentConfig):
    """Attributes from parts of the name."""

    rules: tuple[str, ...] = Field(min_length=1)
    """Regular expressions, applied in this order. The text of each named group (``(?P<key>...)``) becomes an attribute
    and is replaced by ``{key}`` in the name.
    """
    break_after_match: bool = False
    """Whether the rules after the first that matches are skipped."""
    keep_original_name: bool = False
    """Whether the name stays as it is."""

    @field_validator("rules")
    @classmethod
    def _compile(cls, rules: tuple[str, ...]) -> tuple[str, ...]:
        for rule in rules:
            compile_pattern(rule)
        return rules


class NameConfig(ComponentConfig):
    """How spans are renamed."""

    from_attributes: tuple[str, ...] = ()
    """Keys of attributes whose values, joined, become the name. A span that lacks one of them keeps its name."""
    separator: str = ""
    """What stands between the values."""
    to_attributes: ToAttributesConfig | None = None
    """Attributes from parts of the name, after ``from_attributes`` was applied."""


class StatusConfig(ComponentConfig):
    """The status to set."""

    code: Literal["Unset", "Ok", "Error"]
    """The code."""
    description: str = ""
    """The message, for the code Error only."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.description and self.code != "Error":
            raise ValueError("description can be specified only for the code Error")
        return self


class SpanConfig(ComponentConfig):
    """Configuration of ``span``."""

    name: NameConfig = NameConfig()
    """How spans are renamed."""
    status: StatusConfig | None = None
    """The status to set. Absent: the status stays."""
    include: MatchConfig | None = None
    """Only spans that match this are changed. Absent: all spans."""
    exclude: MatchConfig | None = None
    """Spans that match this are not changed. Absent: no spans are excluded."""

    @model_validator(mode="after")
    def _does_something(self) -> Self:
        if not self.name.from_attributes and self.name.to_attributes is None and self.status is None:
            raise ValueError("one of name::from_attributes, name::to_attributes and status is required")
        return self
