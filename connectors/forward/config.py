"""Configuration of ``forward``."""

from config.blocks import ComponentConfig

__all__ = ["ForwardConfig"]


class ForwardConfig(ComponentConfig):
    """There are no options, as in the Collector."""
