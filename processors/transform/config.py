"""Configuration of ``transform``.

Source: opentelemetry-collector-contrib processor/transformprocessor/config.go (v0.156).
"""

from typing import Annotated, Any, Final, Self, TypeAlias

from pydantic import Discriminator, Tag, field_validator, model_validator

from collector.model import Signal
from collector.ottl import Context, ErrorMode
from collector.ottl.statements import StatementGroup, compile_group
from config.blocks import ComponentConfig

__all__ = ["GroupConfig", "TransformConfig"]

_KEYS: Final = {
    Signal.TRACES: "trace_statements",
    Signal.METRICS: "metric_statements",
    Signal.LOGS: "log_statements",
}


class GroupConfig(ComponentConfig):
    """Statements of one context, with conditions that apply to all of them."""

    context: Context | None = None
    """The context: ``resource``, ``scope``, ``span``, ``spanevent``, ``metric``, ``datapoint`` or ``log``. Absent: it
    is inferred from the paths, which must then all start with their context.
    """
    conditions: tuple[str, ...] = ()
    """The statements apply to rows for which one of these conditions holds. Absent: to all rows."""
    statements: tuple[str, ...] = ()
    """The statements, in the order in which they are applied."""
    error_mode: ErrorMode | None = None
    """Overrides the processor's ``error_mode``."""

    @field_validator("context", mode="before")
    @classmethod
    def _any_case(cls, value: Any) -> Any:
        return value.lower() or None if isinstance(value, str) else value

    def compiled(self, signal: Signal, error_mode: ErrorMode, *, order_matters: bool) -> StatementGroup:
        """The compiled statements. ``order_matters``: a later group needs the order of attributes.

        Raises:
            OttlError: one of them is not valid.
        """
        return compile_group(
            self.statements,
            signal,
            context=self.context,
            conditions=self.conditions,
            error_mode=self.error_mode or error_mode,
            order_matters=order_matters,
        )


def _entry_type(value: Any) -> str:
    return "statement" if isinstance(value, str) else "group"


_Entry: TypeAlias = Annotated[
    Annotated[str, Tag("statement")] | Annotated[GroupConfig, Tag("group")], Discriminator(_entry_type)
]


class TransformConfig(ComponentConfig):
    """Configuration of ``transform``: changes telemetry by statements."""

    error_mode: ErrorMode = "ignore"
    """If a statement cannot be evaluated for a row: ``ignore`` leaves the row to the next statement and logs it,
    ``silent`` does not log it, ``propagate`` drops the batch.
    """
    trace_statements: tuple[_Entry, ...] = ()
    """Statements, or groups of them, for traces."""
    metric_statements: tuple[_Entry, ...] = ()
    """Statements, or groups of them, for metrics."""
    log_statements: tuple[_Entry, ...] = ()
    """Statements, or groups of them, for logs."""

    @model_validator(mode="before")
    @classmethod
    def _not_supported(cls, value: Any) -> Any:
        """Refuse what is not supported; empty keys are ignored."""
        if not isinstance(value, dict):
            return value
        kept = dict(value)
        if kept.pop("profile_statements", None):
            raise ValueError("profile_statements: profiles are not supported")
        if kept.pop("flatten_data", None):
            raise ValueError("flatten_data is not supported; the Collector has it behind a feature gate only")
        return kept

    @model_validator(mode="after")
    def _compiles(self) -> Self:
        for signal, name in _KEYS.items():
            entries = getattr(self, name)
            if len({_entry_type(entry) for entry in entries}) > 1:
                raise ValueError(f"{name}: the list must contain either statements or groups, not both")
            try:
                self.groups(signal)
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from None
        return self

    def groups(self, signal: Signal) -> list[StatementGroup]:
        """The compiled statements for one signal."""
        statements = {
            Signal.TRACES: self.trace_statements,
            Signal.METRICS: self.metric_statements,
            Signal.LOGS: self.log_statements,
        }
        entries: tuple[Any, ...] = statements[signal]
        texts = tuple(entry for entry in entries if isinstance(entry, str))
        groups = [GroupConfig(statements=texts)] if texts else list(entries)
        compiled: list[StatementGroup] = []
        order_matters = False
        for group in reversed(groups):
            compiled.append(group.compiled(signal, self.error_mode, order_matters=order_matters))
            order_matters |= compiled[-1].needs_order
        return compiled[::-1]
