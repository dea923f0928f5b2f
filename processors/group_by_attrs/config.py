"""Configuration of ``group_by_attrs``. Source: opentelemetry-collector-contrib processor/groupbyattrsprocessor."""

from config.blocks import ComponentConfig

__all__ = ["GroupByAttrsConfig"]


class GroupByAttrsConfig(ComponentConfig):
    """Configuration of ``group_by_attrs``."""

    keys: tuple[str, ...] = ()
    """Keys of the attributes that move from spans, data points and log records to their resource. Empty: equal
    resources and scopes are merged, and nothing else changes.
    """
