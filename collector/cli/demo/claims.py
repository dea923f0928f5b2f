"""The demo's claims, each with both sides: what the platform says it sent, and what the gateway delivered."""

import math
from dataclasses import dataclass
from typing import Any, Final

from collector.cli.demo.output import Page, TraceFile
from collector.model import Signal
from collector.service.ledger import Ledger

__all__ = ["Claim", "claims_of", "grouped"]

_SERIES_LIMIT: Final = 400  # cardinality::limit of config/default.yaml


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence with numbers, and whether it holds."""

    subject: str
    text: str
    holds: bool


def grouped(number: float) -> str:
    """The number with its digits in groups of three: ``12 345``."""
    return f"{number:,.0f}".replace(",", " ")


def claims_of(
    sent: dict[str, Any], traces: TraceFile, page: Page, ledger: Ledger, sampling_ratio: float
) -> list[Claim]:
    """All claims. ``sampling_ratio`` is the share of ordinary traces that should be kept."""
    return [
        _received(sent, ledger),
        _sampling(sent, traces, sampling_ratio),
        _errors(sent, traces),
        _requests(sent, page, traces),
        _series(sent, page),
        _gpu(sent, traces),
        _balanced(ledger),
    ]


def _received(sent: dict[str, Any], ledger: Ledger) -> Claim:
    rows = {row.signal: row for row in ledger.snapshot() if row.node == "receivers/otlp"}
    counts = [
        (name, sent.get(key, 0), rows[signal].received if signal in rows else 0)
        for name, key, signal in (
            ("spans", "spans", Signal.TRACES),
            ("metric points", "metric_points", Signal.METRICS),
            ("log records", "log_records", Signal.LOGS),
        )
    ]
    text = "; ".join(
        f"{grouped(sent_count)} {name} sent = {grouped(received_count)} received"
        for name, sent_count, received_count in counts
    )
    own_count = sum(max(received_count - sent_count, 0) for _, sent_count, received_count in counts)
    if own_count:
        text += f" (including {grouped(own_count)} of your own)"
    return Claim("received", text, all(received_count >= sent_count for _, sent_count, received_count in counts))


def _sampling(sent: dict[str, Any], traces: TraceFile, sampling_ratio: float) -> Claim:
    sent_count, kept_count = sent.get("traces", 0), len(traces.traces)
    ordinary_sent = sent_count - sent.get("error_traces", 0) - sent.get("slow_traces", 0)
    ordinary_kept = kept_count - traces.count("error") - traces.count("slow")
    tolerance = 4 * math.sqrt(max(ordinary_sent * sampling_ratio * (1 - sampling_ratio), 0.0)) + 1
    text = (
        f"{grouped(sent_count)} traces sent = {grouped(kept_count)} kept"
        f" + {grouped(sent_count - kept_count)} sampled out; "
        f"{ordinary_kept / max(ordinary_sent, 1):.1%} of the ordinary traces were kept (target: {sampling_ratio:.0%})"
    )
    is_close = abs(ordinary_kept - ordinary_sent * sampling_ratio) <= tolerance
    return Claim("sampling", text, sent_count > 0 and is_close)


def _errors(sent: dict[str, Any], traces: TraceFile) -> Claim:
    sent_counts = sent.get("error_traces", 0), sent.get("slow_traces", 0)
    kept_counts = traces.count("error"), traces.count("slow")
    text = (
        f"{kept_counts[0]} of {sent_counts[0]} traces with errors were kept, "
        f"and {kept_counts[1]} of {sent_counts[1]} slow traces"
    )
    return Claim("sampling", text, kept_counts == sent_counts)


def _requests(sent: dict[str, Any], page: Page, traces: TraceFile) -> Claim:
    spans = sent.get("server_spans", 0)
    text = (
        f"{grouped(spans)} server spans sent = {grouped(page.calls)} counted by span_metrics, "
        f"although only {grouped(len(traces.traces))} traces were kept"
    )
    return Claim("requests", text, spans > 0 and page.calls == spans)


def _series(sent: dict[str, Any], page: Page) -> Claim:
    value = sent.get("requests_value", 0)
    text = (
        f"{grouped(sent.get('series', 0))} series sent, {grouped(page.series)} on the scrape page "
        f"({page.overflow} of them for overflow); "
        f"sum of http_requests_total: {grouped(value)} sent = {grouped(page.requests)} on the page; "
        f"worst label: user_id with {grouped(sent.get('user_ids', 0))} values"
    )
    is_limited = page.largest <= _SERIES_LIMIT + 1  # the named ones and the overflow series
    return Claim("series", text, value > 0 and page.requests == value and is_limited)


def _gpu(sent: dict[str, Any], traces: TraceFile) -> Claim:
    text = (
        f"{grouped(traces.gpu_spans)} of {grouped(sent.get('gpu_spans', 0))} embedding spans were kept, "
        f"with data of the simulated GPU; {grouped(traces.other_spans)} other spans were kept without; "
        f"spans of other hosts with GPU data: {traces.foreign_gpu_spans}"
    )
    return Claim("gpu", text, traces.gpu_spans > 0 and traces.foreign_gpu_spans == 0)


def _balanced(ledger: Ledger) -> Claim:
    exporters = [row for row in ledger.snapshot() if row.node.startswith("exporters/")]
    text = "; ".join(
        f"{row.node.removeprefix('exporters/')}: {grouped(row.received)} received = {grouped(row.delivered)} delivered"
        f" + {grouped(sum(row.dropped.values()))} dropped + {grouped(sum(row.refused.values()))} refused"
        for row in exporters
    )
    return Claim("ledger", text, not ledger.imbalances() and bool(exporters))
