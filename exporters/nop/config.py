"""Configuration of ``nop``."""

from config.blocks import ComponentConfig

__all__ = ["NopConfig"]


class NopConfig(ComponentConfig):
    """There are no options, as in the Collector."""
