"""Configuration of ``sampling``, which is Tailrace's own. The Collector's processor is ``tail_sampling``."""

import re
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Final, Self

from pydantic import Field, model_validator

from collector.otlp.semantics import SEVERITY_NUMBERS, SeverityLevel
from config.blocks import ByteSize, ComponentConfig, Duration

__all__ = ["AnyCondition", "DropSpansConfig", "LogsConfig", "RuleConfig", "SamplingConfig"]

_HTTP_STATUS: Final = re.compile(r"^[1-5](xx|[0-9]{2})$")
_AT_LEAST: Final = re.compile(r"^([1-9][0-9]{0,8})/(s|min|h)$")
_WINDOW_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RULES_MAX: Final = 63  # each has one bit in the flags of a trace
_PER_MAX: Final = 8
_GLOB_CHARS_MAX: Final = 256
_GLOB_STARS_MAX: Final = 6


class AnyCondition(ComponentConfig):
    """Matches a trace if any of its spans meets any of these conditions."""

    status: str = ""
    """``error``: the status of the span is ERROR."""
    http_status: str = ""
    """A class (``5xx``) or a code (``503``) of http.response.status_code or http.status_code."""

    @model_validator(mode="after")
    def _known(self) -> Self:
        if self.status not in {"", "error"}:
            raise ValueError(f"status: expected error, got {self.status!r}")
        if self.http_status and not _HTTP_STATUS.match(self.http_status):
            raise ValueError(
                f"http_status: expected a class such as 5xx or a code such as 503, got {self.http_status!r}"
            )
        if not self.status and not self.http_status:
            raise ValueError("any: expected status, http_status or both, got neither")
        return self

    @property
    def http_range(self) -> tuple[int, int] | None:
        """The first and the last code that match."""
        if not self.http_status:
            return None
        if self.http_status.endswith("xx"):
            first = int(self.http_status[0]) * 100
            return first, first + 99
        return int(self.http_status), int(self.http_status)


class RuleConfig(ComponentConfig):
    """A rule: a condition and a ``ratio``, or ``per`` and ``at_least``. Without a condition it matches every trace."""

    name: str = Field(min_length=1, max_length=128)
    """Name of the rule, also a label of the metrics; unique."""
    any: AnyCondition | None = None
    """Conditions on the spans of the trace."""
    root_duration: Duration | None = Field(default=None, ge=0)
    """Matches if the span without a parent lasts at least this long."""
    ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the matching traces to keep, from 0 to 1."""
    per: tuple[str, ...] = ()
    """What the key consists of: ``span.name``, ``service.name``, or attributes of the root span, its scope or its
    resource.
    """
    at_least: str = ""
    """``N/s``, ``N/min`` or ``N/h``: at least this many traces of each key are kept, whatever later rules decide."""
    max_keys: int = Field(default=10_000, ge=1, le=1_000_000)
    """Number of keys per window; traces with further keys are left to later rules."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.per) != bool(self.at_least):
            raise ValueError(f"rule {self.name!r}: per and at_least must be used together; set both or neither")
        if self.is_coverage:
            if not _AT_LEAST.match(self.at_least):
                raise ValueError(
                    f"rule {self.name!r}: at_least {self.at_least!r} is not valid (examples: 1/min, 10/s, 5/h)"
                )
            if self.ratio is not None or self.any is not None or self.root_duration is not None:
                raise ValueError(
                    f"rule {self.name!r}: a rule with per and at_least must not have a ratio or a condition"
                )
            if len(self.per) > _PER_MAX or len(set(self.per)) != len(self.per) or not all(self.per):
                raise ValueError(f"rule {self.name!r}: expected up to {_PER_MAX} distinct, non-empty names in per")
        elif self.ratio is None:
            raise ValueError(f"rule {self.name!r}: expected ratio, or per and at_least")
        elif "max_keys" in self.model_fields_set and self.max_keys != type(self).model_fields["max_keys"].default:
            raise ValueError(f"rule {self.name!r}: max_keys can only be used in a rule with per and at_least")
        return self

    @property
    def is_coverage(self) -> bool:
        """Whether the rule keeps a number of traces rather than a share."""
        return bool(self.per)

    @property
    def quota(self) -> tuple[int, float]:
        """The number of traces, and the window in seconds."""
        found = _AT_LEAST.match(self.at_least)
        return (int(found[1]), _WINDOW_S[found[2]]) if found else (0, 60.0)

    @property
    def matches_all(self) -> bool:
        """Whether the rule matches every trace."""
        return self.any is None and self.root_duration is None and not self.is_coverage


class DropSpansConfig(ComponentConfig):
    """Spans that are dropped on arrival, before any decision."""

    names: tuple[str, ...] = ()
    """Globs of span names."""
    routes: tuple[str, ...] = ()
    """Globs of ``http.route``, ``url.path`` or ``http.target``."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for glob in (*self.names, *self.routes):
            _check_glob(glob)
        return self


class LogsConfig(ComponentConfig):
    """How log records are sampled, if the processor is also in a logs pipeline."""

    min_severity: SeverityLevel = "warn"
    """Records without a trace id are kept from this severity on."""
    below_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the other records without a trace id to keep, at random. They include records without a severity number.
    """
    unseen_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the traces never seen whose records are kept. Unset: the ratio of a last rule that matches every trace.
    """
    max_bytes: ByteSize = 64 * 1024 * 1024
    """Budget of waiting records. Above it, the oldest are decided as if their traces were never seen. 0: no limit."""

    @property
    def min_number(self) -> int:
        """The severity number of ``min_severity``."""
        return SEVERITY_NUMBERS[self.min_severity.upper()]


class SamplingConfig(ComponentConfig):
    """Configuration of ``sampling``: keeps or drops whole traces; the first rule that matches decides."""

    decision_wait: Duration = Field(default=10.0, gt=0, le=3600)
    """Time from the first span of a trace to its decision."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Budget of the spans held. Above it, the oldest traces are decided early. 0: no limit."""
    decision_cache_size: int = Field(default=500_000, ge=0, le=50_000_000)
    """Number of kept, and of dropped, traces whose decision is remembered for late spans and logs."""
    drop_spans: DropSpansConfig = DropSpansConfig()
    """Spans that are dropped on arrival, before any decision."""
    rules: tuple[RuleConfig, ...] = (
        RuleConfig(name="errors", any=AnyCondition(status="error", http_status="5xx"), ratio=1.0),
        RuleConfig.model_validate({"name": "slow", "root_duration": "2s", "ratio": 1.0}),
        RuleConfig(name="rest", ratio=1.0),
    )
    """The rules; the first one that matches a trace decides."""
    upstream_ratio: dict[str, float] = Field(default_factory=dict)
    """Globs of ``service.name``, with the ratio of an SDK that samples without writing ``ot=th``; the first match
    applies.
    """
    logs: LogsConfig = LogsConfig()
    """How log records are sampled, if the processor is also in a logs pipeline."""
    storage: str = ""
    """The id of a storage extension in which held traces and decisions survive a restart. Empty: none."""
    checkpoint_interval: Duration = Field(default=30.0, ge=1.0)
    """How often decisions are saved, with ``storage``."""

    extension_keys: ClassVar[tuple[str, ...]] = ("storage",)

    @model_validator(mode="before")
    @classmethod
    def _empty_upstream_ratio(cls, value: Any) -> Any:
        """``upstream_ratio:`` without a value means the default."""
        if isinstance(value, dict) and value.get("upstream_ratio", {}) is None:
            value = {key: entry for key, entry in value.items() if key != "upstream_ratio"}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.rules]
        if not self.rules or len(self.rules) > _RULES_MAX:
            raise ValueError(f"rules: expected 1 to {_RULES_MAX} rules, got {len(self.rules)}")
        if len(set(names)) != len(names):
            raise ValueError("rules: two rules have the same name")
        if "none" in names:
            raise ValueError("rules: the name none is reserved for traces that no rule matches; choose another name")
        for rule in self.rules[:-1]:
            if rule.matches_all:
                raise ValueError(
                    f"rule {rule.name!r} matches every trace, so the rules after it can never match; move it to the end"
                )
        for number, rule in enumerate(self.rules):
            for before in self.rules[:number]:
                if (
                    before.root_duration is not None
                    and rule.root_duration is not None
                    and rule.any is None
                    and before.any is None
                ):
                    if rule.root_duration >= before.root_duration:
                        raise ValueError(
                            f"rule {rule.name!r} can never match: rule {before.name!r} before it matches all its traces"
                        )
                elif rule.any is not None and rule.any == before.any and rule.root_duration == before.root_duration:
                    raise ValueError(
                        f"rule {rule.name!r} can never match: rule {before.name!r} before it has the same condition"
                    )
        seen: list[str] = []
        for glob, ratio in self.upstream_ratio.items():
            _check_glob(glob)
            if not 0 < ratio <= 1:
                raise ValueError(f"upstream_ratio: {glob!r}: expected a ratio above 0 and up to 1, got {ratio:g}")
            for before_glob in seen:
                if fnmatchcase(glob.replace("[", "\0"), before_glob) and before_glob != glob:
                    raise ValueError(
                        f"upstream_ratio: {glob!r} can never match: {before_glob!r} before it matches the same names"
                    )
            seen.append(glob)
        return self

    @property
    def unseen_ratio(self) -> float:
        """The share of traces that are never seen whose log records are kept."""
        if self.logs.unseen_ratio is not None:
            return self.logs.unseen_ratio
        last = self.rules[-1]
        return last.ratio if last.matches_all and last.ratio is not None else 0.0


def _check_glob(glob: str) -> None:
    if not glob or len(glob) > _GLOB_CHARS_MAX:
        raise ValueError(
            f"expected a glob of 1 to {_GLOB_CHARS_MAX} characters, got {len(glob)} characters: {glob[:40]!r}"
        )
    if glob.count("*") > _GLOB_STARS_MAX:
        raise ValueError(
            f"the glob {glob[:40]!r} has more than {_GLOB_STARS_MAX} stars; matching it would take too long"
        )
