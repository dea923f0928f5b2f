"""Exporter ``zipkin``: sends traces to Zipkin, as JSON of its version 2."""

from exporters.zipkin.factory import factory

__all__ = ["factory"]
