"""Several sources to one document: read, merged, references expanded. Every node still knows where it was written.

Sources (``--config``): a path, ``file:path``, ``env:NAME`` (a variable that holds YAML), ``yaml:text``.
Merge: mappings deeply, the later source wins; lists are replaced; a bare key (null) removes what was there before.
References in values: see ``config.references``. Not here: what the keys mean (``config.model``).

Source: open-telemetry/opentelemetry-collector confmap/resolver.go.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from config.errors import ConfigError, ConfigErrors, Findings
from config.references import Expander, ExpansionError, ReadFile, read_file, split_scheme, unknown_scheme
from config.yaml import Entry, ListNode, MapNode, Node, Position, ScalarNode, YAMLSyntaxError, parse, replant

__all__ = ["Document", "resolve"]

MAX_SOURCES = 100


@dataclass(frozen=True, slots=True)
class Document:
    """The one document that all sources together make."""

    root: MapNode
    warnings: tuple[ConfigError, ...] = ()
    """Findings that do not keep the document from being used: variables that are not set."""

    def node(self, *path: str) -> Node | None:
        """The node at ``path``; None if there is none."""
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
        """Where the key of ``path`` is written, or the nearest place above it."""
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


def resolve(
    sources: Sequence[str],
    sets: Sequence[str],
    environ: Mapping[str, str],
    read: ReadFile = read_file,
) -> Document:
    """Read ``sources`` in order, then ``sets`` (``a.b.c=value``), merge them and expand every reference.

    Raises:
        ConfigErrors: everything that cannot be read, parsed or expanded, at once.
    """
    if not sources:
        message = "no configuration was specified"
        raise ConfigErrors([ConfigError(Position("--config"), (), message, hint="specify at least one --config")])
    if len(sources) + len(sets) > MAX_SOURCES:
        message = f"{len(sources) + len(sets)} sources were specified, but at most {MAX_SOURCES} are allowed"
        raise ConfigErrors([ConfigError(Position("--config"), (), message)])
    findings = Findings()
    expander = Expander(environ, read, findings)
    root = MapNode({}, Position(_source_name(sources[0]), 1, 1))
    layers = [_read_source(source, expander, findings) for source in sources]
    layers += [_read_set(assignment, findings) for assignment in sets]
    for layer in layers:
        if layer is not None:
            root = _merge(root, layer)
    expanded = expander.expand(root)
    if findings.errors:
        names = [_source_name(source) for source in sources]
        order = {name: index for index, name in reversed(list(enumerate(names)))}
        raise ConfigErrors(
            sorted(findings.errors, key=lambda error: (order.get(error.file, len(names)), error.line, error.column)),
            findings.warnings,
        )
    assert isinstance(expanded, MapNode)
    return Document(expanded, tuple(findings.warnings))


def _read_source(source: str, expander: Expander, findings: Findings) -> MapNode | None:
    """The mapping that a source holds; None if it cannot be read, which is reported."""
    scheme, content = split_scheme(source, "file")
    name = _source_name(source)
    try:
        node = parse(_source_text(scheme, content, expander), name)
    except ExpansionError as exc:
        findings.error(Position(name), (), str(exc))
        return None
    except YAMLSyntaxError as exc:
        findings.error(exc.position, (), exc.message)
        return None
    if isinstance(node, ScalarNode) and node.value is None:
        return MapNode({}, node.position)
    if not isinstance(node, MapNode):
        found = "a list" if isinstance(node, ListNode) else "a single value"
        findings.error(node.position, (), f"a configuration must be a mapping of sections, got {found}")
        return None
    return _split_keys(node)


def _source_text(scheme: str, content: str, expander: Expander) -> str:
    match scheme:
        case "file":
            return expander.read_text(content)
        case "yaml":
            return content
        case "env":
            return expander.variable(content)
    raise ExpansionError(unknown_scheme(scheme))


def _read_set(assignment: str, findings: Findings) -> MapNode | None:
    """The nested mappings that ``a.b.c=value`` stands for; None if it is malformed, which is reported."""
    key, separator, text = assignment.partition("=")
    position = Position(f"--set {key.strip()}")
    path = [part for dotted in key.strip().split("::") for part in dotted.split(".")]
    if not separator:
        findings.error(position, (), "the equal sign is missing", hint="write --set a.b.c=value")
        return None
    if not all(path):
        findings.error(position, (), "a part of the key is empty", hint="write --set a.b.c=value")
        return None
    try:
        node = replant(parse(text, position.file), position)
    except YAMLSyntaxError as exc:
        findings.error(position, tuple(path), exc.message)
        return None
    for part in reversed(path):
        node = MapNode({part: Entry(position, node)}, position)
    assert isinstance(node, MapNode)
    return node


def _source_name(source: str) -> str:
    """How messages refer to a source: its path, or what it is."""
    scheme, content = split_scheme(source, "file")
    if scheme == "file":
        return content
    return "--config yaml" if scheme == "yaml" else source


def _merge(below: MapNode, above: MapNode) -> MapNode:
    """``above`` laid over ``below``."""
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
