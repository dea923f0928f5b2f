"""OTLP over gRPC to any backend that speaks it; all of it is ``collector.delivery.otlp``."""

from collector.api import Component, ComponentKind, Factory, Settings, Stability
from collector.delivery.otlp import OTLPGrpcConfig, OTLPGrpcExporter
from collector.model import Signal

__all__ = ["factory"]


def create(settings: Settings, config: OTLPGrpcConfig) -> Component:
    """The exporter of one id, for all its signals."""
    return OTLPGrpcExporter(settings, config)


factory = Factory(
    component_type="otlp_grpc",
    config_type=OTLPGrpcConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
    aliases=("otlp",),
)
