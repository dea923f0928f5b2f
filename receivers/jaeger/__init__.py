"""Receiver ``jaeger``: spans of Jaeger's clients, over gRPC, HTTP and UDP."""

from receivers.jaeger.factory import factory

__all__ = ["factory"]
