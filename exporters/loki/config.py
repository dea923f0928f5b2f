"""What the user writes for ``loki``. The Collector has no such exporter any more; keys of connection, queue and retry are its own."""

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ByteSize, ComponentConfig, HTTPClientConfig

__all__ = ["DEFAULT_LABELS", "LokiConfig", "TenantConfig"]

_LABEL: Final = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
_LABELS_MAX: Final = 15  # Loki's limit of label names a stream

DEFAULT_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "service": ("service.name",),
    "environment": ("deployment.environment.name", "deployment.environment"),
}


def _label_names(labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for name in labels:
        if not _LABEL.match(name) or name.startswith("__"):
            raise ValueError(
                f"label name {name!r}: letters, digits and underscores, not starting with a digit or two underscores"
            )
    if len(labels) > _LABELS_MAX - 1:
        raise ValueError(f"{len(labels)} labels: Loki takes {_LABELS_MAX} names a stream, level included")
    return labels


def _as_tuple(value: object) -> object:
    """A single attribute key may be written as a string."""
    if isinstance(value, dict):
        return {name: (keys,) if isinstance(keys, str) else keys for name, keys in value.items()}
    return value


class TenantConfig(ComponentConfig):
    """Which tenant a record belongs to: the X-Scope-OrgID header of its request."""

    attribute: str = ""
    """Attribute of the record, its scope or its resource."""
    default: str = ""
    """Where the attribute is absent; empty: no header."""


class LokiConfig(HTTPClientConfig, ExporterConfig):
    """Loki's push API, protobuf and snappy."""

    compression: Literal["snappy"] = "snappy"
    """Loki's protobuf push knows snappy alone."""
    endpoint: str = ""
    """Base URL (``http://localhost:3100``) or the whole push URL."""
    labels: Annotated[dict[str, tuple[str, ...]], AfterValidator(_label_names)] = Field(
        default_factory=lambda: dict(DEFAULT_LABELS)
    )
    """Label → attributes it is taken from (record, then scope, then resource), the first that is there. Everything else becomes
    structured metadata. ``trace_id``, ``request_id``, ``user_id``, ``tenant_id`` are not labels unless listed here."""
    level_label: str = "level"
    """Label for the severity (``debug info warn error fatal trace``); empty: none."""
    static_labels: dict[str, str] = Field(default_factory=dict)
    label_values_limit: int = Field(default=1000, ge=0)
    """Distinct values of a label before further ones become ``__other__`` (what it was stays in structured metadata); 0: none."""
    structured_metadata: bool = True
    resource_metadata: bool = True
    """Resource attributes that are no labels go along as structured metadata."""
    max_line_size: ByteSize = 256 * 1024
    """Longer lines are cut; Loki's own limit is 256 KB. 0: no limit."""
    max_request_bytes: ByteSize = 3 * 1024 * 1024
    """Of one request before compression, below Loki's internal 4 MiB. 0: no bound."""
    tenant: TenantConfig = TenantConfig()

    @model_validator(mode="before")
    @classmethod
    def _short_labels(cls, value: object) -> object:
        if isinstance(value, dict) and "labels" in value:
            return {**value, "labels": _as_tuple(value["labels"])}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if not self.endpoint.startswith(("http://", "https://")):
            raise ValueError(f"endpoint {self.endpoint!r}: a URL is required, for example http://localhost:3100")
        for name in self.static_labels:
            if not _LABEL.match(name):
                raise ValueError(f"static_labels: {name!r} is no label name")
        return self

    @property
    def push_url(self) -> str:
        """The URL requests go to."""
        url = self.endpoint.rstrip("/")
        return url if url.endswith("/push") else url + "/loki/api/v1/push"
