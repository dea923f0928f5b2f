"""Connector ``routing``: sends data to pipelines by conditions."""

from connectors.routing.factory import factory

__all__ = ["factory"]
