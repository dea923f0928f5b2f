"""Exporter ``otlp_http``."""

from exporters.otlp_http.factory import factory

__all__ = ["factory"]
