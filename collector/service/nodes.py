"""One component object of the running service, and what the service knows of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from collector.api import Component, ComponentId, ComponentKind, Settings
from collector.service.edges import ExporterEdge
from collector.service.host import ComponentHost
from collector.service.ledger import LedgerEntry
from collector.service.telemetry import ComponentTelemetry

__all__ = ["HeldItems", "Node", "NodeKey"]

NodeKey: TypeAlias = tuple[ComponentKind, ComponentId, str]
"""Kind, id and pipeline (processors; else empty): the same in two graphs for the same component."""


@dataclass(frozen=True, slots=True)
class HeldItems:
    """Items of a ledger entry that a component holds, and how many they are."""

    entry: LedgerEntry
    count: Callable[[], int]
    is_kept: bool = False
    """They stay in a storage when the component ends, and are in flight until a successor sends them."""


@dataclass(slots=True, eq=False)
class Node:
    """One component object, for as long as it lives: a reload that keeps the component keeps its node."""

    kind: ComponentKind
    id: ComponentId
    component: Component
    settings: Settings
    config: Any
    """The component's own configuration."""
    telemetry: ComponentTelemetry
    pipeline: str = ""
    edge: ExporterEdge | None = None
    """Exporters: the edge into it."""
    held: list[HeldItems] = field(default_factory=list)
    host: ComponentHost | None = None
    """From the start."""
    files: Mapping[str, object] = field(default_factory=dict)
    """State of the files that the configuration names, at the start."""
    is_started: bool = False
    is_ended: bool = False
    detach: Callable[[], None] | None = None
    """Takes what it holds out of ledger and memory budget."""

    @property
    def path(self) -> str:
        """Where it is configured: ``exporters::otlp_grpc/a``."""
        return f"{self.kind.value}::{self.id}"

    @property
    def key(self) -> NodeKey:
        """The same in two graphs for the same component."""
        return self.kind, self.id, self.pipeline

    @property
    def name(self) -> str:
        """How it is named in health checks: ``exporters/otlp_grpc/a``, ``processors/batch@traces``."""
        return f"{self.kind.value}/{self.id}" + (f"@{self.pipeline}" if self.pipeline else "")
