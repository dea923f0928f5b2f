"""Connector ``exceptions``: metrics and logs of the exceptions that spans recorded."""

from connectors.exceptions.factory import factory

__all__ = ["factory"]
