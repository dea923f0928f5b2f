"""The receiver ``prometheus``: scrapes the targets of its jobs.

Each discovery of a job refreshes what it finds by itself; a job scrapes the targets that relabelling makes of it, and
keeps the scrapers of those that stay. Source: the Collector's prometheusreceiver.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final

from collector.api import ConsumeError, Counter, Host, PeriodicTask, Receiver, Settings
from collector.delivery.log import RateLimitedLog
from collector.model import Metrics, Signal
from collector.transport.user_agent import user_agent
from receivers.prometheus.access import Access
from receivers.prometheus.config import PrometheusReceiverConfig, ScrapeConfig
from receivers.prometheus.discovery import (
    Discovery,
    DiscoveryError,
    DNSDiscovery,
    FileDiscovery,
    HTTPDiscovery,
    static_labels,
)
from receivers.prometheus.kubernetes import KubernetesDiscovery
from receivers.prometheus.relabel import Relabeller
from receivers.prometheus.scrape import Job, Scraper
from receivers.prometheus.targets import targets_of

__all__ = ["PrometheusReceiver"]

_SCOPE_NAME: Final = "github.com/open-telemetry/opentelemetry-collector-contrib/receiver/prometheusreceiver"


class PrometheusReceiver(Receiver):
    """Scrapes targets as Prometheus does, and hands on one batch per scrape."""

    def __init__(self, settings: Settings, config: PrometheusReceiverConfig) -> None:
        telemetry = settings.telemetry
        self._output = settings.outputs[Signal.METRICS]
        log = RateLimitedLog(telemetry.log, settings.clock)
        scrapes = telemetry.counter("tailrace_prometheus_scrapes", "Scrapes, by result", ("result",))
        dropped = telemetry.counter(
            "tailrace_prometheus_dropped_points", "Points of pages that could not be converted, by reason", ("reason",)
        )
        failures = telemetry.counter(
            "tailrace_prometheus_discovery_errors", "Failed attempts to find targets, by kind of discovery", ("kind",)
        )
        telemetry.gauge(
            "tailrace_prometheus_targets",
            "Targets, by the result of their last scrape",
            ("state",),
            self._target_counts,
        )
        agent = user_agent(settings)
        prometheus = config.config
        self._pools = []
        for job_config in prometheus.scrape_configs:
            interval_s, timeout_s = prometheus.times(job_config)
            job = Job(
                config=job_config,
                common=prometheus.global_,
                interval_s=interval_s,
                timeout_s=timeout_s,
                access=Access(job_config, agent),
                rules=Relabeller(job_config.metric_relabel_configs),
                scope=(_SCOPE_NAME, settings.version),
                trims_suffixes=config.trim_metric_suffixes,
                clock=settings.clock,
                log=log,
                scrapes=scrapes,
                dropped=dropped,
                consume=self._consume,
            )
            limit = job_config.setting("target_limit", prometheus.global_, 0)
            discoveries = _discoveries(job_config, agent)
            self._pools.append(_Pool(job, discoveries, limit, partial(_count, failures)))

    async def start(self, host: Host) -> None:
        """Begin to look for targets and to scrape them.

        Raises:
            ValueError: A certificate cannot be used.
        """
        try:
            for pool in self._pools:
                pool.start(host)
        except BaseException:
            await self.shutdown()
            raise

    async def shutdown(self) -> None:
        """End that, without waiting for scrapes in progress."""
        await asyncio.gather(*(pool.stop() for pool in self._pools))

    async def _consume(self, wire: bytes) -> None:
        # The next scrape has newer values; the service has counted the refusal.
        with suppress(ConsumeError):
            await self._output.consume(Metrics(wire))

    def _target_counts(self) -> Mapping[tuple[str, ...], float]:
        states = [scraper.is_up for pool in self._pools for scraper in pool.scrapers.values()]
        return {("up",): states.count(True), ("down",): states.count(False)}


def _count(failures: Counter, kind: str) -> None:
    failures.add(1, kind=kind)


def _discoveries(config: ScrapeConfig, agent: str) -> list[Discovery]:
    return [
        *(FileDiscovery(one) for one in config.file_sd_configs),
        *(HTTPDiscovery(one, agent) for one in config.http_sd_configs),
        *(DNSDiscovery(one) for one in config.dns_sd_configs),
        *(KubernetesDiscovery(one, agent) for one in config.kubernetes_sd_configs),
    ]


class _Pool:
    """The targets of one job."""

    def __init__(self, job: Job, discoveries: list[Discovery], limit: int, on_failure: Callable[[str], None]) -> None:
        self._job, self._discoveries, self._limit, self._on_failure = job, discoveries, limit, on_failure
        self._rules = Relabeller(job.config.relabel_configs)
        self._found: list[list[dict[str, str]]] = [static_labels(job.config.static_configs), *([] for _ in discoveries)]
        self._searches = [
            PeriodicTask(partial(self._search, i), one.refresh_s, job.clock) for i, one in enumerate(discoveries)
        ]
        self._changing = asyncio.Lock()
        self._is_stopped = False
        self._host: Host | None = None
        self.scrapers: dict[object, Scraper] = {}

    def start(self, host: Host) -> None:
        """Open everything and begin."""
        self._host = host
        self._job.access.open()
        for discovery in self._discoveries:
            discovery.open()
        self._start_scrapers(self._targets())
        for search in self._searches:
            search.start()
            search.run_soon()

    async def stop(self) -> None:
        """End; the targets are not gone, so nothing is marked."""
        self._is_stopped = True
        for search in self._searches:
            await search.stop()
        await asyncio.gather(*(scraper.stop() for scraper in self.scrapers.values()))
        self.scrapers.clear()
        for discovery in self._discoveries:
            await discovery.close()
        await self._job.access.close()

    async def _search(self, number: int) -> None:
        discovery = self._discoveries[number]
        try:
            found = await discovery.find()
        except DiscoveryError as error:
            self._on_failure(discovery.name)
            self._job.log.warning(
                "targets could not be found; those found before stay",
                job=self._job.config.job_name, kind=discovery.name, error=str(error)[:300],
            )  # fmt: skip
            return
        async with self._changing:
            if found != self._found[number + 1] and not self._is_stopped:
                self._found[number + 1] = found
                await self._apply()

    def _targets(self) -> dict[object, Scraper]:
        """The scrapers for what was found; those that exist are kept."""
        job = self._job
        found = [labels for part in self._found for labels in part]
        targets, errors = targets_of(job.config, (job.interval_s, job.timeout_s), self._rules, found)
        for error in errors[:3]:
            job.log.warning("a target was left out", job=job.config.job_name, error=error[:300])
        if self._limit and len(targets) > self._limit:
            job.log.error(
                "the job has more targets than target_limit, so none of them is scraped",
                job=job.config.job_name, count=len(targets), limit=self._limit,
            )  # fmt: skip
            targets = []
        assert self._host is not None
        return {target.key: self.scrapers.get(target.key) or Scraper(job, target, self._host) for target in targets}

    async def _apply(self) -> None:
        wanted = self._targets()
        gone = [scraper for key, scraper in self.scrapers.items() if key not in wanted]
        self._start_scrapers(wanted)
        await asyncio.gather(*(scraper.forget() for scraper in gone))

    def _start_scrapers(self, wanted: dict[object, Scraper]) -> None:
        for key, scraper in wanted.items():
            if key not in self.scrapers:
                scraper.start()
        self.scrapers = wanted
