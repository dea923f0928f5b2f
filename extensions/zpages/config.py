"""Configuration of ``zpages``. Source: open-telemetry/opentelemetry-collector extension/zpagesextension config.go."""

from typing import Self

from pydantic import model_validator

from collector.transport.endpoint import check_endpoint
from config.blocks import ComponentConfig, HTTPServerConfig

__all__ = ["ExpvarConfig", "ZPagesConfig"]


class ExpvarConfig(ComponentConfig):
    """The page /debug/expvarz."""

    enabled: bool = False
    """Serve /debug/expvarz: the command line and the memory of the process, as JSON."""


class ZPagesConfig(HTTPServerConfig):
    """An HTTP server that shows the running service."""

    endpoint: str = "localhost:55679"
    """Address to listen on, as host:port."""
    expvar: ExpvarConfig = ExpvarConfig()
    """The page /debug/expvarz."""

    @model_validator(mode="after")
    def _has_endpoint(self) -> Self:
        check_endpoint(self.endpoint, unix=self.transport == "unix")
        return self
