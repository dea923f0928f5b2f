"""What the user writes for ``otlp_http``. Source: the Collector's exporter/otlphttpexporter config.go."""

from typing import Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from collector.delivery import ExporterConfig
from collector.model import Signal
from collector.otlp.names import HTTP_PATHS
from config.blocks import ByteSize, Duration, HTTPClientConfig

__all__ = ["OTLPHTTPConfig"]

# just below what the OTLP specification recommends servers to take
_MAX_REQUEST_BYTES: Final = 20 * 1024 * 1024 - 64 * 1024


class OTLPHTTPConfig(ExporterConfig, HTTPClientConfig):
    """OTLP over HTTP."""

    endpoint: str = ""
    """Base URL; ``/v1/traces``, ``/v1/metrics``, ``/v1/logs`` are appended."""
    traces_endpoint: str = ""
    """The whole URL for traces; wins over ``endpoint``."""
    metrics_endpoint: str = ""
    logs_endpoint: str = ""
    encoding: Literal["proto", "json"] = "proto"
    timeout: Duration = Field(default=30.0, ge=0)
    max_request_bytes: ByteSize = _MAX_REQUEST_BYTES
    """Ours. Larger batches are split, before compression; 0: never. For ``json`` a quarter of it, since JSON is larger."""

    @model_validator(mode="after")
    def _can_be_done(self) -> Self:
        given = {
            name: getattr(self, name) for name in ("endpoint", "traces_endpoint", "metrics_endpoint", "logs_endpoint")
        }
        if not any(given.values()):
            raise ValueError(
                "endpoint: required (or traces_endpoint, metrics_endpoint, logs_endpoint), for example http://localhost:4318"
            )
        for name, url in given.items():
            if url:
                _check_url(name, url)
        return self

    def url(self, signal: Signal) -> str:
        """Where requests of ``signal`` go; empty: nowhere."""
        own: str = getattr(self, f"{signal}_endpoint")
        if own or not self.endpoint:
            return own
        return f"{self.endpoint.rstrip('/')}/{HTTP_PATHS[signal]}"


def _check_url(name: str, url: str) -> None:
    """The message shows no part of the URL but its scheme: there may be a password in it."""
    try:
        parts = urlsplit(url)
        port_is_fine = parts.port is None or parts.port > 0
    except ValueError as exc:
        raise ValueError(f"{name}: no valid URL, write for example http://localhost:4318") from exc
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_is_fine:
        raise ValueError(
            f"{name}: a URL with http:// or https:// and a host is needed, for example http://localhost:4318"
        )
