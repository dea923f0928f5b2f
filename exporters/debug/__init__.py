"""Exporter ``debug``."""

from exporters.debug.factory import factory

__all__ = ["factory"]
