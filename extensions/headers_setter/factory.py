"""Factory of the extension ``headers_setter``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.headers_setter.config import HeadersSetterConfig
from extensions.headers_setter.headers_setter import HeadersSetter

__all__ = ["create", "factory"]


def create(settings: Settings, config: HeadersSetterConfig) -> HeadersSetter:
    """The extension."""
    return HeadersSetter(settings, config)


factory = Factory(
    component_type="headers_setter",
    config_type=HeadersSetterConfig,
    create=create,
    stability=Stability.ALPHA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("headerssetter",),
)
