"""Configuration that the Prometheus exporters share: which resource attributes become labels."""

from config.blocks import ComponentConfig

__all__ = ["ResourceConstantLabelsConfig", "ResourceLabelsConfig"]


class ResourceLabelsConfig(ComponentConfig):
    """Whether all resource attributes become labels."""

    enabled: bool = False
    """Whether all resource attributes become labels of every series."""
    exclude_service_attributes: bool = False
    """Whether ``service.name``, ``service.namespace`` and ``service.instance.id`` are left out; they are the labels
    ``job`` and ``instance``.
    """


class ResourceConstantLabelsConfig(ComponentConfig):
    """Resource attributes that become labels of every series."""

    included: tuple[str, ...] = ()
    """Globs of attributes that become labels."""
    excluded: tuple[str, ...] = ()
    """Globs of attributes that do not become labels although they match ``included``."""
