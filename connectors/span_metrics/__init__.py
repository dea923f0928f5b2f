"""Connector ``span_metrics``: calls, errors and durations of spans, as metrics."""

from connectors.span_metrics.factory import factory

__all__ = ["factory"]
