"""Exporter ``prometheus_remote_write``: sends metrics by Prometheus remote write."""

from exporters.prometheus_remote_write.factory import factory

__all__ = ["factory"]
