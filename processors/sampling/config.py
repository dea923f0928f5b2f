"""What the user writes for ``sampling``. The processor is Tailrace's own; the Collector's ``tail_sampling`` is another type."""

import re
from typing import Any, Final, Self

from pydantic import Field, model_validator

from config.blocks import ByteSize, ComponentConfig, Duration

__all__ = ["AnyCondition", "DropSpansConfig", "RuleConfig", "SamplingConfig"]

_HTTP_STATUS: Final = re.compile(r"^[1-5](xx|[0-9]{2})$")
_RULES_MAX: Final = 63  # one bit each in a trace's flags


class AnyCondition(ComponentConfig):
    """Matches a trace in which any span meets any of these."""

    status: str = ""
    """``error``: a span's status is ERROR."""
    http_status: str = ""
    """A class (``5xx``) or a code (``503``) of http.response.status_code or http.status_code."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.status not in {"", "error"}:
            raise ValueError(f"status {self.status!r}: the only status to match is error")
        if self.http_status and not _HTTP_STATUS.match(self.http_status):
            raise ValueError(f"http_status {self.http_status!r}: write a class such as 5xx or a code such as 503")
        if not self.status and not self.http_status:
            raise ValueError("any: give status, http_status or both")
        return self

    @property
    def http_range(self) -> tuple[int, int] | None:
        """First and last code that match."""
        if not self.http_status:
            return None
        if self.http_status.endswith("xx"):
            first = int(self.http_status[0]) * 100
            return first, first + 99
        return int(self.http_status), int(self.http_status)


class RuleConfig(ComponentConfig):
    """One rule. Without a condition it matches every trace."""

    name: str = Field(min_length=1)
    any: AnyCondition | None = None
    root_duration: Duration | None = Field(default=None, ge=0)
    """The span without a parent lasts at least this long."""
    ratio: float = Field(ge=0, le=1)
    """Share of the matching traces that is kept: 0.1 is a tenth."""

    @property
    def matches_all(self) -> bool:
        """Whether the rule has no condition."""
        return self.any is None and self.root_duration is None


class DropSpansConfig(ComponentConfig):
    """Spans that go before anything is decided."""

    names: tuple[str, ...] = ()
    """Globs of span names."""
    routes: tuple[str, ...] = ()
    """Globs of http.route, url.path or http.target."""


class SamplingConfig(ComponentConfig):
    """Whole traces, first matching rule."""

    decision_wait: Duration = Field(default=10.0, gt=0)
    """From a trace's first span to its decision."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Of what is held; over it the oldest traces are decided early."""
    decision_cache_size: int = Field(default=500_000, ge=0)
    """Decided traces remembered for their late spans."""
    drop_spans: DropSpansConfig = DropSpansConfig()
    rules: tuple[RuleConfig, ...] = (
        RuleConfig(name="errors", any=AnyCondition(status="error", http_status="5xx"), ratio=1.0),
        RuleConfig.model_validate({"name": "slow", "root_duration": "2s", "ratio": 1.0}),
        RuleConfig(name="rest", ratio=1.0),
    )

    @model_validator(mode="before")
    @classmethod
    def _not_yet(cls, value: Any) -> Any:
        """Keys of the specification that this version does not have are refused by name."""
        if isinstance(value, dict):
            if value.get("upstream_ratio"):
                raise ValueError("upstream_ratio is not available in this version; remove the key")
            value = {key: entry for key, entry in value.items() if key != "upstream_ratio"}
            for rule in value.get("rules") or ():
                if isinstance(rule, dict) and ("per" in rule or "at_least" in rule):
                    raise ValueError(f"rule {rule.get('name')!r}: per and at_least are not available in this version; remove the rule")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.rules]
        if not self.rules or len(self.rules) > _RULES_MAX:
            raise ValueError(f"rules: between 1 and {_RULES_MAX}, not {len(self.rules)}")
        if len(set(names)) != len(names):
            raise ValueError("rules: two rules have the same name")
        for rule in self.rules[:-1]:
            if rule.matches_all:
                raise ValueError(f"rule {rule.name!r} matches every trace: the rules behind it can never match; move it to the end")
        return self
