"""What the gateway delivered, read from its trace file and its scrape page."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from prometheus_client.parser import text_string_to_metric_families

from collector.cli.demo.names import API, GPU_HOST, HOST_PREFIX

__all__ = ["KeptTrace", "Page", "TraceFile", "read_page"]

_STATUS_ERROR: Final = 2
_SLOW_NS: Final = 2_000_000_000


@dataclass(slots=True)
class KeptTrace:
    """One trace found in the file."""

    is_error: bool = False
    is_slow: bool = False


@dataclass(slots=True)
class Page:
    """Numbers from the scrape page. The series of span_metrics are not included, except in ``calls``."""

    series: int = 0
    requests: float = 0.0
    """Sum of http_requests_total."""
    overflow: int = 0
    """Number of overflow series."""
    largest: int = 0
    """Number of series of the metric with the most series."""
    calls: float = 0.0
    """Calls of the platform's services, as counted by span_metrics."""


class TraceFile:
    """Follows the trace file as it grows and rotates."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: Any = None
        self._incomplete_line = b""
        self.traces: dict[str, KeptTrace] = {}
        self.gpu_spans = 0
        self.foreign_gpu_spans = 0
        """Spans with GPU data from a host without the simulated GPU."""
        self.other_spans = 0
        self.own_spans = 0
        """Spans that the user sent, not the platform."""

    def count(self, kind: str) -> int:
        """Number of traces with errors (``error``), or of slow ones without errors (``slow``)."""
        if kind == "error":
            return sum(kept.is_error for kept in self.traces.values())
        return sum(kept.is_slow and not kept.is_error for kept in self.traces.values())

    def read(self) -> None:
        """Read what has been written since the last call."""
        while True:
            if self._file is None:
                if not self._path.exists():
                    return
                self._file = self._path.open("rb")
            self._parse(self._file.read())
            try:
                is_rotated = self._path.stat().st_ino != Path(f"/proc/self/fd/{self._file.fileno()}").stat().st_ino
            except FileNotFoundError:
                return
            if not is_rotated:
                return
            self._parse(self._file.read())
            self._file.close()
            self._file = None

    def _parse(self, chunk: bytes) -> None:
        *lines, self._incomplete_line = (self._incomplete_line + chunk).split(b"\n")
        for line in lines:
            for resource in orjson.loads(line).get("resourceSpans", ()) if line else ():
                host = _text(resource.get("resource", {}), "host.name")
                spans = [span for scope in resource.get("scopeSpans", ()) for span in scope.get("spans", ())]
                if not host.startswith(HOST_PREFIX):
                    self.own_spans += len(spans)
                    continue
                for span in spans:
                    self._count_span(span, host)

    def _count_span(self, span: dict[str, Any], host: str) -> None:
        kept = self.traces.setdefault(span["traceId"], KeptTrace())
        kept.is_error |= span.get("status", {}).get("code") == _STATUS_ERROR
        duration_ns = int(span["endTimeUnixNano"]) - int(span["startTimeUnixNano"])
        kept.is_slow |= not span.get("parentSpanId") and duration_ns >= _SLOW_NS
        has_gpu_data = bool(_text(span, "gpu.source"))
        self.gpu_spans += has_gpu_data
        self.foreign_gpu_spans += has_gpu_data and host != GPU_HOST
        self.other_spans += not has_gpu_data


def _text(owner: dict[str, Any], key: str) -> str:
    for attribute in owner.get("attributes", ()):
        if attribute.get("key") == key:
            return str(attribute.get("value", {}).get("stringValue", ""))
    return ""


async def read_page(session: aiohttp.ClientSession, url: str, services: Collection[str]) -> Page:
    """Scrape once, as Prometheus would. ``services`` are those of the platform."""
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
