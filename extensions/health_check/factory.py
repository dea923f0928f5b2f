"""How ``health_check`` is made."""

from collector.api import ComponentKind, Factory, Settings, Stability
from extensions.health_check.config import HealthCheckConfig
from extensions.health_check.health_check import HealthCheckExtension

__all__ = ["factory"]


def _create(settings: Settings, config: HealthCheckConfig) -> HealthCheckExtension:
    return HealthCheckExtension(settings, config)


factory = Factory(
    component_type="health_check",
    config_type=HealthCheckConfig,
    create=_create,
    stability=Stability.BETA,
    signals=frozenset(),
    kind=ComponentKind.EXTENSION,
    aliases=("healthcheck",),
)
