"""The configuration under ``processors: gpu:``."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collector.gpu import GpuSourceConfig
from collector.otlp.semantics import SeverityLevel, SpanKind
from collector.text.patterns import compile_pattern
from config import ComponentConfig, Duration

__all__ = ["GpuLogsConfig", "GpuMatchConfig", "GpuProcessorConfig", "IntervalConfig"]


def _upper(value: Any) -> Any:
    return value.upper().removeprefix("SPAN_KIND_") if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _regex(value: str) -> str:
    compile_pattern(value)
    return value


def _key(value: str) -> str:
    if not value:
        raise ValueError("the key of an attribute must not be empty")
    return value


Regex = Annotated[str, AfterValidator(_regex)]
Key = Annotated[str, AfterValidator(_key)]


class GpuMatchConfig(ComponentConfig):
    """Which spans count as GPU work: those of one of ``kinds`` with one of the attributes or a matching name."""

    kinds: tuple[Annotated[SpanKind, BeforeValidator(_upper)], ...] = ("SERVER", "INTERNAL", "CONSUMER")
    """Span kinds that can be GPU work. CLIENT would count the work of the called service a second time."""
    any_attribute: tuple[Key, ...] = ("gen_ai.operation.name", "gen_ai.request.model", "hw.id")
    """Attributes of the span itself, one of which makes it GPU work."""
    names: tuple[Regex, ...] = ("(?i)(embed|encode|rerank|infer|predict|train)",)
    """Regular expressions for span names; a name that one of them matches makes the span GPU work."""

    @model_validator(mode="after")
    def _satisfiable(self) -> Self:
        if not self.kinds:
            raise ValueError("kinds is empty, so no span would ever count as GPU work")
        if not self.any_attribute and not self.names:
            raise ValueError("any_attribute and names are both empty, so no span would ever count as GPU work")
        return self


class IntervalConfig(ComponentConfig):
    """The part of a span in which the GPU can have worked for it."""

    queue: tuple[Key, ...] = ("gen_ai.latency.time_in_queue", "queue_time")
    """Numeric attributes with the seconds spent in a queue at the start of the span; the first one present applies."""


class GpuLogsConfig(ComponentConfig):
    """Which log records receive the state of the GPU."""

    min_severity: Annotated[SeverityLevel, BeforeValidator(_lower)] = "warn"
    """Lowest severity of the records that receive it."""


class GpuProcessorConfig(GpuSourceConfig):
    """Configuration of ``gpu``: adds GPU usage to spans and log records."""

    locality: Literal["detect", "all", "none"] = "detect"
    """Which items are local to this host: detect decides by their resource or sender, all means all of them, none only
    those with explicit GPU ids.
    """
    match: GpuMatchConfig = GpuMatchConfig()
    """Which spans count as GPU work."""
    ambiguous: Literal["skip", "host"] = "skip"
    """What to do if several GPUs are possible: skip the item, or use all GPUs of the host (host)."""
    interval: IntervalConfig = IntervalConfig()
    """The part of a span in which the GPU can have worked for it."""
    min_window: Duration = Field(default=0.1, ge=0, le=86400)
    """Shortest window for which energy is computed."""
    logs: GpuLogsConfig = GpuLogsConfig()
    """Which log records receive the state of the GPU."""
