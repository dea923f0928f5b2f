"""Factory of the extension ``health_check``."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.health_check.config import HealthCheckConfig
from extensions.health_check.health_check import HealthCheckExtension

__all__ = ["create", "factory"]


def create(settings: Settings, config: HealthCheckConfig) -> HealthCheckExtension:
    """The extension."""
    return HealthCheckExtension(settings, config)


factory = Factory(
    component_type="health_check",
    config_type=HealthCheckConfig,
    create=create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("healthcheck", "healthcheckv2", "health_check_v2"),
)
