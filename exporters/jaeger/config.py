"""The configuration of ``jaeger``.

Source: jaegertracing/jaeger ports/ports.go and cmd/jaeger/internal/all-in-one.yaml (OTLP on 4317, no TLS).
"""

from collector.delivery.otlp import OTLPGrpcConfig
from config.blocks import TLSClientConfig

__all__ = ["JaegerConfig"]


class JaegerConfig(OTLPGrpcConfig):
    """OTLP over gRPC to Jaeger, by default on this host."""

    endpoint: str = "localhost:4317"
    """Server to connect to, for example localhost:4317."""
    tls: TLSClientConfig = TLSClientConfig(insecure=True)
    """TLS settings. Jaeger does not use TLS by default. A ``tls`` block in the configuration replaces this one; its
    ``insecure`` is false unless set.
    """
