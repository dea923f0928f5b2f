"""What the builders of all signals share: resources and scopes."""

from collector.model.builders.attributes import NO_ATTRIBUTES, AttributeSet, attribute_set
from collector.model.builders.fields import utf8
from collector.model.context import EMPTY_CONTEXT, Context
from collector.model.tables import Tables
from collector.wire.protobuf import LENGTH_DELIMITED, field_tag, varint

__all__ = ["Builder", "message_bytes", "text_bytes"]


class Builder:
    """The resources and scopes of a batch, which all signals share; the contents of a scope are encoded bytes."""

    def __init__(self, context: Context = EMPTY_CONTEXT) -> None:
        self._context = context
        self._resources: list[tuple[bytes, bytes, list[int]]] = []
        self._scopes: list[tuple[bytes, bytes, list[bytes]]] = []

    def resource(self, attributes: AttributeSet = NO_ATTRIBUTES, schema_url: str = "") -> int:
        """Adds a resource and returns its number."""
        self._resources.append((message_bytes(1, attribute_set(attributes).tagged(1)), text_bytes(3, schema_url), []))
        return len(self._resources) - 1

    def copy_resource(self, batch: Tables, row: int) -> int:
        """Adds a copy of the resource in this row of a batch, with its schema URL, and returns its number."""
        resource = batch.table("resources").rows[row]
        url = b""
        if resource["schema_url_len"] > 0:
            start = resource["schema_url"]
            url = message_bytes(3, batch.wire[start : start + resource["schema_url_len"]])
        inner = batch.wire[resource["inner_start"] : resource["inner_end"]] if resource["inner_start"] >= 0 else b""
        self._resources.append((inner, url, []))
        return len(self._resources) - 1

    def scope(
        self,
        resource: int,
        name: str = "",
        version: str = "",
        attributes: AttributeSet = NO_ATTRIBUTES,
        schema_url: str = "",
    ) -> int:
        """Adds a scope to a resource and returns its number.

        Raises:
            IndexError: There is no such resource.
        """
        inner = text_bytes(1, name) + text_bytes(2, version) + attribute_set(attributes).tagged(3)
        self._resources[resource][2].append(len(self._scopes))
        self._scopes.append((message_bytes(1, inner), text_bytes(3, schema_url), []))
        return len(self._scopes) - 1

    def build_wire(self) -> bytes:
        """The encoded request; resources and scopes without items are left out."""
        request = []
        for resource, resource_schema, scopes in self._resources:
            parts = []
            for number in scopes:
                scope, schema, items = self._scopes[number]
                if any(items):
                    parts.append(message_bytes(2, scope, *items, schema))
            if parts:
                request.append(message_bytes(1, resource, *parts, resource_schema))
        return b"".join(request)

    def _add_items(self, scope: int, items: bytes) -> None:
        self._scopes[scope][2].append(items)


def text_bytes(number: int, text: str) -> bytes:
    """A text field; no bytes for an empty text."""
    return message_bytes(number, utf8(text)) if text else b""


def message_bytes(number: int, *content: bytes) -> bytes:
    """A length-delimited field."""
    return b"".join((field_tag(number, LENGTH_DELIMITED), varint(sum(map(len, content))), *content))
