"""What the page ``/metrics`` shows of the ledger and of the process, and the text format it is written in.

Names and labels: the Collector's documentation.md files of service, receiverhelper, processorhelper and exporterhelper.
"""

import ctypes
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from collector.api import ComponentKind
from collector.service.instruments import Labels, number
from collector.service.ledger import Ledger

__all__ = ["collect_ledger", "heap", "lines", "metric_of"]

# Reasons of drops before the queue; an exporter's other drops are failed sends.
_ENQUEUE_FAILED = frozenset({"queue_full", "storage_full", "storage_error"})


def metric_of(name: str, kind: str, description: str, samples: Iterable[tuple[Mapping[str, str], float]]) -> Metric:
    """A metric with these labels and values."""
    metric = Metric(name, description, kind)
    for labels, value in samples:
        metric.add_sample(name, dict(labels), value)
    return metric


def collect_ledger(ledger: Ledger) -> Iterator[Metric]:
    """The ledger, and the Collector's counters of receivers, processors and exporters, which all follow from it."""
    families: dict[str, tuple[str, dict[Labels, float]]] = {}

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
        yield metric_of(name, "counter", description, ((dict(key), value) for key, value in series.items()))
    totals = Metric(
        "tailrace_items_total",
        "What became of every item: for each component, received + created = all other outcomes but dead_lettered + "
        "tailrace_items_held",
        "counter",
    )
    held = Metric("tailrace_items_held", "Items that a component has taken and that have not left it yet", "gauge")
    for row in ledger.snapshot():
        labels = {"signal": row.signal.value, "pipeline": row.pipeline, "component": row.component}
        for outcome, reason, count in row.outcomes():
            totals.add_sample(totals.name, {**labels, "outcome": outcome, "reason": reason}, count)
        if row.kind is not ComponentKind.RECEIVER:
            held.add_sample(held.name, labels, row.held)
    yield totals
    yield held
    open_rows = Metric(
        "tailrace_ledger_imbalance", "Items of a node that the ledger cannot account for at the moment", "gauge"
    )
    for row in ledger.imbalances():
        open_rows.add_sample(open_rows.name, {"node": row.node, "signal": row.signal.value}, row.imbalance)
    yield open_rows


def lines(metrics: Iterable[Metric]) -> Iterator[str]:
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
                f"{sample.name}{{{labels}}} {number(sample.value)}\n"
                if labels
                else f"{sample.name} {number(sample.value)}\n"
            )


def _help(metric: Metric) -> str:
    text = metric.documentation.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {metric.name} {text}\n"


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


def heap() -> tuple[int, int] | None:
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
