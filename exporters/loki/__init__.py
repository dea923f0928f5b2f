"""Exporter ``loki``: sends logs to Grafana Loki."""

from exporters.loki.factory import factory

__all__ = ["factory"]
