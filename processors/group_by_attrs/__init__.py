"""Processor ``group_by_attrs``: moves attributes of items to their resource, and merges equal resources."""

from processors.group_by_attrs.factory import factory

__all__ = ["factory"]
