"""What ``use_v2`` adds: the states of components over HTTP (``/status``, ``/config``) and over gRPC's health service.

Source: opentelemetry-collector-contrib extension/healthcheckv2extension.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import parse_qs

import orjson

from collector.api import Host, Settings
from collector.transport.endpoint import LocalAddresses
from collector.transport.grpc.server import GRPCServer
from collector.transport.http import HTTPServer, Request, Response, Route
from extensions.health_check.config import HealthCheckConfig
from extensions.health_check.states import HTTP_STATUSES, ComponentStates, State

__all__ = ["StatusServers"]

_SHUTDOWN_GRACE_S: Final = 1.0
_NO_PIPELINE: Final = Response.text(404, "there is no such pipeline")


class StatusServers:
    """The servers of one extension. ``unready_reason`` says why the service is unhealthy beyond its states."""

    def __init__(self, settings: Settings, config: HealthCheckConfig, unready_reason: Callable[[], str]) -> None:
        self._settings, self._config, self._unready_reason = settings, config, unready_reason
        self._http: HTTPServer | None = None
        self._grpc: GRPCServer | None = None

    @property
    def http_port(self) -> int:
        """The port of HTTP; 0 if there is none."""
        return self._http.port if self._http is not None else 0

    @property
    def grpc_port(self) -> int:
        """The port of gRPC; 0 if there is none."""
        return self._grpc.port if self._grpc is not None else 0

    async def start(self, host: Host) -> None:
        """Listen on the configured endpoints. Raises OSError."""
        settings, config = self._settings, self._config
        states = ComponentStates(host, settings.clock, config.component_health)
        key, log = f"extensions::{settings.id}", settings.telemetry.log
        if config.http is not None:
            routes: dict[str, Route] = {}
            if config.http.status.enabled:
                routes[config.http.status.path] = _Get(lambda request: self._status(states, request))
            if config.http.config.enabled:
                routes[config.http.config.path] = _Get(
                    lambda _: Response(200, orjson.dumps(host.configuration()), "application/json")
                )
            self._http = HTTPServer(
                config.http, routes, default=None, key=f"{key}::http", clock=settings.clock, log=log
            )
            await self._http.start(host)
        if config.grpc is not None:
            self._grpc = GRPCServer(
                config.grpc,
                {},
                key=f"{key}::grpc",
                addresses=LocalAddresses(monotonic_s=settings.clock.monotonic_s),
                clock=settings.clock,
                log=log,
                on_refused=lambda _: None,
                on_closed=lambda _: None,
                files={},
                is_serving=lambda service: self._is_serving(states, service),
            )
            await self._grpc.start(host)

    async def shutdown(self) -> None:
        """Stop listening."""
        servers, self._http, self._grpc = (self._http, self._grpc), None, None
        for server in servers:
            if server is not None:
                await server.shutdown(_SHUTDOWN_GRACE_S)

    def _status(self, states: ComponentStates, request: Request) -> Response:
        query = parse_qs(request.query, keep_blank_values=True)
        name = query.get("pipeline", [""])[0]
        state = states.pipeline(name) if name else states.service()
        if state is None:
            return _NO_PIPELINE
        document = states.document(state, verbose="verbose" in query and query["verbose"][0] != "false")
        document["healthy"] = is_healthy = self._is_healthy(state, is_service=not name)
        status = HTTP_STATUSES[state.status] if is_healthy or HTTP_STATUSES[state.status] != 200 else 500
        return Response(status, orjson.dumps(document), "application/json")

    def _is_healthy(self, state: State, *, is_service: bool) -> bool:
        return state.is_healthy and not (is_service and self._unready_reason())

    def _is_serving(self, states: ComponentStates, service: str) -> bool | None:
        """For gRPC: "" is the whole service, anything else a pipeline. None: there is no such pipeline."""
        state = states.pipeline(service) if service else states.service()
        if state is None:
            return None
        return HTTP_STATUSES[state.status] == 200 and self._is_healthy(state, is_service=not service)


class _Get(Route):
    """Answers from the head of the request, without reading a body."""

    def __init__(self, answer: Callable[[Request], Response]) -> None:
        self._answer = answer

    def check(self, request: Request) -> Response:
        """The answer."""
        if request.method not in {"GET", "HEAD"}:
            return Response.text(405, "405 method not allowed, supported: [GET, HEAD]")
        return self._answer(request)
