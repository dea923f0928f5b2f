"""References in values: ``${env:X}`` and its kin, replaced by what they stand for.

In any string value: ``${env:X}``, ``${env:X:-default}``, ``${X}``, ``${file:path}``, ``${yaml:text}``, nested ones as
well; ``$$`` is a dollar sign. If a reference is the whole value, its content is read as YAML, and its original text is
kept for targets that are strings: ``fd00::`` is a mapping in YAML. Within a longer text it is inserted as text.

Source: open-telemetry/opentelemetry-collector confmap/{expand,provider}.go, and its limits.
"""

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from config.errors import Findings
from config.yaml import ListNode, MapNode, Node, Position, ScalarNode, YAMLSyntaxError, parse, replant

__all__ = ["Expander", "ExpansionError", "ReadFile", "read_file", "split_scheme", "unknown_scheme"]

MAX_REFERENCES_PER_VALUE = 100
MAX_NESTED_FILES = 20
MAX_EXPANSIONS = 1000
"""For one value, including the values that its references bring in: a reference to itself ends here."""
MAX_TOTAL_EXPANSIONS = 20_000
MAX_VALUE_CHARS = 1024 * 1024
MAX_FILE_BYTES = 8 * 1024 * 1024

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(.*)$", re.DOTALL)
_SCHEMES = ("env", "file", "yaml")
_VARIABLE_NAME = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")

ReadFile = Callable[[str], str]


class ExpansionError(Exception):
    """A reference or a source cannot be read."""


class _AlreadyReportedError(Exception):
    """The value exceeded its budget of expansions before, and that was reported."""


def read_file(path: str) -> str:
    """The text of the file at ``path``.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is too large, or not UTF-8.
    """
    with Path(path).open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"the file is larger than {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError(f"the file is not valid UTF-8 (at byte {exc.start})") from exc


def split_scheme(uri: str, default: str) -> tuple[str, str]:
    """Scheme and rest of ``scheme:rest``; ``default`` and the whole text if there is no scheme."""
    match = _SCHEME.match(uri)
    return (match[1], match[2]) if match else (default, uri)


def unknown_scheme(scheme: str) -> str:
    """What to say about a scheme that is not supported."""
    return f"the scheme {scheme!r} is not supported; the supported schemes are {', '.join(_SCHEMES)}"


@dataclass(slots=True)
class _Budget:
    """Expansions that are left for one value."""

    remaining: int = MAX_EXPANSIONS


@dataclass(slots=True)
class Expander:
    """Expands the references of one configuration."""

    environ: Mapping[str, str]
    read: ReadFile
    findings: Findings
    _unset_variables: set[str] = field(default_factory=set)
    _total_remaining: int = MAX_TOTAL_EXPANSIONS

    def expand(self, root: MapNode) -> Node:
        """The document with every reference in it expanded; a value that cannot be expanded is reported and kept."""
        return self._expand(root, (), _Budget(), 1)

    def read_text(self, path: str) -> str:
        """The text of the file at ``path``.

        Raises:
            ExpansionError: it cannot be read.
        """
        try:
            return self.read(path)
        except OSError as exc:
            raise ExpansionError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise ExpansionError(f"cannot read {path}: {exc}") from exc

    def variable(self, name: str) -> str:
        """The value of an environment variable.

        Raises:
            ExpansionError: it is not set.
        """
        if name not in self.environ:
            raise ExpansionError(f"the environment variable {name} is not set")
        return self.environ[name]

    def _expand(self, node: Node, path: tuple[str, ...], budget: _Budget, depth: int) -> Node:
        if isinstance(node, MapNode):
            entries = {}
            for key, entry in node.entries.items():
                own_budget = _Budget() if depth == 1 else budget
                entries[key] = replace(entry, node=self._expand(entry.node, (*path, key), own_budget, depth))
            return replace(node, entries=entries)
        if isinstance(node, ListNode):
            items = []
            for index, item in enumerate(node.items):
                own_budget = _Budget() if depth == 1 else budget
                items.append(self._expand(item, (*path, str(index)), own_budget, depth))
            return replace(node, items=tuple(items))
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        try:
            return self._expand_scalar(node, path, budget, depth)
        except _AlreadyReportedError:
            pass
        except ExpansionError as exc:
            self.findings.error(node.position, path, str(exc))
        except YAMLSyntaxError as exc:
            self.findings.error(exc.position, path, exc.message)
        return node

    def _expand_scalar(self, node: ScalarNode, path: tuple[str, ...], budget: _Budget, depth: int) -> Node:
        assert isinstance(node.value, str)
        reference = node.reference or node.value
        value: Node = node
        text = node.value
        for _ in range(MAX_REFERENCES_PER_VALUE):
            found = _innermost_reference(text)
            if found is None:
                break
            start, end = found
            self._spend(budget)
            inserted = self._retrieve(text[start + 2 : end - 1], node.position, path)
            if (start, end) == (0, len(text)):
                value = _marked(inserted, node.position, reference)
                if not isinstance(value, ScalarNode):
                    value = replace(value, text=_text_of_collection(value.text))
                    if depth >= MAX_NESTED_FILES:
                        budget.remaining = -1
                        raise ExpansionError(f"{reference} nests files more than {MAX_NESTED_FILES} levels deep")
                    return self._expand(value, path, budget, depth + 1)
                if value.text is None:
                    return value
                text = value.text
                if not (isinstance(value.value, str) and "$" in value.value):
                    return replace(value, text=_unescape(text))
            else:
                text = text[:start] + (inserted.text or "") + text[end:]
                value = ScalarNode(text, node.position, reference=reference)
            if len(text) > MAX_VALUE_CHARS:
                raise ExpansionError(f"the value expands to more than {MAX_VALUE_CHARS} characters")
        else:
            raise ExpansionError(
                f"the value contains more than {MAX_REFERENCES_PER_VALUE} references, or one that refers to itself"
            )
        unescaped = _unescape(text)
        assert isinstance(value, ScalarNode)
        return replace(value, value=unescaped, text=unescaped if value.text is not None else None)

    def _spend(self, budget: _Budget) -> None:
        budget.remaining -= 1
        self._total_remaining -= 1
        if budget.remaining < -1:
            raise _AlreadyReportedError
        if budget.remaining < 0:
            raise ExpansionError(f"the value needs more than {MAX_EXPANSIONS} recursive expansions")
        if self._total_remaining < 0:
            raise ExpansionError(f"the configuration needs more than {MAX_TOTAL_EXPANSIONS} expansions")

    def _retrieve(self, uri: str, position: Position, path: tuple[str, ...]) -> Node:
        """The node that a reference stands for; scalars carry their original text."""
        scheme, content = split_scheme(uri, "env")
        if content.startswith("-"):  # the colon of `${X:-default}` does not end a scheme
            scheme, content = "env", uri
        match scheme:
            case "env":
                return self._retrieve_variable(content, position, path)
            case "yaml":
                return _value_node(content, position)
            case "file":
                text = self.read_text(content)
                node = parse(text, content)
                content = text.removesuffix("\n")
                return _value_node(content, position) if isinstance(node, ScalarNode) else replace(node, text=content)
        raise ExpansionError(unknown_scheme(scheme))

    def _retrieve_variable(self, content: str, position: Position, path: tuple[str, ...]) -> Node:
        name, has_default, default = content.partition(":-")
        if not _VARIABLE_NAME.match(name):
            raise ExpansionError(
                f"{name!r} is not a valid name of an environment variable; "
                "it must consist of letters, digits and underscores, and must not begin with a digit"
            )
        if name in self.environ:
            return _value_node(self.environ[name], position)
        if not has_default and name not in self._unset_variables:
            self._unset_variables.add(name)
            near = difflib.get_close_matches(name, self.environ, n=1, cutoff=0.85)
            self.findings.warning(
                position,
                path,
                f"the environment variable {name} is not set, so the value is null",
                suggestion=near[0] if near else "",
                hint=f"set the variable or provide a default: ${{env:{name}:-default}}",
            )
        return _value_node(default, position)


def _value_node(text: str, position: Position) -> Node:
    """Text of a variable as the Collector reads it: as YAML, unless it is not valid YAML or just a string."""
    try:
        node = replant(parse(text, position.file), position)
    except YAMLSyntaxError:
        return ScalarNode(text, position, text=text)
    if isinstance(node, ScalarNode):
        return replace(node, value=text if isinstance(node.value, str) else node.value, text=text)
    return replace(node, text=text)


def _text_of_collection(text: str | None) -> str | None:
    """The text of a mapping or list for targets that are strings; None if it contains references of its own."""
    return None if text is None or _innermost_reference(text) else _unescape(text)


def _marked(node: Node, position: Position, reference: str) -> Node:
    """The node, its scalars marked with the reference they came from, unless they have a place in another file."""
    if isinstance(node, ScalarNode):
        return replace(node, position=position, reference=reference) if node.position == position else node
    if isinstance(node, ListNode):
        items = tuple(_marked(item, position, reference) for item in node.items)
        return replace(node, items=items, reference=reference)
    return replace(
        node,
        reference=reference,
        entries={
            key: replace(entry, node=_marked(entry.node, position, reference)) for key, entry in node.entries.items()
        },
    )


def _innermost_reference(text: str) -> tuple[int, int] | None:
    """Start and end of the first reference that contains no other and is not escaped."""
    search_from = 0
    while (close := text.find("}", search_from)) >= 0:
        start = text.rfind("${", 0, close)
        if start >= 0:
            dollars = 0
            while dollars < start and text[start - dollars - 1] == "$":
                dollars += 1
            if dollars % 2 == 0 and start + 2 < close:
                return start, close + 1
        search_from = close + 1
    return None


def _unescape(text: str) -> str:
    return text.replace("$$", "$")
