"""Serves the last value of every series on a page that Prometheus scrapes.

Source: Prometheus exposition formats; the Collector's prometheusexporter for keys and behaviour.
"""

from typing import Final

from aiohttp import web

from collector.api import Exporter, Host, Settings
from collector.delivery.log import RateLimitedLog, printable
from collector.model import Batch, Metrics
from collector.prometheus import LabelSettings, LossReport
from collector.transport.endpoint import Endpoint
from collector.transport.ports import listen_error
from collector.transport.tls import server_context
from exporters.prometheus.config import PrometheusConfig
from exporters.prometheus.escaping import ALLOW_UTF8, escape_names, negotiate
from exporters.prometheus.store import SeriesStore

__all__ = ["PrometheusExporter"]

_NAMES_MAX: Final = 3


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
                resource_attributes=config.resource_constant_labels.included,
                excluded_resource_attributes=config.resource_constant_labels.excluded,
            ),
            config.strategy,
            config.namespace,
            config.metric_expiration,
        )
        self._is_utf8 = config.strategy in ("NoUTF8EscapingWithSuffixes", "NoTranslation")
        self._log = RateLimitedLog(settings.telemetry.log, settings.clock)
        self._report = LossReport(settings.telemetry, self._log)
        self._runner: web.AppRunner | None = None
        self.port = 0
        """The port that the exporter listens on, once started."""
        settings.telemetry.gauge(
            "tailrace_exporter_series", "Series on the metrics page", read=lambda: float(self._store.series_count())
        )
        self._conflicts = settings.telemetry.gauge(
            "tailrace_exporter_conflicting_series",
            "Series left out of the last scrape because another metric with the same name has a different type",
        )

    async def start(self, host: Host) -> None:
        """Listen on the configured endpoint."""
        app = web.Application()
        app.router.add_get("/metrics", self._scrape)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        endpoint = Endpoint.parse(self._config.endpoint)  # ":9464" means all interfaces, as in the Collector
        try:
            tls = server_context(self._config.tls) if self._config.tls else None
            sock = host.listen(str(endpoint), endpoint.listen).socket
            await web.SockSite(self._runner, sock, ssl_context=tls).start()
        except BaseException as exc:
            await self._runner.cleanup()
            self._runner = None
            if isinstance(exc, OSError):
                raise listen_error(endpoint, f"exporters::{self._settings.id}::endpoint", exc) from exc
            raise
        self.port = int(sock.getsockname()[1])
        self._settings.telemetry.log.info("serving metrics for scraping", address=endpoint.host, port=self.port)

    async def shutdown(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def consume(self, batch: Batch) -> None:
        """Put the values of the batch on the page."""
        self.try_consume(batch)

    def try_consume(self, batch: Batch) -> bool:
        """Put the values of the batch on the page."""
        assert isinstance(batch, Metrics)
        clock = self._settings.clock
        self._report.record(batch, self._store.update(batch, clock.monotonic_s(), clock.time_unix_nano()))
        return True

    async def _scrape(self, request: web.Request) -> web.Response:
        form = negotiate(request.headers.get("Accept", ""), openmetrics=self._config.enable_open_metrics)
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
        response = web.Response(body=page, headers={"Content-Type": form.content_type})
        response.enable_compression()
        return response
