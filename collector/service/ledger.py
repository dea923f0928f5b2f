"""The loss ledger: what happened to every item, for each node and signal. ``telemetry`` exports it as metrics.

For every node: received + created = out + dropped + folded + refused/rejected + held.
For every exporter: received = delivered + dropped + refused + in flight.

``dropped`` and ``refused`` are counted by reason; ``dead_lettered`` is the part of both that a dead-letter store keeps.
Receivers use received, out (accepted), refused and rejected; processors and connectors use received, created, out,
dropped, folded and held; exporters use received, delivered, dropped, refused and held, which is what is in flight.
Exporters use created as well for what a durable queue restores.
"""

from collections.abc import Callable, Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final

from collector.api import ComponentId, ComponentKind
from collector.model import Signal

__all__ = ["BATCH_IN_PROGRESS", "BatchInProgress", "Ledger", "LedgerEntry", "LedgerRow"]


class BatchInProgress:
    """One batch inside an exporter that does not settle by itself, and how much of it the exporter has counted."""

    __slots__ = ("counted", "entry", "item_count")

    def __init__(self, entry: "LedgerEntry", item_count: int) -> None:
        self.entry, self.item_count, self.counted = entry, item_count, 0

    @property
    def remaining(self) -> int:
        """Items that the exporter has not counted itself."""
        return max(0, self.item_count - self.counted)


_REASONS_MAX: Final = 64  # of one node; further ones are counted as "other"
_REASON_MAX_CHARS: Final = 64
BATCH_IN_PROGRESS: Final[ContextVar[BatchInProgress | None]] = ContextVar("batch_in_progress", default=None)
"""The batch that the present task works on: what the exporter counts meanwhile belongs to that batch."""


class LedgerEntry:
    """The counts of one node and signal: plain integers, incremented on the hot path and read by scrapes."""

    __slots__ = (
        "component_id",
        "created",
        "dead_lettered",
        "delivered",
        "dropped",
        "explained",
        "failed",
        "folded",
        "holders",
        "kind",
        "out",
        "pipeline",
        "received",
        "refused",
        "rejected",
        "signal",
        "transport",
    )

    def __init__(
        self, kind: ComponentKind, component_id: ComponentId, signal: Signal, pipeline: str = "", transport: str = ""
    ) -> None:
        self.kind, self.component_id, self.signal, self.pipeline, self.transport = (
            kind,
            component_id,
            signal,
            pipeline,
            transport,
        )
        self.received = self.created = self.out = self.delivered = self.folded = self.rejected = 0
        self.failed = 0
        """Receivers: the part of ``out`` that failed while the sender waited for the result."""
        self.dead_lettered = 0
        """Exporters: the part of ``dropped`` and ``refused`` of which a copy was stored."""
        self.explained = 0
        """dropped + folded - created, as reported by the component: a transform's loss is compared with it."""
        self.dropped: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.holders: list[Callable[[], int]] = []
        """Each returns a number of items that were taken and have not left yet. During a reload the entry belongs to
        two components: the one that drains and its successor.
        """

    @property
    def node(self) -> str:
        """``processors/batch@traces/a``, ``exporters/loki``."""
        where = f"@{self.pipeline}" if self.pipeline else ""
        return f"{self.kind.value}/{self.component_id}{where}"

    def drop(self, item_count: int, reason: str) -> None:
        """Count items lost here; nothing is noted if there are none."""
        if not item_count:
            return
        _count(self.dropped, reason, item_count)
        self.explained += item_count

    def refuse(self, item_count: int, reason: str) -> None:
        """Count items refused at the door, or by a backend; nothing is noted if there are none."""
        if item_count:
            _count(self.refused, reason, item_count)

    def unaccounted(self, item_count: int) -> int:
        """How many of ``item_count`` items received here are not in any column yet."""
        return min(item_count, max(0, self.received + self.created - self.gone - self.held))

    @property
    def held(self) -> int:
        """Items that were taken and have not left yet."""
        return sum(count() for count in self.holders)

    @property
    def gone(self) -> int:
        """Items that have left, in whatever way."""
        counts = self.out + self.delivered + self.folded + self.rejected
        return counts + sum(self.dropped.values()) + sum(self.refused.values())

    def row(self) -> "LedgerRow":
        """The present counts."""
        return LedgerRow(
            node=self.node,
            kind=self.kind,
            signal=self.signal,
            received=self.received,
            created=self.created,
            out=self.out,
            delivered=self.delivered,
            folded=self.folded,
            rejected=self.rejected,
            held=self.held,
            dropped=dict(self.dropped),
            refused=dict(self.refused),
            dead_lettered=self.dead_lettered,
            pipeline=self.pipeline,
        )


def _count(counts: dict[str, int], reason: str, item_count: int) -> None:
    """Count items under a reason; some reasons contain what a backend answered, and there may be any number of them."""
    if reason not in counts and (len(counts) >= _REASONS_MAX or len(reason) > _REASON_MAX_CHARS):
        reason = "other"
    counts[reason] = counts.get(reason, 0) + item_count


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """One node and signal at one moment."""

    node: str
    kind: ComponentKind
    signal: Signal
    received: int
    created: int
    out: int
    delivered: int
    folded: int
    rejected: int
    held: int
    dropped: Mapping[str, int]
    refused: Mapping[str, int]
    dead_lettered: int = 0
    """Part of ``dropped`` and ``refused``."""
    pipeline: str = ""
    """The pipeline of a processor; other components belong to none or to several."""

    @property
    def component(self) -> str:
        """``processors/batch``: the node without its pipeline."""
        return self.node.removesuffix(f"@{self.pipeline}")

    @property
    def imbalance(self) -> int:
        """0 if the ledger closes; positive if items vanished, negative if items were counted twice."""
        gone = self.out + self.delivered + self.folded + self.rejected + self.held
        return self.received + self.created - gone - sum(self.dropped.values()) - sum(self.refused.values())

    def outcomes(self) -> Iterable[tuple[str, str, int]]:
        """``(outcome, reason, items)`` for the metric ``tailrace_items_total``; a reason only where there is one.

        What is held is not among them, because it is not final.
        """
        is_end = self.kind is ComponentKind.EXPORTER
        yield "received", "", self.received
        yield ("delivered", "", self.delivered) if is_end else ("out", "", self.out)
        for outcome, count in (
            ("created", self.created),
            ("folded", self.folded),
            ("dead_lettered", self.dead_lettered),
        ):
            if count:
                yield outcome, "", count
        if self.rejected:
            yield "rejected", "invalid", self.rejected
        for outcome, reasons in (("dropped", self.dropped), ("refused", self.refused)):
            for reason, count in reasons.items():
                yield outcome, reason, count

    def log_fields(self) -> dict[str, Any]:
        """The row as key-values of one log event; an exporter's ``out`` is what it delivered."""
        fields: dict[str, Any] = {
            "node": self.node,
            "signal": self.signal.value,
            "received": self.received,
            "created": self.created,
            "out": self.delivered if self.kind is ComponentKind.EXPORTER else self.out,
            "held": self.held,
            "folded": self.folded,
            "dropped": sum(self.dropped.values()),
            "refused": sum(self.refused.values()) + self.rejected,
        }
        if self.dead_lettered:
            fields["dead_lettered"] = self.dead_lettered
        reasons = {**self.dropped, **self.refused} | ({"invalid": self.rejected} if self.rejected else {})
        if reasons:
            fields["reasons"] = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
        if self.imbalance:
            fields["imbalance"] = self.imbalance
        return fields

    def to_json(self) -> dict[str, Any]:
        """For ``GET /ledger``."""
        return {
            "node": self.node,
            "signal": self.signal.value,
            "received": self.received,
            "created": self.created,
            "out": self.out,
            "delivered": self.delivered,
            "folded": self.folded,
            "rejected": self.rejected,
            "held": self.held,
            "dropped": dict(self.dropped),
            "refused": dict(self.refused),
            "dead_lettered": self.dead_lettered,
            "imbalance": self.imbalance,
        }


class Ledger:
    """All entries of the process. It outlives reloads: a component that stays keeps its counts."""

    def __init__(self) -> None:
        self._entries: dict[tuple[ComponentKind, ComponentId, str, Signal, str], LedgerEntry] = {}

    def entry(
        self, kind: ComponentKind, component_id: ComponentId, signal: Signal, *, pipeline: str = "", transport: str = ""
    ) -> LedgerEntry:
        """The entry of this node and signal; the first call creates it."""
        key = (kind, component_id, pipeline, signal, transport)
        entry = self._entries.get(key)
        if entry is None:
            entry = self._entries[key] = LedgerEntry(kind, component_id, signal, pipeline, transport)
        return entry

    def discard_unused(self, is_known: Callable[[LedgerEntry], bool]) -> None:
        """Forget the entries without any items that belong to a component which ``is_known`` does not know."""
        self._entries = {
            key: entry
            for key, entry in self._entries.items()
            if is_known(entry) or entry.received or entry.created or entry.gone or entry.holders
        }

    def entries(self) -> list[LedgerEntry]:
        """All entries, receivers by transport."""
        return list(self._entries.values())

    def snapshot(self) -> list[LedgerRow]:
        """One row for each node and signal.

        Receivers, processors, connectors, exporters, in the order they were configured.
        """
        rows: dict[tuple[str, Signal], LedgerRow] = {}
        for entry in self._entries.values():
            row = entry.row()
            known = rows.get((row.node, row.signal))
            rows[row.node, row.signal] = row if known is None else _sum(known, row)
        return sorted(rows.values(), key=lambda row: _ORDER[row.kind])

    def imbalances(self) -> list[LedgerRow]:
        """The rows that do not close."""
        return [row for row in self.snapshot() if row.imbalance]


_ORDER = {
    kind: place for place, kind in enumerate(("receivers", "processors", "connectors", "exporters", "extensions"))
}


def _sum(a: LedgerRow, b: LedgerRow) -> LedgerRow:
    """The rows of two transports of one receiver as one."""
    return LedgerRow(
        node=a.node,
        kind=a.kind,
        signal=a.signal,
        received=a.received + b.received,
        created=a.created + b.created,
        out=a.out + b.out,
        delivered=a.delivered + b.delivered,
        folded=a.folded + b.folded,
        rejected=a.rejected + b.rejected,
        held=a.held + b.held,
        dropped={reason: a.dropped.get(reason, 0) + b.dropped.get(reason, 0) for reason in {**a.dropped, **b.dropped}},
        refused={reason: a.refused.get(reason, 0) + b.refused.get(reason, 0) for reason in {**a.refused, **b.refused}},
        dead_lettered=a.dead_lettered + b.dead_lettered,
        pipeline=a.pipeline,
    )
