"""Configuration of ``zipkin``. Source: opentelemetry-collector-contrib exporter/zipkinexporter, factory.go."""

from typing import Literal, Self

from pydantic import Field, model_validator

from collector.delivery import ExporterConfig
from config.blocks import ByteSize, Duration, HTTPClientConfig

__all__ = ["ZipkinConfig"]


class ZipkinConfig(HTTPClientConfig, ExporterConfig):
    """Where traces are sent."""

    timeout: Duration = 5.0
    """Timeout of one attempt. 0: no timeout."""
    compression: Literal["", "none", "gzip", "zstd", "snappy", "deflate", "zlib", "lz4"] = ""
    """Compression of request bodies. Empty or none: not compressed."""
    format: Literal["json", "proto"] = "json"
    """Format of the spans: JSON, or protobuf, which is smaller."""
    default_service_name: str = "<missing service name>"
    """Name of the service of spans whose resource has none."""
    max_request_bytes: ByteSize = Field(default=1024 * 1024, ge=1024)
    """Largest batch, before it is translated, that is sent in one request (specific to Tailrace)."""

    @model_validator(mode="after")
    def _has_endpoint(self) -> Self:
        if not self.endpoint:
            raise ValueError("endpoint is required, for example http://localhost:9411/api/v2/spans")
        return self
