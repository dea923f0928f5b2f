"""Processor ``filter``: drops spans, span events, metrics, data points and log records by their properties."""

from processors.filter.factory import factory

__all__ = ["factory"]
