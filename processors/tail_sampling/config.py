"""Configuration of ``tail_sampling``: the Collector's keys and defaults. ``policy_config`` has those of one policy.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``config.go``.
"""

from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration
from processors.tail_sampling.policy_config import NOT_EMPTY, PolicyConfig, first_duplicate, why_stateful

__all__ = ["DecisionCacheConfig", "TailSamplingConfig"]

_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1


class DecisionCacheConfig(ComponentConfig):
    """How many decisions are remembered for late spans."""

    sampled_cache_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Number of sampled trace ids to remember. 0: ``num_traces``."""
    non_sampled_cache_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Number of trace ids to remember that were not sampled or were dropped. 0: ``num_traces``, or none with
    ``span-ingest``.
    """


class TailSamplingConfig(ComponentConfig):
    """Configuration of ``tail_sampling``: samples whole traces by policies."""

    decision_wait: Duration = Field(default=30.0, ge=0)
    """Time from the first span of a trace to its decision."""
    decision_wait_after_root_received: Duration = Field(default=0.0, ge=0)
    """Time from the arrival of the root span to the decision, if that is sooner. 0: disabled."""
    num_traces: int = Field(default=50_000, ge=1, le=_INT32_MAX)
    """Limit on the number of undecided traces."""
    block_on_overflow: bool = False
    """Whether to wait for a decision when ``num_traces`` is reached, instead of evicting the oldest trace."""
    expected_new_traces_per_sec: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Accepted for compatibility with the Collector; has no effect, since tables grow as needed."""
    policies: Annotated[tuple[PolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    """The policies that decide on each trace."""
    decision_cache: DecisionCacheConfig = DecisionCacheConfig()
    """How many decisions are remembered for late spans."""
    storage: str = Field(default="", alias="tail_storage")
    """The id of a storage extension in which held traces and decisions survive a restart. Empty: none. The Collector
    has this key behind a feature gate.
    """
    checkpoint_interval: Duration = Field(default=30.0, ge=1.0)
    """How often decisions are saved, with ``tail_storage`` (specific to Tailrace)."""
    sample_on_first_match: bool = False
    """Whether to skip all further policies once one has sampled the trace."""
    sampling_strategy: Literal["trace-complete", "span-ingest"] = "trace-complete"
    """``span-ingest``: each batch is evaluated on arrival; traces still undecided after ``decision_wait`` are not
    sampled.
    """
    drop_pending_traces_on_shutdown: bool = False
    """Whether to drop undecided traces at shutdown instead of deciding them."""
    maximum_trace_size_bytes: int = Field(default=0, ge=0, le=_INT64_MAX)
    """A trace that grows beyond this size is dropped at once. 0: no limit."""

    extension_keys: ClassVar[tuple[str, ...]] = ("tail_storage", "storage")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if duplicate := first_duplicate(policy.name for policy in self.policies):
            raise ValueError(f"policies: duplicate policy name {duplicate!r}")
        if self.sampling_strategy == "span-ingest":
            for policy in self.policies:
                if reason := why_stateful(policy):
                    raise ValueError(
                        f"sampling_strategy: span-ingest cannot be used with a stateful policy "
                        f"such as {policy.name!r}: {reason}"
                    )
        return self
