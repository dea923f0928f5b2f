"""Processor ``resource_detection``: adds what is known about the machine to resources."""

from processors.resource_detection.factory import factory

__all__ = ["factory"]
