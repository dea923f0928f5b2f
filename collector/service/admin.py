"""The admin port: own metrics, health, the ledger, and what components add. It answers ``GET`` requests only.

/               a page for people that shows what the paths below return
/metrics        Prometheus text format; while the event loop is busy, the page as it was last (header ``Age``)
/health         JSON: every check with its duration, the version and the uptime; status 503 if a check fails
/health/ready   200 from the end of the start until the shutdown begins, else 503
/health/live    200 as long as the event loop runs
/ledger         JSON: what became of every item
other paths     what components registered; served to this machine only, because it may contain personal data

Not the ``health_check`` extension, which serves the Collector's health endpoint on a port of its own.
"""

import asyncio
import ipaddress
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any, Final

import orjson
from aiohttp import web

from collector.api import Host
from collector.service.admin_thread import AdminThread
from collector.service.host import AdminHandler
from collector.service.ledger import Ledger
from collector.service.telemetry import CONTENT_TYPE, ServiceTelemetry
from collector.transport.ports import describe_port_conflict, is_port_conflict

__all__ = ["AdminServer", "health_document"]

KEY = "service::telemetry::metrics::address"
_SHUTDOWN_S = 1.0
_FRESH_METRICS_S: Final = 0.1
"""How long a scrape waits for the event loop before it gets the last page. Scrapers' time-outs can be short, and a gap
in the metrics of a busy service is what nobody can use."""
_PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/ui/page.js": ("page.js", "text/javascript"),
    "/ui/page.css": ("page.css", "text/css"),
}
_PAGE_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-cache",
}


class AdminServer:
    """Serves one address. ``routes`` is called for each request, because a reload may change the routes."""

    def __init__(
        self,
        host: Host,
        telemetry: ServiceTelemetry,
        ledger: Ledger,
        routes: Callable[[], Mapping[str, Sequence[AdminHandler]]],
        *,
        version: str,
    ) -> None:
        self._host, self._telemetry, self._ledger, self._routes, self._version = (
            host,
            telemetry,
            ledger,
            routes,
            version,
        )
        self._runner: web.AppRunner | None = None
        self._thread: AdminThread | None = None
        self._last_page: tuple[bytes, float] | None = None
        self.port = 0

    async def start(self, address: str, port: int) -> None:
        """Listen, in a thread of its own.

        Raises:
            OSError: the port is in use (the message names the process) or the address does not belong to this machine.
        """
        self._thread = thread = AdminThread()
        app = web.Application()
        for path in _PAGE:
            app.router.add_get(path, self._page)
        app.router.add_get("/metrics", self._metrics)
        for path, handler in (
            ("/health", self._health),
            ("/health/ready", self._ready),
            ("/health/live", self._live),
            ("/ledger", self._show_ledger),
            ("/{path:.*}", self._component),
        ):
            app.router.add_get(path, thread.on_service_loop(handler))
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=_SHUTDOWN_S)
        try:
            await thread.run(_listen(runner, address, port))
        except OSError as error:
            self._thread = None
            await thread.stop()
            if is_port_conflict(error):
                raise OSError(error.errno, describe_port_conflict(address, port, KEY)) from error
            raise OSError(error.errno, f"{KEY}: cannot listen on {address}:{port}: {error.strerror}") from error
        self._runner = runner
        self.port = runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        runner, self._runner = self._runner, None
        thread, self._thread = self._thread, None
        if runner is not None and thread is not None:
            await thread.run(runner.cleanup())
            await thread.stop()

    async def _page(self, request: web.Request) -> web.Response:
        name, content_type = _PAGE[request.path]
        body = resources.files("collector.service").joinpath("ui", name).read_bytes()
        return web.Response(body=body, content_type=content_type, charset="utf-8", headers=_PAGE_HEADERS)

    async def _metrics(self, request: web.Request) -> web.Response:
        """The present page, or the last one if the event loop does not get to it in time."""
        del request
        assert self._thread is not None
        rendered = self._thread.computed(self._render())
        if self._last_page is not None:
            await asyncio.wait([rendered], timeout=_FRESH_METRICS_S)
        headers = {"Content-Type": CONTENT_TYPE}
        if self._last_page is None or rendered.done():
            page = await rendered
        else:
            page, rendered_s = self._last_page
            headers["Age"] = str(round(self._telemetry.uptime_s() - rendered_s))
        return web.Response(body=page, headers=headers)

    async def _render(self) -> bytes:
        page = self._telemetry.render().encode()
        self._last_page = page, self._telemetry.uptime_s()
        return page

    async def _health(self, request: web.Request) -> web.Response:
        del request
        document = health_document(self._host, self._version)
        return _json(document, status=200 if document["status"] == "healthy" else 503)

    async def _ready(self, request: web.Request) -> web.Response:
        del request
        is_ready = self._host.ready()
        return _json(
            {"status": "ready" if is_ready else "not ready", "version": self._version}, status=200 if is_ready else 503
        )

    async def _live(self, request: web.Request) -> web.Response:
        del request
        return _json({"status": "alive", "version": self._version, "uptime_seconds": round(self._host.uptime_s(), 3)})

    async def _show_ledger(self, request: web.Request) -> web.Response:
        del request
        rows = self._ledger.snapshot()
        return _json({"balanced": not any(row.imbalance for row in rows), "nodes": [row.to_json() for row in rows]})

    async def _component(self, request: web.Request) -> web.Response:
        routes = self._routes()
        handlers = routes.get(request.path)
        if handlers is None:
            known = ["/", "/metrics", "/health", "/health/ready", "/health/live", "/ledger", *routes]
            return _json({"error": f"{request.path} does not exist", "known": known}, status=404)
        if not _is_local(request.remote) or not _is_own_name(request.headers.get("Host", "")):
            return _json({"error": "this path is only available to clients on this host"}, status=403)
        document: dict[str, Any] = {}
        for handler in handlers:
            document |= await handler(request.query)
        return _json(document)


def health_document(host: Host, version: str) -> dict[str, Any]:
    """The JSON document of ``/health``."""
    checks = host.health()
    return {
        "status": "healthy" if all(check.healthy for check in checks) else "unhealthy",
        "version": version,
        "uptime_seconds": round(host.uptime_s(), 3),
        "checks": [
            {
                "name": check.name,
                "healthy": check.healthy,
                "message": check.message,
                "duration_ms": round(check.duration_ms, 3),
            }
            for check in checks
        ],
    }


async def _listen(runner: web.AppRunner, address: str, port: int) -> None:
    await runner.setup()
    try:
        await web.TCPSite(runner, address, port).start()
    except BaseException:
        await runner.cleanup()
        raise


def _json(document: Any, *, status: int = 200) -> web.Response:
    body = orjson.dumps(document, default=str, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json")


def _is_local(remote: str | None) -> bool:
    try:
        address = ipaddress.ip_address((remote or "").partition("%")[0])
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback


def _is_own_name(host: str) -> bool:
    """Whether ``Host`` names this machine.

    A web page whose host name resolves to us (DNS rebinding) must not read local paths.
    """
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    return name == "localhost" or _is_local(name.strip("[]"))
