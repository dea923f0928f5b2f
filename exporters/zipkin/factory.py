"""The factory of the exporter ``zipkin``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.zipkin.config import ZipkinConfig
from exporters.zipkin.zipkin import ZipkinExporter

__all__ = ["create", "factory"]


def create(settings: Settings, config: ZipkinConfig) -> ZipkinExporter:
    """The exporter of one component id."""
    return ZipkinExporter(settings, config)


factory = Factory(
    component_type="zipkin",
    config_type=ZipkinConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.EXPORTER,
)
