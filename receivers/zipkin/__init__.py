"""Receiver ``zipkin``: spans of Zipkin's clients over HTTP."""

from receivers.zipkin.factory import factory

__all__ = ["factory"]
