"""Configuration of ``exceptions``. Source: opentelemetry-collector-contrib connector/exceptionsconnector config.go."""

from typing import Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig

__all__ = ["Dimension", "ExceptionsConfig"]

_BUILT_IN = frozenset({"service.name", "span.name", "span.kind", "status.code"})


class Dimension(ComponentConfig):
    """An attribute by which exceptions are told apart."""

    name: str = Field(min_length=1)
    """Key of an attribute of the span, of the exception's event, or of the resource."""
    default: str | None = None
    """The value for exceptions without the attribute. Absent: they have no such attribute."""


class ExemplarsConfig(ComponentConfig):
    """Exemplars of the metric."""

    enabled: bool = False
    """Whether points have the spans of the exceptions as exemplars."""


class ExceptionsConfig(ComponentConfig):
    """Configuration of ``exceptions``."""

    dimensions: tuple[Dimension, ...] = (Dimension(name="exception.type"), Dimension(name="exception.message"))
    """Further dimensions, in addition to service.name, span.name, span.kind and status.code."""
    exemplars: ExemplarsConfig = ExemplarsConfig()
    """Exemplars of the metric."""
    max_series: int = Field(default=10_000, ge=1)
    """Series of the metric that are kept (specific to Tailrace). Exceptions of further ones are counted together, in a
    series with the attribute otel.metric.overflow.
    """

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        seen = set(_BUILT_IN)
        for dimension in self.dimensions:
            if dimension.name in seen:
                raise ValueError(f"dimensions: {dimension.name!r} is there already; remove it")
            seen.add(dimension.name)
        return self
