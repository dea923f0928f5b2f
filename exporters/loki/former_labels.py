"""The labels of the Collector's former exporter ``loki``: fixed ones, and those that attributes ask for.

``job``, ``instance``, ``exporter`` and ``level`` are there unless they are switched off. The attributes
``loki.attribute.labels`` (of a record) and ``loki.resource.labels`` (of a resource or a record) name further attributes
that become labels, and ``loki.tenant`` one that provides the tenant. Senders decide that, so it is bounded.

Source: opentelemetry-collector-contrib pkg/translator/loki (convert.go, logs_to_loki.go) and exporter/lokiexporter.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from collector.model import Logs, StringColumn
from collector.model.arrays import I32, Mask
from collector.otlp.semantics import SEVERITY_NUMBERS
from collector.prometheus import escape_label_name
from exporters.loki.config import DefaultLabels

__all__ = ["HINT_KEYS", "FormerLabels", "PromotedAttributes", "hinted_tenants"]

_RECORD_HINT: Final = "loki.attribute.labels"
_RESOURCE_HINT: Final = "loki.resource.labels"
_TENANT_HINT: Final = "loki.tenant"
HINT_KEYS: Final = frozenset({_RECORD_HINT, _RESOURCE_HINT, _TENANT_HINT, "loki.format"})
"""Attributes that are instructions, not data."""
_NAMES_MAX: Final = 64  # of attributes that may become labels because of hints; Loki accepts 15 labels per stream
_HINT_MAX_CHARS: Final = 1024
_HINTS_MAX: Final = 256  # distinct values of a hint in a batch; others are not followed
_LEVELS: Final = ("", *SEVERITY_NUMBERS)


@dataclass(slots=True)
class PromotedAttributes:
    """Labels of a batch, and the attributes that need not be sent otherwise because they are labels."""

    labels: list[tuple[str, StringColumn]] = field(default_factory=list)
    """Name and value for each record; where a name occurs again, the later value takes precedence."""
    of_records: dict[str, tuple[str, Mask]] = field(default_factory=dict)
    """By key: the label, and bool[records]: whose attribute it is."""
    of_resources: dict[str, tuple[str, Mask]] = field(default_factory=dict)
    """By key: the label, and bool[resources]: whose attribute it is."""


class FormerLabels:
    """See the module. Remembers which attributes have become labels."""

    def __init__(self, enabled: DefaultLabels) -> None:
        self._enabled = enabled
        self._names: set[str] = set()

    def read(self, batch: Logs) -> PromotedAttributes:
        """The labels of the batch's records, apart from ``exporter``, which is always the same."""
        found = PromotedAttributes()
        if self._enabled.job:
            found.labels.append(("job", _jobs(batch)))
        if self._enabled.instance:
            found.labels.append(("instance", _of_resource(batch, "service.instance.id")))
        if self._enabled.level:
            numbers = batch.field("severity_number")
            known = (numbers >= 1) & (numbers < len(_LEVELS))
            codes = np.where(known, numbers, np.int32(-1)).astype(np.int32)
            found.labels.append(("level", StringColumn.from_codes(codes, _LEVELS)))
            self._promote(batch, "level", np.ones(batch.item_count, bool), "items", found)
        resource_of = batch.ancestor("resources")
        for table, hint, target in (
            ("resources", _RESOURCE_HINT, "resources"),
            ("items", _RESOURCE_HINT, "resources"),
            ("items", _RECORD_HINT, "items"),
            ("items", _TENANT_HINT, "items"),
            ("resources", _TENANT_HINT, "resources"),
        ):
            for name, asking in _asked(batch, table, hint):
                records = asking[resource_of] if table == "resources" else asking
                self._promote(batch, name, records, target, found, asking if table == target == "resources" else None)
        return found

    def _promote(
        self,
        batch: Logs,
        name: str,
        records: Mask,
        target: str,
        found: PromotedAttributes,
        resources: Mask | None = None,
    ) -> None:
        """Make the attribute a label of the records; note that they, or all records of ``resources``, have it."""
        label = escape_label_name(name)
        if not label or (name not in self._names and len(self._names) >= _NAMES_MAX):
            return
        self._names.add(name)
        column = _of_resource(batch, name) if target == "resources" else batch.attribute(name).as_text()
        found.labels.append((label, _only(column, records)))
        if target == "items":
            found.of_records[name] = label, records
        elif resources is not None:
            found.of_resources[name] = label, resources


def hinted_tenants(batch: Logs) -> StringColumn:
    """The tenant of each record by the hint of its resource, or else its own; absent without a hint."""
    resource_of = batch.ancestor("resources")
    codes = np.full(batch.item_count, -1, np.int32)
    texts: list[str] = []
    for table in ("items", "resources"):  # the latter takes precedence
        for name, asking in _asked(batch, table, _TENANT_HINT):
            records = asking[resource_of] if table == "resources" else asking
            for column in (batch.attribute(name).as_text(), _of_resource(batch, name)):
                has_tenant = records & (column.codes >= 0)
                codes[has_tenant] = column.codes[has_tenant] + len(texts)
                texts += column.distinct
    return StringColumn.from_codes(codes, texts)


def _asked(batch: Logs, table: str, hint: str) -> Iterator[tuple[str, Mask]]:
    """The attributes that the hint names, each with a mask of the table's rows that ask for it."""
    column = (batch.attribute(hint) if table == "items" else batch.attribute(hint, table)).as_text()
    if not column.present.any():
        return
    used = np.unique(column.codes[column.present]).tolist()[:_HINTS_MAX]
    codes_by_name: dict[str, list[int]] = {}
    for code in used:
        for name in _names_in(column.distinct[code]):
            codes_by_name.setdefault(name, []).append(code)
    for name, codes in list(codes_by_name.items())[:_NAMES_MAX]:
        yield name, np.isin(column.codes, codes)


def _names_in(hint: str) -> Iterable[str]:
    """The keys in a hint: separated by commas, or an array of texts."""
    if len(hint) > _HINT_MAX_CHARS:
        return ()
    if hint.startswith("["):
        try:
            keys = json.loads(hint)
        except ValueError:
            return ()
        return dict.fromkeys(key for key in keys if isinstance(key, str) and key)
    return dict.fromkeys(key for part in hint.split(",") if (key := part.strip()))


def _jobs(batch: Logs) -> StringColumn:
    """``service.namespace/service.name`` of each record's resource, or the name alone; absent without a name."""
    names = batch.attribute("service.name", "resources").as_text().to_list()
    namespaces = batch.attribute("service.namespace", "resources").as_text().to_list()
    jobs: dict[str, int] = {}
    codes: list[int] = []
    for name, namespace in zip(names, namespaces, strict=True):
        job = f"{namespace}/{name}" if namespace else name
        codes.append(jobs.setdefault(job, len(jobs)) if name and job else -1)
    of_resource: I32 = np.array(codes, np.int32)
    return StringColumn.from_codes(of_resource[batch.ancestor("resources")], [*jobs])


def _of_resource(batch: Logs, key: str) -> StringColumn:
    """The attribute of each record's resource."""
    return batch.attribute(key, "resources").as_text().take(batch.ancestor("resources"))


def _only(column: StringColumn, rows: Mask) -> StringColumn:
    """The column where ``rows`` is true, and absent elsewhere."""
    return StringColumn.from_codes(np.where(rows, column.codes, np.int32(-1)).astype(np.int32), column.distinct)
