"""The contract kit finds what it is there to find."""

import dataclasses
import socket
import types

import pytest

from collector.api import ComponentKind, Exporter, Factory, PermanentError, Stability, Stage, Transform
from collector.model import Signal
from collector.testing import check_component
from collector.testing import contract as kit
from config.blocks import ComponentConfig


class EmptyConfig(ComponentConfig):
    """Nothing."""


class Plain(Exporter):
    """The service counts what it delivers."""

    def __init__(self, settings):
        self.settings = settings

    async def consume(self, batch):
        pass


class Refusing(Plain):
    async def consume(self, batch):
        raise PermanentError("no", reason="http_400")


class Boasting(Plain):
    async def consume(self, batch):
        self.settings.telemetry.delivered(batch.signal, batch.item_count)


class Good(Plain):
    settles_by_itself = True

    async def consume(self, batch):
        self.settings.telemetry.delivered(batch.signal, batch.item_count)


class Forgetful(Good):
    async def consume(self, batch):
        """Counts nothing."""


class Raising(Good):
    async def consume(self, batch):
        from collector.api import RetryableError

        raise RetryableError("no")


class Misnamed(Good):
    def __init__(self, settings):
        super().__init__(settings)
        settings.telemetry.counter("tailrace_things_total", "Things")


class Binding(Good):
    def __init__(self, settings):
        super().__init__(settings)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))


class Doubling(Transform):
    def __init__(self, settings):
        self.telemetry = settings.telemetry

    def transform(self, batch):
        self.telemetry.dropped(batch.signal, 1, "lie")
        return batch


class Keeping(Stage):
    def __init__(self, settings):
        self.held = 0

    async def consume(self, batch):
        self.held += batch.item_count

    def held_items(self):
        return self.held


def factory_of(
    component, tmp_path, monkeypatch, kind=ComponentKind.EXPORTER, readme="```yaml\nexporters:\n  thing: {}\n```\n"
):
    (tmp_path / "README.md").write_text(readme.replace("exporters", kind.value))
    monkeypatch.setattr(kit.inspect, "getmodule", lambda _: types.SimpleNamespace(__file__=str(tmp_path / "thing.py")))
    return Factory(
        component_type="thing",
        kind=kind,
        config_type=EmptyConfig,
        create=lambda settings, config: component(settings),
        stability=Stability.BETA,
        signals=frozenset(Signal),
    )


@pytest.mark.parametrize("component", [Good, Plain, Refusing])
async def test_a_good_component_passes(component, tmp_path, monkeypatch):
    """Exporters that settle by themselves, and plain ones, for which the service does."""
    await check_component(factory_of(component, tmp_path, monkeypatch))


@pytest.mark.parametrize(
    ("component", "kind", "complaint"),
    [
        (Forgetful, ComponentKind.EXPORTER, r"received 70, but delivered \+ dropped \+ refused = 0"),
        (Boasting, ComponentKind.EXPORTER, "the service counts what is delivered"),
        (Raising, ComponentKind.EXPORTER, "consume raises ConsumeError although no sender waits"),
        (Misnamed, ComponentKind.EXPORTER, "without _total"),
        (Binding, ComponentKind.EXPORTER, "must not do I/O"),
        (Doubling, ComponentKind.PROCESSOR, "more items left or were counted than arrived"),
        (Keeping, ComponentKind.PROCESSOR, "holds 70 items after its shutdown"),
        (Good, ComponentKind.PROCESSOR, "returned a Good"),
    ],
)
async def test_a_breach_is_named(component, kind, complaint, tmp_path, monkeypatch):
    """Each rule has a component that breaks it."""
    with pytest.raises(AssertionError, match=complaint):
        await check_component(factory_of(component, tmp_path, monkeypatch, kind))


@pytest.mark.parametrize(
    ("readme", "complaint"),
    [("no example", "needs a ```yaml example"), ("```yaml\nexporters:\n  thing: {nosuch: 1}\n```\n", "does not load")],
)
async def test_a_readme_without_a_working_example_is_a_breach(readme, complaint, tmp_path, monkeypatch):
    """Documentation is part of the contract."""
    with pytest.raises(AssertionError, match=complaint):
        await check_component(factory_of(Good, tmp_path, monkeypatch, readme=readme))


async def test_an_alias_has_to_be_an_id(tmp_path, monkeypatch):
    """The Collector's rule for types."""
    factory = dataclasses.replace(factory_of(Good, tmp_path, monkeypatch), aliases=("1st",))
    with pytest.raises(ValueError, match="invalid component type"):
        await check_component(factory)
