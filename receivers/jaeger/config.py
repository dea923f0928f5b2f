"""Configuration of the ``jaeger`` receiver: the Collector's keys and defaults.

Source: open-telemetry/opentelemetry-collector-contrib receiver/jaegerreceiver/{config,factory}.go.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from collector.transport.endpoint import Endpoint, check_endpoint
from config.blocks import ByteSize, ComponentConfig, GRPCServerConfig, HTTPServerConfig

__all__ = ["JaegerConfig", "JaegerGRPCConfig", "Protocols", "ThriftHTTPConfig", "ThriftUDPConfig"]

_ZIPKIN_AGENT_PORT: Final = 5775


class JaegerGRPCConfig(GRPCServerConfig):
    """Jaeger's protobuf over gRPC."""

    endpoint: str = "localhost:14250"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    transport: Literal["tcp", "unix"] = "tcp"
    """Kind of listener."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self


class ThriftHTTPConfig(HTTPServerConfig):
    """Thrift in the binary protocol over HTTP: ``POST /api/traces``."""

    endpoint: str = "localhost:14268"
    """Address to listen on, as host:port, or a socket path if transport is unix."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self


class ThriftUDPConfig(ComponentConfig):
    """Thrift over UDP, as Jaeger's clients send it to an agent."""

    endpoint: str
    """Address to receive on, as host:port."""
    queue_size: int = Field(default=1000, ge=1)
    """Packets that may wait for exporters; further ones wait in the kernel's buffer."""
    max_packet_size: ByteSize = Field(default=65_000, ge=1, le=65_507)
    """Largest packet in bytes; larger ones are dropped and counted."""
    workers: int = Field(default=10, ge=1)
    """Has no effect: packets are read and decoded by the event loop."""
    socket_buffer_size: ByteSize = 0
    """Size of the kernel's buffer in bytes; 0: the system's default. Linux grants at most net.core.rmem_max."""

    @field_validator("endpoint")
    @classmethod
    def _endpoint_is_one(cls, endpoint: str) -> str:
        parsed = Endpoint.parse(endpoint)
        if parsed.path:
            raise ValueError(f"{endpoint!r} is not a valid UDP endpoint: expected host:port")
        if parsed.port == _ZIPKIN_AGENT_PORT:
            raise ValueError(
                f"port {_ZIPKIN_AGENT_PORT} is where old agents received Zipkin Thrift, which this receiver does not "
                "read: use port 6831 (compact) or 6832 (binary) and set the client to Jaeger Thrift, or send Zipkin "
                "data to the receiver zipkin"
            )
        return endpoint

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See the base."""
        if "workers" in self.model_fields_set:
            yield "workers", "this setting has no effect: packets are read and decoded by the event loop"


class ThriftCompactConfig(ThriftUDPConfig):
    """Thrift in the compact protocol over UDP."""

    endpoint: str = "localhost:6831"
    """Address to receive on, as host:port."""


class ThriftBinaryConfig(ThriftUDPConfig):
    """Thrift in the binary protocol over UDP."""

    endpoint: str = "localhost:6832"
    """Address to receive on, as host:port."""


def _present(value: Any) -> Any:
    """``grpc:`` without a value enables the protocol with its defaults."""
    return {} if value is None else value


class Protocols(ComponentConfig):
    """The protocols to serve. A protocol is served if its key is present, even without a value."""

    grpc: Annotated[JaegerGRPCConfig | None, BeforeValidator(_present)] = None
    """Protobuf over gRPC, as agents and the OpenTelemetry exporters for Jaeger send it. Absent: not served."""
    thrift_http: Annotated[ThriftHTTPConfig | None, BeforeValidator(_present)] = None
    """Thrift over HTTP, as clients without an agent and browsers send it. Absent: not served."""
    thrift_compact: Annotated[ThriftCompactConfig | None, BeforeValidator(_present)] = None
    """Thrift in the compact protocol over UDP, as most clients send it. Absent: not served."""
    thrift_binary: Annotated[ThriftBinaryConfig | None, BeforeValidator(_present)] = None
    """Thrift in the binary protocol over UDP, as the Node.js client sends it. Absent: not served."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if all(block is None for block in (self.grpc, self.thrift_http, self.thrift_compact, self.thrift_binary)):
            raise ValueError(
                "must specify at least one protocol; "
                "add grpc:, thrift_http:, thrift_compact: or thrift_binary: below protocols:"
            )
        return self


class JaegerConfig(ComponentConfig):
    """Configuration of ``jaeger``: receives what Jaeger's clients and agents send."""

    protocols: Protocols
    """Required: the protocols to serve."""

    @model_validator(mode="before")
    @classmethod
    def _remote_sampling_is_an_extension(cls, values: Any) -> Any:
        if isinstance(values, dict) and "remote_sampling" in values:
            raise ValueError(
                "remote_sampling is no longer part of this receiver: use the extension jaeger_remote_sampling"
            )
        return values

    @field_validator("protocols", mode="before")
    @classmethod
    def _nothing_is_no_protocol(cls, value: Any) -> Any:
        return {} if value is None else value
