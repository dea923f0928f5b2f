"""What the user writes for ``tail_sampling``: the Collector's keys and defaults. One policy's: ``policy_config``.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``config.go``.
"""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from config.blocks import ComponentConfig, Duration
from processors.tail_sampling.policy_config import NOT_EMPTY, PolicyConfig, repeated, stateful

__all__ = ["DecisionCacheConfig", "TailSamplingConfig"]

_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1


class DecisionCacheConfig(ComponentConfig):
    """``decision_cache``: decisions remembered beyond the traces in memory."""

    sampled_cache_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Sampled trace ids; 0: none."""
    non_sampled_cache_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Trace ids not sampled or dropped; 0: none."""


class TailSamplingConfig(ComponentConfig):
    """Whole traces, by policies."""

    decision_wait: Duration = Field(default=30.0, ge=0)
    """From a trace's first span to its decision."""
    decision_wait_after_root_received: Duration = Field(default=0.0, ge=0)
    """From a root span's arrival to the decision, where that is sooner; 0: off."""
    num_traces: int = Field(default=50_000, ge=1, le=_INT32_MAX)
    """Traces in memory, decided ones whose decision is remembered there included."""
    block_on_overflow: bool = False
    """At ``num_traces``: wait for room instead of evicting the oldest trace."""
    expected_new_traces_per_sec: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Sizes the tables at the start."""
    policies: Annotated[tuple[PolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    decision_cache: DecisionCacheConfig = DecisionCacheConfig()
    tail_storage: str = ""
    """Refused, as by the Collector without its feature gate."""
    sample_on_first_match: bool = False
    """Ask no further policy once one has sampled the trace."""
    sampling_strategy: Literal["trace-complete", "span-ingest"] = "trace-complete"
    """``span-ingest``: every batch is judged for itself as it comes in; traces undecided at ``decision_wait`` are not sampled."""
    drop_pending_traces_on_shutdown: bool = False
    """Drop what is undecided at shutdown instead of deciding it."""
    maximum_trace_size_bytes: int = Field(default=0, ge=0, le=_INT64_MAX)
    """A trace that grows beyond it is not sampled, at once; 0: no limit."""

    @field_validator("tail_storage")
    @classmethod
    def _no_storage(cls, value: str) -> str:
        if value:
            raise ValueError("traces are kept in memory; remove the key (the Collector has it behind a feature gate)")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if twice := repeated(policy.name for policy in self.policies):
            raise ValueError(f"policies: duplicate policy name {twice!r}")
        if self.sampling_strategy == "span-ingest":
            for policy in self.policies:
                if reason := stateful(policy):
                    raise ValueError(
                        f"sampling_strategy: span-ingest takes no stateful policy such as {policy.name!r}: {reason}"
                    )
        return self
