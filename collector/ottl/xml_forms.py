"""Converters of XML, with the package lxml. Entities are not resolved, and documents are limited in depth.

Source: opentelemetry-collector-contrib pkg/ottl/ottlfuncs (README, v0.156).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from collector.ottl.values import EvaluationError, Scalar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "attributes_to_elements",
    "check_path",
    "get_xml",
    "insert_xml",
    "parse_simplified_xml",
    "parse_xml",
    "remove_xml",
    "text_to_elements",
]

_MAX_DEPTH: Final = 200
_DECLARATION: Final = "<?xml"


def _etree() -> Any:
    return import_module("lxml.etree")


def check_path(place: int) -> Callable[[Mapping[int, Scalar]], None]:
    """A check that lxml is installed and that the literal at this position is an XPath expression."""

    def check(literals: Mapping[int, Scalar]) -> None:
        try:
            etree = _etree()
        except ImportError:
            raise ValueError(
                "this function needs the Python package lxml, which is not installed; install tailrace[ottl]"
            ) from None
        path = literals.get(place)
        if isinstance(path, str) and path:
            try:
                etree.XPath(path)
            except etree.XPathSyntaxError as exc:
                raise ValueError(f"{path!r} is not a valid XPath expression: {exc}") from None

    return check


def _document(value: Scalar) -> Any:
    """The root element.

    Raises:
        EvaluationError: it is not well-formed XML, or nested too deeply.
    """
    if type(value) is not str:
        raise EvaluationError
    etree = _etree()
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, strip_cdata=False, recover=False
    )
    text = value
    if text.startswith(_DECLARATION):
        text = text.partition("?>")[2].lstrip()  # lxml refuses a declared encoding in a text
    try:
        root = etree.fromstring(text, parser)
    except (etree.XMLSyntaxError, ValueError):
        raise EvaluationError from None
    if _depth(root) > _MAX_DEPTH:
        raise EvaluationError
    return root


def _depth(root: Any) -> int:
    deepest = depth = 0
    for event, _ in _etree().iterwalk(root, events=("start", "end")):
        depth += 1 if event == "start" else -1
        deepest = max(deepest, depth)
    return deepest


def _local(tag: Any) -> str:
    return str(tag).rpartition("}")[2]


def parse_xml(value: Scalar) -> dict[str, Scalar]:
    """An element as a map with its tag, attributes, content and children."""
    return _element_map(_document(value))


def _element_map(element: Any) -> dict[str, Scalar]:
    made: dict[str, Scalar] = {"tag": _local(element.tag)}
    pieces = [element.text or ""]
    children = []
    for child in element:
        if isinstance(child.tag, str):
            children.append(_element_map(child))
        pieces.append(child.tail or "")
    content = "".join(piece.strip() for piece in pieces)
    if content:
        made["content"] = content
    if element.attrib:
        made["attributes"] = {_local(name): text for name, text in element.attrib.items()}
    if children:
        made["children"] = children
    return made


def parse_simplified_xml(value: Scalar) -> dict[str, Scalar]:
    """Elements as a map from their tags to their texts or maps; without attributes."""
    root = _document(value)
    return _simplified([root])


def _simplified(elements: list[Any]) -> dict[str, Scalar]:
    counts: dict[str, int] = {}
    for element in elements:
        counts[_local(element.tag)] = counts.get(_local(element.tag), 0) + 1
    made: dict[str, Scalar] = {}
    for element in elements:
        name = _local(element.tag)
        children = [child for child in element if isinstance(child.tag, str)]
        if not children and not element.text and not len(element):
            continue
        item: Scalar = _leaf(element) if not children else ""
        item = item or _simplified(children)
        if counts[name] > 1:
            items = made.setdefault(name, [])
            if item:
                items.append(item)
        elif item:
            made[name] = item
    return made


def _leaf(element: Any) -> str:
    text: str = element.text or ""
    return text or next((child.tail for child in element if child.tail), "")


# Queries and changes. Their results are texts.


def _found(root: Any, path: str) -> list[Any]:
    etree = _etree()
    try:
        found = root.getroottree().xpath(path)
    except (etree.XPathEvalError, etree.XPathError):
        raise EvaluationError from None
    return found if isinstance(found, list) else [found]


def _escape(text: str) -> str:
    return (
        text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace('"', "&#34;").replace("'", "&#39;")
    )


def _written(node: Any, *, with_tail: bool = False) -> str:
    etree = _etree()
    tail = _escape(node.tail or "") if with_tail else ""
    if node.tag is etree.Comment:
        return f"<!--{node.text}-->{tail}"
    if node.tag is etree.ProcessingInstruction:
        return f"<?{node.target} {node.text or ''}?>{tail}"
    if not isinstance(node.tag, str):
        return (node.text or "") + tail
    name = f"{node.prefix}:{_local(node.tag)}" if node.prefix else _local(node.tag)
    spaces = {
        prefix: uri
        for prefix, uri in node.nsmap.items()
        if node.getparent() is None or node.getparent().nsmap.get(prefix) != uri
    }
    attributes = "".join(f' {"xmlns:" + prefix if prefix else "xmlns"}="{uri}"' for prefix, uri in spaces.items())
    prefixes = {uri: prefix for prefix, uri in node.nsmap.items()}
    for key, text in node.attrib.items():
        uri, _, local = key.rpartition("}")
        prefix = prefixes.get(uri.lstrip("{")) if uri else None
        attributes += f' {prefix + ":" if prefix else ""}{local}="{_escape(text)}"'
    inside = _escape(node.text or "") + "".join(_written(child, with_tail=True) for child in node)
    return f"<{name}{attributes}>{inside}</{name}>{tail}"


def _result(root: Any, source: str) -> str:
    declaration = source.partition("?>")[0] + "?>" if source.startswith(_DECLARATION) else ""
    return declaration + _written(root)


def get_xml(value: Scalar, path: Scalar) -> str:
    """The elements that an XPath expression selects, as a text; of attributes and texts their content."""
    if value == "":
        return ""
    return "".join(
        [
            _escape(str(node)) if isinstance(node, str | float | bool) else _written(node)
            for node in _found(_document(value), path)
        ]
    )


def _remove(node: Any) -> None:
    """Remove a node; the text after it stays."""
    parent = node.getparent()
    if parent is None:
        raise EvaluationError
    tail = node.tail or ""
    before = node.getprevious()
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        parent.text = (parent.text or "") + tail
    parent.remove(node)


def remove_xml(value: Scalar, path: Scalar) -> str:
    """The document without what an XPath expression selects."""
    if value == "":
        return ""
    root = _document(value)
    for node in _found(root, path):
        if isinstance(node, str):
            _remove_text(node)
        elif node is root:
            return ""
        else:
            _remove(node)
    return _result(root, value)


def _remove_text(text: Any) -> None:
    parent = text.getparent()
    if text.is_attribute:
        parent.attrib.pop(text.attrname, None)
    elif text.is_tail:
        parent.tail = None
    else:
        parent.text = None


def insert_xml(value: Scalar, path: Scalar, sub_document: Scalar) -> str:
    """The document with another one put at the end of each element that an XPath expression selects."""
    _document(sub_document)
    if value == "":
        return ""
    root = _document(value)
    found = _found(root, path)
    etree = _etree()
    if any(not etree.iselement(node) for node in found):
        raise EvaluationError
    for node in found:
        node.append(_document(sub_document))
    return _result(root, value)


def attributes_to_elements(value: Scalar, path: Scalar = "//@*") -> str:
    """The document with attributes made into elements at the end of their element."""
    root = _document(value)
    etree = _etree()
    for text in _found(root, path or "//@*"):
        if not etree.iselement(text) and getattr(text, "is_attribute", False):
            parent = text.getparent()
            etree.SubElement(parent, _local(text.attrname)).text = str(text)
            parent.attrib.pop(text.attrname, None)
    return _result(root, value)


def text_to_elements(value: Scalar, path: Scalar = "/", name: Scalar = "value") -> str:
    """The document with texts beside elements, or several texts of one element, wrapped in elements."""
    root = _document(value)
    etree = _etree()
    chosen = [root] if (path or "/") == "/" else [node for node in _found(root, path) if etree.iselement(node)]
    for top in chosen:
        for node in list(top.iter(etree.Element)):
            _wrap_texts(node, name or "value")
    return _result(root, value)


def _wrap_texts(node: Any, name: str) -> None:
    etree = _etree()
    texts = [("text", node)] if node.text else []
    texts += [("tail", child) for child in node if child.tail]
    elements = sum(isinstance(child.tag, str) for child in node)
    if not texts or elements + len(texts) <= 1:
        return
    for where, owner in reversed(texts):
        made = etree.Element(name)
        if where == "text":
            made.text, node.text = node.text, None
            node.insert(0, made)
        else:
            made.text, owner.tail = owner.tail, None
            owner.addnext(made)
