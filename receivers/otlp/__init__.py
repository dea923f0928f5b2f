"""Receiver ``otlp``: OTLP over gRPC and HTTP."""

from receivers.otlp.factory import factory

__all__ = ["factory"]
