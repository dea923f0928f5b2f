"""Connector ``forward``: joins pipelines of one signal."""

from connectors.forward.factory import factory

__all__ = ["factory"]
