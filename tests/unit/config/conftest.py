import pytest
from pydantic import Field

from collector.api import ComponentKind, Factory, Stability
from collector.model import Signal
from collector.registry import Registry
from config.blocks import (
    AuthConfig,
    ComponentConfig,
    Duration,
    GRPCClientConfig,
    GRPCServerConfig,
    HTTPServerConfig,
    QueueConfig,
    Secret,
)

ALL = frozenset(Signal)


class Protocols(ComponentConfig):
    grpc: GRPCServerConfig | None = None
    http: HTTPServerConfig | None = None


class ReceiverConfig(ComponentConfig):
    protocols: Protocols


class ExporterConfig(GRPCClientConfig):
    timeout: Duration = 5.0
    sending_queue: QueueConfig = QueueConfig()
    label: str = ""
    ratio: float = Field(default=0.5, ge=0, le=1)
    password: Secret = Secret("")
    extra: dict[str, object] = Field(default_factory=dict)


def factory(kind, component_type, config_type=ComponentConfig, signals=ALL, **more):
    return Factory(
        component_type=component_type,
        kind=kind,
        config_type=config_type,
        create=lambda settings, config: None,
        stability=Stability.BETA,
        signals=signals,
        **more,
    )


@pytest.fixture
def registry():
    """A registry with a few components, without entry points."""
    return Registry.of(
        [
            factory(ComponentKind.RECEIVER, "otlp", ReceiverConfig),
            factory(ComponentKind.PROCESSOR, "batch"),
            factory(ComponentKind.PROCESSOR, "tail", signals=frozenset({Signal.TRACES})),
            factory(ComponentKind.EXPORTER, "otlp_grpc", ExporterConfig, aliases=("otlp",)),
            factory(ComponentKind.EXPORTER, "debug"),
            factory(ComponentKind.CONNECTOR, "forward", connects=frozenset((each, each) for each in Signal)),
            factory(ComponentKind.CONNECTOR, "spanmetrics", connects=frozenset({(Signal.TRACES, Signal.METRICS)})),
            factory(ComponentKind.EXTENSION, "basicauth", AuthConfig),
        ]
    )
