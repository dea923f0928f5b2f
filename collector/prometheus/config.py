"""Configuration that the Prometheus exporters share: labels of all series, and what becomes of deltas."""

from typing import Annotated

from pydantic import AfterValidator, Field

from config.blocks import ComponentConfig, Duration

__all__ = ["ConstantLabels", "DeltaConfig", "ResourceConstantLabelsConfig", "ResourceLabelsConfig"]


def _have_names(labels: dict[str, str]) -> dict[str, str]:
    for name in ("", "__name__"):
        if name in labels:
            raise ValueError(f"{name!r} cannot be the name of a label that every series has")
    return labels


ConstantLabels = Annotated[dict[str, str], AfterValidator(_have_names)]
"""Labels that every series has: names and values."""


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


class DeltaConfig(ComponentConfig):
    """How metrics of delta temporality are added up, since Prometheus has only cumulative values."""

    max_stale: Duration = Field(default=300.0, gt=0)
    """A stream without a point for this long is forgotten; its total begins again with its next point."""
    max_streams: int = Field(default=500_000, ge=1)
    """Number of streams whose totals are kept. Points of further streams are dropped."""
