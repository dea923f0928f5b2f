"""What the user writes for one policy of ``tail_sampling``: the Collector's keys and defaults.

Source: opentelemetry-collector-contrib processor/tailsamplingprocessor 0.156, ``config.go`` and its README. Refused
    here although the
Collector starts with it: what can only be a mistake there (a policy without its block, an empty list, a range nothing
can be in).
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
    "repeated",
    "stateful",
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
_WITHOUT_BLOCK: Final = ("always_sample", "trace_flags")


def _not_empty(value: Any) -> Any:
    if isinstance(value, list | tuple) and not value:
        raise ValueError("at least one entry is needed")
    return value


# not min_length, which counts entries that are wrong as if they were not there
NOT_EMPTY: Final = BeforeValidator(_not_empty)


class LatencyConfig(ComponentConfig):
    """``latency``."""

    threshold_ms: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Without an upper bound: sampled from this duration on. With one: above it."""
    upper_threshold_ms: int = Field(default=0, ge=0, le=_INT64_MAX)
    """Sampled up to this duration; 0: no upper bound."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.upper_threshold_ms and self.upper_threshold_ms <= self.threshold_ms:
            raise ValueError(
                f"upper_threshold_ms {self.upper_threshold_ms} must be above threshold_ms {self.threshold_ms}: nothing would match"
            )
        return self


class NumericAttributeConfig(ComponentConfig):
    """``numeric_attribute``."""

    key: str = Field(min_length=1)
    min_value: int = Field(default=0, ge=-(2**63), le=_INT64_MAX)
    """0: no lower bound."""
    max_value: int = Field(default=0, ge=-(2**63), le=_INT64_MAX)
    """0: no upper bound."""
    invert_match: bool = False

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.min_value and not self.max_value:
            raise ValueError("give min_value, max_value or both, other than 0: 0 means no bound")
        if self.min_value and self.max_value and self.min_value > self.max_value:
            raise ValueError(f"min_value {self.min_value} is above max_value {self.max_value}: nothing would match")
        return self


class ProbabilisticConfig(ComponentConfig):
    """``probabilistic``."""

    hash_salt: str = ""
    """Empty: the Collector's ``default-hash-seed``."""
    sampling_percentage: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    """0 to 100; more counts as 100."""


class StatusCodeConfig(ComponentConfig):
    """``status_code``."""

    status_codes: Annotated[tuple[Literal["OK", "ERROR", "UNSET"], ...], NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1}
    )


class StringAttributeConfig(ComponentConfig):
    """``string_attribute``."""

    key: str = Field(min_length=1)
    values: Annotated[tuple[str, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})
    enabled_regex_matching: bool = False
    """Whether ``values`` are regular expressions; they match anywhere unless they say ``^`` and ``$``."""
    cache_max_size: int = Field(default=0, ge=0, le=_INT32_MAX)
    """Regular expressions: values whose result is remembered; 0: 128."""
    invert_match: bool = False

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
    """``trace_state``."""

    key: str = Field(min_length=1)
    values: Annotated[tuple[str, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})


class RateLimitingConfig(ComponentConfig):
    """``rate_limiting``."""

    spans_per_second: int = Field(default=0, ge=0, le=_INT64_MAX)
    burst_capacity: int = Field(default=0, ge=0, le=_INT64_MAX)
    """0: twice ``spans_per_second``. A trace of more spans than this never passes."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.spans_per_second and not self.burst_capacity:
            raise ValueError("give spans_per_second: without it nothing passes")
        return self


class BytesLimitingConfig(ComponentConfig):
    """``bytes_limiting``."""

    bytes_per_second: int = Field(default=0, ge=0, le=_INT64_MAX)
    burst_capacity: int = Field(default=0, ge=0, le=_INT64_MAX)
    """0: twice ``bytes_per_second``. A trace larger than this never passes."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if not self.bytes_per_second and not self.burst_capacity:
            raise ValueError("give bytes_per_second: without it nothing passes")
        return self


class SpanCountConfig(ComponentConfig):
    """``span_count``."""

    min_spans: int = Field(default=0, ge=0, le=_INT32_MAX)
    max_spans: int = Field(default=0, ge=0, le=_INT32_MAX)
    """0: no upper bound."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_spans and self.max_spans < self.min_spans:
            raise ValueError(f"max_spans {self.max_spans} is below min_spans {self.min_spans}: nothing would match")
        return self


class BooleanAttributeConfig(ComponentConfig):
    """``boolean_attribute``."""

    key: str = Field(min_length=1)
    value: bool = False
    invert_match: bool = False


class OTTLConditionConfig(ComponentConfig):
    """``ottl_condition``: any span or span event for which one of the conditions holds."""

    error_mode: Literal["ignore", "silent", "propagate"] = "silent"
    """``propagate``: a condition that cannot be evaluated makes the policy fail for this trace. ``ignore``: it does not hold, logged."""
    span: tuple[str, ...] = ()
    spanevent: tuple[str, ...] = ()

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
    """A policy that stands on its own: what may also stand inside ``and``, ``not``, ``drop`` and ``composite``."""

    name: str = ""
    """Label ``policy`` of the metrics. Required and unique at the top."""
    type: str
    """Which policy; its settings stand under the key of the same name."""
    latency: LatencyConfig | None = None
    numeric_attribute: NumericAttributeConfig | None = None
    probabilistic: ProbabilisticConfig | None = None
    status_code: StatusCodeConfig | None = None
    string_attribute: StringAttributeConfig | None = None
    rate_limiting: RateLimitingConfig | None = None
    bytes_limiting: BytesLimitingConfig | None = None
    span_count: SpanCountConfig | None = None
    trace_state: TraceStateConfig | None = None
    boolean_attribute: BooleanAttributeConfig | None = None
    ottl_condition: OTTLConditionConfig | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        groups = [kind for kind, field in _GROUPS.items() if field in type(self).model_fields]
        if self.type not in {*_SHARED_TYPES, *groups}:
            raise ValueError(
                f"type: unknown sampling policy type {self.type!r} at this place: {', '.join([*_SHARED_TYPES, *groups])}"
            )
        if self.type not in _WITHOUT_BLOCK and getattr(self, _GROUPS.get(self.type, self.type)) is None:
            raise ValueError(f"a policy of type {self.type} needs its settings: write {self.type}: {{...}}")
        return self


class NotConfig(ComponentConfig):
    """``not``: the opposite of one policy."""

    not_sub_policy: SharedPolicyConfig


class AndSubPolicyConfig(SharedPolicyConfig):
    """A policy inside ``and`` or ``drop``."""

    model_config = ConfigDict(populate_by_name=False)

    not_: NotConfig | None = Field(default=None, alias="not")


class AndConfig(ComponentConfig):
    """``and``: all of them."""

    and_sub_policy: Annotated[tuple[AndSubPolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})


class DropConfig(ComponentConfig):
    """``drop``: traces that match all of them go, whatever the other policies say."""

    drop_sub_policy: Annotated[tuple[AndSubPolicyConfig, ...], NOT_EMPTY] = Field(json_schema_extra={"minItems": 1})


class CompositeSubPolicyConfig(SharedPolicyConfig):
    """A policy inside ``composite``."""

    model_config = ConfigDict(populate_by_name=False)

    and_: AndConfig | None = Field(default=None, alias="and")


class RateAllocationConfig(ComponentConfig):
    """One policy's share of ``max_total_spans_per_second``."""

    policy: str
    percent: int = Field(default=0, ge=0, le=100)
    """0: an equal part."""


class CompositeConfig(ComponentConfig):
    """``composite``: the first policy that samples a trace charges it to its own spans a second."""

    max_total_spans_per_second: int = Field(ge=1, le=_INT64_MAX)
    policy_order: tuple[str, ...] = ()
    """Checked and otherwise without effect, as in the Collector: policies are asked as ``composite_sub_policy`` lists them."""
    composite_sub_policy: Annotated[tuple[CompositeSubPolicyConfig, ...], NOT_EMPTY] = Field(
        json_schema_extra={"minItems": 1}
    )
    rate_allocation: tuple[RateAllocationConfig, ...] = ()
    """A policy that is not listed gets no spans at all."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [policy.name for policy in self.composite_sub_policy]
        if twice := repeated(names):
            raise ValueError(f"composite_sub_policy: duplicate policy name {twice!r}")
        for key, given in (
            ("policy_order", self.policy_order),
            ("rate_allocation", [each.policy for each in self.rate_allocation]),
        ):
            if unknown := [name for name in given if name not in names]:
                raise ValueError(
                    f"{key}: no policy of composite_sub_policy is named {unknown[0]!r}: {', '.join(names)}"
                )
            if twice := repeated(given):
                raise ValueError(f"{key}: {twice!r} is named twice")
        return self

    def allocations(self) -> tuple[int, ...]:
        """Spans a second of each sub-policy."""
        total = float(self.max_total_spans_per_second)
        part = total / len(self.composite_sub_policy)
        shares = {each.policy: each.percent / 100 * total if each.percent else part for each in self.rate_allocation}
        return tuple(int(shares.get(policy.name, 0)) for policy in self.composite_sub_policy)


class PolicyConfig(SharedPolicyConfig):
    """A policy."""

    model_config = ConfigDict(populate_by_name=False)

    name: str = Field(min_length=1)
    """Label ``policy`` of the metrics; unique."""
    and_: AndConfig | None = Field(default=None, alias="and")
    not_: NotConfig | None = Field(default=None, alias="not")
    drop: DropConfig | None = None
    composite: CompositeConfig | None = None


_GROUPS: Final = {"and": "and_", "not": "not_", "drop": "drop", "composite": "composite"}


def repeated(names: Iterable[str]) -> str:
    """The first name that stands there a second time; empty if none does."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def stateful(policy: SharedPolicyConfig) -> str:
    """Why the policy cannot judge a part of a trace; empty if it can."""
    if policy.type in {"rate_limiting", "bytes_limiting"}:
        return f"{policy.type} counts what it let through"
    if policy.type == "latency" and policy.latency and policy.latency.upper_threshold_ms:
        return "latency with upper_threshold_ms may turn with the next span"
    if policy.type == "span_count" and policy.span_count and policy.span_count.max_spans:
        return "span_count with max_spans may turn with the next span"
    return next(filter(None, map(stateful, _inside(policy))), "")


def _inside(policy: SharedPolicyConfig) -> tuple[SharedPolicyConfig, ...]:
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
