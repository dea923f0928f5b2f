"""Configuration that the Prometheus exporters share: which resource attributes become labels."""

from config.blocks import ComponentConfig

__all__ = ["ResourceConstantLabelsConfig", "ResourceLabelsConfig"]


class ResourceLabelsConfig(ComponentConfig):
    """Whether all resource attributes become labels."""

    enabled: bool = False
    """Whether all resource attributes become labels of every series."""


class ResourceConstantLabelsConfig(ComponentConfig):
    """Resource attributes that become labels of every series."""

    included: tuple[str, ...] = ()
    """Globs of attributes that become labels."""
    excluded: tuple[str, ...] = ()
    """Globs of attributes that do not become labels although they match ``included``."""
