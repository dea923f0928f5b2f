"""Own metrics, and what components count with; rendered in Prometheus' text format under the Collector's names.

Not the ledger itself (``ledger``) and not the HTTP server (``admin``). Names and labels: the Collector's
documentation.md files of service, receiverhelper, processorhelper and exporterhelper. Counters have no ``_total``
suffix, because the Collector's own reader is configured so (``without_type_suffix``). Metrics that the Collector does
not have are named ``tailrace_*``.
"""

import ctypes
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
import structlog
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

from collector.api import Clock, ComponentId, ComponentKind
from collector.model import Signal
from collector.service.ledger import BATCH_IN_PROGRESS, Ledger, LedgerEntry

__all__ = ["ComponentTelemetry", "ServiceTelemetry"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# Reasons of drops before the queue; an exporter's other drops are failed sends.
_ENQUEUE_FAILED = frozenset({"queue_full", "storage_full", "storage_error"})
_FROM_LEDGER = re.compile(
    r"otelcol_(receiver_(accepted|refused|failed)|exporter_(sent|send_failed|enqueue_failed))"
    r"_(spans|metric_points|log_records)"
    r"|otelcol_processor_(incoming|outgoing)_items"
)
_LABEL_SETS_MAX = 2000  # of one instrument; the default limit of OpenTelemetry's SDKs
_LABEL_MAX_CHARS = 255
_OTHER = "__other__"
_Labels = tuple[tuple[str, str], ...]


_Read = Callable[[], float | Mapping[tuple[str, ...], float]]


class _Counter:
    __slots__ = ("_names", "_values")

    def __init__(self, names: tuple[str, ...]) -> None:
        self._names = names
        self._values: dict[tuple[str, ...], float] = {} if names else {(): 0}

    def add(self, value: float = 1, **labels: str) -> None:
        if value < 0:
            raise ValueError("a counter cannot be decreased")
        key = _key(self._names, labels, self._values)
        self._values[key] = self._values.get(key, 0) + value

    def samples(self, name: str, labels: _Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        for key, value in self._values.items():
            yield name, {**dict(labels), **dict(zip(self._names, key, strict=True))}, value


class _Gauge:
    __slots__ = ("_names", "_values", "read")

    def __init__(self, names: tuple[str, ...], read: _Read | None) -> None:
        self._names = names
        self._values: dict[tuple[str, ...], float] = {}
        self.read = read

    def set(self, value: float, **labels: str) -> None:
        self._values[_key(self._names, labels, self._values)] = value

    def samples(self, name: str, labels: _Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        values: Mapping[tuple[str, ...], float] = self._values
        if self.read is not None:
            now = self.read()
            values = now if isinstance(now, Mapping) else {(): now}
        for key, value in values.items():
            yield name, {**dict(labels), **dict(zip(self._names, key, strict=True))}, value


class _Histogram:
    __slots__ = ("_bounds", "_names", "_values")

    def __init__(self, names: tuple[str, ...], buckets: tuple[float, ...]) -> None:
        self._names = names
        self._bounds = tuple(sorted(bound for bound in buckets if bound != float("inf")))
        self._values: dict[tuple[str, ...], list[float]] = {}  # count of each bucket, count above the last bound, sum

    def observe(self, value: float, count: int = 1, **labels: str) -> None:
        key = _key(self._names, labels, self._values)
        counts = self._values.get(key)
        if counts is None:
            counts = self._values[key] = [0.0] * (len(self._bounds) + 2)
        place = next((place for place, bound in enumerate(self._bounds) if value <= bound), len(self._bounds))
        counts[place] += count
        counts[-1] += value * count

    def samples(self, name: str, labels: _Labels) -> Iterator[tuple[str, dict[str, str], float]]:
        for key, counts in self._values.items():
            own = {**dict(labels), **dict(zip(self._names, key, strict=True))}
            below = 0.0
            for bound, count in zip((*self._bounds, float("inf")), counts, strict=False):
                below += count
                yield f"{name}_bucket", {**own, "le": _number(bound)}, below
            yield f"{name}_sum", own, counts[-1]
            yield f"{name}_count", own, below


def _key(names: tuple[str, ...], labels: Mapping[str, str], known: Mapping[tuple[str, ...], object]) -> tuple[str, ...]:
    """The values of the labels; those of a new set beyond the limit are all ``__other__``."""
    if not names and not labels:
        return ()
    try:
        key = tuple(str(labels[name])[:_LABEL_MAX_CHARS] for name in names)
    except KeyError as error:
        raise ValueError(f"the label {error} is missing: expected {names}, got {tuple(labels)}") from None
    if len(labels) != len(names):
        raise ValueError(f"expected the labels {names}, got {tuple(labels)}")
    return key if key in known or len(known) < _LABEL_SETS_MAX else (_OTHER,) * len(names)


@dataclass
class _Family:
    """One metric name, with the instruments of all components."""

    name: str
    kind: str
    description: str
    label_names: tuple[str, ...]
    buckets: tuple[float, ...] = ()
    instruments: dict[_Labels, Any] = field(default_factory=dict)


class ServiceTelemetry:
    """The metrics of the process.

    ``component`` returns a component's view of them; ``render`` the page ``/metrics``.
    """

    def __init__(
        self, *, ledger: Ledger, clock: Clock, version: str, instance_id: str, service_name: str = "tailrace"
    ) -> None:
        self.ledger = ledger
        self._clock = clock
        self._started_s = clock.monotonic_s()
        self._version = version
        self.identify(instance_id=instance_id, service_name=service_name)
        self._families: dict[str, _Family] = {}
        self._components: dict[tuple[ComponentKind, ComponentId, str], ComponentTelemetry] = {}
        self._process = psutil.Process()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def identify(self, *, instance_id: str, service_name: str) -> None:
        """Set what ``target_info`` says; a reload may change it."""
        self._identity = {
            "service_instance_id": instance_id,
            "service_name": service_name,
            "service_version": self._version,
        }

    def component(self, kind: ComponentKind, component_id: ComponentId, pipeline: str = "") -> "ComponentTelemetry":
        """The telemetry of one component (processors: in one pipeline). A reload gets the same object."""
        key = (kind, component_id, pipeline)
        if key not in self._components:
            self._components[key] = ComponentTelemetry(self, kind, component_id, pipeline)
        return self._components[key]

    def forget(self, kind: ComponentKind, component_id: ComponentId, pipeline: str = "") -> None:
        """Stop showing the metrics of a component that a reload removed; its ledger lines stay."""
        telemetry = self._components.pop((kind, component_id, pipeline), None)
        if telemetry is not None:
            for family in self._families.values():
                family.instruments.pop(telemetry.labels, None)

    def uptime_s(self) -> float:
        """Seconds since the service was created."""
        return self._clock.monotonic_s() - self._started_s

    def gauge(self, name: str, description: str, read: _Read, labels: tuple[str, ...] = ()) -> None:
        """A gauge of the service itself."""
        self.instrument("gauge", name, description, labels, (), lambda: _Gauge(labels, read))

    def instrument(
        self,
        kind: str,
        name: str,
        description: str,
        names: tuple[str, ...],
        owner: _Labels,
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
            family = self._families[name] = _Family(name, kind, description, names, buckets)
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
        yield _metric("target_info", "gauge", "Identity of this instance", [(self._identity, 1)])
        yield from self._collect_process()
        yield from _collect_ledger(self.ledger)
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
        return "".join(_lines(self._registry.collect()))

    def _collect_process(self) -> Iterator[Metric]:
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
        yield _metric("otelcol_process_uptime", "counter", "Uptime of the process in seconds", [({}, self.uptime_s())])
        yield _metric(
            "otelcol_process_cpu_seconds",
            "counter",
            "Total CPU user and system time in seconds",
            [({}, times.user + times.system)],
        )
        yield _metric(
            "otelcol_process_memory_rss",
            "gauge",
            "Total physical memory in bytes (resident set size)",
            [({}, memory.rss)],
        )
        heap = _heap()
        if heap is not None:
            allocated, obtained = heap
            yield _metric(
                "otelcol_process_runtime_heap_alloc_bytes",
                "gauge",
                "Bytes of allocated heap objects (mallinfo2)",
                [({}, allocated)],
            )
            yield _metric(
                "otelcol_process_runtime_total_sys_memory_bytes",
                "gauge",
                "Bytes of memory obtained from the OS (mallinfo2)",
                [({}, obtained)],
            )


class ComponentTelemetry:
    """An :class:`collector.api.Telemetry`."""

    def __init__(
        self, service: ServiceTelemetry, kind: ComponentKind, component_id: ComponentId, pipeline: str
    ) -> None:
        self._service, self._kind, self._id, self._pipeline = service, kind, component_id, pipeline
        word = kind.value.removesuffix("s")
        self.labels: _Labels = ((word, str(component_id)),) + ((("pipeline", pipeline),) if pipeline else ())
        self.log: Any = structlog.get_logger().bind(**dict(self.labels))
        self._entries: dict[Signal, LedgerEntry] = {}

    def entry(self, signal: Signal) -> LedgerEntry:
        """This component's line in the ledger."""
        entry = self._entries.get(signal)
        if entry is None:
            entry = self._entries[signal] = self._service.ledger.entry(
                self._kind, self._id, signal, pipeline=self._pipeline
            )
        return entry

    def counter(self, name: str, description: str, labels: tuple[str, ...] = ()) -> _Counter:
        """See :class:`collector.api.Telemetry`."""
        made: _Counter = self._service.instrument(
            "counter", name, description, labels, self.labels, lambda: _Counter(labels)
        )
        return made

    def gauge(
        self,
        name: str,
        description: str,
        labels: tuple[str, ...] = (),
        read: _Read | None = None,
    ) -> _Gauge:
        """See :class:`collector.api.Telemetry`."""
        made: _Gauge = self._service.instrument(
            "gauge", name, description, labels, self.labels, lambda: _Gauge(labels, read)
        )
        if read is not None:
            made.read = read  # after a reload the new object is read
        return made

    def histogram(
        self, name: str, description: str, buckets: tuple[float, ...], labels: tuple[str, ...] = ()
    ) -> _Histogram:
        """See :class:`collector.api.Telemetry`."""
        make = lambda: _Histogram(labels, buckets)  # noqa: E731 - one line
        made: _Histogram = self._service.instrument("histogram", name, description, labels, self.labels, make, buckets)
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


def _attribute(entry: LedgerEntry, item_count: int) -> None:
    """What an exporter counts while it works on a batch belongs to that batch."""
    batch = BATCH_IN_PROGRESS.get()
    if batch is not None and batch.entry is entry:
        batch.counted += item_count


def _metric(name: str, kind: str, description: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    metric = Metric(name, description, kind)
    for labels, value in samples:
        metric.add_sample(name, dict(labels), value)
    return metric


def _collect_ledger(ledger: Ledger) -> Iterator[Metric]:
    """The ledger, and the Collector's counters of receivers, processors and exporters, which all follow from it."""
    families: dict[str, tuple[str, dict[_Labels, float]]] = {}

    def add(name: str, description: str, value: float, **labels: str) -> None:
        _, series = families.setdefault(name, (description, {}))
        key = tuple(labels.items())
        series[key] = series.get(key, 0) + value

    for entry in ledger.entries():
        items, component = entry.signal.item_name, str(entry.component_id)
        if entry.kind is ComponentKind.RECEIVER:
            labels = {"receiver": component, "transport": entry.transport}
            add(
                f"otelcol_receiver_accepted_{items}",
                f"Number of {items} successfully pushed into the pipeline",
                entry.out - entry.failed,
                **labels,
            )
            refused = sum(entry.refused.values()) + entry.rejected
            add(
                f"otelcol_receiver_refused_{items}",
                f"Number of {items} that could not be pushed into the pipeline",
                refused,
                **labels,
            )
            add(
                f"otelcol_receiver_failed_{items}",
                f"Number of {items} whose delivery failed while the sender waited",
                entry.failed,
                **labels,
            )
        elif entry.kind is ComponentKind.PROCESSOR:
            labels = {"processor": component, "otel_signal": entry.signal.value}
            add("otelcol_processor_incoming_items", "Number of items passed to the processor", entry.received, **labels)
            add("otelcol_processor_outgoing_items", "Number of items emitted from the processor", entry.out, **labels)
        elif entry.kind is ComponentKind.EXPORTER:
            enqueue_failed = sum(count for reason, count in entry.dropped.items() if reason in _ENQUEUE_FAILED)
            failed = sum(entry.dropped.values()) - enqueue_failed + sum(entry.refused.values())
            add(
                f"otelcol_exporter_sent_{items}",
                f"Number of {items} successfully sent to destination",
                entry.delivered,
                exporter=component,
            )
            add(
                f"otelcol_exporter_send_failed_{items}",
                f"Number of {items} in failed attempts to send to destination",
                failed,
                exporter=component,
            )
            text = f"Number of {items} that could not be added to the sending queue"
            add(f"otelcol_exporter_enqueue_failed_{items}", text, enqueue_failed, exporter=component)
    for name, (description, series) in families.items():
        yield _metric(name, "counter", description, ((dict(key), value) for key, value in series.items()))
    flows = Metric(
        "tailrace_ledger_items",
        "What became of every item: for each node, received + created = the sum of all other flows",
        "gauge",
    )
    for row in ledger.snapshot():
        for flow, reason, count in row.flows():
            flows.add_sample(
                flows.name, {"node": row.node, "signal": row.signal.value, "flow": flow, "reason": reason}, count
            )
    yield flows
    open_rows = Metric(
        "tailrace_ledger_imbalance", "Items of a node that the ledger cannot account for at the moment", "gauge"
    )
    for row in ledger.imbalances():
        open_rows.add_sample(open_rows.name, {"node": row.node, "signal": row.signal.value}, row.imbalance)
    yield open_rows


def _lines(metrics: Iterable[Metric]) -> Iterator[str]:
    """Prometheus' text format 0.0.4. prometheus-client's own writer always adds ``_total``."""
    for metric in metrics:
        if not metric.samples:
            continue
        yield _help(metric)
        yield f"# TYPE {metric.name} {metric.type}\n"
        for sample in metric.samples:
            labels = ",".join(
                f'{name}="{_escape(value)}"' for name, value in sorted(sample.labels.items()) if value != ""
            )
            yield (
                f"{sample.name}{{{labels}}} {_number(sample.value)}\n"
                if labels
                else f"{sample.name} {_number(sample.value)}\n"
            )


def _help(metric: Metric) -> str:
    text = metric.documentation.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {metric.name} {text}\n"


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


class _Mallinfo2(ctypes.Structure):
    """glibc ≥ 2.33, malloc.h."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in [
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        ]
    )


def _heap() -> tuple[int, int] | None:
    """(bytes allocated, bytes obtained from the OS) of glibc's malloc; None on other systems."""
    if _mallinfo2 is None:
        return None
    now = _mallinfo2()
    return now.uordblks + now.hblkhd, now.arena + now.hblkhd


def _find_mallinfo2() -> Callable[[], Any] | None:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError):
        return None
    function.restype = _Mallinfo2
    found: Callable[[], Any] = function
    return found


_mallinfo2 = _find_mallinfo2()
