"""What the demo shows in addition to its counts: services, worst labels, and the slowest trace as a tree.

All of it comes from the JSON documents of the admin port, like the page that the admin port serves.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import aiohttp
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from collector.text.printable import printable

__all__ = ["PATHS", "fetch_documents", "slowest", "views"]

PATHS: Final = ("/span_metrics", "/cardinality", "/sampling")
_LABELS: Final = 5
_SPANS: Final = 24
_SAMPLES_CHARS: Final = 44
_TENANT_CHARS: Final = 40
_TEXT_CHARS: Final = 200
_GIB: Final = 2**30
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)


async def fetch_documents(session: aiohttp.ClientSession, admin: str) -> dict[str, Any]:
    """The document of each path; paths that do not answer are left out."""
    documents = {}
    for path in PATHS:
        try:
            async with session.get(admin + path, timeout=_TIMEOUT) as response:
                if response.ok:
                    documents[path] = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            continue
    return documents


def views(documents: Mapping[str, Any]) -> list[RenderableType]:
    """All views that have something to show."""
    candidates = (
        _services(documents.get("/span_metrics")),
        _labels(documents.get("/cardinality")),
        _trace(slowest(documents)),
    )
    return [view for view in candidates if view is not None]


def slowest(documents: Mapping[str, Any]) -> dict[str, Any] | None:
    """The slowest of the kept traces."""
    found = [trace for document in _documents(documents.get("/sampling")) for trace in document.get("slowest", ())]
    return max(found, key=lambda trace: float(trace["duration_ms"]), default=None)


def _documents(by_component: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    yield from (by_component or {}).values()


def _table(title: str, *columns: str, numbers: slice) -> Table:
    table = Table(title=title, title_justify="left", header_style="bold", box=None, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in columns[numbers] else "left", no_wrap=True)
    return table


def _services(document: Mapping[str, Any] | None) -> Table | None:
    rows = [service for component in _documents(document) for service in component.get("services", ())]
    if not rows:
        return None
    title = "Requests, errors and durations (from every span, before sampling)"
    table = _table(title, "service", "calls", "errors", "p50", "p95", "p99", numbers=slice(1, None))
    for row in rows:
        errors = Text(f"{row['errors']} ({row['error_ratio']:.1%})", style="red" if row["errors"] else "")
        table.add_row(
            _plain(row["service"]),
            str(row["calls"]),
            errors,
            *(_duration(row.get(key)) for key in ("p50_ms", "p95_ms", "p99_ms")),
        )
    return table


def _labels(document: Mapping[str, Any] | None) -> Table | None:
    rows = [row for component in _documents(document) for row in component.get("attributes", ())][:_LABELS]
    if not rows:
        return None
    table = _table("Labels with the most values", "metric", "label", "values", "examples", numbers=slice(2, 3))
    for row in rows:
        samples = ", ".join(row.get("samples", ()))
        table.add_row(
            _plain(row["metric"]), _plain(row["attribute"]), str(row["values"]), _plain(samples, _SAMPLES_CHARS)
        )
    return table


def _trace(trace: Mapping[str, Any] | None) -> Tree | None:
    """The spans as a tree, in order of time; at most ``_SPANS`` of them."""
    if trace is None:
        return None
    spans = sorted(trace["spans"], key=lambda span: (span["start_offset_ms"], -span["duration_ms"]))[:_SPANS]
    known = {span["span_id"] for span in spans}
    children: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for span in spans:
        parent_id = span.get("parent_span_id", "")
        children[parent_id if parent_id in known and parent_id != span["span_id"] else ""].append(span)
    title = Text.assemble(
        ("Slowest kept trace  ", "italic"), _duration(trace["duration_ms"]),
        ("  kept by rule ", "dim"), _plain(trace["rule"]), ("  ", ""), (_clean(trace["trace_id"]), "dim"),
    )  # fmt: skip
    tree = Tree(title, guide_style="dim")
    pending = [(tree, span) for span in reversed(children[""])]
    seen: set[str] = set()
    while pending:
        parent, span = pending.pop()
        if span["span_id"] in seen:
            continue
        seen.add(span["span_id"])
        branch = parent.add(_line(span))
        pending += [(branch, child) for child in reversed(children[span["span_id"]])]
    if len(trace["spans"]) > _SPANS:
        tree.add(Text(f"… {len(trace['spans']) - _SPANS} more", style="dim"))
    return tree


def _line(span: Mapping[str, Any]) -> Text:
    attributes = span["attributes"]
    line = Text.assemble(
        _plain(span["name"]), ("  " + _clean(span["service"]), "cyan"), "  ", _duration(span["duration_ms"])
    )
    if span["status"] == "error":
        line.append("  error", style="red")
    for text in _notes(attributes):
        line.append("  " + text, style="green" if text.startswith("GPU") else "dim")
    return line


def _notes(attributes: Mapping[str, Any]) -> Iterator[str]:
    """Noteworthy attributes: queue, GPU, tokens, tenant."""
    for key, note in _NOTES.items():
        value = attributes.get(key)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            yield note(value)
    if tenant := attributes.get("tenant_id"):
        yield _clean(tenant, _TENANT_CHARS)


_NOTES: Final[dict[str, Callable[[float], str]]] = {
    "gen_ai.latency.time_in_queue": lambda value: f"queued {value * 1000:.0f} ms",
    "gpu.utilization.mean": lambda value: f"GPU {value:.0%}",
    "gpu.memory.used.max": lambda value: f"{value / _GIB:.1f} GiB",
    "gpu.power.mean": lambda value: f"{value:.0f} W",
    "gpu.device.energy": lambda value: f"{value:.0f} J",
    "gen_ai.usage.input_tokens": lambda value: f"{value:.0f} tokens",
    "http.response.status_code": lambda value: f"HTTP {value:.0f}",
}


def _duration(ms: float | None) -> str:
    if ms is None:
        return ""
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2f} ms"


def _clean(text: object, max_chars: int = _TEXT_CHARS) -> str:
    """The start of the text with control characters escaped: it comes from outside and is shown on a terminal."""
    text = str(text)
    return printable(text[:max_chars])[:max_chars]


def _plain(text: object, max_chars: int = _TEXT_CHARS) -> Text:
    """The cleaned text, in which square brackets are not markup."""
    return Text(_clean(text, max_chars))
