"""What the user writes for ``sampling``. The processor is Tailrace's own; the Collector's ``tail_sampling`` is another type."""

import re
from fnmatch import fnmatchcase
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator

from config.blocks import ByteSize, ComponentConfig, Duration

__all__ = ["AnyCondition", "DropSpansConfig", "LogsConfig", "RuleConfig", "SamplingConfig"]

_HTTP_STATUS: Final = re.compile(r"^[1-5](xx|[0-9]{2})$")
_AT_LEAST: Final = re.compile(r"^([1-9][0-9]{0,8})/(s|min|h)$")
_WINDOW_S: Final = {"s": 1.0, "min": 60.0, "h": 3600.0}
_RULES_MAX: Final = 63  # one bit each in a trace's flags
_PER_MAX: Final = 8
_GLOB_MAX: Final = 256
_SEVERITIES: Final = {"trace": 1, "debug": 5, "info": 9, "warn": 13, "error": 17, "fatal": 21}


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
    """One rule: a condition and a ``ratio``, or ``per`` and ``at_least``. Without a condition a ratio is for every trace."""

    name: str = Field(min_length=1, max_length=128)
    any: AnyCondition | None = None
    root_duration: Duration | None = Field(default=None, ge=0)
    """The span without a parent lasts at least this long."""
    ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the matching traces that is kept: 0.1 is a tenth."""
    per: tuple[str, ...] = ()
    """What tells keys apart: ``span.name``, ``service.name``, any attribute of the root span or its resource."""
    at_least: str = ""
    """``N/s``, ``N/min`` or ``N/h``: so many traces of each key are kept, whatever the rules behind say."""
    max_keys: int = Field(default=10_000, ge=1, le=1_000_000)
    """Keys told apart in one window; traces of others are left to the rules behind."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.per) != bool(self.at_least):
            raise ValueError(f"rule {self.name!r}: per and at_least go together")
        if self.is_coverage:
            if not _AT_LEAST.match(self.at_least):
                raise ValueError(f"rule {self.name!r}: at_least {self.at_least!r}: write for example 1/min, 10/s, 5/h")
            if self.ratio is not None or self.any is not None or self.root_duration is not None:
                raise ValueError(f"rule {self.name!r}: a rule with per and at_least has no ratio and no condition")
            if len(self.per) > _PER_MAX or len(set(self.per)) != len(self.per) or not all(self.per):
                raise ValueError(f"rule {self.name!r}: per: up to {_PER_MAX} names, each once, none empty")
        elif self.ratio is None:
            raise ValueError(f"rule {self.name!r}: give ratio, or per and at_least")
        elif "max_keys" in self.model_fields_set and self.max_keys != type(self).model_fields["max_keys"].default:
            raise ValueError(f"rule {self.name!r}: max_keys is for a rule with per and at_least")
        return self

    @property
    def is_coverage(self) -> bool:
        """Whether it says how many are kept rather than which share."""
        return bool(self.per)

    @property
    def quota(self) -> tuple[int, float]:
        """How many, in how many seconds."""
        found = _AT_LEAST.match(self.at_least)
        return (int(found[1]), _WINDOW_S[found[2]]) if found else (0, 60.0)

    @property
    def matches_all(self) -> bool:
        """Whether no trace gets past it."""
        return self.any is None and self.root_duration is None and not self.is_coverage


class DropSpansConfig(ComponentConfig):
    """Spans that go before anything is decided."""

    names: tuple[str, ...] = ()
    """Globs of span names."""
    routes: tuple[str, ...] = ()
    """Globs of http.route, url.path or http.target."""

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        for glob in (*self.names, *self.routes):
            _check_glob(glob)
        return self


class LogsConfig(ComponentConfig):
    """What becomes of log records, where the processor also stands in a logs pipeline."""

    min_severity: Literal["trace", "debug", "info", "warn", "error", "fatal"] = "warn"
    """Records without a trace id are kept from here on."""
    below_ratio: float = Field(default=1.0, ge=0, le=1)
    """Share of the other records without a trace id that is kept, at random. No severity number counts as below."""
    unseen_ratio: float | None = Field(default=None, ge=0, le=1)
    """Share of the traces that are never seen whose records are kept, by trace id. Default: the ratio of the rule that matches all."""
    max_bytes: ByteSize = 64 * 1024 * 1024
    """Of the records that wait; over it the oldest traces' records are decided as if their traces were never seen. 0: no budget."""

    @property
    def min_number(self) -> int:
        """The severity number of ``min_severity``."""
        return _SEVERITIES[self.min_severity]


class SamplingConfig(ComponentConfig):
    """Whole traces, first matching rule."""

    decision_wait: Duration = Field(default=10.0, gt=0, le=3600)
    """From a trace's first span to its decision."""
    max_bytes: ByteSize = 256 * 1024 * 1024
    """Of what is held; over it the oldest traces are decided early. 0: no budget."""
    decision_cache_size: int = Field(default=500_000, ge=0, le=50_000_000)
    """Decided traces remembered for their late spans and their logs; kept and dropped ones each."""
    drop_spans: DropSpansConfig = DropSpansConfig()
    rules: tuple[RuleConfig, ...] = (
        RuleConfig(name="errors", any=AnyCondition(status="error", http_status="5xx"), ratio=1.0),
        RuleConfig.model_validate({"name": "slow", "root_duration": "2s", "ratio": 1.0}),
        RuleConfig(name="rest", ratio=1.0),
    )
    upstream_ratio: dict[str, float] = Field(default_factory=dict)
    """Glob of service.name to the ratio its SDK samples with, where the SDK writes no ``ot=th``; the first that matches."""
    logs: LogsConfig = LogsConfig()

    @model_validator(mode="before")
    @classmethod
    def _ratio_text(cls, value: Any) -> Any:
        """An empty ``upstream_ratio:`` is none."""
        if isinstance(value, dict) and value.get("upstream_ratio", {}) is None:
            value = {key: entry for key, entry in value.items() if key != "upstream_ratio"}
        return value

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [rule.name for rule in self.rules]
        if not self.rules or len(self.rules) > _RULES_MAX:
            raise ValueError(f"rules: between 1 and {_RULES_MAX}, not {len(self.rules)}")
        if len(set(names)) != len(names):
            raise ValueError("rules: two rules have the same name")
        if "none" in names:
            raise ValueError("rules: the name none stands for no rule in the metrics; take another")
        for rule in self.rules[:-1]:
            if rule.matches_all:
                raise ValueError(
                    f"rule {rule.name!r} matches every trace: the rules behind it can never match; move it to the end"
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
                            f"rule {rule.name!r} can never match: every trace it is for is {before.name!r}'s"
                        )
                elif rule.any is not None and rule.any == before.any and rule.root_duration == before.root_duration:
                    raise ValueError(f"rule {rule.name!r} can never match: it has the condition of {before.name!r}")
        seen: list[str] = []
        for glob, ratio in self.upstream_ratio.items():
            _check_glob(glob)
            if not 0 < ratio <= 1:
                raise ValueError(
                    f"upstream_ratio: {glob!r}: a ratio above 0 and up to 1, not {ratio:g}: of nothing nothing would come"
                )
            for before_glob in seen:
                if fnmatchcase(glob.replace("[", "\0"), before_glob) and before_glob != glob:
                    raise ValueError(f"upstream_ratio: {glob!r} can never match: {before_glob!r} stands before it")
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
    if not glob or len(glob) > _GLOB_MAX:
        raise ValueError(f"a glob of 1 to {_GLOB_MAX} characters, not {glob[:40]!r}")
    if glob.count("*") > _STARS_MAX:
        raise ValueError(f"the glob {glob[:40]!r} has more than {_STARS_MAX} stars: matching would take too long")


_STARS_MAX: Final = 6
