"""Processor ``attributes``: changes attributes of spans, points and records."""

from processors.attributes.factory import factory

__all__ = ["factory"]
