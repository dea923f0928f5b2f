"""Connector ``forward``: joins pipelines of one signal."""

from connectors.forward.forward import factory

__all__ = ["factory"]
