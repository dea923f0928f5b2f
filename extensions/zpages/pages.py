"""What the pages show, as HTML and JSON. Every text is escaped, since ids and messages may come from outside."""

import gc
import html
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import psutil

from collector.api import Host
from collector.text.printable import printable
from collector.transport.redaction import arguments_without_values

__all__ = ["expvarz", "extensionz", "featurez", "pipelinez", "servicez", "tracez"]

_NS_PER_S: Final = 1_000_000_000


def servicez(host: Host) -> str:
    """The build, the process and links to the other pages."""
    overview = host.overview()
    started = datetime.fromtimestamp(overview.start_time_unix_nano / _NS_PER_S, UTC)
    build = [("Command", "tailrace"), ("Version", overview.version), ("Python", platform.python_version())]
    runtime = [
        ("StartTimestamp", started.isoformat(timespec="milliseconds")),
        ("Uptime", f"{host.uptime_s():.0f} s"),
        ("Ready", "yes" if host.ready() else "no"),
        ("InstanceID", overview.instance_id),
        ("OS", platform.system().lower()),
        ("Architecture", platform.machine()),
    ]
    checks = [(check.name, "ok" if check.healthy else "failing", check.message) for check in host.health()]
    links = "".join(
        f'<p><a href="/debug/{path}">{name}</a></p>\n'
        for path, name in (("pipelinez", "Pipelines"), ("extensionz", "Extensions"), ("tracez", "Operations"))
    )
    return _document(
        "Service",
        _section("Build Info", _table(("", ""), build)),
        _section("Runtime Info", _table(("", ""), runtime)),
        _section("Health", _table(("Check", "Result", "Message"), checks)),
        links,
    )


def pipelinez(host: Host) -> str:
    """The components of each pipeline, and what each component last reported."""
    overview = host.overview()
    pipelines = [
        (
            pipeline.id,
            pipeline.signal.value,
            ", ".join(pipeline.receivers),
            " → ".join(pipeline.processors),
            ", ".join(pipeline.exporters),
        )
        for pipeline in overview.pipelines
    ]
    statuses = [(name, status) for name, status in overview.statuses.items() if not name.startswith("extensions/")]
    return _document(
        "Pipelines",
        _table(("FullName", "InputType", "Receivers", "Processors", "Exporters"), pipelines),
        _section("Components", _table(("Component", "Status"), statuses)),
    )


def extensionz(host: Host) -> str:
    """The running extensions, and what each last reported."""
    overview = host.overview()
    rows = [(name, overview.statuses.get(f"extensions/{name}", "")) for name in overview.extensions]
    return _document("Extensions", _table(("Extension", "Status"), rows))


def featurez(host: Host) -> str:
    """The feature gates, of which there are none."""
    del host
    return _document("Feature Gates", "<p>Tailrace has no feature gates.</p>\n")


def tracez(host: Host) -> str:
    """What became of the items, for each node and signal, and why items were lost or refused."""
    ledger = host.overview().ledger
    rows = [
        (row["node"], row["signal"], row["held"], _completed_count(row), _failed_count(row), row["imbalance"])
        for row in ledger
    ]
    reasons = [
        (row["node"], row["signal"], outcome, reason, count)
        for row in ledger
        for outcome in ("dropped", "refused")
        for reason, count in row[outcome].items()
    ]
    return _document(
        "Operations",
        "<p>Items, not spans: Tailrace does not trace itself.</p>\n",
        _table(("Node", "Signal", "Running", "Completed", "Errors", "Imbalance"), rows),
        _section("Errors", _table(("Node", "Signal", "Outcome", "Reason", "Items"), reasons)),
    )


def expvarz(host: Host) -> bytes:
    """The command line, the memory and the health of the process, as JSON."""
    process = psutil.Process()
    memory = process.memory_info()
    document = {
        "cmdline": arguments_without_values(sys.argv),
        "memstats": {
            "rss_bytes": memory.rss,
            "virtual_bytes": memory.vms,
            "gc_counts": gc.get_count(),
            "gc_collections": [generation["collections"] for generation in gc.get_stats()],
        },
        "threads": process.num_threads(),
        "uptime_seconds": round(host.uptime_s(), 3),
        "health": {check.name: check.healthy for check in host.health()},
        "ledger": host.overview().ledger,
    }
    return orjson.dumps(document, default=str, option=orjson.OPT_INDENT_2)


def _completed_count(row: Mapping[str, Any]) -> int:
    count: int = row["out"] + row["delivered"] + row["folded"]
    return count


def _failed_count(row: Mapping[str, Any]) -> int:
    count: int = row["rejected"] + sum(row["dropped"].values()) + sum(row["refused"].values())
    return count


def _document(title: str, *parts: str) -> str:
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>\n'
        f"<body>\n<h1>{title}</h1>\n{''.join(parts)}</body></html>\n"
    )


def _section(title: str, body: str) -> str:
    return f"<h2>{title}</h2>\n{body}"


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    head = "".join(f'<th scope="col" align="left">{heading}</th>' for heading in headings)
    body = "".join("<tr>" + "".join(map(_cell, row)) + "</tr>\n" for row in rows)
    return f'<table cellpadding="4">\n<tr>{head}</tr>\n{body}</table>\n'


def _cell(value: object) -> str:
    align = ' align="right"' if isinstance(value, int) else ""
    return f"<td{align}>{html.escape(printable(str(value)))}</td>"
