"""``set_semconv_span_name``: names of spans by the semantic conventions, once per distinct set of their attributes.

Source: opentelemetry-collector-contrib processor/transformprocessor/internal/traces (v0.156).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from collector.model.arrays import some
from collector.ottl.containers import as_text
from collector.ottl.editors import Editor
from collector.ottl.functions import Parameter
from collector.ottl.operations import apply
from collector.ottl.values import Kind, Values
from collector.ottl.view import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.model import StringColumn
    from collector.model.arrays import Mask
    from collector.ottl.values import Scalar
    from collector.ottl.view import View

__all__ = ["SPAN_EDITORS", "span_name"]

_INTERNAL, _SERVER, _CLIENT, _PRODUCER, _CONSUMER = 1, 2, 3, 4, 5
_KEYS: Final[tuple[str, ...]] = (
    "http.request.method", "http.method", "http.route", "url.template", "rpc.system.name", "rpc.system", "rpc.method",
    "rpc.grpc.method", "rpc.service", "rpc.grpc.service", "db.system.name", "db.system", "db.query.summary",
    "db.operation.name", "db.operation", "db.namespace", "db.name", "db.collection.name", "db.stored_procedure.name",
    "server.address", "server.port", "messaging.system", "messaging.operation.name", "messaging.operation",
    "messaging.destination.temporary", "messaging.destination.anonymous", "messaging.destination.template",
    "messaging.destination.name", "messaging.destination",
)  # fmt: skip


def span_name(kind: int, attributes: Mapping[str, Scalar]) -> str:
    """The name of a span of this kind; "" if the conventions say nothing."""

    def text(*keys: str) -> str | None:
        return next((as_text(attributes[key]) for key in keys if key in attributes), None)

    def http(subject: str) -> str:
        method = text("http.request.method", "http.method")
        what = text(subject)
        return "" if method is None else method if what is None else f"{method} {what}"

    def rpc() -> str:
        system = text("rpc.system.name", "rpc.system")
        if system is None:
            return ""
        method, service = text("rpc.method", "rpc.grpc.method"), text("rpc.service", "rpc.grpc.service")
        if service is not None:
            return f"{service}/{'*' if method is None else method}"
        return system if method is None else method

    def server() -> str:
        address, port = text("server.address"), text("server.port")
        return "" if address is None else address if port is None else f"{address}:{port}"

    def database() -> str:
        system = text("db.system.name", "db.system")
        if system is None:
            return ""
        summary = text("db.query.summary")
        if summary is not None:
            return summary
        operation = text("db.operation.name", "db.operation") or ""
        namespace = text("db.namespace", "db.name") or ""
        what = text("db.collection.name", "db.stored_procedure.name")
        target = ".".join(part for part in (namespace, what) if part) if what is not None else namespace or server()
        return " ".join(part for part in (operation, target) if part) or system

    def messaging() -> str:
        system = text("messaging.system")
        if system is None:
            return ""
        operation = text("messaging.operation.name", "messaging.operation")
        if attributes.get("messaging.destination.temporary") is True:
            destination = "(temporary)"
        elif attributes.get("messaging.destination.anonymous") is True:
            destination = "(anonymous)"
        else:
            named = text("messaging.destination.template", "messaging.destination.name", "messaging.destination")
            destination = server() if named is None else named
        if operation is not None and destination:
            return f"{operation} {destination}"
        return destination or (system if operation is None else operation)

    ways: dict[int, tuple[Callable[[], str], ...]] = {
        _SERVER: (lambda: http("http.route"), rpc, messaging),
        _CLIENT: (lambda: http("url.template"), rpc, database, messaging),
        _PRODUCER: (messaging,),
        _CONSUMER: (messaging,),
    }
    return next((name for way in ways.get(kind, ()) if (name := way())), "")


def _make(_arguments: Sequence[Any], literals: Mapping[int, Scalar]) -> Callable[[View, Mask], Mask]:
    match = re.fullmatch(r"v?(\d+)\.(\d+)(?:\.(\d+))?", literals[0])
    if match is None:
        raise ValueError(f"semconv_version {literals[0]!r} is not a version (example: 1.37.0)")
    version = tuple(int(part or 0) for part in match.groups())
    if not (1, 37, 0) <= version <= (1, 40, 0):
        raise ValueError(f"semconv_version must be between 1.37.0 and 1.40.0, got {literals[0]!r}")
    original = literals.get(1)
    if original == "":
        raise ValueError("original_span_name_attribute must not be empty")

    def run(view: View, rows: Mask) -> Mask:
        draft = view.draft
        known = set(draft.attributes("spans").key.distinct)
        keys = [key for key in _KEYS if key in known]
        kinds = Values.of_numbers(Kind.INT, draft.field("kind", "spans"))
        columns = [draft.attribute(key, "spans") for key in keys]

        def named(kind: Scalar, *values: Scalar) -> Scalar:
            attributes = {}
            for place, key in enumerate(keys):
                if values[2 * place + 1]:
                    attributes[key] = values[2 * place]
            return span_name(kind, attributes) or None

        arguments = [kinds]
        for column in columns:
            arguments += [Values.of_attributes(column), Values.of_numbers(Kind.BOOL, column.present)]
        names = apply(named, arguments)
        old = draft.field("name", "spans").fill("")
        changed = rows & (names.kind == Kind.STRING)
        texts: StringColumn = spread(names, view.row_count).text
        if some(changed):
            if original is not None:
                before, after = old.distinct_bytes, texts.distinct_bytes
                differs = np.array(
                    [changed[row] and before[old.codes[row]] != after[texts.codes[row]] for row in range(len(rows))],
                    np.bool_,
                )
                draft.set(original, old, differs, "spans")
                view.forget("spans", original)
            draft.set_field("name", texts, changed, "spans")
            view.forget("spans")
        return view.nothing()

    return run


SPAN_EDITORS: Final[dict[str, Editor]] = {
    "set_semconv_span_name": Editor(
        (
            Parameter("semconv_version", "literal text"),
            Parameter("original_span_name_attribute", "literal text", optional=True),
        ),
        _make,
        frozenset({"span"}),
    )
}
