"""Exporter ``prometheus``: serves metrics on a page that Prometheus scrapes."""

from exporters.prometheus.factory import factory

__all__ = ["factory"]
