"""Connector ``service_graph``: metrics of who calls whom, from the two spans of each request."""

from connectors.service_graph.factory import factory

__all__ = ["factory"]
