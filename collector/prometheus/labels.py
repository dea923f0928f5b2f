"""The label sets of Prometheus series, built once per distinct source.

Labels are added in this order: attributes of the point, promoted resource attributes, ``job`` and ``instance``,
external labels, ``otel_scope_*``. An earlier label wins, except over ``job``, ``instance`` and ``otel_scope_*``. The
encoder sets ``__name__``, ``le`` and ``quantile``, overwriting attributes of those names.
Source: the specification's Prometheus compatibility page; prometheusremotewrite/helper.go.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Final

from collector.prometheus.naming import TranslationStrategy, escape_label_name
from collector.text.cache import TextCache

__all__ = ["LABELS_MAX_BYTES", "LabelSettings", "SeriesLabels"]

LABELS_MAX_BYTES: Final = 64 * 1024
"""The size of the labels of a series, as the exporter encodes them, from which on it is dropped and not cached."""

_IDENTIFYING = ("service.namespace", "service.name", "service.instance.id")

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class LabelSettings:
    """How attributes become labels."""

    strategy: TranslationStrategy = "UnderscoreEscapingWithSuffixes"
    external_labels: Mapping[str, str] = field(default_factory=dict)
    scope_info: bool = True
    promote_all_resource_attributes: bool = False
    exclude_service_attributes: bool = False
    """Whether those that identify a service are left out when all resource attributes become labels."""
    resource_attributes: tuple[str, ...] = ()
    """Globs of the resource attributes that become labels of every series."""
    excluded_resource_attributes: tuple[str, ...] = ()
    sanitize_leading_underscore: bool = True
    preserve_multiple_underscores: bool = True


class SeriesLabels:
    """Builds label sets for one :class:`LabelSettings`. Empty values get no label."""

    def __init__(self, settings: LabelSettings) -> None:
        self._settings = settings
        self._utf8 = settings.strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation")
        self._names = TextCache[str]()
        self._external = {self.name(key): value for key, value in settings.external_labels.items()}

    def name(self, key: str) -> str:
        """The label name of an attribute key."""
        known = self._names.get(key, "")
        if not known:
            known = escape_label_name(
                key,
                utf8=self._utf8,
                sanitize_leading_underscore=self._settings.sanitize_leading_underscore,
                preserve_multiple_underscores=self._settings.preserve_multiple_underscores,
            )
            self._names.put(key, known)
        return known

    def forget(self) -> None:
        """Forget all names, which are translated again when they are needed.

        A few small entries between many that are gone keep the pages of all of them from being returned.
        """
        self._names = TextCache[str]()

    def _escaped(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Labels from attributes. The values of keys with the same label name are joined by ``;`` in key order."""
        labels: dict[str, str] = {}
        for key, value in sorted(dict(pairs).items()):
            name = self.name(key)
            if not name or name == "__name__":
                continue
            labels[name] = f"{labels[name]};{value}" if name in labels else value
        return labels

    @staticmethod
    def job_and_instance(resource: Mapping[str, str]) -> dict[str, str]:
        """``job`` (namespace/name) and ``instance`` (service.instance.id), each only if it is set."""
        labels = {}
        name, namespace = resource.get("service.name", ""), resource.get("service.namespace", "")
        if name:
            labels["job"] = f"{namespace}/{name}" if namespace else name
        if instance := resource.get("service.instance.id", ""):
            labels["instance"] = instance
        return labels

    def _promoted(self, key: str) -> bool:
        settings = self._settings
        if any(fnmatchcase(key, pattern) for pattern in settings.excluded_resource_attributes):
            return False
        if settings.promote_all_resource_attributes and not (
            settings.exclude_service_attributes and key in _IDENTIFYING
        ):
            return True
        return any(fnmatchcase(key, pattern) for pattern in settings.resource_attributes)

    def series(self, attributes: Pairs, resource: Pairs, scope: tuple[str, str, str, Pairs]) -> list[tuple[str, str]]:
        """Labels of a series without ``__name__``, ``le`` and ``quantile``, sorted by the bytes of their names.

        ``scope`` is (name, version, schema URL, attributes).
        """
        labels = self._escaped(attributes)
        for name, (value, overrides) in self.inherited(resource, scope).items():
            if overrides or name not in labels:
                labels[name] = value
        labels.pop("__name__", None)
        return _sorted(labels)

    def inherited(self, resource: Pairs, scope: tuple[str, str, str, Pairs]) -> dict[str, tuple[str, bool]]:
        """What resource and scope add to every series: value, and whether it overrides an attribute of the point.

        An empty value that overrides removes the label.
        """
        promoted = self._escaped((key, value) for key, value in resource if self._promoted(key))
        labels = {name: (value, False) for name, value in promoted.items()}
        for name, value in self.job_and_instance(dict(resource)).items():
            labels[name] = value, True
        for name, value in self._external.items():
            labels.setdefault(name, (value, False))
        if self._settings.scope_info:
            name, version, schema_url, scope_attributes = scope
            described = self._escaped(
                (key, value) for key, value in scope_attributes if key not in ("name", "version", "schema_url")
            )
            described.update({"name": name, "version": version, "schema_url": schema_url})
            labels.update({f"otel_scope_{label}": (value, True) for label, value in described.items()})
        return labels

    def target_info(self, resource: Pairs) -> list[tuple[str, str]] | None:
        """Labels of ``target_info``; None if the resource has no identity or no other attributes, or too large ones."""
        resource_map = dict(resource)
        identity = self.job_and_instance(resource_map)
        described = {key: value for key, value in resource_map.items() if key not in _IDENTIFYING}
        if not identity or not any(described.values()):
            return None
        labels = self._escaped(described.items())
        labels.update(identity)
        for name, value in self._external.items():
            labels.setdefault(name, value)
        if sum(len(name) + len(value) for name, value in labels.items()) > LABELS_MAX_BYTES:
            return None
        return _sorted(labels)


def _sorted(labels: Mapping[str, str]) -> list[tuple[str, str]]:
    return sorted(
        ((name, value) for name, value in labels.items() if name and value), key=lambda pair: pair[0].encode()
    )
