"""JSON Schema of the whole configuration, for editors: every section, every component type, every key."""

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema
from pydantic_core import core_schema

from collector.api import ComponentKind, Factory
from config.blocks.values import DURATION_PATTERN
from config.model import DrainConfig, TelemetryConfig

__all__ = ["json_schema"]

_REFERENCE = {"type": "string", "pattern": r"\$\{.+\}", "description": "a reference such as ${env:NAME}"}
_IDS = {"type": "array", "items": {"type": "string"}, "uniqueItems": True}


class _Generator(GenerateJsonSchema):
    """Shows defaults as they are written (``5s``), not as they are stored."""

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> dict[str, Any]:
        shown = super().default_schema(schema)
        serialization = schema["schema"].get("serialization")
        if (
            "default" in shown
            and serialization
            and serialization["type"] == "function-plain"
            and isinstance(shown["default"], int | float)
        ):
            shown["default"] = serialization["function"](shown["default"])
        return shown


def json_schema(factories: Iterable[Factory]) -> dict[str, Any]:
    """The schema, draft 2020-12, with the component types of ``factories``."""
    by_kind: dict[ComponentKind, list[Factory]] = {kind: [] for kind in ComponentKind}
    for factory in factories:
        by_kind[factory.kind].append(factory)
    models: set[type[BaseModel]] = {factory.config_type for group in by_kind.values() for factory in group} | {
        TelemetryConfig,
        DrainConfig,
    }
    references, definitions = models_json_schema(
        [(model, "validation") for model in sorted(models, key=_qualified_name)],
        ref_template="#/$defs/{model}",
        schema_generator=_Generator,
    )
    properties = {
        str(kind): _section([(factory, references[factory.config_type, "validation"]) for factory in group])
        for kind, group in by_kind.items()
    }
    drain = definitions["$defs"].pop(references[DrainConfig, "validation"]["$ref"].rpartition("/")[2])
    properties["service"] = {
        "type": "object",
        "properties": {
            "extensions": _IDS,
            "pipelines": {
                "type": "object",
                "patternProperties": {
                    "^(traces|metrics|logs)(/.+)?$": {
                        "type": "object",
                        "properties": {"receivers": _IDS, "processors": _IDS, "exporters": _IDS},
                        "required": ["receivers", "exporters"],
                        "additionalProperties": False,
                    }
                },
                "additionalProperties": False,
                "minProperties": 1,
            },
            "telemetry": references[TelemetryConfig, "validation"],
            **drain["properties"],
        },
        "required": ["pipelines"],
        "additionalProperties": False,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Tailrace configuration",
        "type": "object",
        "properties": properties,
        "required": ["service"],
        "additionalProperties": False,
        "$defs": {name: _with_references(definition) for name, definition in definitions.get("$defs", {}).items()},
    }


def _qualified_name(model: type[BaseModel]) -> str:
    return f"{model.__module__}.{model.__qualname__}"


def _section(types: list[tuple[Factory, Any]]) -> dict[str, Any]:
    patterns = {
        f"^({'|'.join(map(re.escape, sorted({factory.component_type, *factory.aliases})))})(/.+)?$": {
            "anyOf": [reference, {"type": "null"}]
        }
        for factory, reference in types
    }
    return {"type": ["object", "null"], "patternProperties": patterns, "additionalProperties": False}


def _with_references(schema: Any) -> Any:
    """The schema with ``${…}`` allowed wherever a number, a boolean, a duration or a choice is expected."""
    if isinstance(schema, list):
        return [_with_references(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {
        key: value if key in ("default", "enum", "const", "required") else _with_references(value)
        for key, value in schema.items()
    }
    if (
        result.get("type") in ("integer", "number", "boolean")
        or "enum" in result
        or result.get("pattern") == DURATION_PATTERN
    ):
        outer = {key: result.pop(key) for key in ("default", "description", "title") if key in result}
        return {**outer, "anyOf": [result, _REFERENCE]}
    return result
