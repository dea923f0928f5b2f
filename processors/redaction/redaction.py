"""Deletes attributes that are not allowed and masks values that are blocked, on every table and in log bodies.

What becomes of attributes is decided in ``attributes``, of bodies in ``bodies``, of span names in ``span_names``; all
of them follow ``values``. This module applies their decisions to batches.
"""

import numpy as np

from collector.api import Settings, Transform
from collector.model import Batch, Signal
from collector.model.attribute_rows import change_attributes
from processors.redaction.attributes import AttributeChanges, AttributeRules
from processors.redaction.bodies import BodyRules
from processors.redaction.config import RedactionConfig
from processors.redaction.span_names import SpanNames
from processors.redaction.summary import Summary
from processors.redaction.values import Policy

__all__ = ["RedactionProcessor"]

_WITHOUT_ATTRIBUTES = frozenset({"metrics", "quantiles"})


class RedactionProcessor(Transform):
    """The processor of one pipeline."""

    def __init__(self, settings: Settings, config: RedactionConfig) -> None:
        (signal,) = settings.signals
        policy = Policy(config)
        self._summary = Summary(config.summary)
        self._drops_unknown = config.drop_unknown_fields
        # In log records the kind of the database is often not named, so all sanitizers are tried, as in the Collector.
        self._attributes = AttributeRules(
            policy,
            checks_all_types=config.redact_all_types,
            needs_system=signal is not Signal.LOGS,
            is_noted=self._summary.is_written,
        )
        self._bodies = BodyRules(policy) if signal is Signal.LOGS else None
        names = SpanNames(policy, config)
        self._names = names if signal is Signal.TRACES and names.is_needed else None
        telemetry = settings.telemetry
        self._deleted = telemetry.counter("tailrace_redaction_deleted_attributes", "Attributes deleted by their keys")
        self._masked = telemetry.counter("tailrace_redaction_masked_values", "Values of attributes and bodies masked")

    def transform(self, batch: Batch) -> Batch:
        """The batch without what must not be in it; the same object if nothing had to change."""
        if self._drops_unknown:
            batch = batch.without_unknown_fields()
        found: dict[str, AttributeChanges] = {}
        for table in batch.tables:
            if table not in _WITHOUT_ATTRIBUTES:
                changes = self._attributes.changes(batch, table)
                if changes is not None:
                    found[table] = changes
        bodies = self._bodies.changes(batch) if self._bodies is not None else None
        changed = change_attributes(batch, {table: (one.which, one.deleted, one.texts) for table, one in found.items()})
        names = self._names.changes(changed) if self._names is not None else None
        edit = changed.edit()
        for table, changes in found.items():
            self._deleted.add(int(np.count_nonzero(changes.deleted)))
            self._masked.add(int(np.count_nonzero(changes.masked)))
            self._summary.add_attributes(edit, changed, table, changes)
        if bodies is not None:
            self._masked.add(int(np.count_nonzero(bodies.values.present)))
            edit.set_field("body", bodies.values)
            self._summary.add_bodies(edit, changed, "records", bodies)
        if names is not None:
            edit.set_field("name", names)
        return edit.apply()
