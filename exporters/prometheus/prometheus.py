"""Serves the last value of every series on a page that Prometheus scrapes.

Source: Prometheus exposition formats; the Collector's prometheusexporter for keys and behaviour.
"""

import asyncio
import gzip
from typing import Final

from collector.api import Exporter, Host, PeriodicTask, Settings
from collector.delivery.log import RateLimitedLog, printable
from collector.model import Batch, Metrics
from collector.prometheus import DeltaTotals, LabelSettings, LossReport
from collector.transport.http import HTTPServer, Request, Response, Route
from exporters.prometheus.config import PrometheusConfig
from exporters.prometheus.escaping import ALLOW_UTF8, escape_names, negotiate
from exporters.prometheus.store import SeriesStore

__all__ = ["PrometheusExporter"]

_NAMES_MAX: Final = 3
_SWEEP_INTERVAL_S: Final = 30.0
_SHUTDOWN_GRACE_S: Final = 1.0
_COMPRESS_FROM_BYTES: Final = 1024
_LEAVE_LOOP_FROM_BYTES: Final = 64 * 1024


class PrometheusExporter(Exporter):
    """See the module. There is no queue: a batch is delivered when its values are on the page."""

    def __init__(self, settings: Settings, config: PrometheusConfig) -> None:
        self._settings = settings
        self._config = config
        self._store = SeriesStore(
            LabelSettings(
                strategy=config.strategy,
                external_labels=config.const_labels,
                scope_info=not config.without_scope_info,
                promote_all_resource_attributes=config.resource_to_telemetry_conversion.enabled,
                exclude_service_attributes=config.resource_to_telemetry_conversion.exclude_service_attributes,
                resource_attributes=config.resource_constant_labels.included,
                excluded_resource_attributes=config.resource_constant_labels.excluded,
            ),
            config.strategy,
            config.namespace,
            config.metric_expiration,
            keeps_exemplars=config.enable_open_metrics,
            max_series=config.max_series,
        )
        self._is_utf8 = config.strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation")
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._report = LossReport(settings.telemetry, self._log)
        self._deltas = DeltaTotals(config.delta_temporality, settings.telemetry, settings.clock, self._log)
        self._sweeping = PeriodicTask(self._sweep, _SWEEP_INTERVAL_S, settings.clock, log=settings.telemetry.log)
        self._server = HTTPServer(
            config.model_copy(update={"endpoint": str(config.address())}),
            {"/metrics": _MetricsPage(self)},
            key=f"exporters::{settings.id}",
            clock=settings.clock,
            log=settings.telemetry.log,
        )
        settings.telemetry.gauge(
            "tailrace_exporter_series", "Series on the metrics page", read=lambda: float(self._store.series_count())
        )
        settings.telemetry.gauge(
            "tailrace_exporter_series_cache_bytes",
            "Memory used by the series on the metrics page, in bytes",
            read=lambda: float(self._store.memory_bytes),
        )
        self._conflicts = settings.telemetry.gauge(
            "tailrace_exporter_conflicting_series",
            "Series left out of the last scrape because another metric with the same name has a different type",
        )

    @property
    def port(self) -> int:
        """The port that the exporter listens on; 0 before ``start`` and for a Unix socket."""
        return self._server.port

    async def start(self, host: Host) -> None:
        """Listen on the configured endpoint."""
        log = self._settings.telemetry.log
        queue = self._config.sending_queue
        if queue is not None and queue.enabled:
            log.warning(
                "sending_queue has no effect, since nothing is sent: the page keeps the last values",
                config=f"exporters::{self._settings.id}::sending_queue",
            )
        await self._server.start(host)
        self._sweeping.start()
        log.info("serving metrics for scraping", address=self._server.address)

    async def _sweep(self) -> None:
        """Forget what has expired."""
        now_s = self._settings.clock.monotonic_s()
        self._deltas.expire(now_s)
        self._store.expire(now_s)

    async def shutdown(self) -> None:
        """Stop listening."""
        await self._sweeping.stop()
        await self._server.shutdown(_SHUTDOWN_GRACE_S)

    async def consume(self, batch: Batch) -> None:
        """Put the values of the batch on the page."""
        self.try_consume(batch)

    def try_consume(self, batch: Batch) -> bool:
        """Put the values of the batch on the page."""
        assert isinstance(batch, Metrics)
        clock = self._settings.clock
        batch = self._deltas.accumulate(batch)
        self._report.record(batch, self._store.update(batch, clock.monotonic_s(), clock.time_unix_nano()))
        return True

    def render(self, accept: str) -> tuple[bytes, str]:
        """The page for a scraper with this Accept header, and its content type."""
        form = negotiate(accept, openmetrics=self._config.enable_open_metrics)
        page, conflicts = self._store.page(
            self._settings.clock.monotonic_s(),
            send_timestamps=self._config.send_timestamps,
            target_info=True,
            openmetrics=form.openmetrics,
        )
        if self._is_utf8 and form.escaping != ALLOW_UTF8:
            page = escape_names(page, form.escaping)
        self._conflicts.set(sum(conflicts.values()))
        if conflicts:
            self._log.warning(
                "series are left out of the page because another metric has their name",
                series=sum(conflicts.values()),
                metrics=printable(", ".join(list(conflicts)[:_NAMES_MAX])),
            )
        return page, form.content_type


class _MetricsPage(Route):
    """The path ``/metrics``."""

    def __init__(self, exporter: PrometheusExporter) -> None:
        self._exporter = exporter

    def check(self, request: Request) -> Response | None:
        """See :class:`Route`."""
        if request.method not in ("GET", "HEAD"):
            return Response.text(405, "405 method not allowed, supported: [GET, HEAD]", [("Allow", "GET, HEAD")])
        return None

    def serve(self, request: Request) -> None:
        """See :class:`Route`. A page of some size is compressed if the scraper accepts gzip."""
        page, content_type = self._exporter.render(_header(request, b"accept"))
        if len(page) < _COMPRESS_FROM_BYTES or not _accepts_gzip(_header(request, b"accept-encoding")):
            request.reply(Response(200, page, content_type))
        elif len(page) < _LEAVE_LOOP_FROM_BYTES:
            request.reply(_compressed(page, content_type))
        else:
            request.spawn(self._compress_off_loop(request, page, content_type))

    @staticmethod
    async def _compress_off_loop(request: Request, page: bytes, content_type: str) -> None:
        request.reply(await asyncio.to_thread(_compressed, page, content_type))


def _header(request: Request, name: bytes) -> str:
    return request.headers.get(name, b"").decode("latin-1")


def _accepts_gzip(accept_encoding: str) -> bool:
    entries = [entry.replace(" ", "").lower().split(";") for entry in accept_encoding.split(",")]
    return any(name == "gzip" and not _is_zero(parameters) for name, *parameters in entries)


def _is_zero(parameters: list[str]) -> bool:
    """Whether the weight is 0, which means that an encoding is not accepted."""
    return any(parameter.startswith("q=0") and not parameter[3:].strip(".0") for parameter in parameters)


def _compressed(page: bytes, content_type: str) -> Response:
    headers = [("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
    return Response(200, gzip.compress(page, compresslevel=1, mtime=0), content_type, headers)
