"""Configuration of the ``otlp`` receiver: the Collector's keys and defaults.

Source: open-telemetry/opentelemetry-collector receiver/otlpreceiver/{config,factory}.go.
"""

from typing import Annotated, Any, Self

from pydantic import AfterValidator, BeforeValidator, field_validator, model_validator

from collector.transport.endpoint import Endpoint, check_endpoint
from config.blocks import ByteSize, ComponentConfig, GRPCServerConfig, HTTPServerConfig

__all__ = ["OTLPConfig", "OTLPGRPCConfig", "OTLPHTTPConfig", "Protocols"]


def _url_path(path: str) -> str:
    """``path`` as it appears in requests: with a leading slash, without query or fragment."""
    if (
        not path
        or any(character.isspace() or character in "?#" for character in path)
        or not path.isascii()
        or not path.isprintable()
    ):
        raise ValueError(f"{path!r} is not a valid URL path (example: /v1/traces)")
    return path if path.startswith("/") else f"/{path}"


URLPath = Annotated[str, AfterValidator(_url_path)]


class OTLPGRPCConfig(GRPCServerConfig):
    """The protocol OTLP over gRPC."""

    endpoint: str = "localhost:4317"
    """Address to listen on, as host:port, or a socket path if transport is unix."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self


class OTLPHTTPConfig(HTTPServerConfig):
    """The protocol OTLP over HTTP. As in the Collector, timeouts are off by default; stalled requests are cut off."""

    endpoint: str = "localhost:4318"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    max_request_body_size: ByteSize = 64 * 1024 * 1024
    """Largest request, as sent and decompressed, as opentelemetry-proto docs/specification.md recommends; the
    Collector's default is 20 MiB. 0 means the default.
    """
    traces_url_path: URLPath = "/v1/traces"
    """URL path for traces."""
    metrics_url_path: URLPath = "/v1/metrics"
    """URL path for metrics."""
    logs_url_path: URLPath = "/v1/logs"
    """URL path for logs."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self

    @model_validator(mode="after")
    def _paths_differ(self) -> Self:
        if len({self.traces_url_path, self.metrics_url_path, self.logs_url_path}) < 3:
            raise ValueError("traces_url_path, metrics_url_path and logs_url_path must differ")
        return self


def _present(value: Any) -> Any:
    """``grpc:`` without a value enables the protocol with its defaults."""
    return {} if value is None else value


class Protocols(ComponentConfig):
    """The protocols to serve. A protocol is served if its key is present, even without a value."""

    grpc: Annotated[OTLPGRPCConfig | None, BeforeValidator(_present)] = None
    """OTLP over gRPC. Absent: not served."""
    http: Annotated[OTLPHTTPConfig | None, BeforeValidator(_present)] = None
    """OTLP over HTTP. Absent: not served."""

    @model_validator(mode="after")
    def _one_at_least(self) -> Self:
        if self.grpc is None and self.http is None:
            raise ValueError("must specify at least one protocol; add grpc: or http: below protocols:")
        if self.share_an_endpoint and self.grpc is not None and self.http is not None:
            if self.grpc.transport == "grpcio":
                raise ValueError(
                    "grpc::transport: grpcio cannot share its endpoint with http; use tcp, or another endpoint for http"
                )
            if self.grpc.tls != self.http.tls:
                raise ValueError("grpc and http share one endpoint, so grpc::tls and http::tls must be the same")
        return self

    @property
    def share_an_endpoint(self) -> bool:
        """Whether both are served on one port. With port 0 each gets a port of its own."""
        if self.grpc is None or self.http is None:
            return False
        grpc, http = (
            Endpoint.parse(self.grpc.endpoint, unix=self.grpc.transport == "unix"),
            Endpoint.parse(self.http.endpoint, unix=self.http.transport == "unix"),
        )
        return grpc == http and bool(grpc.port or grpc.path)


class OTLPConfig(ComponentConfig):
    """Configuration of ``otlp``: receives OTLP over gRPC and HTTP."""

    protocols: Protocols
    """Required: the protocols to serve."""

    @field_validator("protocols", mode="before")
    @classmethod
    def _nothing_is_no_protocol(cls, value: Any) -> Any:
        return {} if value is None else value
