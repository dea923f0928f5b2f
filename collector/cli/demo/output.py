"""What came out of the gateway, read from where it put it: its trace file and its scrape page."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from collector.cli.demo.names import API, GPU_HOST, HOST_PREFIX

__all__ = ["Kept", "Page", "TraceFile", "read_page"]

_ERROR: Final = 2
_SLOW_NS: Final = 2_000_000_000


@dataclass(slots=True)
class Kept:
    """One trace found in the file."""

    error: bool = False
    slow: bool = False
    spans: int = 0


@dataclass(slots=True)
class Page:
    """Of the scrape page."""

    series: int = 0
    requests: float = 0.0
    """Sum of http_requests_total."""
    overflow: int = 0
    """Overflow series."""
    largest: int = 0
    """Series of the metric that has most."""
    calls: float = 0.0
    """Sum of what span_metrics counted of the platform's services. Its series count in none of the above."""


class TraceFile:
    """Follows the trace file as it grows and rotates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._rest = b""
        self.traces: dict[str, Kept] = {}
        self.gpu_spans = 0
        self.foreign_gpu_spans = 0
        """Enriched spans of a host that is not the simulated GPU's."""
        self.other_spans = 0
        self.own_spans = 0
        """Spans that are not the platform's: the user sent them."""

    def count(self, kind: str) -> int:
        """Traces that are errors, or slow without being errors."""
        if kind == "error":
            return sum(kept.error for kept in self.traces.values())
        return sum(kept.slow and not kept.error for kept in self.traces.values())

    def read(self) -> None:
        """Take what has been written since the last time."""
        while True:
            if self._file is None:
                if not self._path.exists():
                    return
                self._file = self._path.open("rb")
            self._take(self._file.read())
            try:
                moved = self._path.stat().st_ino != Path(f"/proc/self/fd/{self._file.fileno()}").stat().st_ino
            except FileNotFoundError:
                return
            if not moved:
                return
            self._take(self._file.read())
            self._file.close()
            self._file = None

    def _take(self, chunk: bytes) -> None:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            for resource in orjson.loads(line).get("resourceSpans", ()) if line else ():
                host = _text(resource.get("resource", {}), "host.name")
                spans = [span for scope in resource.get("scopeSpans", ()) for span in scope.get("spans", ())]
                if not host.startswith(HOST_PREFIX):
                    self.own_spans += len(spans)
                    continue
                for span in spans:
                    self._span(span, host)

    def _span(self, span: dict[str, Any], host: str) -> None:
        kept = self.traces.setdefault(span["traceId"], Kept())
        kept.spans += 1
        kept.error |= span.get("status", {}).get("code") == _ERROR
        lasted = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
        kept.slow |= not span.get("parentSpanId") and lasted >= _SLOW_NS
        enriched = bool(_text(span, "gpu.source"))
        self.gpu_spans += enriched
        self.foreign_gpu_spans += enriched and host != GPU_HOST
        self.other_spans += not enriched


def _text(owner: dict[str, Any], key: str) -> str:
    for attribute in owner.get("attributes", ()):
        if attribute.get("key") == key:
            return str(attribute.get("value", {}).get("stringValue", ""))
    return ""


async def read_page(session: aiohttp.ClientSession, url: str, services: Collection[str]) -> Page:
    """Scrape once, as Prometheus would. ``services`` are the platform's."""
    async with session.get(url) as response:
        text = await response.text()
    page = Page()
    for family in text_string_to_metric_families(text):
        if family.name == "target_info":
            continue
        if family.name.startswith("traces_"):
            if family.name == "traces_span_metrics_calls":
                calls = [sample for sample in family.samples if sample.labels.get("service_name") in services]
                page.calls += sum(sample.value for sample in calls if sample.name.endswith("_total"))
            continue
        series = [sample for sample in family.samples if not sample.name.endswith(("_bucket", "_sum"))]
        page.series += len(series)
        page.largest = max(page.largest, len(series))
        page.overflow += sum("otel_metric_overflow" in sample.labels for sample in series)
        for sample in family.samples:
            if sample.name == "http_requests_total" and sample.labels.get("job") == API:
                page.requests += sample.value
    return page
