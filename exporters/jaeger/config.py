"""The configuration of ``jaeger``.

Source: jaegertracing/jaeger ports/ports.go and cmd/jaeger/internal/all-in-one.yaml (OTLP on 4317, no TLS).
"""

from collections.abc import Iterable
from typing import Final

from collector.delivery.otlp import OTLPGrpcConfig
from config.blocks import TLSClientConfig

__all__ = ["JaegerConfig"]


_OLD_PORT: Final = ":14250"


class JaegerConfig(OTLPGrpcConfig):
    """OTLP over gRPC to Jaeger, by default on this host."""

    endpoint: str = "localhost:4317"
    """Server to connect to, for example localhost:4317."""
    tls: TLSClientConfig = TLSClientConfig(insecure=True)
    """TLS settings. Jaeger does not use TLS by default. A ``tls`` block in the configuration replaces this one; its
    ``insecure`` is false unless set.
    """

    def warnings(self) -> Iterable[tuple[str, str]]:
        """See :class:`ComponentConfig`."""
        if self.endpoint.endswith(_OLD_PORT):
            host = self.endpoint.removesuffix(_OLD_PORT)
            sentence = (
                "14250 is the port of Jaeger's own gRPC protocol, but Tailrace sends OTLP, which Jaeger has accepted "
                f"since 1.35: write {host}:4317"
            )
            yield "endpoint", sentence
