"""Exporter ``otlp_grpc``."""

from exporters.otlp_grpc.factory import factory

__all__ = ["factory"]
