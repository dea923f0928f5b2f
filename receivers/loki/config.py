"""Configuration of the ``loki`` receiver: the Collector's keys and defaults.

Source: open-telemetry/opentelemetry-collector-contrib receiver/lokireceiver/{config,factory}.go.
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, field_validator, model_validator

from collector.transport.endpoint import check_endpoint
from config.blocks import ComponentConfig, GRPCServerConfig, HTTPServerConfig

__all__ = ["LokiConfig", "LokiGRPCConfig", "LokiHTTPConfig", "Protocols"]


class LokiHTTPConfig(HTTPServerConfig):
    """The push API over HTTP."""

    endpoint: str = "localhost:3500"
    """Address to listen on, as host:port, or a socket path if transport is unix."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self


class LokiGRPCConfig(GRPCServerConfig):
    """The push API over gRPC."""

    endpoint: str = "localhost:3600"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Kind of listener."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self


def _present(value: Any) -> Any:
    """``http:`` without a value enables the protocol with its defaults."""
    return {} if value is None else value


class Protocols(ComponentConfig):
    """The protocols to serve. A protocol is served if its key is present, even without a value."""

    http: Annotated[LokiHTTPConfig | None, BeforeValidator(_present)] = None
    """``POST /loki/api/v1/push``, as Promtail and others send it. Absent: not served."""
    grpc: Annotated[LokiGRPCConfig | None, BeforeValidator(_present)] = None
    """The gRPC service ``logproto.Pusher``. Absent: not served."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.http is None and self.grpc is None:
            raise ValueError("must specify at least one protocol; add http: or grpc: below protocols:")
        return self


class LokiConfig(ComponentConfig):
    """Configuration of ``loki``: receives what is sent to Loki."""

    protocols: Protocols
    """Required: the protocols to serve."""
    use_incoming_timestamp: bool = False
    """Whether records have the time of their entries. false, as in the Collector: the time at which they arrive."""

    @field_validator("protocols", mode="before")
    @classmethod
    def _nothing_is_no_protocol(cls, value: Any) -> Any:
        return {} if value is None else value
