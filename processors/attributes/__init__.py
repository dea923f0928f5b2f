"""Processor ``attributes``: changes the attributes of spans, data points and log records."""

from processors.attributes.factory import factory

__all__ = ["factory"]
