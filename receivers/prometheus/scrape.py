"""Scrapes one target, again and again.

Source: prometheus/prometheus scrape/scrape.go (scrapeLoop, acceptHeader, offset).
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.api import Clock, Counter, Host, RetryableError
from collector.delivery.log import RateLimitedLog
from collector.exposition import Converted, Page, PageError, SeriesTable, TextPage
from collector.exposition.text import PAGE_MAX_BYTES
from receivers.prometheus.access import Access, AccessError
from receivers.prometheus.config import GlobalConfig, ScrapeConfig
from receivers.prometheus.relabel import Relabeller
from receivers.prometheus.targets import LimitError, SampleLabels, Target, identity_of, resource_attributes

__all__ = ["Job", "Scraper"]

_PARSE_ELSEWHERE_FROM_BYTES: Final = 1024 * 1024
_MEMORY_FACTOR: Final = 4  # how much more memory than the page its columns and the request take, about
_REPORTS: Final = (
    "up", "scrape_duration_seconds", "scrape_samples_scraped", "scrape_samples_post_metric_relabeling",
    "scrape_series_added",
)  # fmt: skip
_EXTRA_REPORTS: Final = ("scrape_timeout_seconds", "scrape_sample_limit", "scrape_body_size_bytes")
_MEDIA_TYPES: Final = {
    "OpenMetricsText1.0.0": "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
    "OpenMetricsText0.0.1": "application/openmetrics-text;version=0.0.1",
    "PrometheusText1.0.0": "text/plain;version=1.0.0;escaping=allow-utf-8",
    "PrometheusText0.0.4": "text/plain;version=0.0.4",
}


@dataclass(frozen=True, slots=True)
class Job:
    """What the scrapers of one job share."""

    config: ScrapeConfig
    common: GlobalConfig
    interval_s: float
    timeout_s: float
    access: Access
    rules: Relabeller
    """Those for series."""
    scope: tuple[str, str]
    trims_suffixes: bool
    clock: Clock
    log: RateLimitedLog
    scrapes: Counter
    dropped: Counter
    consume: Callable[[bytes], Awaitable[None]]
    """Hands a request on."""

    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        protocols = self.config.setting("scrape_protocols", self.common, tuple(_MEDIA_TYPES))
        weight = len(protocols) + 2
        accepted = [f"{_MEDIA_TYPES[name]};q=0.{weight - i}" for i, name in enumerate(protocols)]
        own = {
            name: ",".join((*given.values, *(secret.get_secret_value() for secret in given.secrets)))
            for name, given in self.config.http_headers.items()
        }
        return {
            **own,
            "Accept": ",".join((*accepted, "*/*;q=0.2")),
            "Accept-Encoding": "gzip" if self.config.enable_compression else "identity",
            "X-Prometheus-Scrape-Timeout-Seconds": f"{self.timeout_s:g}",
        }


class Scraper:
    """Scrapes one target at its own moment of each interval, so that not all are scraped at once."""

    def __init__(self, job: Job, target: Target, host: Host) -> None:
        self._job, self._target, self._host = job, target, host
        labels = SampleLabels(job.config, job.common, target, job.rules)
        names = (*_REPORTS, *(_EXTRA_REPORTS if job.config.setting("extra_scrape_metrics", job.common, False) else ()))
        self._table = SeriesTable(
            labels,
            lambda given: identity_of(given, target),
            lambda identity: resource_attributes(identity, target.discovered),
            job.scope,
            reports=dict.fromkeys(names, labels.of_report()),
            trims_suffixes=job.trims_suffixes,
            follows_timestamped=job.config.track_timestamps_staleness,
        )
        self._headers = job.headers()
        self._sample_limit = job.config.setting("sample_limit", job.common, 0)
        self._max_bytes = job.config.setting("body_size_limit", job.common, 0) or PAGE_MAX_BYTES
        self._body_bytes = 0
        self._task: asyncio.Task[None] | None = None
        self.last_error = ""
        """Why the last scrape failed; empty: it did not."""

    @property
    def is_up(self) -> bool:
        """Whether the last scrape succeeded."""
        return not self.last_error

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """End, without a last scrape."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def forget(self) -> None:
        """End because the target is gone: all of its points have no value any more."""
        await self.stop()
        wire = self._table.end(self._now_ms())
        if wire:
            await self._job.consume(wire)

    async def _run(self) -> None:
        job, interval_s = self._job, self._job.interval_s
        await job.clock.sleep(self._first_delay_s())
        due_s = job.clock.monotonic_s()
        while True:
            try:
                await self.scrape()
            except Exception as error:  # noqa: BLE001 - a defect must not end the scraping of a target
                job.scrapes.add(1, result="failed")
                job.log.first_errors(
                    "a scrape ended with an unexpected error", target=self._target.url[:200], error=repr(error)[:300]
                )
            # A scrape that was due while the previous one ran is left out.
            due_s += interval_s * max(1, -((due_s - job.clock.monotonic_s()) // interval_s))
            await job.clock.sleep(max(0.0, due_s - job.clock.monotonic_s()))

    def _first_delay_s(self) -> float:
        """The time until the target's own moment within the interval."""
        name = repr(self._target.key).encode()
        digest = int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")
        interval_ns = round(self._job.interval_s * 1e9)
        return ((digest - self._job.clock.time_unix_nano()) % interval_ns) / 1e9

    def _now_ms(self) -> int:
        return self._job.clock.time_unix_nano() // 1_000_000

    async def scrape(self) -> None:
        """Scrape once and hand the points on."""
        job, now_ms = self._job, self._now_ms()
        started_s = job.clock.monotonic_s()
        self._body_bytes = sample_count = 0
        page = _NOTHING
        error = ""

        def report(kept: int, added: int) -> Mapping[str, float]:
            return {
                "up": 0.0 if error else 1.0,
                "scrape_duration_seconds": job.clock.monotonic_s() - started_s,
                "scrape_samples_scraped": sample_count,
                "scrape_samples_post_metric_relabeling": kept,
                "scrape_series_added": added,
                "scrape_timeout_seconds": job.timeout_s,
                "scrape_sample_limit": self._sample_limit,
                "scrape_body_size_bytes": self._body_bytes,
            }

        try:
            page = await self._read()
            sample_count = len(page)
            converted = await self._table.convert(page, now_ms, report, self._check_limit)
        except (AccessError, PageError, LimitError, RetryableError) as failure:
            error = str(failure)
            converted = await self._table.convert(_NOTHING, now_ms, report)
        self._account(error, converted)
        await job.consume(converted.wire + converted.stale)

    def _account(self, error: str, converted: Converted) -> None:
        job = self._job
        job.scrapes.add(1, result="failed" if error else "succeeded")
        for reason, count in (converted.losses or {}).items():
            if count:
                job.dropped.add(count, reason=reason)
                job.log.warning(
                    "points of a page were dropped", reason=reason, count=count, target=self._target.url[:200]
                )
        if error and error != self.last_error:
            job.log.first_errors("a scrape failed", target=self._target.url[:200], error=error[:300])
        self.last_error = error

    def _check_limit(self, kept: int) -> None:
        if self._sample_limit and kept > self._sample_limit:
            raise LimitError(f"the page has {kept} samples after relabelling; sample_limit is {self._sample_limit}")

    async def _read(self) -> Page:
        job = self._job
        answer = await job.access.get(self._target.url, self._headers, job.timeout_s, self._max_bytes)
        self._body_bytes = len(answer.body)
        openmetrics = self._is_openmetrics(answer.content_type)
        with self._host.admission.reserve(_MEMORY_FACTOR * len(answer.body)):
            if len(answer.body) >= _PARSE_ELSEWHERE_FROM_BYTES:
                page = await asyncio.to_thread(TextPage, answer.body, openmetrics)
            else:
                page = TextPage(answer.body, openmetrics)
            return Page.of(page, timestamps=job.config.honor_timestamps)

    def _is_openmetrics(self, content_type: str) -> bool:
        media_type = content_type.partition(";")[0].strip().lower()
        if media_type == "application/openmetrics-text":
            return True
        if media_type == "text/plain":
            return False
        fallback = self._job.config.fallback_scrape_protocol
        if not fallback:
            raise AccessError(
                f"the Content-Type {content_type[:100]!r} is not supported; set fallback_scrape_protocol to read it"
            )
        return fallback.startswith("OpenMetrics")


_NOTHING: Final = Page(
    keys=np.zeros((0, 2), np.uint64),
    values=np.zeros(0),
    timestamps=np.zeros(0, np.int64),
    labels=lambda _: ("", ()),
    metadata_key=None,
    metadata=dict,
)
