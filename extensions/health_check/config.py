"""Configuration of ``health_check``.

Source: opentelemetry-collector-contrib extension/healthcheckextension and extension/healthcheckv2extension.
"""

from collections.abc import Mapping
from typing import ClassVar, Final, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from collector.transport.endpoint import check_endpoint
from config.blocks import ComponentConfig, Duration, GRPCServerConfig, HTTPServerConfig, OutdatedKey

__all__ = [
    "ComponentHealth",
    "ConfigPath",
    "GRPCStatusConfig",
    "HTTPStatusConfig",
    "HealthCheckConfig",
    "PipelineCheck",
    "ResponseBody",
    "StatusPath",
]

_MAX_PORT: Final = 65535


def _endpoint(port: object) -> str:
    """The endpoint that ``port`` stood for: all interfaces, as in the Collector before it became ``endpoint``."""
    if not isinstance(port, int) or isinstance(port, bool) or not 0 <= port <= _MAX_PORT:
        raise ValueError("port: expected a number between 0 and 65535")
    return f"0.0.0.0:{port}"


S = TypeVar("S", HTTPServerConfig, GRPCServerConfig)


def _endpoint_is_one(server: S) -> S:
    check_endpoint(server.endpoint, unix=server.transport == "unix")
    return server


def _rooted(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError(f"the path must begin with /, got {path!r}")
    return path


class ResponseBody(ComponentConfig):
    """Texts to answer with instead of the JSON document."""

    healthy: str = ""
    """Body of the answer with status 200."""
    unhealthy: str = ""
    """Body of the answer with status 503."""


class PipelineCheck(ComponentConfig):
    """Whether failing components make the service unhealthy (check_collector_pipeline)."""

    enabled: bool = False
    """Answer with 503 while a check of an exporter or another component fails."""
    interval: Duration = Field(default=300.0, gt=0)
    """Accepted for compatibility with the Collector; has no effect, exporters report failures themselves."""
    exporter_failure_threshold: int = Field(default=5, ge=1)
    """Accepted for compatibility with the Collector; has no effect."""


class ComponentHealth(ComponentConfig):
    """Which states of components make the service unhealthy and ``/health/ready`` on the admin port fail.

    Without this block, none does.
    """

    include_permanent_errors: bool = False
    """Whether a permanent error does, such as a backend that has refused everything for a minute."""
    include_recoverable_errors: bool = False
    """Whether a recoverable error does, such as a backend that is down, after recovery_duration."""
    recovery_duration: Duration = Field(default=300.0, ge=0)
    """Time that a component has to recover from a recoverable error."""
    max_queue_age: Duration = Field(default=0.0, ge=0)
    """Age of the oldest data in the queue of an exporter above which the service is unhealthy (specific to Tailrace).
    0: no limit.
    """


class StatusPath(ComponentConfig):
    """Where the states of components are shown."""

    enabled: bool = True
    """Whether they are."""
    path: str = "/status"
    """Path to answer on."""

    _is_rooted = field_validator("path")(_rooted)


class ConfigPath(ComponentConfig):
    """Where the running configuration is shown."""

    enabled: bool = False
    """Whether it is. Secrets are redacted."""
    path: str = "/config"
    """Path to answer on."""

    _is_rooted = field_validator("path")(_rooted)


class HTTPStatusConfig(HTTPServerConfig):
    """The HTTP server of use_v2."""

    endpoint: str = "localhost:13133"
    """Address to listen on, as host:port."""
    status: StatusPath = StatusPath()
    """The states of components, as JSON."""
    config: ConfigPath = ConfigPath()
    """The running configuration, as JSON."""

    _has_endpoint = model_validator(mode="after")(_endpoint_is_one)


class GRPCStatusConfig(GRPCServerConfig):
    """The gRPC server of use_v2, with the service grpc.health.v1.Health."""

    endpoint: str = "localhost:13132"
    """Address to listen on, as host:port."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Kind of listener."""

    _has_endpoint = model_validator(mode="after")(_endpoint_is_one)


class HealthCheckConfig(HTTPServerConfig):
    """An HTTP server that answers probes."""

    outdated_keys: ClassVar[Mapping[str, OutdatedKey]] = {
        **HTTPServerConfig.outdated_keys,
        "port": OutdatedKey("endpoint", _endpoint),
    }

    endpoint: str = "localhost:13133"
    """Address to listen on, as host:port."""
    path: str = "/"
    """Path to answer on. The default / answers on every path."""
    response_body: ResponseBody | None = None
    """Texts to answer with. Absent: a JSON document."""
    check_collector_pipeline: PipelineCheck = PipelineCheck()
    """Whether failing components make the service unhealthy."""
    component_health: ComponentHealth | None = None
    """Which states of components make the service unhealthy. Absent: none does."""

    use_v2: bool = False
    """Serve http and grpc with the states of components, instead of endpoint and path."""
    http: HTTPStatusConfig | None = None
    """With use_v2: states over HTTP. Absent: not served."""
    grpc: GRPCStatusConfig | None = None
    """With use_v2: states over gRPC's health service. Absent: not served."""

    _is_rooted = field_validator("path")(_rooted)
    _has_endpoint = model_validator(mode="after")(_endpoint_is_one)

    @model_validator(mode="after")
    def _has_a_protocol(self) -> Self:
        if self.use_v2 and self.http is None and self.grpc is None:
            raise ValueError("use_v2 needs http or grpc, or both (example: http: {endpoint: localhost:13133})")
        return self
