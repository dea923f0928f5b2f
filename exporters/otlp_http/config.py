"""The configuration of ``otlp_http``. Source: the Collector's exporter/otlphttpexporter config.go."""

from collections.abc import Iterable
from typing import Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from collector.delivery import ExporterConfig
from collector.model import Signal
from collector.otlp.names import HTTP_PATHS
from config.blocks import ByteSize, Duration, HTTPClientConfig
from config.blocks.http import check_url

__all__ = ["OTLPHTTPConfig"]

# Just below the 20 MiB that the Collector accepts by default.
_MAX_REQUEST_BYTES: Final = 20 * 1024 * 1024 - 64 * 1024


class OTLPHTTPConfig(ExporterConfig, HTTPClientConfig):
    """Configuration of an exporter to an OTLP/HTTP server."""

    endpoint: str = ""
    """Base URL, to which ``/v1/traces``, ``/v1/metrics`` or ``/v1/logs`` is appended."""
    traces_endpoint: str = ""
    """The complete URL for traces; takes precedence over ``endpoint``."""
    metrics_endpoint: str = ""
    """The complete URL for metrics; takes precedence over ``endpoint``."""
    logs_endpoint: str = ""
    """The complete URL for logs; takes precedence over ``endpoint``."""
    profiles_endpoint: str = ""
    """Accepted for compatibility with the Collector; has no effect, since profiles are not supported."""
    encoding: Literal["proto", "json"] = "proto"
    """Encoding of request bodies: protobuf or JSON."""
    timeout: Duration = Field(default=30.0, ge=0)
    """Timeout of one attempt; 0 disables it."""
    max_request_bytes: ByteSize = _MAX_REQUEST_BYTES
    """Size limit of a request before compression (specific to Tailrace). Larger batches are split. 0: no limit. With
    ``encoding: json`` a quarter of it applies, because JSON is larger.
    """

    @field_validator("traces_endpoint", "metrics_endpoint", "logs_endpoint")
    @classmethod
    def _are_urls(cls, value: str) -> str:
        return check_url(value)

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if not (self.endpoint or self.traces_endpoint or self.metrics_endpoint or self.logs_endpoint):
            raise ValueError(
                "endpoint is required (or traces_endpoint, metrics_endpoint, logs_endpoint), for example"
                " http://localhost:4318"
            )
        return self

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.profiles_endpoint:
            yield "profiles_endpoint", "this setting has no effect: Tailrace does not process profiles"

    def url(self, signal: Signal) -> str:
        """The URL for requests of ``signal``; empty if none is configured."""
        signal_url: str = getattr(self, f"{signal}_endpoint")
        if signal_url or not self.endpoint:
            return signal_url
        return f"{self.endpoint.rstrip('/')}/{HTTP_PATHS[signal]}"
