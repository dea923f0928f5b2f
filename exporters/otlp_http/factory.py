"""The factory of the exporter ``otlp_http``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from exporters.otlp_http.config import OTLPHTTPConfig
from exporters.otlp_http.otlp_http import OTLPHTTPExporter

__all__ = ["factory"]


def create(settings: Settings, config: OTLPHTTPConfig) -> OTLPHTTPExporter:
    """The exporter of one component id, for all its signals."""
    return OTLPHTTPExporter(settings, config)


factory = Factory(
    component_type="otlp_http",
    config_type=OTLPHTTPConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.EXPORTER,
    aliases=("otlphttp",),
)
