"""Exporter ``otlp_http``: sends telemetry to a server that speaks OTLP over HTTP."""

from exporters.otlp_http.factory import factory

__all__ = ["factory"]
