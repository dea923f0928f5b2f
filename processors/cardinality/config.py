"""What the user writes for ``cardinality``: Tailrace's own processor."""

from fnmatch import fnmatchcase
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from config.blocks import ComponentConfig, Duration

Kind = Literal["uuid", "int", "hex", "ulid", "email"]
GaugeFold = Literal["last", "sum", "max", "min", "mean"]

__all__ = [
    "AttributeRule",
    "CardinalityConfig",
    "GaugeFold",
    "GaugeRule",
    "LimitOverride",
    "OverflowConfig",
    "TemplateConfig",
    "TenantConfig",
    "TopConfig",
]

_OVERFLOW_KEY = "otel.metric.overflow"
# What no metric's name can hold. Source: OpenTelemetry metrics API, "Instrument name syntax"; ":" is Prometheus'.
_NEVER_IN_NAMES = frozenset(" \t\r\n\"'{}()<>=,;%$#@^&|~`\\+")


class LimitOverride(ComponentConfig):
    """Another limit for some metrics; the first match counts."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """Globs of metric names."""
    limit: int = Field(ge=0)
    """0: unlimited."""


class TenantConfig(ComponentConfig):
    """Limits for each tenant beside those for each metric."""

    attribute: str = Field(min_length=1)
    """Names the tenant: of the point, else of its resource."""
    limit: int = Field(default=500, ge=0)
    """Series of a tenant for each (group, metric); 0: no such limit."""
    total: int = Field(default=20_000, ge=0)
    """Series of a tenant over all groups and metrics; 0: no such limit."""
    max_values: int = Field(default=1000, ge=1)
    """Tenants told apart; those that come later share the limits, and the overflow series, of ``other``."""
    other: str = Field(default="__other__", min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.limit and not self.total:
            raise ValueError("limit and total are both 0: that limits nothing; remove tenant or give it a limit")
        if self.limit and self.total and self.total < self.limit:
            raise ValueError(
                f"total ({self.total}) must not be less than limit ({self.limit}): no metric could ever reach its limit"
            )
        if self.attribute == _OVERFLOW_KEY:
            raise ValueError(f"attribute: {_OVERFLOW_KEY!r} marks overflow points and cannot name the tenant")
        return self


class AttributeRule(ComponentConfig):
    """What happens to attributes before series are counted."""

    keys: tuple[str, ...] = Field(min_length=1)
    action: Literal["drop", "template", "collapse"]
    max_values: int = Field(default=200, ge=1)
    """template, collapse: distinct values a metric keeps; further ones become ``other``."""
    other: str = Field(default="__other__", min_length=1)


def _all_kinds() -> dict[Kind, str]:
    return {"uuid": "{id}", "int": "{id}", "hex": "{id}", "ulid": "{id}", "email": "{id}"}


class TemplateConfig(ComponentConfig):
    """How ``template`` turns a path into its shape."""

    keep_method: bool = True
    """``GET /users/1`` keeps its ``GET``."""
    query: Literal["drop", "keep"] = "drop"
    replace: dict[Kind, str] = Field(default_factory=_all_kinds)
    """Kinds of path segment and what each becomes; a kind that is left out stays."""


class GaugeRule(ComponentConfig):
    """How gauges are folded; the first match counts."""

    metrics: tuple[str, ...] = Field(min_length=1)
    fold: GaugeFold


class OverflowConfig(ComponentConfig):
    """The overflow series."""

    flush_interval: Duration = Field(default=15.0, gt=0)
    stale_after: Duration = Field(default=300.0, gt=0)
    """A source of a folded gauge or up-down counter that is silent that long is not in the written value any more."""
    exemplars: int = Field(default=4, ge=0, le=100)
    """The newest of each written point and flush; 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stale_after <= self.flush_interval:
            raise ValueError(
                "stale_after must be longer than flush_interval: every source would be stale before it is written"
            )
        return self


class TopConfig(ComponentConfig):
    """``GET /cardinality``."""

    n: int = Field(default=20, ge=1, le=1000)
    sample_values: int = Field(default=3, ge=0, le=100)
    hash: tuple[str, ...] = ("user_id", "tenant_id")
    """Keys whose values are shown as hashes, and are in no exemplar's ``filtered_attributes``."""


class CardinalityConfig(ComponentConfig):
    """Absolute caps on series; what is over them is merged, not lost."""

    mode: Literal["enforce", "observe"] = "enforce"
    """observe: the same counters, nothing folded."""
    limit: int = Field(default=2000, ge=0)
    """Series for each metric and group; 0: unlimited."""
    count: Literal["points", "prometheus_series"] = "points"
    """What a series weighs: 1, or what Prometheus makes of it (a histogram of 11 bounds: 14)."""
    group_by: tuple[str, ...] = ("service.name",)
    """Resource attributes; one limit for each combination."""
    tenant: TenantConfig | None = None
    max_series: int = Field(default=1_000_000, ge=1)
    """Named series of the whole process."""
    overrides: tuple[LimitOverride, ...] = ()
    attributes: tuple[AttributeRule, ...] = ()
    never_collapse: tuple[str, ...] = (
        "method", "status", "status_code", "http.request.method", "http.response.status_code", "error.type",
    )  # fmt: skip
    template: TemplateConfig = TemplateConfig()
    gauge: tuple[GaugeRule, ...] = ()
    """The first match counts; others fold to the last value."""
    overflow: OverflowConfig = OverflowConfig()
    window: Duration = Field(default=3600.0, gt=0)
    """A named series silent that long frees its slot."""
    state_ttl: Duration = Field(default=3600.0, gt=0)
    """Of a folded source; must exceed the longest silence of a source that lives."""
    state_limit_mib: int = Field(default=128, ge=1, le=1_048_576)
    """Of folded sources; full: new ones are dropped and counted, never summed blindly."""
    initial: Literal["auto", "zero", "full"] = "auto"
    """What the first value of a cumulative source is worth: by its start time, nothing, all of it."""
    top: TopConfig = TopConfig()

    @field_validator("group_by")
    @classmethod
    def _group(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "service.instance.id" in value:
            raise ValueError(
                "'service.instance.id' names this gateway on overflow points; group by service.name, "
                "and give the metrics with a limit for each instance an attribute of their own"
            )
        if len(set(value)) < len(value):
            raise ValueError(f"{value!r} names an attribute twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for rule in self.attributes:
            for key in rule.keys:
                if key in seen:
                    raise ValueError(f"attributes: {key!r} stands in two rules")
                seen.add(key)
                if rule.action != "template" and key in self.never_collapse:
                    raise ValueError(
                        f"attributes: {key!r} is to {rule.action} and in never_collapse; remove it from one"
                    )
                if self.tenant is not None and key == self.tenant.attribute and rule.action == "drop":
                    raise ValueError(
                        f"attributes: {key!r} is to drop and is tenant.attribute: the tenant would be gone before it is counted"
                    )
        if self.window < self.state_ttl:
            raise ValueError("window must not be less than state_ttl: a series that comes back would be counted twice")
        if self.state_ttl < self.overflow.stale_after:
            raise ValueError(
                "state_ttl must not be less than overflow.stale_after: a source would be forgotten before it is stale"
            )
        if self.limit > self.max_series:
            raise ValueError(
                f"limit ({self.limit}) must not be more than max_series ({self.max_series}): no metric could ever reach it"
            )
        return self

    def same_series(self, other: Self) -> bool:
        """Whether both make the same series of the same points: what one has counted, the other may go on counting."""
        keys = ("mode", "count", "group_by", "attributes", "never_collapse", "template")
        tenants = [
            None if config.tenant is None else (config.tenant.attribute, config.tenant.other)
            for config in (self, other)
        ]
        return tenants[0] == tenants[1] and all(getattr(self, key) == getattr(other, key) for key in keys)

    def limit_of(self, metric: str) -> int:
        """The limit of a metric; 0: none."""
        for override in self.overrides:
            if any(fnmatchcase(metric, glob) for glob in override.metrics):
                return override.limit
        return self.limit

    def fold_of(self, metric: str) -> GaugeFold:
        """How a gauge of that name is folded."""
        for rule in self.gauge:
            if any(fnmatchcase(metric, glob) for glob in rule.metrics):
                return rule.fold
        return "last"

    def unmatchable(self) -> list[tuple[str, str, str]]:
        """Globs that no metric can ever match: (key, glob, why). Not errors: a metric may yet come, so only the impossible is told."""
        found: list[tuple[str, str, str]] = []
        named: tuple[tuple[str, tuple[LimitOverride | GaugeRule, ...]], ...] = (
            ("overrides", self.overrides),
            ("gauge", self.gauge),
        )
        for name, rules in named:
            before: list[str] = []
            for i, rule in enumerate(rules):
                for glob in rule.metrics:
                    key = f"{name}[{i}].metrics"
                    if not glob or _NEVER_IN_NAMES & set(glob):
                        found.append((key, glob, "no metric has such a name"))
                    elif any(_covers(earlier, glob) for earlier in before):
                        found.append((key, glob, "an earlier rule takes all of it"))
                before.extend(rule.metrics)
        return found


def _covers(earlier: str, glob: str) -> bool:
    """Whether everything ``glob`` matches is surely matched by ``earlier``."""
    if earlier in {"*", glob}:
        return True
    return not set(glob) & set("*?[") and fnmatchcase(glob, earlier)
