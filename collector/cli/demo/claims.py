"""The demo's claims, each with both sides: what the platform says it sent, and what was found where the gateway put it."""

import math
from dataclasses import dataclass
from typing import Any

from collector.cli.demo.output import Page, TraceFile
from collector.model import Signal
from collector.service.ledger import Ledger

__all__ = ["Claim", "claims_of"]

_CAP = 400  # cardinality::limit of config/default.yaml


@dataclass(frozen=True, slots=True)
class Claim:
    """One sentence with numbers, and whether it holds."""

    subject: str
    text: str
    holds: bool


def _number(value: float) -> str:
    return f"{value:,.0f}".replace(",", " ")


def claims_of(sent: dict[str, Any], traces: TraceFile, page: Page, ledger: Ledger, ratio: float) -> list[Claim]:
    """All claims. ``ratio`` is the share of ordinary traces that should be kept."""
    return [
        _sampling(sent, traces, ratio),
        _errors(sent, traces),
        _requests(sent, page, traces),
        _series(sent, page),
        _gpu(sent, traces),
        _received(sent, ledger),
        _closed(ledger),
    ]


def _sampling(sent: dict[str, Any], traces: TraceFile, ratio: float) -> Claim:
    errors, slow = sent.get("error_traces", 0), sent.get("slow_traces", 0)
    rest_in = sent.get("traces", 0) - errors - slow
    rest_out = len(traces.traces) - traces.count("error") - traces.count("slow")
    bound = 4 * math.sqrt(max(rest_in * ratio * (1 - ratio), 0.0)) + 1
    text = (
        f"{_number(sent.get('traces', 0))} in = {_number(len(traces.traces))} kept"
        f" + {_number(sent.get('traces', 0) - len(traces.traces))} sampled away"
        f"   rest {rest_out / max(rest_in, 1):.1%} ({ratio:.0%} wanted)"
    )
    return Claim("traces", text, sent.get("traces", 0) > 0 and abs(rest_out - rest_in * ratio) <= bound)


def _errors(sent: dict[str, Any], traces: TraceFile) -> Claim:
    errors, slow = sent.get("error_traces", 0), sent.get("slow_traces", 0)
    text = f"errors {traces.count('error')}/{errors} kept, slow {traces.count('slow')}/{slow} kept"
    return Claim("traces", text, (traces.count("error"), traces.count("slow")) == (errors, slow))


def _series(sent: dict[str, Any], page: Page) -> Claim:
    value = sent.get("requests_value", 0)
    text = (
        f"{_number(sent.get('series', 0))} in → {_number(page.series)} on the page, {page.overflow} of them overflow   "
        f"Σ http_requests_total in {_number(value)} = out {_number(page.requests)}   "
        f"worst: user_id ({_number(sent.get('user_ids', 0))} values)"
    )
    capped = page.largest <= _CAP + 1  # the named ones and the overflow series
    return Claim("series", text, value > 0 and page.requests == value and capped)


def _requests(sent: dict[str, Any], page: Page, traces: TraceFile) -> Claim:
    spans = sent.get("server_spans", 0)
    kept = _number(len(traces.traces))
    text = f"server spans {_number(spans)} sent = {_number(page.calls)} counted by span_metrics, though {kept} traces were kept"
    return Claim("requests", text, spans > 0 and page.calls == spans)


def _gpu(sent: dict[str, Any], traces: TraceFile) -> Claim:
    text = (
        f"GPU-0 simulated   {_number(traces.gpu_spans)} kept embedding spans enriched of {_number(sent.get('gpu_spans', 0))} sent, "
        f"{traces.foreign_gpu_spans} on other hosts, {_number(traces.other_spans)} kept spans untouched"
    )
    return Claim("gpu", text, traces.gpu_spans > 0 and traces.foreign_gpu_spans == 0)


def _received(sent: dict[str, Any], ledger: Ledger) -> Claim:
    rows = {row.signal: row for row in ledger.snapshot() if row.node == "receivers/otlp"}
    pairs = [
        (name, sent.get(key, 0), rows[signal].received if signal in rows else 0)
        for name, key, signal in (
            ("spans", "spans", Signal.TRACES), ("points", "metric_points", Signal.METRICS), ("log records", "log_records", Signal.LOGS),
        )
    ]  # fmt: skip
    own = sum(max(got - gave, 0) for _, gave, got in pairs)
    text = "received = sent   " + ", ".join(f"{name} {_number(got)} = {_number(gave)}" for name, gave, got in pairs)
    text += f"   (and {_number(own)} of your own)" if own else ""
    return Claim("door", text, all(got >= gave for _, gave, got in pairs))


def _closed(ledger: Ledger) -> Claim:
    ends = [row for row in ledger.snapshot() if row.node.startswith("exporters/")]
    parts = [
        f"{row.node.removeprefix('exporters/')} {_number(row.received)} = {_number(row.delivered)} delivered"
        f" + {_number(sum(row.dropped.values()))} dropped + {_number(sum(row.refused.values()))} refused"
        for row in ends
    ]
    return Claim("ledger", "   ".join(parts), not ledger.imbalances() and bool(ends))
