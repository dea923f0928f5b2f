"""Exporter ``file``: writes telemetry to a file."""

from exporters.file.factory import factory

__all__ = ["factory"]
