"""Configuration of ``zpages``. Source: open-telemetry/opentelemetry-collector extension/zpagesextension config.go."""

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
