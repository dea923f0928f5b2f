"""Configuration of ``pprof``. Source: opentelemetry-collector-contrib extension/pprofextension config.go."""

from typing import Self

from pydantic import Field, model_validator

from collector.transport.endpoint import check_endpoint
from config.blocks import ComponentConfig

__all__ = ["PprofConfig"]


class PprofConfig(ComponentConfig):
    """An HTTP server that answers with profiles of the process."""

    endpoint: str = "localhost:1777"
    """Address to listen on, as host:port."""
    save_to_file: str = ""
    """File to write a CPU profile of the whole run to, at shutdown. Empty: none."""
    block_profile_fraction: int = Field(default=0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since CPython does not record blocking."""
    mutex_profile_fraction: int = Field(default=0, ge=0)
    """Accepted for compatibility with the Collector; has no effect, since CPython does not record contention."""

    @model_validator(mode="after")
    def _has_endpoint(self) -> Self:
        check_endpoint(self.endpoint)
        return self
