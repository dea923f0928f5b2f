"""Exporter ``jaeger``: sends traces to Jaeger."""

from exporters.jaeger.factory import factory

__all__ = ["factory"]
