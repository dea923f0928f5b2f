"""Traces to Jaeger. Jaeger has taken OTLP since 1.35 and nothing else is left in its v2, so this is OTLP over gRPC with Jaeger's defaults.

Source: jaegertracing/jaeger ports/ports.go and cmd/jaeger/internal/all-in-one.yaml (OTLP on 4317, no TLS).
"""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.delivery.otlp import OTLPGrpcConfig, OTLPGrpcExporter
from collector.model import Signal
from config.blocks import TLSClientConfig

__all__ = ["JaegerConfig", "factory"]


class JaegerConfig(OTLPGrpcConfig):
    """Where Jaeger is."""

    endpoint: str = "localhost:4317"
    tls: TLSClientConfig = TLSClientConfig(insecure=True)
    """A Jaeger as it comes has no TLS; a block of one's own is taken whole, and there ``insecure`` is false."""


def create(settings: Settings, config: JaegerConfig) -> Component:
    """The exporter of one id."""
    return OTLPGrpcExporter(settings, config)


factory = Factory(
    component_type="jaeger",
    config_type=JaegerConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.EXPORTER,
)
