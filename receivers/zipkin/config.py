"""Configuration of the ``zipkin`` receiver: the Collector's keys and defaults.

Source: open-telemetry/opentelemetry-collector-contrib receiver/zipkinreceiver/{config,factory}.go.
"""

from typing import Self

from pydantic import model_validator

from collector.transport.endpoint import check_endpoint
from config.blocks import HTTPServerConfig

__all__ = ["ZipkinConfig"]


class ZipkinConfig(HTTPServerConfig):
    """Configuration of ``zipkin``: receives spans in Zipkin's formats over HTTP."""

    endpoint: str = "localhost:9411"
    """Address to listen on, as host:port, or a socket path if transport is unix."""
    parse_string_tags: bool = False
    """Turn tags that are numbers or bools into attributes of that type."""

    @model_validator(mode="after")
    def _endpoint_is_one(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self
