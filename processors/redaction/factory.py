"""Factory of the processor ``redaction``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from collector.model import Signal
from processors.redaction.config import RedactionConfig
from processors.redaction.redaction import RedactionProcessor

__all__ = ["create", "factory"]


def create(settings: Settings, config: RedactionConfig) -> RedactionProcessor:
    """The processor of one pipeline."""
    return RedactionProcessor(settings, config)


factory = Factory(
    component_type="redaction",
    config_type=RedactionConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(Signal),
    kind=ComponentKind.PROCESSOR,
)
