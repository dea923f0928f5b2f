"""Exporter ``file``."""

from exporters.file.factory import factory

__all__ = ["factory"]
