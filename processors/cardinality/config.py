"""What the user writes for ``cardinality``: Tailrace's own processor."""

from fnmatch import fnmatchcase
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from config.blocks import ComponentConfig, Duration

Kind = Literal["uuid", "int", "hex", "ulid", "email"]

__all__ = ["AttributeRule", "CardinalityConfig", "GaugeRule", "LimitOverride", "OverflowConfig", "TemplateConfig", "TopConfig"]


class LimitOverride(ComponentConfig):
    """Another limit for some metrics; the first match counts."""

    metrics: tuple[str, ...] = Field(min_length=1)
    """Globs of metric names."""
    limit: int = Field(ge=0)
    """0: unlimited."""


class AttributeRule(ComponentConfig):
    """What happens to attributes before series are counted."""

    keys: tuple[str, ...] = Field(min_length=1)
    action: Literal["drop", "template", "collapse"]
    max_values: int = Field(default=200, ge=1)
    """template, collapse: distinct values a metric keeps; further ones become ``other``."""
    other: str = "__other__"


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
    """How gauges are folded."""

    metrics: tuple[str, ...] = Field(min_length=1)
    fold: Literal["last"]


class OverflowConfig(ComponentConfig):
    """The overflow series."""

    flush_interval: Duration = Field(default=15.0, gt=0)
    stale_after: Duration = Field(default=300.0, gt=0)
    """A folded gauge or up-down counter whose sources are silent that long is not written any more."""


class TopConfig(ComponentConfig):
    """``GET /cardinality``."""

    n: int = Field(default=20, ge=1, le=1000)
    sample_values: int = Field(default=3, ge=0, le=100)
    hash: tuple[str, ...] = ("user_id", "tenant_id")
    """Keys whose sample values are shown as hashes."""


class CardinalityConfig(ComponentConfig):
    """Absolute caps on series; what is over them is merged, not lost."""

    mode: Literal["enforce", "observe"] = "enforce"
    """observe: the same counters, nothing folded."""
    limit: int = Field(default=2000, ge=0)
    """Series for each metric and group; 0: unlimited."""
    count: Literal["points"] = "points"
    group_by: tuple[str, ...] = ("service.name",)
    """Resource attributes; one limit for each combination."""
    max_series: int = Field(default=1_000_000, ge=1)
    """Named series of the whole process."""
    overrides: tuple[LimitOverride, ...] = ()
    attributes: tuple[AttributeRule, ...] = ()
    never_collapse: tuple[str, ...] = (
        "method", "status", "status_code", "http.request.method", "http.response.status_code", "error.type",
    )  # fmt: skip
    template: TemplateConfig = TemplateConfig()
    gauge: tuple[GaugeRule, ...] = ()
    overflow: OverflowConfig = OverflowConfig()
    window: Duration = Field(default=3600.0, gt=0)
    """A named series silent that long frees its slot."""
    state_ttl: Duration = Field(default=3600.0, gt=0)
    """Of a folded source; must exceed the longest silence of a source that lives."""
    state_limit_mib: int = Field(default=128, ge=1)
    """Of folded sources; full: new ones are dropped and counted, never summed blindly."""
    initial: Literal["auto", "zero", "full"] = "auto"
    """What the first value of a cumulative source is worth: by its start time, nothing, all of it."""
    top: TopConfig = TopConfig()

    @model_validator(mode="before")
    @classmethod
    def _not_yet(cls, value: Any) -> Any:
        """Keys of the specification that this version does not have are refused by name."""
        if isinstance(value, dict):
            if value.get("tenant"):
                raise ValueError("tenant is not available in this version; remove the key")
            if value.get("count") == "prometheus_series":
                raise ValueError("count: prometheus_series is not available in this version; write points")
            overflow = value.get("overflow")
            if isinstance(overflow, dict) and "exemplars" in overflow:
                raise ValueError("overflow.exemplars is not available in this version: folded points keep no exemplars; remove the key")
            for rule in value.get("gauge") or ():
                if isinstance(rule, dict) and rule.get("fold") in {"sum", "max", "min", "mean"}:
                    raise ValueError(f"gauge: fold {rule['fold']!r} is not available in this version; gauges fold to the last value")
            value = {key: entry for key, entry in value.items() if key != "tenant"}
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
                    raise ValueError(f"attributes: {key!r} is to {rule.action} and in never_collapse; remove it from one")
        if self.window < self.state_ttl:
            raise ValueError("window must not be less than state_ttl: a series that comes back would be counted twice")
        return self

    def same_series(self, other: Self) -> bool:
        """Whether both make the same series of the same points: what one has counted, the other may go on counting."""
        keys = ("mode", "group_by", "attributes", "never_collapse", "template")
        return all(getattr(self, key) == getattr(other, key) for key in keys)

    def limit_of(self, metric: str) -> int:
        """The limit of a metric; 0: none."""
        for override in self.overrides:
            if any(fnmatchcase(metric, glob) for glob in override.metrics):
                return override.limit
        return self.limit
