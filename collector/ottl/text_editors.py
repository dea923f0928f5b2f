"""The editors that replace texts, by patterns or globs, and the parts that other editors of texts use.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from collector.model.arrays import some
from collector.ottl.attribute_target import AttributesTarget
from collector.ottl.glob import compile_glob
from collector.ottl.map_edits import with_changed_texts, with_renamed_keys
from collector.ottl.operations import apply
from collector.ottl.values import EvaluationError, Kind, Values
from collector.ottl.view import failing, spread
from collector.text.cache import TextCache
from collector.text.patterns import compile_pattern
from collector.text.substitute import Replacement

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.model.arrays import Mask
    from collector.ottl.targets import Target
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = [
    "pattern_of",
    "replace_all_matches",
    "replace_all_patterns",
    "replace_match",
    "replace_pattern",
    "text_argument",
    "texts_editor",
]


def texts_editor(
    target: Target, change: Callable[[str], str | None], *, min_bytes: int = 0
) -> Callable[[View, Mask], Mask]:
    """Changes the texts of a map of at least ``min_bytes`` bytes; ``change`` returns None where a text stays."""

    def run(view: View, rows: Mask) -> Mask:
        if isinstance(target, AttributesTarget):
            return view.nothing() if target.change_texts(view, rows, change, min_bytes=min_bytes) else rows
        return target.edit_map(view, rows, lambda entries: with_changed_texts(entries, change))

    return run


class _Replacement:
    """What replaces a match: a template, whose result a function and a format may change."""

    def __init__(self, arguments: Sequence[Any], literals: Mapping[int, Scalar], first: int) -> None:
        """``first``: the position of the replacement; after it come the function and the format."""
        self.text = arguments[first]
        self.literal: str | None = literals.get(first)
        self._function = arguments[first + 1]
        self._format = arguments[first + 2]
        self._format_literal = literals.get(first + 2)
        if self._format is not None and self._function is not None and self._format_literal is None:
            raise ValueError("replacement_format must be a literal")

    @property
    def is_plain(self) -> bool:
        """Whether neither function nor format applies."""
        return self._function is None

    def finished(self, text: str) -> str:
        """The text after the function and the format.

        Raises:
            EvaluationError: the function or format is not valid for it.
        """
        if self._function is None:
            return text
        result = self._function(text)
        if type(result) is not str:
            raise EvaluationError
        if self._format is None:
            return result
        form = self._format_literal
        if not isinstance(form, str) or form.count("%s") == 0 or form.replace("%s", "", 1).count("%"):
            raise EvaluationError
        return form.replace("%s", result, 1)


class _Replacing:
    """``replace_pattern`` on texts, with the compiled pattern and template kept while they stay the same."""

    def __init__(self, replacement: _Replacement) -> None:
        self._replacement = replacement
        self._made: tuple[Scalar, Scalar, Replacement] | None = None

    def __call__(self, text: str, pattern: Scalar, template: Scalar) -> str | None:
        """The text with the matches replaced; None if nothing matches."""
        made = self._made
        if made is None or made[0] != pattern or made[1] != template:
            try:
                compiled = Replacement(text_argument(pattern), text_argument(template))
            except ValueError:
                raise EvaluationError from None
            made = self._made = pattern, template, compiled
        if self._replacement.is_plain:
            return made[2](text)
        return made[2].by(text, self._replacement.finished)


def replace_pattern(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    """The editor ``replace_pattern``: what a pattern matches in a text is replaced."""
    target: Target = arguments[0]
    if isinstance(literals.get(1), str):
        compile_pattern(literals[1])
    replacement = _Replacement(arguments, literals, 2)
    replace = _Replacing(replacement)
    if replacement.is_plain and type(literals.get(1)) is str and type(literals.get(2)) is str:
        return _replace_constantly(target, Replacement(literals[1], literals[2]))

    def changed(value: Scalar, pattern: Scalar, template: Scalar) -> Scalar:
        if value is None:
            return None
        text_argument(template)
        return replace(value, pattern, template) if type(value) is str else None

    def run(view: View, rows: Mask) -> Mask:
        values = target.read(view)
        if values.kinds == {Kind.NIL}:
            return view.nothing()
        results = apply(changed, [values, arguments[1](view), replacement.text(view)])
        results = spread(results, view.row_count)
        failed = failing(results, rows)
        rows = rows & (results.kind == Kind.STRING)
        return failed | target.write(view, results, rows) if some(rows) else failed

    return run


def _replace_constantly(target: Target, replace: Replacement) -> Callable[[View, Mask], Mask]:
    """``replace_pattern`` with a constant pattern and replacement: texts of earlier batches are not matched again."""

    def changed(raw: bytes) -> bytes | None:
        text = replace(raw.decode("utf-8", "replace"))
        return None if text is None else text.encode("utf-8", "replace")

    cache = TextCache[bytes | None]()

    def run(view: View, rows: Mask) -> Mask:
        values = target.read(view)
        failed = failing(values, rows) if Kind.FAILED in values.kinds else view.nothing()
        if Kind.STRING not in values.kinds:
            return failed
        column = spread(values, view.row_count).text
        texts = column.map_distinct(cache.map(column.distinct_bytes, changed))
        rows = rows & texts.present
        return failed | target.write(view, Values.of_new_texts(texts), rows) if some(rows) else failed

    return run


def _glob(value: Scalar) -> Any:
    try:
        return compile_glob(text_argument(value))
    except ValueError:
        raise EvaluationError from None


def replace_match(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    """The editor ``replace_match``: a text that a glob matches is replaced."""
    target: Target = arguments[0]
    literal = compile_glob(literals[1]) if isinstance(literals.get(1), str) else None
    replacement = _Replacement(arguments, literals, 2)

    def changed(value: Scalar, pattern: Scalar, text: Scalar) -> Scalar:
        compiled = literal or _glob(pattern)
        new = replacement.finished(text_argument(text))
        return new if type(value) is str and compiled.fullmatch(value) is not None else None

    def run(view: View, rows: Mask) -> Mask:
        results = apply(changed, [target.read(view), arguments[1](view), replacement.text(view)])
        results = spread(results, view.row_count)
        failed = failing(results, rows)
        rows = rows & (results.kind == Kind.STRING)
        return failed | target.write(view, results, rows) if some(rows) else failed

    return run


def replace_all_matches(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    """The editor ``replace_all_matches``: the texts of a map that a glob matches are replaced."""
    target: Target = arguments[0]
    literal = compile_glob(literals[1]) if isinstance(literals.get(1), str) else None
    replacement = _Replacement(arguments, literals, 2)

    def change(pattern: Scalar, text: Scalar) -> Callable[[str], str | None]:
        compiled = literal or _glob(pattern)
        new = replacement.finished(text_argument(text))
        return lambda value: new if compiled.fullmatch(value) is not None else None

    return _texts_of(target, change, [arguments[1], replacement.text], literals, (1, 2))


def _texts_of(
    target: Target,
    change: Callable[..., Callable[[str], str | None]],
    getters: Sequence[Callable[[View], Values]],
    literals: Mapping[int, Scalar],
    places: Sequence[int],
) -> Callable[[View, Mask], Mask]:
    """Changes the texts of a map by ``change(*arguments)``."""
    if all(place in literals for place in places):
        fixed = [literals[place] for place in places]

        def once(view: View, rows: Mask) -> Mask:
            try:
                function = change(*fixed)
            except EvaluationError:
                return rows
            return texts_editor(target, function)(view, rows)

        return once
    return lambda view, rows: target.edit_map(
        view,
        rows,
        lambda entries, *found: with_changed_texts(entries, change(*found)),
        [getter(view) for getter in getters],
    )


def replace_all_patterns(arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    """The editor ``replace_all_patterns``: like ``replace_pattern``, in the texts or the keys of a map."""
    target: Target = arguments[0]
    mode = literals[1]
    if mode not in {"key", "value"}:
        raise ValueError(f"mode must be 'key' or 'value', got {mode!r}")
    if isinstance(literals.get(2), str):
        compile_pattern(literals[2])
    replacement = _Replacement(arguments, literals, 3)
    replace = _Replacing(replacement)

    def change(pattern: Scalar, template: Scalar) -> Callable[[str], str | None]:
        pattern_of(pattern)
        text_argument(template)

        def changed(text: str) -> str | None:
            try:
                return replace(text, pattern, template)
            except EvaluationError:
                return None  # the Collector ignores errors of the function here

        return changed

    getters = [arguments[2], replacement.text]
    if mode == "value":
        return _texts_of(target, change, getters, literals, (2, 3))

    def run(view: View, rows: Mask) -> Mask:
        if isinstance(target, AttributesTarget) and 2 in literals and 3 in literals:
            function = change(literals[2], literals[3])
            keys = target.keys(view)
            names = {key: name for key in keys if (name := function(key)) is not None and name != key}
            new = list(names.values())
            if len(set(new)) == len(new) and not set(new) & set(keys):
                return view.nothing() if target.rename(view, rows, names) else rows
        return target.edit_map(
            view,
            rows,
            lambda entries, *found: with_renamed_keys(entries, change(*found)),
            [getter(view) for getter in getters],
        )

    return run


def pattern_of(value: Scalar) -> Any:
    """The compiled pattern.

    Raises:
        EvaluationError: it is not a text, or not a valid pattern.
    """
    try:
        return compile_pattern(text_argument(value))
    except ValueError:
        raise EvaluationError from None


def text_argument(value: Scalar) -> str:
    """The value, which must be a text.

    Raises:
        EvaluationError: it is not.
    """
    if type(value) is not str:
        raise EvaluationError
    return value
