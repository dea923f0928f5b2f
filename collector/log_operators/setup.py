"""What receivers need to offer operators: the block of their configuration, and the report of failures."""

from collections.abc import Sequence
from typing import Any, Protocol, Self

from pydantic import Field, TypeAdapter, model_validator

from collector.api import Settings
from collector.log_operators.config import AnyOperatorConfig, TemplateText
from collector.log_operators.pipeline import Pipeline
from config import ComponentConfig

__all__ = ["OperatorReport", "OperatorsConfig", "operator_configs"]

_ADAPTER: TypeAdapter[tuple[AnyOperatorConfig, ...]] = TypeAdapter(tuple[AnyOperatorConfig, ...])


def operator_configs(operators: Sequence[Any]) -> tuple[AnyOperatorConfig, ...]:
    """The configurations of operators that are written as mappings, as in YAML. For tests and tools.

    Raises:
        ValueError: One is not valid; the message names the operator and the key.
    """
    return _ADAPTER.validate_python(operators)


class OperatorsConfig(ComponentConfig):
    """The keys of every receiver with operators."""

    operators: tuple[AnyOperatorConfig, ...] = ()
    """The operators that each entry passes through."""
    attributes: dict[str, TemplateText] = Field(default_factory=dict)
    """Attributes to set on each entry; there may be expressions in them: ``EXPR(env("HOST"))``."""
    resource: dict[str, TemplateText] = Field(default_factory=dict)
    """Attributes of the resource to set on each entry; there may be expressions in them."""

    @model_validator(mode="after")
    def _operators_are_connected(self) -> Self:
        Pipeline(self.operators, report=_Silent())
        return self


class _Silent:
    def failed(self, operator: str, reason: str, count: int, *, is_logged: bool) -> None:
        pass

    def dropped(self, reason: str, count: int) -> None:
        pass


class LimitedLog(Protocol):
    """A log that an outage cannot flood, such as ``collector.delivery.log.RateLimitedLog``."""

    def first_errors(self, sentence: str, **values: Any) -> None:
        """Log at level error, but only the first few lines with the sentence."""
        ...


class OperatorReport:
    """Counts what operators could not process and what they dropped, and logs the first few failures.

    The metrics are ``tailrace_log_operator_failures{reason}`` and ``tailrace_log_operator_dropped{reason}``.
    """

    def __init__(self, settings: Settings, log: LimitedLog) -> None:
        self._log = log
        telemetry = settings.telemetry
        self._failures = telemetry.counter(
            "tailrace_log_operator_failures", "Log entries that an operator could not process, by reason", ("reason",)
        )
        self._dropped = telemetry.counter(
            "tailrace_log_operator_dropped", "Log entries that operators dropped, by reason", ("reason",)
        )

    def failed(self, operator: str, reason: str, count: int, *, is_logged: bool) -> None:
        """See ``Report``."""
        self._failures.add(count, reason=reason)
        if is_logged:
            self._log.first_errors(
                "an operator could not process log entries", operator=operator, reason=reason, entries=count
            )

    def dropped(self, reason: str, count: int) -> None:
        """See ``Report``."""
        self._dropped.add(count, reason=reason)
