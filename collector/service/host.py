"""The service as one component sees it, and what the component reported or registered."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from collector.api import HealthCheck, Host, ListeningSocket, Overview, Status
from collector.service.admission import ServiceAdmission
from collector.service.sockets import ListeningSockets
from collector.service.telemetry import ServiceTelemetry

__all__ = ["AdminHandler", "ComponentHost", "HostService"]

AdminHandler: TypeAlias = Callable[[Mapping[str, str]], Awaitable[Any]]


class HostService(Protocol):
    """What a host needs of the service."""

    @property
    def admission(self) -> ServiceAdmission:
        """The memory budget."""
        ...

    @property
    def telemetry(self) -> ServiceTelemetry:
        """Own metrics."""
        ...

    @property
    def sockets(self) -> ListeningSockets:
        """The listening sockets of all components."""
        ...

    def health(self) -> list[HealthCheck]:
        """All checks."""
        ...

    def ready(self) -> bool:
        """Whether the service has started and is not shutting down."""
        ...

    def overview(self) -> Overview:
        """What an extension may show of the service."""
        ...

    def configuration(self) -> Mapping[str, Any]:
        """The running configuration, secrets redacted."""
        ...


class ComponentHost(Host):
    """A :class:`collector.api.Host`."""

    def __init__(self, service: HostService, extensions: Mapping[str, Any]) -> None:
        self._service = service
        self.extensions = extensions
        """The running extensions by id; a reload changes them."""
        self.used_extensions: set[str] = set()
        """The ids that the component asked for."""
        self.is_leaving = False
        """A reload removes or replaces the component."""
        self.shutdown_deadline_s = float("inf")
        """When ``shutdown`` must have ended, on the loop's clock."""
        self.status, self.message = Status.STARTING, ""
        self.status_since_s = self.uptime_s()
        """When the component got this status, as uptime."""
        self.checks: dict[str, Callable[[], HealthCheck]] = {}
        self.readiness_checks: list[Callable[[], str]] = []
        self.routes: dict[str, AdminHandler] = {}
        self.actions: dict[str, AdminHandler] = {}

    @property
    def admission(self) -> ServiceAdmission:
        """See :class:`collector.api.Host`."""
        return self._service.admission

    def extension(self, component_id: str) -> Any:
        """See :class:`collector.api.Host`."""
        self.used_extensions.add(component_id)
        try:
            return self.extensions[component_id]
        except KeyError:
            known = ", ".join(self.extensions) or "none"
            raise KeyError(f"service::extensions does not list {component_id!r}; it lists: {known}") from None

    def listen(self, address: str, bind: Callable[[bool], socket.socket]) -> ListeningSocket:
        """See :class:`collector.api.Host`."""
        return self._service.sockets.listen(self, address, bind)

    def health(self) -> list[HealthCheck]:
        """See :class:`collector.api.Host`."""
        return self._service.health()

    def ready(self) -> bool:
        """See :class:`collector.api.Host`."""
        return self._service.ready()

    def uptime_s(self) -> float:
        """See :class:`collector.api.Host`."""
        return self._service.telemetry.uptime_s()

    def shutdown_time_left_s(self) -> float:
        """See :class:`collector.api.Host`."""
        return max(self.shutdown_deadline_s - asyncio.get_running_loop().time(), 0.0)

    def overview(self) -> Overview:
        """See :class:`collector.api.Host`."""
        return self._service.overview()

    def configuration(self) -> Mapping[str, Any]:
        """See :class:`collector.api.Host`."""
        return self._service.configuration()

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        """See :class:`collector.api.Host`."""
        self.checks[name] = check

    def add_readiness_check(self, check: Callable[[], str]) -> None:
        """See :class:`collector.api.Host`."""
        self.readiness_checks.append(check)

    def add_admin_route(self, path: str, handler: AdminHandler) -> None:
        """See :class:`collector.api.Host`."""
        self.routes[path] = handler

    def add_admin_action(self, path: str, handler: AdminHandler) -> None:
        """See :class:`collector.api.Host`."""
        self.actions[path] = handler

    def report(self, status: Status, message: str = "") -> None:
        """See :class:`collector.api.Host`."""
        if status is not self.status:
            self.status_since_s = self.uptime_s()
        self.status, self.message = status, message
