"""The factory of the exporter ``otlp_grpc``, which is implemented by ``collector.delivery.otlp``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.delivery.otlp import OTLPGrpcConfig, OTLPGrpcExporter
from collector.model import Signal

__all__ = ["factory"]


def create(settings: Settings, config: OTLPGrpcConfig) -> OTLPGrpcExporter:
    """The exporter of one component id, for all its signals."""
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
