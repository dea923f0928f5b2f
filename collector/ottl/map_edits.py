"""What editors do to single maps and lists. None of these functions changes its arguments.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (v0.156).
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

from collector.ottl.containers import as_text
from collector.ottl.values import EvaluationError, Scalar

__all__ = [
    "flattened",
    "joined",
    "limited",
    "merged",
    "stringified",
    "truncate",
    "with_changed_texts",
    "with_renamed_keys",
    "without_range",
]

_PLAIN: Final = {str, int, float, bool}


def merged(entries: dict[str, Scalar], more: dict[str, Scalar], strategy: str) -> dict[str, Scalar]:
    """The map with the entries of another: all, only new ones (insert) or only existing ones (update)."""
    if strategy == "upsert":
        return {**entries, **more}
    if strategy == "insert":
        return {**entries, **{key: value for key, value in more.items() if key not in entries}}
    return {**entries, **{key: value for key, value in more.items() if key in entries}}


def limited(entries: dict[str, Scalar], limit: int, priority: Sequence[str]) -> dict[str, Scalar]:
    """The entries with these keys, and as many of the others, in order, as the limit leaves."""
    if len(entries) <= limit:
        return entries
    count = sum(key in entries for key in priority)
    kept = {}
    for key, value in entries.items():
        if key in priority:
            kept[key] = value
        elif count < limit:
            count += 1
            kept[key] = value
    return kept


def truncate(text: str, limit: int, *, utf8_safe: bool) -> str | None:
    """The first ``limit`` bytes of a text, whole characters only if ``utf8_safe``; None if it is not longer."""
    if len(text) * 4 <= limit:
        return None
    raw = text.encode("utf-8", "replace")
    if len(raw) <= limit:
        return None
    return raw[:limit].decode("utf-8", "ignore" if utf8_safe else "replace")


def with_changed_texts(entries: dict[str, Scalar], change: Callable[[str], str | None]) -> dict[str, Scalar]:
    """The map with each text replaced by ``change(text)``; None leaves it."""
    return {
        key: new if type(value) is str and (new := change(value)) is not None else value
        for key, value in entries.items()
    }


def with_renamed_keys(entries: dict[str, Scalar], change: Callable[[str], str | None]) -> dict[str, Scalar]:
    """The map with each key replaced by ``change(key)``; of entries that get the same key the last remains."""
    renamed: dict[str, Scalar] = {}
    for key, value in entries.items():
        new = change(key)
        renamed[key if new is None else new] = value
    return renamed


def stringified(entries: dict[str, Scalar]) -> dict[str, Scalar]:
    """The map with every value as text."""
    return {key: value if type(value) is str else as_text(value) for key, value in entries.items()}


def flattened(
    entries: dict[str, Scalar], prefix: str, depth: int | None, *, resolve_conflicts: bool
) -> dict[str, Scalar]:
    """The map without nested maps and lists, whose keys and indices are joined by dots."""
    flat = _Flat(depth, resolve_conflicts=resolve_conflicts)
    flat.add_map(entries, prefix, 0)
    return flat.result


class _Flat:
    def __init__(self, depth: int | None, *, resolve_conflicts: bool) -> None:
        self.result: dict[str, Scalar] = {}
        self._depth = 2**63 if depth is None else depth
        self._resolve = resolve_conflicts
        self._seen: dict[str, int] = {}

    def add_map(self, entries: dict[str, Any], prefix: str, level: int) -> None:
        start = f"{prefix}." if prefix else ""
        for key, value in entries.items():
            self._add(key, value, level, start)

    def _add_list(self, items: list[Any], prefix: str, level: int) -> None:
        for index, item in enumerate(items):
            self._add(str(index), item, level + 1, prefix)

    def _add(self, key: str, value: Any, level: int, start: str) -> None:
        name = start + key
        if type(value) is dict and level < self._depth:
            self.add_map(value, name, level + 1)
        elif type(value) is list and level < self._depth:
            for index, item in enumerate(value):
                if type(item) is dict and level + 1 < self._depth:
                    self.add_map(item, f"{name}.{index}", level + 2)
                elif type(item) is list and level + 1 < self._depth:
                    self._add_list(item, f"{name}.{index}", level + 2)
                elif self._resolve:
                    self._put(name, item)
                else:
                    self.result[f"{name}.{index}"] = item
        else:
            self._put(name, value)

    def _put(self, key: str, value: Any) -> None:
        if self._resolve and key in self.result:
            number = self._seen.get(key, 0)
            self._seen[key] = number + 1
            self.result[f"{key}.{number}"] = value
        else:
            self._seen[key] = 0
            self.result[key] = value


def joined(target: Scalar, *more: Scalar) -> list[Scalar]:
    """The items of a list, or a single value, followed by more values."""
    if target is None:
        items: list[Scalar] = []
    elif type(target) is list:
        items = list(target)
    elif type(target) in _PLAIN or type(target) is bytes:
        items = [target]
    else:
        raise EvaluationError
    for item in more:
        if item is not None and type(item) not in {*_PLAIN, bytes, list, dict}:
            raise EvaluationError
    return [*items, *more]


def without_range(items: Scalar, start: Scalar, end: Scalar = ...) -> list[Scalar]:
    """The list without the items from ``start`` to before ``end``, by default without one item."""
    if type(items) is not list or type(start) is not int:
        raise EvaluationError
    if end is ...:
        end = start + 1
    if type(end) is not int:
        raise EvaluationError
    if start == 0 and end == len(items):
        return []
    if not 0 <= start < len(items) or not start <= end <= len(items):
        raise EvaluationError
    return items[:start] + items[end:]
