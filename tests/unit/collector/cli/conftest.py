from typing import ClassVar

import pytest
from click.testing import CliRunner

import collector.cli.run
import collector.cli.validate
import collector.registry
from collector.api import ComponentKind, Factory, Stability
from collector.cli import main
from collector.model import Signal
from collector.registry import Registry
from config.blocks import ComponentConfig, GRPCServerConfig, Secret


class ReceiverConfig(ComponentConfig):
    grpc: GRPCServerConfig | None = None


class ExporterConfig(ComponentConfig):
    endpoint: str = ""
    password: Secret = Secret("")


def factory(kind, component_type, config_type, **more):
    return Factory(
        component_type=component_type,
        kind=kind,
        config_type=config_type,
        create=lambda settings, config: None,
        stability=Stability.BETA,
        signals=frozenset(Signal),
        **more,
    )


FACTORIES = [
    factory(ComponentKind.RECEIVER, "otlp", ReceiverConfig),
    factory(ComponentKind.EXPORTER, "otlp_grpc", ExporterConfig, aliases=("otlp",)),
    factory(ComponentKind.CONNECTOR, "forward", ComponentConfig, connects=frozenset({(Signal.LOGS, Signal.LOGS)})),
]

GOOD = """
receivers: {otlp: {grpc: }}
exporters:
  otlp_grpc: {endpoint: "h:1", password: hunter2}
service: {pipelines: {traces: {receivers: [otlp], exporters: [otlp_grpc]}}}
"""


class FakeService:
    """What ``run`` and ``validate`` need of collector.service.Service."""

    calls: ClassVar[list[str]] = []
    fail_in = ""
    error: Exception = ValueError("nothing")

    def __init__(self, config, load=None, configure_logs=None):
        self.config = config
        type(self).load = load
        self._step("init")

    def _step(self, name):
        type(self).calls.append(name)
        if type(self).fail_in == name:
            raise type(self).error

    def handle_signals(self):
        pass

    async def start(self):
        self._step("start")

    async def run_until_stopped(self):
        self._step("run")

    async def shutdown(self):
        self._step("shutdown")


@pytest.fixture
def service(monkeypatch):
    """A stand-in for collector.service.Service."""
    FakeService.calls, FakeService.fail_in = [], ""
    for module in (collector.cli.run, collector.cli.validate):
        monkeypatch.setattr(module, "Service", FakeService)
    return FakeService


@pytest.fixture
def good(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return str(path)


@pytest.fixture
def tailrace(monkeypatch, service):
    """Runs the command over three fake component types."""
    monkeypatch.setattr(collector.registry, "_entry_points", lambda: Registry.of(FACTORIES)._offers)
    return lambda *arguments: CliRunner().invoke(main, list(arguments))
