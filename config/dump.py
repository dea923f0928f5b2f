"""A checked configuration back to text: effective values with all defaults, secrets redacted by default.

The text can be loaded again and means the same, apart from redacted secrets.
"""

import io
import json
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import PurePath
from typing import Any, Literal

from pydantic import BaseModel, SecretBytes, SecretStr
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from collector.api import ComponentKind
from config.annotations import looks_secret
from config.explain import strip_credentials
from config.model import Config
from config.yaml import resolve_scalar

__all__ = ["dump", "effective", "to_yaml"]

_REDACTED = "[REDACTED]"
_NOT_SECRET_SUFFIXES = ("_file", "_path", "_attribute", "_from", "_name")


def dump(config: Config, *, redact: bool = True, output_format: Literal["yaml", "json"] = "yaml") -> str:
    """The whole configuration as text."""
    document = effective(config, redact=redact)
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n" if output_format == "json" else to_yaml(document)


def effective(config: Config, *, redact: bool = True) -> dict[str, Any]:
    """The whole configuration as plain values, under the keys of the configuration file."""
    document: dict[str, Any] = {}
    for kind in ComponentKind:
        components = config.components(kind).values()
        section = {str(component.id): _plain(component.config, redact=redact) for component in components}
        if section:
            document[str(kind)] = section
    pipelines = {
        pipeline.id: {
            "receivers": [str(component_id) for component_id in pipeline.receivers],
            "processors": [str(component_id) for component_id in pipeline.processors],
            "exporters": [str(component_id) for component_id in pipeline.exporters],
        }
        for pipeline in config.service.pipelines.values()
    }
    document["service"] = {
        "extensions": [str(component_id) for component_id in config.service.extensions],
        "pipelines": pipelines,
        "telemetry": _plain(config.service.telemetry, redact=redact),
        **_plain(config.service.drain, redact=redact),
    }
    return document


def to_yaml(document: Any) -> str:
    """The document as YAML that go-yaml and ``config.yaml`` read back as the same values."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Representer = _Representer
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 4096
    stream = io.StringIO()
    yaml.dump(document, stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Quotes every text that would otherwise be read back as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True

    def represent_text(self, value: str) -> ScalarNode:
        """The text, without quotes if it is read back as the same text."""
        plain = isinstance(resolve_scalar(value), str) and value not in ("<<", "=") and value.isprintable()
        node: ScalarNode = self.represent_scalar("tag:yaml.org,2002:str", value, style=None if plain else '"')
        return node


_Representer.add_representer(str, _Representer.represent_text)


def _plain(value: Any, *, redact: bool, key: str = "") -> Any:
    if isinstance(value, BaseModel):
        # exclude_none: an absent block written as null would be switched on when read again.
        dumped = value.model_dump(by_alias=True, exclude_none=True)
        return {name: _plain(inner, redact=redact, key=name) for name, inner in dumped.items()}
    if isinstance(value, Mapping):
        return {str(name): _plain(inner, redact=redact, key=str(name)) for name, inner in value.items()}
    if isinstance(value, SecretStr | SecretBytes):
        secret = value.get_secret_value()
        text = secret.decode("utf-8", "surrogateescape") if isinstance(secret, bytes) else secret
        return _REDACTED if redact and text else _escaped(text)
    if isinstance(value, Enum):
        return _plain(value.value, redact=redact, key=key)
    if isinstance(value, str | PurePath):
        return _text(str(value), redact=redact, key=key)
    if isinstance(value, AbstractSet):
        return sorted((_plain(item, redact=redact, key=key) for item in value), key=str)
    if isinstance(value, list | tuple):
        return [_plain(item, redact=redact, key=key) for item in value]
    if isinstance(value, bytes):
        return _text(value.decode("utf-8", "surrogateescape"), redact=redact, key=key)
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _text(text: str, *, redact: bool, key: str) -> str:
    if not redact:
        return _escaped(text)
    if text and looks_secret(key) and not key.endswith(_NOT_SECRET_SUFFIXES):
        return _REDACTED
    return _escaped(strip_credentials(text))


def _escaped(text: str) -> str:
    """The text with its dollar signs escaped where they would be read as a reference or an escape."""
    return text.replace("$", "$$") if "${" in text or "$$" in text else text
