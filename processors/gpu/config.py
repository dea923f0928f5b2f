"""What the user writes under ``processors: gpu:``."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from collector.helpers.gpu import GpuSourceConfig
from config import ComponentConfig, Duration

__all__ = ["GpuProcessorConfig", "IntervalConfig", "LogsConfig", "MatchConfig"]


def _upper(value: Any) -> Any:
    return value.upper().removeprefix("SPAN_KIND_") if isinstance(value, str) else value


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except re.error as exc:
        raise ValueError(f"{value!r} is no regular expression: {exc}") from exc
    return value


SpanKind = Annotated[Literal["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"], BeforeValidator(_upper)]
Severity = Annotated[Literal["trace", "debug", "info", "warn", "error", "fatal"], BeforeValidator(_lower)]
Regex = Annotated[str, AfterValidator(_regex)]


class MatchConfig(ComponentConfig):
    """Which spans are GPU work: of one of ``kinds`` and (with any of the attributes or a name that one pattern finds)."""

    kinds: tuple[SpanKind, ...] = ("SERVER", "INTERNAL", "CONSUMER")
    any_attribute: tuple[str, ...] = ("gen_ai.operation.name", "gen_ai.request.model", "hw.id")
    names: tuple[Regex, ...] = ("(?i)(embed|encode|rerank|infer|predict|train)",)


class IntervalConfig(ComponentConfig):
    """Which part of a span the GPU can have worked for."""

    queue: tuple[str, ...] = ("gen_ai.latency.time_in_queue", "queue_time")
    """Numeric attributes, seconds waited at the start; the first that is there counts."""


class LogsConfig(ComponentConfig):
    """Which log records get the GPU's state."""

    min_severity: Severity = "warn"


class GpuProcessorConfig(GpuSourceConfig):
    """See README.md."""

    locality: Literal["detect", "all", "none"] = "detect"
    match: MatchConfig = MatchConfig()
    ambiguous: Literal["skip", "host"] = "skip"
    interval: IntervalConfig = IntervalConfig()
    min_window: Duration = Field(default=0.1, ge=0)
    logs: LogsConfig = LogsConfig()
