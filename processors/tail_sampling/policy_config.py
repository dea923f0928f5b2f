"""Configuration of one policy of ``tail_sampling``: the Collector's keys and defaults.

Unlike the Collector, it refuses what can only be a mistake: a policy without its settings, an empty list, a range that
no value is in.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``config.go`` and README.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from collector.ottl import compile_conditions
from collector.text.patterns import compile_pattern
from config.blocks import ComponentConfig

__all__ = [
    "NOT_EMPTY",
    "AndConfig",
    "AndSubPolicyConfig",
    "BooleanAttributeConfig",
    "BytesLimitingConfig",
    "CompositeConfig",
    "CompositeSubPolicyConfig",
    "DropConfig",
    "LatencyConfig",
    "NotConfig",
    "NumericAttributeConfig",
    "OTTLConditionConfig",
    "PolicyConfig",
    "ProbabilisticConfig",
    "RateAllocationConfig",
    "RateLimitingConfig",
    "SharedPolicyConfig",
    "SpanCountConfig",
    "StatusCodeConfig",
    "StringAttributeConfig",
    "TraceStateConfig",
    "first_duplicate",
    "why_stateful",
]

_INT32_MAX: Final = 2**31 - 1
_INT64_MAX: Final = 2**63 - 1
_SHARED_TYPES: Final = (
    "always_sample",
    "latency",
    "numeric_attribute",
    "probabilistic",
    "status_code",
    "string_attribute",
    "trace_state",
    "trace_flags",
    "rate_limiting",
    "bytes_limiting",
    "span_count",
    "boolean_attribute",
    "ottl_condition",
)
_WITHOUT_SETTINGS: Final = ("always_sample", "trace_flags")


def _not_empty(value: Any) -> Any:
    if isinstance(value, list | tuple) and not value:
        raise ValueError("expected at least one entry, got an empty list")
    return value


# Not min_length, which does not count invalid entries.
NOT_EMPTY: Final = BeforeValidator(_not_empty)


class LatencyConfig(ComponentConfig):
    """Settings of the policy ``latency``."""

    threshold_ms: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Shortest duration that is sampled, in ms. With an upper bound, durations must exceed it."""
    upper_threshold_ms: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Longest duration that is sampled, in ms. 0: no upper bound."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.upper_threshold_ms and self.upper_threshold_ms <= self.threshold_ms:
            raise ValueError(
                f"upper_threshold_ms {self.upper_threshold_ms} must be above threshold_ms {self.threshold_ms}; "
                "nothing would match"
            )
        return self


class NumericAttributeConfig(ComponentConfig):
    """Settings of the policy ``numeric_attribute``."""

    key: str = Field(min_length=1)
    """Key of an integer attribute of a span or its resource."""
    min_value: int = Field(default=0, ge=-(2**63), le=_INT64_MAX)
    """Lowest value that matches. 0: no lower bound."""
    max_value: int = Field(default=0, ge=-(2**63), le=_INT64_MAX)
    """Highest value that matches. 0: no upper bound."""
    invert_match: bool = False
    """Whether to sample the traces that do not match."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.min_value and not self.max_value:
            raise ValueError("expected min_value, max_value or both, other than 0; 0 means no bound")
        if self.min_value and self.max_value and self.min_value > self.max_value:
            raise ValueError(f"min_value {self.min_value} is above max_value {self.max_value}; nothing would match")
        return self


class ProbabilisticConfig(ComponentConfig):
    """Settings of the policy ``probabilistic``."""

    hash_salt: str = ""
    """Salt of the hash of the trace id. Empty: the Collector's ``default-hash-seed``."""
    sampling_percentage: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """Percentage of the traces to sample, from 0 to 100; values above 100 count as 100."""


class StatusCodeConfig(ComponentConfig):
    """Settings of the policy ``status_code``."""

    status_codes: Annotated[tuple[Literal["OK", "ERROR", "UNSET"], ...], NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1}
    )
    """Status codes, one of which any span must have."""


class StringAttributeConfig(ComponentConfig):
    """Settings of the policy ``string_attribute``."""

    key: str = Field(min_length=1)
    """Key of a text attribute of a span or its resource."""
    values: Annotated[tuple[str, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    """Values, or regular expressions, one of which must match."""
    enabled_regex_matching: bool = False
    """Whether ``values`` are regular expressions. They match anywhere in the text unless they have ``^`` and ``$``."""
    cache_max_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Number of values whose match against the regular expressions is cached. 0: 128."""
    invert_match: bool = False
    """Whether to sample the traces that do not match."""

    @model_validator(mode="after")
    def _valid(self) -> Self:
        if self.enabled_regex_matching:
            for value in self.values:
                try:
                    compile_pattern(value)
                except ValueError as exc:
                    raise ValueError(f"values: {exc}") from exc
        return self


class TraceStateConfig(ComponentConfig):
    """Settings of the policy ``trace_state``."""

    key: str = Field(min_length=1)
    """Key of an entry of the W3C trace state."""
    values: Annotated[tuple[str, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    """Values, one of which the entry must have."""


class RateLimitingConfig(ComponentConfig):
    """Settings of the policy ``rate_limiting``."""

    spans_per_second: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Spans that may be sampled per second."""
    burst_capacity: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Size of the token bucket; a trace of more spans never passes. 0: twice ``spans_per_second``."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.spans_per_second and not self.burst_capacity:
            raise ValueError("expected spans_per_second above 0; without it nothing passes")
        return self


class BytesLimitingConfig(ComponentConfig):
    """Settings of the policy ``bytes_limiting``."""

    bytes_per_second: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Bytes that may be sampled per second."""
    burst_capacity: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Size of the token bucket; a larger trace never passes. 0: twice ``bytes_per_second``."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.bytes_per_second and not self.burst_capacity:
            raise ValueError("expected bytes_per_second above 0; without it nothing passes")
        return self


class SpanCountConfig(ComponentConfig):
    """Settings of the policy ``span_count``."""

    min_spans: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Smallest number of spans that matches."""
    max_spans: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Largest number of spans that matches. 0: no upper bound."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_spans and self.max_spans < self.min_spans:
            raise ValueError(f"max_spans {self.max_spans} is below min_spans {self.min_spans}; nothing would match")
        return self


class BooleanAttributeConfig(ComponentConfig):
    """Settings of the policy ``boolean_attribute``."""

    key: str = Field(min_length=1)
    """Key of a boolean attribute of a span or its resource."""
    value: bool = False
    """Value that matches."""
    invert_match: bool = False
    """Whether to sample the traces that do not match."""


class OTTLConditionConfig(ComponentConfig):
    """Settings of the policy ``ottl_condition``: one of the conditions must hold for any span or span event."""

    error_mode: Literal["ignore", "silent", "propagate"] = "silent"
    """What happens if a condition fails: ``propagate`` fails the policy for the trace, ``ignore`` only logs it,
    ``silent`` does neither.
    """
    span: tuple[str, ...] = ()
    """Conditions on spans."""
    spanevent: tuple[str, ...] = ()
    """Conditions on span events."""

    @field_validator("error_mode", mode="before")
    @classmethod
    def _lower(cls, value: Any) -> Any:
        return value.lower() if isinstance(value, str) else value

    @field_validator("span")
    @classmethod
    def _span_conditions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            compile_conditions(value, "span")
        return value

    @field_validator("spanevent")
    @classmethod
    def _event_conditions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value:
            compile_conditions(value, "spanevent")
        return value

    @model_validator(mode="after")
    def _some(self) -> Self:
        if not self.span and not self.spanevent:
            raise ValueError("expected at least one condition in span or spanevent")
        return self


class SharedPolicyConfig(ComponentConfig):
    """A policy of a type that is also allowed inside ``and``, ``not``, ``drop`` and ``composite``."""

    name: str = ""
    """Name of the policy, used as the label ``policy`` of the metrics. Required and unique at the top level."""
    type: str
    """Type of the policy; its settings are under the key of the same name."""
    latency: LatencyConfig | None = None
    """Settings of the type ``latency``."""
    numeric_attribute: NumericAttributeConfig | None = None
    """Settings of the type ``numeric_attribute``."""
    probabilistic: ProbabilisticConfig | None = None
    """Settings of the type ``probabilistic``."""
    status_code: StatusCodeConfig | None = None
    """Settings of the type ``status_code``."""
    string_attribute: StringAttributeConfig | None = None
    """Settings of the type ``string_attribute``."""
    rate_limiting: RateLimitingConfig | None = None
    """Settings of the type ``rate_limiting``."""
    bytes_limiting: BytesLimitingConfig | None = None
    """Settings of the type ``bytes_limiting``."""
    span_count: SpanCountConfig | None = None
    """Settings of the type ``span_count``."""
    trace_state: TraceStateConfig | None = None
    """Settings of the type ``trace_state``."""
    boolean_attribute: BooleanAttributeConfig | None = None
    """Settings of the type ``boolean_attribute``."""
    ottl_condition: OTTLConditionConfig | None = None
    """Settings of the type ``ottl_condition``."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        groups = [name for name, field in _GROUPS.items() if field in type(self).model_fields]
        if self.type not in {*_SHARED_TYPES, *groups}:
            allowed = ", ".join([*_SHARED_TYPES, *groups])
            raise ValueError(f"type: unknown sampling policy type {self.type!r} here; expected one of {allowed}")
        if self.type not in _WITHOUT_SETTINGS and getattr(self, _GROUPS.get(self.type, self.type)) is None:
            raise ValueError(f"a policy of type {self.type} needs settings; write {self.type}: {{...}}")
        return self


class NotConfig(ComponentConfig):
    """Settings of the policy ``not``, which is the opposite of another policy."""

    not_sub_policy: SharedPolicyConfig
    """The policy whose decision is inverted."""


class AndSubPolicyConfig(SharedPolicyConfig):
    """A policy inside ``and`` or ``drop``."""

    model_config = ConfigDict(populate_by_name=False)

    not_: NotConfig | None = Field(default=None, alias="not")
    """Settings of the type ``not``."""


class AndConfig(ComponentConfig):
    """Settings of the policy ``and``: all sub-policies must sample the trace."""

    and_sub_policy: Annotated[tuple[AndSubPolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    """Policies, all of which must sample the trace."""


class DropConfig(ComponentConfig):
    """Settings of the policy ``drop``: traces that all sub-policies match are dropped, whatever others decide."""

    drop_sub_policy: Annotated[tuple[AndSubPolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    """Policies, all of which must match for the trace to be dropped."""


class CompositeSubPolicyConfig(SharedPolicyConfig):
    """A policy inside ``composite``."""

    model_config = ConfigDict(populate_by_name=False)

    and_: AndConfig | None = Field(default=None, alias="and")
    """Settings of the type ``and``."""


class RateAllocationConfig(ComponentConfig):
    """The share of ``max_total_spans_per_second`` of one sub-policy."""

    policy: str
    """Name of the sub-policy."""
    percent: int = Field(default=0, ge=0, le=100)
    """Its share in percent. 0: an equal share."""


class CompositeConfig(ComponentConfig):
    """Settings of the policy ``composite``: each sub-policy has a budget of spans per second."""

    max_total_spans_per_second: int = Field(ge=1, le=_INT64_MAX)
    """Spans per second that all sub-policies may sample together."""
    policy_order: tuple[str, ...] = ()
    """Names of sub-policies. Checked, but has no effect, as in the Collector: the order of ``composite_sub_policy``
    applies.
    """
    composite_sub_policy: Annotated[tuple[CompositeSubPolicyConfig, ...], NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1}
    )
    """The sub-policies, in order of evaluation."""
    rate_allocation: tuple[RateAllocationConfig, ...] = ()
    """The shares of the sub-policies. A sub-policy that is not listed samples nothing."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [policy.name for policy in self.composite_sub_policy]
        if duplicate := first_duplicate(names):
            raise ValueError(f"composite_sub_policy: duplicate policy name {duplicate!r}")
        for key, references in (
            ("policy_order", self.policy_order),
            ("rate_allocation", [allocation.policy for allocation in self.rate_allocation]),
        ):
            if unknown := [name for name in references if name not in names]:
                known = ", ".join(names)
                raise ValueError(
                    f"{key}: no policy of composite_sub_policy is named {unknown[0]!r}; expected one of {known}"
                )
            if duplicate := first_duplicate(references):
                raise ValueError(f"{key}: {duplicate!r} is listed twice")
        return self

    def allocations(self) -> tuple[int, ...]:
        """The budget of each sub-policy in spans per second."""
        total = float(self.max_total_spans_per_second)
        equal_share = total / len(self.composite_sub_policy)
        budgets = {
            allocation.policy: allocation.percent / 100 * total if allocation.percent else equal_share
            for allocation in self.rate_allocation
        }
        return tuple(int(budgets.get(policy.name, 0)) for policy in self.composite_sub_policy)


class PolicyConfig(SharedPolicyConfig):
    """A policy at the top level."""

    model_config = ConfigDict(populate_by_name=False)

    name: str = Field(min_length=1)
    """Name of the policy, used as the label ``policy`` of the metrics; unique."""
    and_: AndConfig | None = Field(default=None, alias="and")
    """Settings of the type ``and``."""
    not_: NotConfig | None = Field(default=None, alias="not")
    """Settings of the type ``not``."""
    drop: DropConfig | None = None
    """Settings of the type ``drop``."""
    composite: CompositeConfig | None = None
    """Settings of the type ``composite``."""


_GROUPS: Final = {"and": "and_", "not": "not_", "drop": "drop", "composite": "composite"}


def first_duplicate(names: Iterable[str]) -> str:
    """The first name that occurs a second time; empty if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def why_stateful(policy: SharedPolicyConfig) -> str:
    """Why the policy cannot decide by a part of a trace; empty if it can."""
    if policy.type in {"rate_limiting", "bytes_limiting"}:
        return f"{policy.type} counts what it has sampled"
    if policy.type == "latency" and policy.latency and policy.latency.upper_threshold_ms:
        return "the result of latency with upper_threshold_ms may change with the next span"
    if policy.type == "span_count" and policy.span_count and policy.span_count.max_spans:
        return "the result of span_count with max_spans may change with the next span"
    return next(filter(None, map(why_stateful, _sub_policies(policy))), "")


def _sub_policies(policy: SharedPolicyConfig) -> tuple[SharedPolicyConfig, ...]:
    block: Any = getattr(policy, _GROUPS[policy.type]) if policy.type in _GROUPS else None
    if isinstance(block, AndConfig):
        return block.and_sub_policy
    if isinstance(block, NotConfig):
        return (block.not_sub_policy,)
    if isinstance(block, DropConfig):
        return block.drop_sub_policy
    if isinstance(block, CompositeConfig):
        return block.composite_sub_policy
    return ()
