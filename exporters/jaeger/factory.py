"""The factory of the exporter ``jaeger``: OTLP over gRPC with Jaeger's defaults.

Jaeger has accepted OTLP since 1.35, and its version 2 receives traces by no other protocol.
"""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.delivery.otlp import OTLPGrpcExporter
from collector.model import Signal
from exporters.jaeger.config import JaegerConfig

__all__ = ["factory"]


def create(settings: Settings, config: JaegerConfig) -> OTLPGrpcExporter:
    """The exporter of one component id, for all its signals."""
    return OTLPGrpcExporter(settings, config)


factory = Factory(
    component_type="jaeger",
    config_type=JaegerConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.EXPORTER,
)
