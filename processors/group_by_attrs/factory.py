"""Factory of the processor ``group_by_attrs``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.group_by_attrs.config import GroupByAttrsConfig
from processors.group_by_attrs.group_by_attrs import GroupByAttrsProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: GroupByAttrsConfig) -> GroupByAttrsProcessor:
    """The processor of one pipeline."""
    return GroupByAttrsProcessor(settings, config)


factory = Factory(
    component_type="group_by_attrs",
    config_type=GroupByAttrsConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
    aliases=("groupbyattrs",),
)
