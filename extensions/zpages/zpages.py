"""Serves the pages at the Collector's paths. What they show is in ``pages``.

Source: open-telemetry/opentelemetry-collector extension/zpagesextension and service/zpages.go, for paths and columns.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from collector.api import Extension, Host, Settings
from collector.transport.http import HTTPServer, Request, Response, Route
from extensions.zpages.config import ZPagesConfig
from extensions.zpages.pages import expvarz, extensionz, featurez, pipelinez, servicez, tracez

__all__ = ["ZPagesExtension"]

_SHUTDOWN_GRACE_S: Final = 1.0
_PAGES: Final[Mapping[str, Callable[[Host], str]]] = {
    "/debug/servicez": servicez,
    "/debug/pipelinez": pipelinez,
    "/debug/extensionz": extensionz,
    "/debug/featurez": featurez,
    "/debug/tracez": tracez,
}
_EXPVARZ: Final = "/debug/expvarz"
_HEADERS: Final = (
    ("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Cache-Control", "no-store"),
)


class ZPagesExtension(Extension):
    """An HTTP listener with one page for each aspect of the service."""

    def __init__(self, settings: Settings, config: ZPagesConfig) -> None:
        self._settings, self._config = settings, config
        self._server: HTTPServer | None = None

    @property
    def port(self) -> int:
        """The port it listens on; 0 before the start."""
        return self._server.port if self._server else 0

    async def start(self, host: Host) -> None:
        """Start to listen."""
        routes: dict[str, Route] = {path: _Page(partial(_html, show, host)) for path, show in _PAGES.items()}
        if self._config.expvar.enabled:
            routes[_EXPVARZ] = _Page(lambda: Response(200, expvarz(host), "application/json", _HEADERS))
        known = "".join(f"{path}\n" for path in sorted(routes))
        unknown = Response.text(404, f"there is no such page; the pages are:\n{known}")
        server = HTTPServer(
            self._config,
            routes,
            default=_Page(lambda: unknown),
            key=f"extensions::{self._settings.id}",
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
        )
        await server.start(host)
        self._server = server

    async def shutdown(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown(_SHUTDOWN_GRACE_S)


def _html(show: Callable[[Host], str], host: Host) -> Response:
    return Response(200, show(host).encode(), "text/html; charset=utf-8", _HEADERS)


class _Page(Route):
    """Answers from the head of the request, without reading a body."""

    def __init__(self, answer: Callable[[], Response]) -> None:
        self._answer = answer

    def check(self, request: Request) -> Response:
        """The page."""
        if request.method not in ("GET", "HEAD"):
            return Response.text(405, "expected GET", (("Allow", "GET, HEAD"),))
        return self._answer()
