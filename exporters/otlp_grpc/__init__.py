"""Exporter ``otlp_grpc``: sends telemetry to a server that speaks OTLP over gRPC."""

from exporters.otlp_grpc.factory import factory

__all__ = ["factory"]
