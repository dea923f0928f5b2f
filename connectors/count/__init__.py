"""Connector ``count``: counts spans, span events, metrics, data points and log records."""

from connectors.count.factory import factory

__all__ = ["factory"]
