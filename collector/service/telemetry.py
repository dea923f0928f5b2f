"""Own metrics, and what components count with; rendered in Prometheus' text format under the Collector's names.

Not the ledger itself (``ledger``) and not the HTTP server (``admin``). Names and labels: the Collector's
documentation.md files of service, receiverhelper, processorhelper and exporterhelper. Counters have no ``_total``
suffix, because the Collector's own reader is configured so (``without_type_suffix``). Metrics that the Collector does
not have are named ``tailrace_*``.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import psutil
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric

from collector.api import Clock, ComponentId, ComponentKind
from collector.model import Signal
from collector.prometheus import escape_label_name
from collector.service.exposition import collect_ledger, heap, lines, metric_of
from collector.service.instruments import Counter, Family, Gauge, Histogram, Labels, Read
from collector.service.ledger import BATCH_IN_PROGRESS, Ledger, LedgerEntry

__all__ = ["ComponentTelemetry", "ServiceTelemetry"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_FROM_LEDGER = re.compile(
    r"otelcol_(receiver_(accepted|refused|failed)|exporter_(sent|send_failed|enqueue_failed))"
    r"_(spans|metric_points|log_records)"
    r"|otelcol_processor_(incoming|outgoing)_items"
)


class ServiceTelemetry:
    """The metrics of the process.

    ``component`` returns a component's view of them; ``render`` the page ``/metrics``.
    """

    def __init__(
        self, *, ledger: Ledger, clock: Clock, resource: Mapping[str, str], constant: Collection[str] = ()
    ) -> None:
        self.ledger = ledger
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self.identify(resource, constant)
        self._families: dict[str, Family] = {}
        self._process = psutil.Process()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def identify(self, resource: Mapping[str, str], constant: Collection[str]) -> None:
        """Set the attributes of the service, which a reload may change: the labels of ``target_info``.

        Those named in ``constant`` are labels of every other metric, too.
        """
        self._identity = _resource_labels(resource)
        self._constant_labels = _resource_labels({name: resource[name] for name in constant})

    def component(
        self, kind: ComponentKind, component_id: ComponentId, pipeline: str = "", *, is_shown: bool = True
    ) -> "ComponentTelemetry":
        """The telemetry of one component (processors: in one pipeline).

        After a reload the successor of a component has the same counters. Its gauges are read once it is shown: from
        the beginning, or from the call of :meth:`ComponentTelemetry.show`.
        """
        return ComponentTelemetry(self, kind, component_id, pipeline, is_shown=is_shown)

    def retain(self, keys: Collection[tuple[ComponentKind, ComponentId, str]]) -> None:
        """Stop showing the metrics of components that are not in ``keys``: a reload removed them.

        Their lines in the ledger stay, unless they never had an item.
        """
        retained = {(), *(_labels_of(*key) for key in keys)}
        for family in self._families.values():
            for owner in family.instruments.keys() - retained:
                del family.instruments[owner]
        self.ledger.discard_unused(lambda entry: (entry.kind, entry.component_id, entry.pipeline) in keys)

    def uptime_s(self) -> float:
        """Seconds since the service was created."""
        return self._clock.monotonic_s() - self._started_s

    def gauge(self, name: str, description: str, read: Read, labels: tuple[str, ...] = ()) -> None:
        """A gauge of the service itself."""
        self.instrument("gauge", name, description, labels, (), lambda: Gauge(labels, read))

    def instrument(
        self,
        kind: str,
        name: str,
        description: str,
        names: tuple[str, ...],
        owner: Labels,
        make: Callable[[], Any],
        buckets: tuple[float, ...] = (),
    ) -> Any:
        """The instrument ``name`` of ``owner``; created by the first call.

        Raises:
            ValueError: the name is in use with another kind, other labels or other buckets, or its values come from the
                ledger.
        """
        if _FROM_LEDGER.fullmatch(name):
            raise ValueError(
                f"{name} is computed from the ledger: report to the ledger instead (delivered, refused, dropped)"
            )
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = Family(name, kind, description, names, buckets)
        elif (family.kind, family.label_names, family.buckets) != (kind, names, buckets):
            raise ValueError(
                f"{name} is already a {family.kind} with the labels {family.label_names}; "
                f"it cannot be a {kind} with {names}"
            )
        if owner not in family.instruments:
            family.instruments[owner] = make()
        return family.instruments[owner]

    def collect(self) -> Iterable[Metric]:
        """All metrics with their present values, for prometheus-client."""
        yield metric_of("target_info", "gauge", "Identity of this instance", [(self._identity, 1)])
        for metric in self._collect_metrics():
            for sample in metric.samples if self._constant_labels else ():
                for name, value in self._constant_labels.items():
                    sample.labels.setdefault(name, value)
            yield metric

    def _collect_metrics(self) -> Iterator[Metric]:
        yield from self._collect_process()
        yield from collect_ledger(self.ledger)
        for family in self._families.values():
            metric = Metric(family.name, family.description, family.kind)
            for owner, instrument in family.instruments.items():
                try:
                    samples = list(instrument.samples(family.name, owner))
                except Exception as error:  # noqa: BLE001 - a component's `read` must not break the page
                    structlog.get_logger().warning(
                        "a metric could not be read", metric=family.name, error=str(error), **dict(owner)
                    )
                    continue
                for name, labels, value in samples:
                    metric.add_sample(name, labels, value)
            yield metric

    def render(self) -> str:
        """The page ``/metrics``."""
        return "".join(lines(self._registry.collect()))

    def _collect_process(self) -> Iterator[Metric]:
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
        yield metric_of(
            "otelcol_process_uptime", "counter", "Uptime of the process in seconds", [({}, self.uptime_s())]
        )
        yield metric_of(
            "otelcol_process_cpu_seconds",
            "counter",
            "Total CPU user and system time in seconds",
            [({}, times.user + times.system)],
        )
        yield metric_of(
            "otelcol_process_memory_rss",
            "gauge",
            "Total physical memory in bytes (resident set size)",
            [({}, memory.rss)],
        )
        memory_of_malloc = heap()
        if memory_of_malloc is not None:
            allocated, obtained = memory_of_malloc
            yield metric_of(
                "otelcol_process_runtime_heap_alloc_bytes",
                "gauge",
                "Bytes of allocated heap objects (mallinfo2)",
                [({}, allocated)],
            )
            yield metric_of(
                "otelcol_process_runtime_total_sys_memory_bytes",
                "gauge",
                "Bytes of memory obtained from the OS (mallinfo2)",
                [({}, obtained)],
            )


class ComponentTelemetry:
    """An :class:`collector.api.Telemetry`."""

    def __init__(
        self,
        service: ServiceTelemetry,
        kind: ComponentKind,
        component_id: ComponentId,
        pipeline: str,
        *,
        is_shown: bool,
    ) -> None:
        self._service, self._kind, self._id, self._pipeline = service, kind, component_id, pipeline
        self._reads: list[tuple[Gauge, Read]] | None = None if is_shown else []
        self.labels = _labels_of(kind, component_id, pipeline)
        self.log: Any = structlog.get_logger().bind(**dict(self.labels))
        self._entries: dict[Signal, LedgerEntry] = {}

    def show(self) -> None:
        """Read the gauges of this component from now on, instead of those of its predecessor."""
        reads, self._reads = self._reads, None
        for gauge, read in reads or ():
            gauge.read = read

    def entry(self, signal: Signal) -> LedgerEntry:
        """This component's line in the ledger."""
        entry = self._entries.get(signal)
        if entry is None:
            entry = self._entries[signal] = self._service.ledger.entry(
                self._kind, self._id, signal, pipeline=self._pipeline
            )
        return entry

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> Counter:
        """See :class:`collector.api.Telemetry`."""
        made: Counter = self._service.instrument(
            "counter", name, description, labels, self.labels, lambda: Counter(labels)
        )
        return made

    def gauge(
        self,
        name: str,
        description: str,
        labels: tuple[str, ...] = (),
        read: Read | None = None,
    ) -> Gauge:
        """See :class:`collector.api.Telemetry`."""
        made: Gauge = self._service.instrument(
            "gauge", name, description, labels, self.labels, lambda: Gauge(labels, None)
        )
        if read is not None and self._reads is not None:
            self._reads.append((made, read))
        elif read is not None:
            made.read = read
        return made

    def histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> Histogram:
        """See :class:`collector.api.Telemetry`."""
        make = lambda: Histogram(labels, buckets)  # noqa: E731 - one line
        made: Histogram = self._service.instrument("histogram", name, description, labels, self.labels, make, buckets)
        return made

    def dropped(self, signal: Signal, item_count: int, reason: str) -> None:
        """See :class:`collector.api.Telemetry`."""
        entry = self.entry(signal)
        entry.drop(item_count, reason)
        _attribute(entry, item_count)

    def folded(self, signal: Signal, item_count: int) -> None:
        """See :class:`collector.api.Telemetry`."""
        entry = self.entry(signal)
        entry.folded += item_count
        entry.explained += item_count

    def created(self, signal: Signal, item_count: int) -> None:
        """See :class:`collector.api.Telemetry`."""
        entry = self.entry(signal)
        entry.created += item_count
        entry.explained -= item_count

    def delivered(self, signal: Signal, item_count: int) -> None:
        """See :class:`collector.api.Telemetry`."""
        entry = self.entry(signal)
        entry.delivered += item_count
        _attribute(entry, item_count)

    def refused(self, signal: Signal, item_count: int, reason: str) -> None:
        """See :class:`collector.api.Telemetry`."""
        entry = self.entry(signal)
        entry.refuse(item_count, reason)
        _attribute(entry, item_count)

    def dead_lettered(self, signal: Signal, item_count: int) -> None:
        """See :class:`collector.api.Telemetry`."""
        self.entry(signal).dead_lettered += item_count


def _labels_of(kind: ComponentKind, component_id: ComponentId, pipeline: str) -> Labels:
    word = kind.value.removesuffix("s")
    return ((word, str(component_id)),) + ((("pipeline", pipeline),) if pipeline else ())


def _attribute(entry: LedgerEntry, item_count: int) -> None:
    """What an exporter counts while it works on a batch belongs to that batch."""
    batch = BATCH_IN_PROGRESS.get()
    if batch is not None and batch.entry is entry:
        batch.counted += item_count


def _resource_labels(attributes: Mapping[str, str]) -> dict[str, str]:
    """The attributes as labels; values whose names become equal are joined with ``;``, as in OpenTelemetry's exporters.

    Source: OpenTelemetry specification, Prometheus compatibility, "Metric Attributes".
    """
    labels: dict[str, str] = {}
    for key, value in sorted(attributes.items()):
        name = escape_label_name(key) or "_"
        labels[name] = f"{labels[name]};{value}" if name in labels else value
    return labels
