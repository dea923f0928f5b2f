"""Configuration of ``cardinality``, a processor of Tailrace's own."""

from fnmatch import fnmatchcase
from typing import ClassVar, Final, Literal, Self

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
    """A different limit for some metrics; the first rule that matches applies."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """Globs of metric names."""
    limit: int = Field(ge=0)
    """Series per metric and group. 0: no limit."""


class TenantConfig(ComponentConfig):
    """Limits for each tenant, in addition to those for each metric."""

    attribute: str = Field(min_length=1)
    """Attribute of the point, or else of its resource, that names the tenant."""
    limit: int = Field(default=500, ge=0)
    """Series of a tenant per metric and group. 0: no limit."""
    total: int = Field(default=20_000, ge=0)
    """Series of a tenant in all metrics and groups together. 0: no limit."""
    max_values: int = Field(default=1000, ge=1)
    """Number of tenants to distinguish; further ones share the limits and the overflow series of ``other``."""
    other: str = Field(default="__other__", min_length=1)
    """Name that tenants beyond ``max_values`` share."""

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
    """Keys of attributes of data points; a key may be in one rule only."""
    action: Literal["drop", "template", "collapse"]
    """drop removes the attribute, template replaces identifiers in paths, collapse limits the number of values."""
    max_values: int = Field(default=200, ge=1)
    """For template and collapse: number of distinct values to keep per metric; further ones become ``other``."""
    other: str = Field(default="__other__", min_length=1)
    """Value that replaces values beyond ``max_values``."""


def _all_kinds() -> dict[Kind, str]:
    return {"uuid": "{id}", "int": "{id}", "hex": "{id}", "ulid": "{id}", "email": "{id}"}


class TemplateConfig(ComponentConfig):
    """How ``template`` replaces identifiers in paths."""

    keep_method: bool = True
    """Whether a leading method is kept, such as ``GET`` in ``GET /users/1``."""
    query: Literal["drop", "keep"] = "drop"
    """Whether the query string of a path is dropped or kept."""
    replace: dict[Kind, str] = Field(default_factory=_all_kinds)
    """Replacement of each kind of path segment. A kind that is not listed is kept as it is."""


class GaugeRule(ComponentConfig):
    """How gauges are merged; the first rule that matches applies."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """Globs of metric names."""
    fold: GaugeFold
    """How the latest values of the sources are merged."""


class OverflowConfig(ComponentConfig):
    """The overflow series, into which further series are merged."""

    flush_interval: Duration = Field(default=15.0, gt=0)
    """How often merged series are written."""
    stale_after: Duration = Field(default=300.0, gt=0)
    """A source that is silent for this long no longer counts in a merged gauge or up-down counter."""
    exemplars: int = Field(default=4, ge=0, le=100)
    """Number of the newest exemplars attached to each written point. 0: none."""

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
    """Number of entries in each list of the report."""
    sample_values: int = Field(default=3, ge=0, le=100)
    """Number of example values shown per attribute."""
    hash: tuple[str, ...] = ("user_id", "tenant_id")
    """Keys whose values are shown as hashes and removed from the ``filtered_attributes`` of exemplars."""


_SERIES_KEYS: Final = ("mode", "count", "group_by", "attributes", "never_collapse", "template")


class CardinalityConfig(ComponentConfig):
    """Limits on the number of series; series beyond them are merged, not lost."""

    mode: Literal["enforce", "observe"] = "enforce"
    """With observe, the counters are the same, but all points pass and no merged series are written."""
    limit: int = Field(default=2000, ge=0)
    """Series per metric and group. 0: no limit."""
    count: Literal["points", "prometheus_series"] = "points"
    """How much a series counts: 1 (points), or as many series as Prometheus stores for it (14 for a histogram with 11
    bounds).
    """
    group_by: tuple[str, ...] = ("service.name",)
    """Resource attributes that define a group: each combination of their values has a limit of its own."""
    tenant: TenantConfig | None = None
    """Limits per tenant, in addition to those per metric. Absent: none."""
    max_series: int = Field(default=1_000_000, ge=1)
    """Named series that all ``cardinality`` processors of the process may have together."""
    overrides: tuple[LimitOverride, ...] = ()
    """Different limits for some metrics; the first rule that matches applies."""
    attributes: tuple[AttributeRule, ...] = ()
    """How attributes are changed before series are counted."""
    never_collapse: tuple[str, ...] = (
        "method",
        "status",
        "status_code",
        "http.request.method",
        "http.response.status_code",
        "error.type",
    )
    """Keys whose values are never replaced; a drop or collapse rule for one of them is an error."""
    template: TemplateConfig = TemplateConfig()
    """How the action template replaces identifiers in paths."""
    gauge: tuple[GaugeRule, ...] = ()
    """How gauges are merged; the first rule that matches applies. All other gauges keep the last value."""
    overflow: OverflowConfig = OverflowConfig()
    """The overflow series, into which further series are merged."""
    window: Duration = Field(default=3600.0, gt=0)
    """A named series that is silent for this long frees its slot."""
    state_ttl: Duration = Field(default=3600.0, gt=0)
    """How long a silent source is remembered; must exceed the longest silence of an active source."""
    state_limit_mib: int = Field(default=128, ge=1, le=1_048_576)
    """Memory for sources and merged series in MiB. When it is full, points of new sources are dropped and counted."""
    initial: Literal["auto", "zero", "full"] = "auto"
    """How the first value of a cumulative source counts: depending on its start time, not at all (zero), or in full."""
    top: TopConfig = TopConfig()
    """The report ``GET /cardinality``."""
    storage: str = ""
    """The id of a storage extension in which series and accumulators survive a restart. Empty: none."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

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

    @property
    def fingerprint(self) -> str:
        """What determines the series that are made of points."""
        tenant = None if self.tenant is None else [self.tenant.attribute, self.tenant.other]
        return f"{self.model_dump_json(include=set(_SERIES_KEYS))} {tenant}"

    def same_series(self, other: Self) -> bool:
        """Whether both make the same series of the same points, so that one can continue the counts of the other."""
        return self.fingerprint == other.fingerprint

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
