"""Fields of an entry as configurations write them: ``body``, ``body.user.id``, ``attributes["http.status"]``.

Source: opentelemetry-collector-contrib pkg/stanza/entry/field.go (v0.156).
"""

from typing import Final

from collector.log_operators.entries import Path

__all__ = ["ATTRIBUTES", "BODY", "RESOURCE", "parse_field", "parse_rootable_field"]

BODY: Final = 0
ATTRIBUTES: Final = 1
RESOURCE: Final = 2
_ROOTS: Final = {"body": BODY, "attributes": ATTRIBUTES, "resource": RESOURCE}
_EXAMPLES: Final = 'examples: body, body.level, attributes.user, attributes["http.status"], resource["k8s.pod.name"]'
_MAX_DEPTH: Final = 8


def parse_field(text: str) -> Path:
    """The field that the text names.

    Raises:
        ValueError: It names none, or the attributes or the resource as a whole.
    """
    path = parse_rootable_field(text)
    if path.is_root and path.root != BODY:
        raise ValueError(f"{text!r} cannot be used without a key below it (example: {text}.name)")
    return path


def parse_rootable_field(text: str) -> Path:
    """The field that the text names, which may be the attributes or the resource as a whole.

    Raises:
        ValueError: It names none.
    """
    root, *keys = _keys(text)
    if root not in _ROOTS:
        raise ValueError(f"the field {text!r} must begin with body, attributes or resource ({_EXAMPLES})")
    if len(keys) > _MAX_DEPTH:
        raise ValueError(f"the field {text!r} has {len(keys)} keys, but at most {_MAX_DEPTH} are allowed")
    return Path(_ROOTS[root], keys, text)


def _keys(text: str) -> list[str]:
    keys: list[str] = []
    at = 0
    while at < len(text):
        if text[at] == "[":
            quote = text[at + 1 : at + 2]
            if quote not in {'"', "'"}:
                raise ValueError(f"the field {text!r} must have a quoted key in its brackets ({_EXAMPLES})")
            end = text.find(quote, at + 2)
            if end < 0 or text[end + 1 : end + 2] != "]":
                raise ValueError(f"the field {text!r} has an unclosed bracket or quote ({_EXAMPLES})")
            keys.append(text[at + 2 : end])
            at = end + 2
            if at < len(text) and text[at] not in ".[":
                raise ValueError(f"the field {text!r} must go on with a dot or a bracket behind ']' ({_EXAMPLES})")
        else:
            if at and text[at] == ".":
                at += 1
            end = min((place for place in (text.find(".", at), text.find("[", at)) if place >= 0), default=len(text))
            keys.append(text[at:end])
            at = end
            if text[at:] == ".":  # a last key that is empty
                keys.append("")
                break
    return keys or [""]
