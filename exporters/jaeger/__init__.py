"""Exporter ``jaeger``."""

from exporters.jaeger.factory import factory

__all__ = ["factory"]
