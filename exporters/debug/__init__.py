"""Exporter ``debug``: shows telemetry to a person."""

from exporters.debug.factory import factory

__all__ = ["factory"]
