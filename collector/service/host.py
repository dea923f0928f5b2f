"""The service as one component sees it, and what the component reported or registered."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

from collector.api import HealthCheck, Host, Overview, Status
from collector.service.admission import ServiceAdmission
from collector.service.graph import Node
from collector.service.telemetry import ServiceTelemetry

__all__ = ["AdminHandler", "ComponentHost", "host_name"]

AdminHandler: TypeAlias = Callable[[Mapping[str, str]], Awaitable[Any]]


class _Service(Protocol):
    @property
    def admission(self) -> ServiceAdmission: ...

    @property
    def telemetry(self) -> ServiceTelemetry: ...

    def health(self) -> list[HealthCheck]: ...

    def ready(self) -> bool: ...

    def overview(self) -> Overview: ...


class ComponentHost(Host):
    """A :class:`collector.api.Host`."""

    def __init__(self, service: _Service, extensions: Mapping[str, Any]) -> None:
        self._service, self._extensions = service, extensions
        self.status, self.message = Status.STARTING, ""
        self.checks: dict[str, Callable[[], HealthCheck]] = {}
        self.routes: dict[str, AdminHandler] = {}

    @property
    def admission(self) -> ServiceAdmission:
        """See :class:`collector.api.Host`."""
        return self._service.admission

    def extension(self, component_id: str) -> Any:
        """See :class:`collector.api.Host`."""
        try:
            return self._extensions[component_id]
        except KeyError:
            known = ", ".join(self._extensions) or "none"
            raise KeyError(f"service::extensions does not list {component_id!r}; it lists: {known}") from None

    def health(self) -> list[HealthCheck]:
        """See :class:`collector.api.Host`."""
        return self._service.health()

    def ready(self) -> bool:
        """See :class:`collector.api.Host`."""
        return self._service.ready()

    def uptime_s(self) -> float:
        """See :class:`collector.api.Host`."""
        return self._service.telemetry.uptime_s()

    def overview(self) -> Overview:
        """See :class:`collector.api.Host`."""
        return self._service.overview()

    def add_health_check(self, name: str, check: Callable[[], HealthCheck]) -> None:
        """See :class:`collector.api.Host`."""
        self.checks[name] = check

    def add_admin_route(self, path: str, handler: AdminHandler) -> None:
        """See :class:`collector.api.Host`."""
        self.routes[path] = handler

    def report(self, status: Status, message: str = "") -> None:
        """See :class:`collector.api.Host`."""
        self.status, self.message = status, message


def host_name(node: Node) -> str:
    """How the node is named in health checks: ``exporters/otlp_grpc/a``, ``processors/batch@traces``."""
    return f"{node.kind.value}/{node.id}" + (f"@{node.pipeline}" if node.pipeline else "")
