"""Processor ``resource``: changes the attributes of resources."""

from processors.resource.factory import factory

__all__ = ["factory"]
