"""Answers probes: 200 while the service is ready, 503 before and while it stops. The Collector's paths and documents.

The full list of checks is ``/health`` on the admin port. Source: opentelemetry-collector-contrib
extension/healthcheckextension and internal/healthcheck (``Server available``, ``upSince``, ``uptime``).
"""

from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from collector.api import Extension, Host, Settings
from collector.transport.http import HTTPServer, Request, Response, Route
from extensions.health_check.config import HealthCheckConfig

__all__ = ["HealthCheckExtension"]

_GRACE_S = 1.0
_NANO = 1_000_000_000


class HealthCheckExtension(Extension):
    """One HTTP listener."""

    def __init__(self, settings: Settings, config: HealthCheckConfig) -> None:
        self._settings, self._config = settings, config
        self._host: Host | None = None
        self._up_since_unix_nano = 0
        self._server: HTTPServer | None = None

    @property
    def port(self) -> int:
        """Where it listens; 0 before the start."""
        return self._server.port if self._server else 0

    async def start(self, host: Host) -> None:
        """Listen. The service is not ready yet: 503 until it is."""
        self._host = host
        key = f"extensions::{self._settings.id}"
        route = _Probe(self._answer)
        is_everywhere = self._config.path == "/"  # as in Go's mux
        server = HTTPServer(
            self._config,
            {} if is_everywhere else {self._config.path: route},
            default=route if is_everywhere else None,
            key=key,
            clock=self._settings.clock,
            log=self._settings.telemetry.log,
        )
        await server.start(host)
        self._server = server

    async def shutdown(self) -> None:
        """Stop listening."""
        server, self._server = self._server, None
        if server is not None:
            await server.shutdown(_GRACE_S)

    def _answer(self) -> Response:
        is_healthy = self._is_healthy()
        now = self._settings.clock.time_unix_nano()
        if not is_healthy:
            self._up_since_unix_nano = 0
        elif not self._up_since_unix_nano:
            self._up_since_unix_nano = now
        body = self._config.response_body
        if body is not None:
            return Response.text(200 if is_healthy else 503, body.healthy if is_healthy else body.unhealthy)
        document = {
            "status": "Server available" if is_healthy else "Server not available",
            "upSince": datetime.fromtimestamp(self._up_since_unix_nano / _NANO, UTC).isoformat()
            if is_healthy
            else "0001-01-01T00:00:00Z",
            "uptime": _go_duration((now - self._up_since_unix_nano) / _NANO) if is_healthy else "",
        }
        return Response(200 if is_healthy else 503, orjson.dumps(document), "application/json")

    def _is_healthy(self) -> bool:
        assert self._host is not None  # it listens
        if not self._host.ready():
            return False
        return not self._config.check_collector_pipeline.enabled or all(check.healthy for check in self._host.health())


class _Probe(Route):
    """Answers every request by its head alone."""

    def __init__(self, answer: Callable[[], Response]) -> None:
        self._answer = answer

    def check(self, request: Request) -> Response:  # noqa: ARG002 - whatever it asks
        """The state."""
        return self._answer()


def _go_duration(seconds: float) -> str:
    """As Go's time.Duration prints itself: ``1h2m3.5s``."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(int(minutes), 60)
    return (
        (f"{hours}h" if hours else "")
        + (f"{minutes}m" if hours or minutes else "")
        + f"{rest:.9f}".rstrip("0").rstrip(".")
        + "s"
    )
