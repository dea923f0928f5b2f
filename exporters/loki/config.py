"""The configuration of ``loki``.

The Collector has removed its exporter of this name; the keys of connection, queue and retry are the Collector's.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ByteSize, ComponentConfig, HTTPClientConfig, InvalidSettings, OutdatedKey

__all__ = ["DEFAULT_LABELS", "DefaultLabels", "LokiConfig", "TenantConfig"]

_PUSH_PATH: Final = "/loki/api/v1/push"
_LABEL_NAME: Final = re.compile(r"^[a-zA-Z_][a-zA-Z0-9_]*$")
_LEVEL_LABEL: Final = "level"
_UNSAFE: Final = re.compile(r"[^a-zA-Z0-9_]")
_FORMER_SOURCES: Final = ("attributes", "resource", "record")
_LABELS_MAX: Final = 15  # Loki's limit of label names per stream

DEFAULT_LABELS: Final[dict[str, tuple[str, ...]]] = {
    "service": ("service.name",),
    "environment": ("deployment.environment.name", "deployment.environment"),
}


def _label_names(labels: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    for name in labels:
        if not _LABEL_NAME.match(name) or name.startswith("__"):
            raise ValueError(
                f"labels: {name!r} is not a valid label name; expected letters, digits and underscores, "
                "without a digit or two underscores at the start"
            )
    if len(labels) > _LABELS_MAX - 1:
        raise ValueError(
            f"labels: expected at most {_LABELS_MAX - 1} labels (Loki accepts {_LABELS_MAX} per stream, including "
            f"the level label), got {len(labels)}"
        )
    return labels


def _as_tuple(value: object) -> object:
    """A single attribute key may be written as a string."""
    if isinstance(value, dict):
        return {name: (keys,) if isinstance(keys, str) else keys for name, keys in value.items()}
    return value


def _former_keys(value: Mapping[str, object]) -> Iterator[tuple[tuple[str, ...], str]]:
    """The keys of the Collector's former exporter that have no equal here, and what to write instead."""
    if "format" in value:
        text = (
            "this key of the Collector's former exporter is not available: lines are the bodies of the records, and "
            "attributes are structured metadata; remove it (default_labels_enabled: {} keeps the former labels)"
        )
        yield ("format",), text
    labels = value.get("labels")
    former = [key for key in _FORMER_SOURCES if isinstance(labels, Mapping) and isinstance(labels.get(key), Mapping)]
    if former:
        assert isinstance(labels, Mapping)  # for mypy
        now = {
            str(label or _UNSAFE.sub("_", str(attribute))): str(attribute)
            for key in former
            for attribute, label in labels[key].items()
        }
        example = ", ".join(f"{label}: {attribute}" for label, attribute in now.items())
        text = (
            f"{', '.join(former)}: this is the form of the Collector's former exporter; now each label names its "
            f"attribute: write labels: {{{example}}}, and default_labels_enabled: {{}} for the labels job, instance, "
            "exporter and level of that exporter and for its hints"
        )
        yield ("labels",), text
    tenant = value.get("tenant")
    if isinstance(tenant, Mapping) and "source" in tenant:
        source, name = tenant["source"], tenant.get("value", "")
        advice = {
            "static": f"write tenant: {{default: {name}}}",
            "attributes": f"write tenant: {{attribute: {name}}}",
            "context": "remove the block and set the header X-Scope-OrgID with the extension headers_setter",
        }
        text = advice.get(str(source), "write tenant: {default: NAME} or tenant: {attribute: KEY}")
        yield ("tenant", "source"), f"this key of the Collector's former exporter is not available; {text}"


class TenantConfig(ComponentConfig):
    """The tenant of a record, which is sent as the X-Scope-OrgID header of its request."""

    attribute: str = ""
    """Attribute of the record, its scope or its resource that holds the tenant. Empty: ``default`` is used for all
    records.
    """
    default: str = ""
    """The tenant of records without the attribute. Empty: no header is sent."""


class DefaultLabels(ComponentConfig):
    """The labels of the Collector's former exporter."""

    exporter: bool = True
    """``exporter="OTLP"``."""
    job: bool = True
    """``job``: service.namespace and service.name, separated by a slash, or service.name alone."""
    instance: bool = True
    """``instance``: service.instance.id."""
    level: bool = True
    """``level``: the record's attribute of that name, or else its severity, such as INFO or WARN2."""


class LokiConfig(HTTPClientConfig, ExporterConfig):
    """Where logs are sent, and how records become streams."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        **HTTPClientConfig.outdated_keys,
        "tenant_id": OutdatedKey("tenant::default"),
    }

    compression: Literal["snappy"] = "snappy"
    """Compression of requests; Loki accepts only snappy for protobuf."""
    endpoint: str = ""
    """Base URL such as ``http://localhost:3100``, or the complete push URL."""
    labels: Annotated[dict[str, tuple[str, ...]], AfterValidator(_label_names)] = Field(
        default_factory=lambda: dict(DEFAULT_LABELS)
    )
    """Label → attributes of the record, its scope or its resource; the first that is present provides the value.
    Everything else becomes structured metadata: ``trace_id``, ``request_id``, ``user_id``, ``tenant_id`` are not labels
    unless they are listed here."""
    level_label: str = _LEVEL_LABEL
    """Label for the severity (``trace``, ``debug``, ``info``, ``warn``, ``error``, ``fatal``). Empty: no such label."""
    default_labels_enabled: DefaultLabels | None = None
    """If present: the labels of the Collector's former exporter instead of the default ones, and those that the
    attributes ``loki.attribute.labels`` and ``loki.resource.labels`` ask for."""
    static_labels: dict[str, str] = Field(default_factory=dict)
    """Labels to add to every stream."""
    label_values_limit: int = Field(default=1000, ge=0)
    """Number of distinct values of a label; further ones become ``__other__``, and the original value is kept in
    structured metadata. 0: no limit."""
    structured_metadata: bool = True
    """Whether attributes that are not labels are sent as structured metadata."""
    resource_metadata: bool = True
    """Whether resource attributes that are not labels are sent as structured metadata."""
    max_line_size: ByteSize = 256 * 1024
    """Size at which lines are cut; Loki's own default limit is 256 KB. 0: no limit."""
    max_request_bytes: ByteSize = 3 * 1024 * 1024
    """Size limit of a request before compression; the default is below Loki's internal limit of 4 MiB. 0: no limit."""
    tenant: TenantConfig = TenantConfig()
    """The tenant of each record."""

    @model_validator(mode="before")
    @classmethod
    def _accept_single_attributes(cls, value: object) -> object:
        if isinstance(value, dict) and (former := list(_former_keys(value))):
            raise InvalidSettings(*former)
        if isinstance(value, dict) and "labels" in value:
            return {**value, "labels": _as_tuple(value["labels"])}
        return value

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint is required, for example http://localhost:3100")
        if self.default_labels_enabled is not None and self.level_label != _LEVEL_LABEL:
            raise ValueError(
                "level_label cannot be combined with default_labels_enabled; use default_labels_enabled.level"
            )
        for name in self.static_labels:
            if not _LABEL_NAME.match(name):
                raise ValueError(
                    f"static_labels: {name!r} is not a valid label name; expected letters, digits and underscores"
                )
        return self

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.default_labels_enabled is not None:
            sentence = (
                "labels are those of the Collector's former exporter, but lines are the bodies of the records and "
                "attributes are structured metadata, whatever loki.format says; it wrote JSON"
            )
            yield "default_labels_enabled", sentence
        elif self.endpoint.endswith(_PUSH_PATH) and self.labels == DEFAULT_LABELS:
            sentence = (
                "streams have the labels service, environment and level, and not job, instance, exporter and level as "
                "those of the Collector's former exporter; write default_labels_enabled: {} for these, or choose labels"
            )
            yield "endpoint", sentence

    def completed(self) -> Self:
        """The configuration with the labels that ``default_labels_enabled`` stands for."""
        enabled = self.default_labels_enabled
        if enabled is None:
            return self
        labels = {} if self.labels == DEFAULT_LABELS else self.labels
        static = {**({"exporter": "OTLP"} if enabled.exporter else {}), **self.static_labels}
        return self.model_copy(update={"labels": labels, "level_label": "", "static_labels": static})

    @property
    def push_url(self) -> str:
        """The URL that requests are sent to."""
        url = self.endpoint.rstrip("/")
        return url if url.endswith("/push") else url + _PUSH_PATH
