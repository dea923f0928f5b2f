"""Configuration of ``cardinality``, a processor of Tailrace's own."""

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
# Characters that no metric name has. Source: OpenTelemetry metrics API, "Instrument name syntax"; ":" is Prometheus's.
_NEVER_IN_NAMES = frozenset(" \t\r\n\"'{}()<>=,;%$#@^&|~`\\+")


class LimitOverride(ComponentConfig):
    """Another limit for some metrics; the first rule that matches applies."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """Globs of metric names."""
    limit: int = Field(ge=0)
    """Series per metric and group; 0: unlimited."""


class TenantConfig(ComponentConfig):
    """Limits for each tenant, in addition to those for each metric."""

    attribute: str = Field(min_length=1)
    """The attribute that names the tenant, of the point or else of its resource."""
    limit: int = Field(default=500, ge=0)
    """Series of a tenant per metric and group; 0: unlimited."""
    total: int = Field(default=20_000, ge=0)
    """Series of a tenant in all metrics and groups together; 0: unlimited."""
    max_values: int = Field(default=1000, ge=1)
    """How many tenants are distinguished; further ones share the limits and the overflow series of ``other``."""
    other: str = Field(default="__other__", min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.limit and not self.total:
            raise ValueError("limit and total are both 0, so nothing is limited; set one of them or remove tenant")
        if self.limit and self.total and self.total < self.limit:
            raise ValueError(
                f"total ({self.total}) must not be less than limit ({self.limit}), or no metric could reach its limit"
            )
        if self.attribute == _OVERFLOW_KEY:
            raise ValueError(
                f"attribute: {_OVERFLOW_KEY!r} marks overflow points; use another attribute to name the tenant"
            )
        return self


class AttributeRule(ComponentConfig):
    """How attributes are changed before series are counted."""

    keys: tuple[str, ...] = Field(min_length=1)
    action: Literal["drop", "template", "collapse"]
    max_values: int = Field(default=200, ge=1)
    """template, collapse: how many distinct values a metric keeps; further ones become ``other``."""
    other: str = Field(default="__other__", min_length=1)


def _all_kinds() -> dict[Kind, str]:
    return {"uuid": "{id}", "int": "{id}", "hex": "{id}", "ulid": "{id}", "email": "{id}"}


class TemplateConfig(ComponentConfig):
    """How ``template`` replaces identifiers in paths."""

    keep_method: bool = True
    """``GET /users/1`` keeps its ``GET``."""
    query: Literal["drop", "keep"] = "drop"
    replace: dict[Kind, str] = Field(default_factory=_all_kinds)
    """What each kind of path segment becomes; a kind that is left out is kept."""


class GaugeRule(ComponentConfig):
    """How gauges are merged; the first rule that matches applies."""

    metrics: tuple[str, ...] = Field(min_length=1)
    fold: GaugeFold


class OverflowConfig(ComponentConfig):
    """The overflow series."""

    flush_interval: Duration = Field(default=15.0, gt=0)
    stale_after: Duration = Field(default=300.0, gt=0)
    """After how long of silence a source of a merged gauge or up-down counter leaves the written value."""
    exemplars: int = Field(default=4, ge=0, le=100)
    """How many of the newest exemplars each written point has; 0: none."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stale_after <= self.flush_interval:
            raise ValueError(
                "stale_after must be longer than flush_interval, or every source would be stale before it is written"
            )
        return self


class TopConfig(ComponentConfig):
    """The report ``GET /cardinality``."""

    n: int = Field(default=20, ge=1, le=1000)
    sample_values: int = Field(default=3, ge=0, le=100)
    hash: tuple[str, ...] = ("user_id", "tenant_id")
    """Keys whose values are shown as hashes and are left out of the ``filtered_attributes`` of exemplars."""


class CardinalityConfig(ComponentConfig):
    """Limits on the number of series; series beyond them are merged, not lost."""

    mode: Literal["enforce", "observe"] = "enforce"
    """observe: the counters are the same, but all points pass and nothing is written."""
    limit: int = Field(default=2000, ge=0)
    """Series per metric and group; 0: unlimited."""
    count: Literal["points", "prometheus_series"] = "points"
    """For how much a series counts: 1, or as many series as Prometheus stores (14 for a histogram with 11 bounds)."""
    group_by: tuple[str, ...] = ("service.name",)
    """Resource attributes; each combination of values has a limit of its own."""
    tenant: TenantConfig | None = None
    max_series: int = Field(default=1_000_000, ge=1)
    """Named series of all ``cardinality`` processors of the process together."""
    overrides: tuple[LimitOverride, ...] = ()
    attributes: tuple[AttributeRule, ...] = ()
    never_collapse: tuple[str, ...] = (
        "method",
        "status",
        "status_code",
        "http.request.method",
        "http.response.status_code",
        "error.type",
    )
    template: TemplateConfig = TemplateConfig()
    gauge: tuple[GaugeRule, ...] = ()
    """The first rule that matches applies; other gauges become the last value."""
    overflow: OverflowConfig = OverflowConfig()
    window: Duration = Field(default=3600.0, gt=0)
    """After how long of silence a named series frees its slot."""
    state_ttl: Duration = Field(default=3600.0, gt=0)
    """How long a silent source is remembered; must exceed the longest silence of a live source."""
    state_limit_mib: int = Field(default=128, ge=1, le=1_048_576)
    """The memory for sources and merged series; when it is full, points of new sources are dropped and counted."""
    initial: Literal["auto", "zero", "full"] = "auto"
    """How the first value of a cumulative source counts: by its start time, not at all, or in full."""
    top: TopConfig = TopConfig()

    @field_validator("group_by")
    @classmethod
    def _group(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if "service.instance.id" in value:
            raise ValueError(
                "'service.instance.id' names this gateway on overflow points, so series cannot be grouped by it; "
                "group by service.name, or copy the id to an attribute with another name"
            )
        if len(set(value)) < len(value):
            raise ValueError(f"{list(value)} lists an attribute twice")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        seen: set[str] = set()
        for rule in self.attributes:
            for key in rule.keys:
                if key in seen:
                    raise ValueError(f"attributes: {key!r} is in two rules; remove it from one of them")
                seen.add(key)
                if rule.action != "template" and key in self.never_collapse:
                    raise ValueError(
                        f"attributes: {key!r} has the action {rule.action} "
                        "but is also in never_collapse; remove it from one of them"
                    )
                if self.tenant is not None and key == self.tenant.attribute and rule.action == "drop":
                    raise ValueError(
                        f"attributes: {key!r} is tenant.attribute, so it cannot be dropped before tenants are counted"
                    )
        if self.window < self.state_ttl:
            raise ValueError(
                "window must not be less than state_ttl, or a series that comes back would be counted twice"
            )
        if self.state_ttl < self.overflow.stale_after:
            raise ValueError(
                "state_ttl must not be less than overflow.stale_after, or sources would be forgotten too early"
            )
        if self.limit > self.max_series:
            raise ValueError(
                f"limit ({self.limit}) must not be more than max_series ({self.max_series}), "
                "or no metric could ever reach it"
            )
        return self

    def same_series(self, other: Self) -> bool:
        """Whether both make the same series of the same points, so that one can continue the counts of the other."""
        keys = ("mode", "count", "group_by", "attributes", "never_collapse", "template")
        tenants = [
            None if config.tenant is None else (config.tenant.attribute, config.tenant.other)
            for config in (self, other)
        ]
        return tenants[0] == tenants[1] and all(getattr(self, key) == getattr(other, key) for key in keys)

    def limit_of(self, metric: str) -> int:
        """The limit of a metric; 0: unlimited."""
        for override in self.overrides:
            if any(fnmatchcase(metric, glob) for glob in override.metrics):
                return override.limit
        return self.limit

    def fold_of(self, metric: str) -> GaugeFold:
        """How gauges of that name are merged."""
        for rule in self.gauge:
            if any(fnmatchcase(metric, glob) for glob in rule.metrics):
                return rule.fold
        return "last"

    def unmatchable(self) -> list[tuple[str, str, str]]:
        """Globs that can never match as (key, glob, reason): impossible names, or names of an earlier rule."""
        found: list[tuple[str, str, str]] = []
        rule_lists: tuple[tuple[str, tuple[LimitOverride | GaugeRule, ...]], ...] = (
            ("overrides", self.overrides),
            ("gauge", self.gauge),
        )
        for name, rules in rule_lists:
            earlier_globs: list[str] = []
            for i, rule in enumerate(rules):
                for glob in rule.metrics:
                    key = f"{name}[{i}].metrics"
                    if not glob or _NEVER_IN_NAMES & set(glob):
                        found.append((key, glob, "no metric can have such a name"))
                    elif any(_covers(earlier, glob) for earlier in earlier_globs):
                        found.append((key, glob, "an earlier rule matches the same names"))
                earlier_globs.extend(rule.metrics)
        return found


def _covers(earlier: str, glob: str) -> bool:
    """Whether ``earlier`` certainly matches everything that ``glob`` matches."""
    if earlier in {"*", glob}:
        return True
    return not set(glob) & set("*?[") and fnmatchcase(glob, earlier)
