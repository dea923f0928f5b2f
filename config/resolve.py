"""Several sources to one document: read, merged, references expanded. Every node still knows where it was written.

Sources (``--config``): a path, ``file:path``, ``env:NAME`` (a variable that holds YAML), ``yaml:text``.
Merge: mappings deeply, later wins; lists are replaced; a bare key (null) wipes what was there before.
References, in any string value: ``${env:X}``, ``${env:X:-default}``, ``${X}``, ``${file:path}``, ``${yaml:text}``,
nested ones too; ``$$`` is a dollar sign. The value of a whole-value reference is read as YAML, its original text is
kept for targets that are strings. Not here: what the keys mean (``config.model``).

Source: open-telemetry/opentelemetry-collector confmap/{resolver,expand,provider}.go; reference limits from there.
"""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from config.errors import ConfigError, ConfigErrors
from config.yaml import Entry, ListNode, MapNode, Node, Position, ScalarNode, YAMLSyntaxError, parse

__all__ = ["Document", "read_file", "resolve"]

MAX_SOURCES = 100
MAX_REFERENCES_PER_VALUE = 100
MAX_NESTED_FILES = 20
MAX_EXPANSIONS = 1000
"""Per value, the values that references bring in included: a reference to itself ends here."""
MAX_EXPANSIONS_IN_ALL = 20_000
MAX_VALUE_CHARS = 1024 * 1024
MAX_FILE_BYTES = 8 * 1024 * 1024
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]+):(.*)$", re.DOTALL)
_ENV_NAME = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
_SCHEMES = ("env", "file", "yaml")

ReadFile = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Document:
    """The one document that all sources make."""

    root: MapNode
    warnings: tuple[ConfigError, ...] = ()
    """Findings that stop nothing: variables that are not set."""

    def node(self, *path: str) -> Node | None:
        """The node at ``path``; None if nothing is written there."""
        node: Node = self.root
        for step in path:
            if isinstance(node, MapNode) and step in node.entries:
                node = node.entries[step].node
            elif isinstance(node, ListNode) and step.isdecimal() and int(step) < len(node.items):
                node = node.items[int(step)]
            else:
                return None
        return node

    def position(self, *path: str) -> Position:
        """Where ``path`` is written (its key), or the nearest place above it that is."""
        node: Node = self.root
        position = node.position
        for step in path:
            if isinstance(node, MapNode) and step in node.entries:
                position, node = node.entries[step].key_position, node.entries[step].node
            elif isinstance(node, ListNode) and step.isdecimal() and int(step) < len(node.items):
                node = node.items[int(step)]
                position = node.position
            else:
                break
        return position


def read_file(path: str) -> str:
    """The text of the file at ``path``. Raises OSError or ValueError (not UTF-8, too large)."""
    with Path(path).open("rb") as file:
        raw = file.read(MAX_FILE_BYTES + 1)
    if len(raw) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ValueError(f"not UTF-8 at byte {exc.start}") from exc


def resolve(
    sources: Sequence[str],
    sets: Sequence[str] = (),
    *,
    environ: Mapping[str, str] | None = None,
    read: ReadFile = read_file,
) -> Document:
    """Read ``sources`` in order, then ``sets`` (``a.b.c=value``), merge them and expand every reference.

    Raises:
        ConfigErrors: everything that cannot be read, parsed or expanded, at once.
    """
    resolver = _Resolver(os.environ if environ is None else environ, read)
    return resolver.document(sources, sets)


class _ExpansionError(Exception):
    """A reference cannot be expanded."""


class _AlreadyReportedError(Exception):
    """The value's budget of expansions was exceeded before, and that was said."""


@dataclass(slots=True)
class _Budget:
    """Expansions left for one value."""

    left: int = MAX_EXPANSIONS


@dataclass(slots=True)
class _Resolver:
    environ: Mapping[str, str]
    read: ReadFile
    errors: list[ConfigError] = field(default_factory=list)
    warnings: dict[str, ConfigError] = field(default_factory=dict)
    total_left: int = MAX_EXPANSIONS_IN_ALL

    def document(self, sources: Sequence[str], sets: Sequence[str]) -> Document:
        if not sources:
            raise ConfigErrors([ConfigError(Position("--config"), (), "at least one --config must be given")])
        if len(sources) + len(sets) > MAX_SOURCES:
            raise ConfigErrors([ConfigError(Position("--config"), (), f"more than {MAX_SOURCES} sources")])
        root = MapNode({}, Position(_source_name(sources[0]), 1, 1))
        for layer in [*map(self._source, sources), *map(self._set, sets)]:
            if layer is not None:
                root = _merge(root, layer)
        expanded = self._expand(root, (), _Budget(), 1)
        if self.errors:
            raise ConfigErrors(
                sorted(self.errors, key=lambda error: (_sources_order(error.file, sources), error.line, error.column))
            )
        assert isinstance(expanded, MapNode)
        return Document(expanded, tuple(self.warnings.values()))

    def _source(self, source: str) -> MapNode | None:
        match = _SCHEME.match(source)
        scheme, rest = (match[1], match[2]) if match else ("file", source)
        name = _source_name(source)
        try:
            if scheme == "file":
                text = self._read(rest)
            elif scheme == "yaml":
                text = rest
            elif scheme == "env":
                text = self._variable(rest)
            else:
                self._refuse(name, _unknown_scheme(scheme))
                return None
            node = parse(text, name)
        except _ExpansionError as exc:
            self._refuse(name, str(exc))
            return None
        except YAMLSyntaxError as exc:
            self.errors.append(ConfigError(exc.position, (), exc.message))
            return None
        if isinstance(node, ScalarNode) and node.value is None:
            return MapNode({}, node.position)
        if not isinstance(node, MapNode):
            self.errors.append(ConfigError(node.position, (), "a configuration must be a mapping at its top"))
            return None
        return _split_keys(node)

    def _refuse(self, source_name: str, message: str) -> None:
        self.errors.append(ConfigError(Position(source_name), (), message))

    def _variable(self, name: str) -> str:
        if name not in self.environ:
            raise _ExpansionError(f"the environment variable {name} is not set")
        return self.environ[name]

    def _set(self, assignment: str) -> MapNode | None:
        key, separator, text = assignment.partition("=")
        position = Position(f"--set {key.strip()}")
        path = [part for dotted in key.strip().split("::") for part in dotted.split(".")]
        if not separator:
            self.errors.append(ConfigError(position, (), "missing equal sign: write --set a.b.c=value"))
            return None
        if not all(path):
            self.errors.append(ConfigError(position, (), "an empty part in the key: write --set a.b.c=value"))
            return None
        try:
            node = _replant(parse(text, position.file), position)
        except YAMLSyntaxError as exc:
            self.errors.append(ConfigError(position, tuple(path), exc.message))
            return None
        for part in reversed(path):
            node = MapNode({part: Entry(position, node)}, position)
        assert isinstance(node, MapNode)
        return node

    def _read(self, path: str) -> str:
        try:
            return self.read(path)
        except OSError as exc:
            raise _ExpansionError(f"cannot read {path}: {exc.strerror or exc}") from exc
        except ValueError as exc:
            raise _ExpansionError(f"cannot read {path}: {exc}") from exc

    def _expand(self, node: Node, path: tuple[str, ...], budget: _Budget, depth: int) -> Node:
        """The node with every reference in it expanded; what fails is reported and stays as it was."""
        if isinstance(node, MapNode):
            entries = {}
            for key, entry in node.entries.items():
                own = _Budget() if depth == 1 else budget
                entries[key] = replace(entry, node=self._expand(entry.node, (*path, key), own, depth))
            return replace(node, entries=entries)
        if isinstance(node, ListNode):
            items = []
            for index, item in enumerate(node.items):
                own = _Budget() if depth == 1 else budget
                items.append(self._expand(item, (*path, str(index)), own, depth))
            return replace(node, items=tuple(items))
        if not isinstance(node.value, str) or "$" not in node.value:
            return node
        try:
            return self._expand_scalar(node, path, budget, depth)
        except _AlreadyReportedError:
            pass
        except _ExpansionError as exc:
            self.errors.append(ConfigError(node.position, path, str(exc)))
        except YAMLSyntaxError as exc:
            self.errors.append(ConfigError(exc.position, path, exc.message))
        return node

    def _expand_scalar(self, node: ScalarNode, path: tuple[str, ...], budget: _Budget, depth: int) -> Node:
        assert isinstance(node.value, str)
        reference = node.reference or node.value
        value: Node = node
        text, text_is_known = node.value, True
        for _ in range(MAX_REFERENCES_PER_VALUE):
            found = _innermost_reference(text)
            if found is None:
                break
            start, end = found
            self._spend(budget)
            inserted = self._retrieve(text[start + 2 : end - 1], node.position, path)
            if (start, end) == (0, len(text)):
                value = _originating(inserted, node.position, reference)
                if not isinstance(value, ScalarNode):
                    if depth >= MAX_NESTED_FILES:
                        budget.left = -1
                        raise _ExpansionError(f"{reference} nests more than {MAX_NESTED_FILES} files")
                    return self._expand(value, path, budget, depth + 1)
                text_is_known = value.text is not None
                text = value.text if value.text is not None else ""
                if not text_is_known:
                    return value
                if not (isinstance(value.value, str) and "$" in value.value):
                    return replace(value, text=_unescape(text))
            else:
                if not isinstance(inserted, ScalarNode):
                    raise _ExpansionError(
                        f"{text[start:end]} stands inside a string, but its value is a mapping or a list"
                    )
                text = text[:start] + (inserted.text or "") + text[end:]
                value = ScalarNode(text, node.position, reference=reference)
            if len(text) > MAX_VALUE_CHARS:
                raise _ExpansionError(f"expands to more than {MAX_VALUE_CHARS} characters")
        else:
            raise _ExpansionError(
                f"more than {MAX_REFERENCES_PER_VALUE} references in one value, or one that refers to itself"
            )
        unescaped = _unescape(text)
        assert isinstance(value, ScalarNode)
        return replace(value, value=unescaped, text=unescaped if value.text is not None else None)

    def _spend(self, budget: _Budget) -> None:
        budget.left -= 1
        self.total_left -= 1
        if budget.left < -1:
            raise _AlreadyReportedError
        if budget.left < 0:
            raise _ExpansionError(f"too many recursive expansions (more than {MAX_EXPANSIONS})")
        if self.total_left < 0:
            raise _ExpansionError(f"more than {MAX_EXPANSIONS_IN_ALL} expansions in one configuration")

    def _retrieve(self, uri: str, position: Position, path: tuple[str, ...]) -> Node:
        """The node a reference stands for; scalars carry their original text."""
        match = _SCHEME.match(uri)
        # `${X:-default}`: the colon of the default is no scheme's.
        scheme, rest = (match[1], match[2]) if match and not match[2].startswith("-") else ("env", uri)
        if scheme == "env":
            name, has_default, default = rest.partition(":-")
            if not _ENV_NAME.match(name):
                raise _ExpansionError(
                    f"{name!r} is no name of an environment variable: letters, digits and underscores, no digit first"
                )
            if name in self.environ:
                return _value_node(self.environ[name], position)
            if not has_default:
                near = difflib.get_close_matches(name, self.environ, n=1, cutoff=0.85)
                message = f"the environment variable {name} is not set: the value is null"
                self.warnings.setdefault(name, ConfigError(position, path, message, suggestion=near[0] if near else ""))
            return _value_node(default, position)
        if scheme == "yaml":
            return _value_node(rest, position)
        if scheme == "file":
            text = self._read(rest)
            node = parse(text, rest)
            if isinstance(node, ScalarNode):
                return _value_node(text.removesuffix("\n"), position)
            return node
        raise _ExpansionError(_unknown_scheme(scheme))


def _sources_order(file: str, sources: Sequence[str]) -> int:
    """Where ``file`` comes among ``sources``; later for what is none of them."""
    names = [_source_name(source) for source in sources]
    return names.index(file) if file in names else len(names)


def _source_name(source: str) -> str:
    match = _SCHEME.match(source)
    if match and match[1] == "file":
        return match[2]
    if match and match[1] == "yaml":
        return "--config yaml"
    return source


def _unknown_scheme(scheme: str) -> str:
    return f"the scheme {scheme!r} is not supported; known: {', '.join(_SCHEMES)}"


def _merge(below: MapNode, above: MapNode) -> MapNode:
    """``above`` over ``below``."""
    entries = dict(below.entries)
    for key, entry in above.entries.items():
        old = entries.get(key)
        if old is not None and isinstance(old.node, MapNode) and isinstance(entry.node, MapNode):
            entries[key] = Entry(entry.key_position, _merge(old.node, entry.node))
        else:
            entries[key] = entry
    return MapNode(entries, above.position)


def _split_keys(node: MapNode) -> MapNode:
    """Keys written as ``a::b::c`` at the top become nested mappings, as in the Collector."""
    root = MapNode({}, node.position)
    for key, entry in node.entries.items():
        first, *rest = key.split("::")
        child = entry.node
        for part in reversed(rest):
            child = MapNode({part: Entry(entry.key_position, child)}, entry.key_position)
        root = _merge(root, MapNode({first: Entry(entry.key_position, child)}, node.position))
    return root


def _replant(node: Node, position: Position) -> Node:
    """The node with every position set to ``position``: where the reference stands."""
    if isinstance(node, ScalarNode):
        return replace(node, position=position)
    if isinstance(node, ListNode):
        return replace(node, position=position, items=tuple(_replant(item, position) for item in node.items))
    entries = {key: Entry(position, _replant(entry.node, position)) for key, entry in node.entries.items()}
    return replace(node, position=position, entries=entries)


def _value_node(text: str, position: Position) -> Node:
    """Text of a variable as the Collector reads it: YAML, unless that is no YAML or just a string."""
    try:
        node = _replant(parse(text, position.file), position)
    except YAMLSyntaxError:
        return ScalarNode(text, position, text=text)
    if isinstance(node, ScalarNode):
        return replace(node, value=text if isinstance(node.value, str) else node.value, text=text)
    return node


def _originating(node: Node, position: Position, reference: str) -> Node:
    """The node, its scalars marked with the reference they came from (unless they stand in a file and have a place there)."""
    if isinstance(node, ScalarNode):
        return replace(node, position=position, reference=reference) if node.position == position else node
    if isinstance(node, ListNode):
        return replace(node, items=tuple(_originating(item, position, reference) for item in node.items))
    return replace(
        node,
        entries={
            key: replace(entry, node=_originating(entry.node, position, reference))
            for key, entry in node.entries.items()
        },
    )


def _innermost_reference(text: str) -> tuple[int, int] | None:
    """Start and end of the first reference that holds no other and is not escaped."""
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
