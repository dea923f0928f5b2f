"""Relabelling: rules that change, keep or drop targets and series by their labels.

Source: prometheus/prometheus model/relabel/relabel.go.
"""

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from collector.text.patterns import Pattern, compile_pattern
from collector.text.substitute import Template, replace_matches
from config.blocks import ComponentConfig

__all__ = ["RelabelConfig", "Relabeller"]

Action = Literal[
    "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase",
    "uppercase",
]  # fmt: skip


class RelabelConfig(ComponentConfig):
    """One rule."""

    source_labels: tuple[str, ...] = ()
    """The labels whose values are joined with the separator."""
    separator: str = ";"
    """What stands between the values."""
    regex: str = "(.*)"
    """A regular expression (RE2) for the joined values, or for the names of labels; it must match as a whole."""
    modulus: int = Field(default=0, ge=0)
    """Divisor of ``hashmod``."""
    target_label: str = ""
    """The label that is written."""
    replacement: str = "$1"
    """What is written; ``$1`` and ``${name}`` are groups of the regular expression."""
    action: Action = "replace"
    """What the rule does."""

    @model_validator(mode="before")
    @classmethod
    def _accept_action_in_any_case(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("action"), str):
            return {**values, "action": values["action"].lower()}
        return values

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        compile_pattern(self.regex)
        if self.action in {"replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal"}:
            if not self.target_label:
                raise ValueError(f"target_label: required with action: {self.action}")
        elif self.action == "labelmap" and not self.replacement:
            raise ValueError("replacement: required with action: labelmap")
        if self.action == "hashmod" and not self.modulus:
            raise ValueError("modulus: required with action: hashmod (example: 8)")
        return self


class _Rule:
    """One rule, compiled."""

    def __init__(self, config: RelabelConfig) -> None:
        self.config = config
        self.pattern: Pattern = compile_pattern(f"^(?s:{config.regex})$")
        self.replacement = Template(self.pattern, config.replacement)
        self.target = Template(self.pattern, config.target_label)

    def apply(self, labels: dict[str, str]) -> bool:
        """Change the labels; False: what they belong to is dropped."""
        config = self.config
        joined = config.separator.join([labels.get(name, "") for name in config.source_labels])
        match config.action:
            case "keep":
                return self.pattern.search(joined) is not None
            case "drop":
                return self.pattern.search(joined) is None
            case "keepequal":
                return labels.get(config.target_label, "") == joined
            case "dropequal":
                return labels.get(config.target_label, "") != joined
            case "replace":
                self._replace(labels, joined)
            case "hashmod":
                digest = hashlib.md5(joined.encode(), usedforsecurity=False).digest()
                labels[config.target_label] = str(int.from_bytes(digest[8:], "big") % config.modulus)
            case "labelmap":
                for name, value in list(labels.items()):
                    if self.pattern.search(name) is not None:
                        labels[replace_matches(self.pattern, name, self.replacement.expand)] = value
            case "labeldrop":
                for name in [name for name in labels if self.pattern.search(name) is not None]:
                    del labels[name]
            case "labelkeep":
                for name in [name for name in labels if self.pattern.search(name) is None]:
                    del labels[name]
            case "lowercase":
                _set(labels, config.target_label, joined.lower())
            case "uppercase":
                _set(labels, config.target_label, joined.upper())
        return True

    def _replace(self, labels: dict[str, str], joined: str) -> None:
        match = self.pattern.search(joined)
        if match is None:
            return
        target = self.target.expand(match)
        if target:
            _set(labels, target, self.replacement.expand(match))


def _set(labels: dict[str, str], name: str, value: str) -> None:
    """As everywhere in Prometheus, a label without a value is no label."""
    if value:
        labels[name] = value
    else:
        labels.pop(name, None)


class Relabeller:
    """Rules in their order.

    >>> rule = RelabelConfig(source_labels=("a", "b"), target_label="c", replacement="<$1>")
    >>> Relabeller([rule]).apply({"a": "1", "b": "2"})
    {'a': '1', 'b': '2', 'c': '<1;2>'}
    """

    def __init__(self, configs: Sequence[RelabelConfig]) -> None:
        self._rules = [_Rule(config) for config in configs]

    def __bool__(self) -> bool:
        return bool(self._rules)

    def apply(self, labels: dict[str, str]) -> dict[str, str] | None:
        """The labels that the rules make of ``labels``, which they change; None: dropped."""
        for rule in self._rules:
            if not rule.apply(labels):
                return None
        return labels
