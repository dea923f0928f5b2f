"""Factory of the processor ``span``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.span.config import SpanConfig
from processors.span.span import SpanProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: SpanConfig) -> SpanProcessor:
    """The processor of one pipeline."""
    return SpanProcessor(settings, config)


factory = Factory(
    component_type="span",
    config_type=SpanConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset({Signal.TRACES}),
    kind=ComponentKind.PROCESSOR,
)
