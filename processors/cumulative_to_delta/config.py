"""Configuration of ``cumulative_to_delta``: the Collector's keys.

Source: opentelemetry-collector-contrib processor/cumulativetodeltaprocessor config.go.
"""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig, Duration

__all__ = ["CumulativeToDeltaConfig", "MetricsMatch"]


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


class MetricsMatch(ComponentConfig):
    """Metrics, by name and type; both must match if both are given."""

    match_type: Literal["", "strict", "regexp"] = ""
    """Whether ``metrics`` are names (strict) or regular expressions (regexp). Required with ``metrics``."""
    metrics: tuple[str, ...] = ()
    """Names or regular expressions, one of which must match. Empty: any name."""
    metric_types: tuple[
        Annotated[Literal["sum", "histogram", "exponentialhistogram"], BeforeValidator(_lower)], ...
    ] = ()
    """Types, one of which must match. Empty: any type."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.metrics and not self.match_type:
            raise ValueError("match_type must be set if metrics are given; write strict or regexp")
        if self.match_type and not self.metrics:
            raise ValueError("metrics must be given if match_type is set")
        if self.match_type == "regexp":
            for pattern in self.metrics:
                compile_pattern(pattern)
        return self


class CumulativeToDeltaConfig(ComponentConfig):
    """Configuration of ``cumulative_to_delta``."""

    include: MetricsMatch = MetricsMatch()
    """The metrics to convert. Empty: all."""
    exclude: MetricsMatch = MetricsMatch()
    """Of those, the metrics that are not converted."""
    max_staleness: Duration = Field(default=3600.0, ge=0)
    """A stream without a point for this long is forgotten. 0: never."""
    initial_value: Literal["auto", "keep", "drop"] = "auto"
    """What becomes of the first point of a stream. ``keep``: its value is passed on as the delta; ``drop``: it is
    dropped; ``auto``: it is kept if it began after the start of the service.
    """
    max_streams: int = Field(default=500_000, ge=1)
    """Streams that are remembered (specific to Tailrace). Points of further ones are dropped."""
    storage: str = ""
    """The id of a storage extension in which the streams are saved at shutdown (specific to Tailrace). Empty: none."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)
