"""The contract kit: what every factory must do.

Rules: ``collector.api.component`` and the ledger of ``collector.api.host``.

A component's own behaviour is not tested here.
"""

import asyncio
import inspect
import re
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from ruamel.yaml import YAML

from collector.api import (
    Component,
    ComponentId,
    ComponentKind,
    Connector,
    ConsumeError,
    Exporter,
    Extension,
    Factory,
    Receiver,
    Settings,
    Stage,
    Transform,
)
from collector.model import Batch, Signal
from collector.testing.doubles import FakeHost, RecordingTelemetry, Sink, make_settings
from collector.testing.generate import batch as make_batch
from config.blocks import ComponentConfig, RetryConfig

__all__ = ["check_component", "free_port", "readme_examples"]

_FENCE = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)
_METRIC = re.compile(r"^(otelcol|tailrace)_[a-z0-9_]+$")
_LIFE_CYCLE_TIMEOUT_S = 20.0
_BASES: Mapping[ComponentKind, tuple[type[Component], ...]] = {
    ComponentKind.RECEIVER: (Receiver,),
    ComponentKind.PROCESSOR: (Transform, Stage),
    ComponentKind.EXPORTER: (Exporter,),
    ComponentKind.CONNECTOR: (Connector,),
    ComponentKind.EXTENSION: (Extension,),
}


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens at present."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def check_component(
    factory: Factory, *, config: Any = None, batches: Sequence[Batch] | None = None, host: FakeHost | None = None
) -> None:
    """Put ``factory`` through the contract.

    ``config`` defaults to the component's own defaults, or to its first README example if a key is required. Every
    ``endpoint`` in it is moved to a free loopback port: servers listen there and clients find no server, which shows
    what an exporter does with an unreachable backend. Retries are disabled so that this shows quickly. ``host``
    provides the extensions that the configuration names.

    Raises:
        AssertionError: the component violates the contract; the message says which rule.
    """
    _check_description(factory)
    examples = readme_examples(factory)
    assert examples, f"{factory.component_type}: its README needs a ```yaml example that configures it"
    _check_round_trip(factory, examples)
    chosen = _on_loopback(config if config is not None else _default_config(factory, examples))
    for signal in sorted(factory.signals) if factory.kind is ComponentKind.PROCESSOR else [None]:
        signals = factory.signals if signal is None else frozenset({signal})
        data = [batch for batch in (batches if batches is not None else _data(signals)) if batch.signal in signals]
        await _check_unstarted(factory, chosen, signals, host)
        await _check_running(factory, chosen, signals, data, host)


def readme_examples(factory: Factory) -> list[tuple[str, Any]]:
    """``(id, configuration)`` for each time a ```yaml block of the component's README configures it.

    Raises:
        AssertionError: there is no README, or an example is not a valid configuration.
    """
    path = _readme(factory)
    assert path.is_file(), f"{factory.component_type}: {path} is missing"
    types = {factory.component_type, *factory.aliases}
    examples = []
    for block in _FENCE.findall(path.read_text(encoding="utf-8")):
        document = YAML(typ="safe", pure=True).load(block) or {}
        section = document.get(factory.kind.value) if isinstance(document, dict) else None
        for name, raw in (section or {}).items():
            if ComponentId.parse(str(name)).type in types:
                try:
                    examples.append((str(name), factory.config_type.model_validate(raw or {})))
                except ValueError as error:
                    raise AssertionError(f"{path}: the example {name!r} does not load: {error}") from error
    return examples


def _readme(factory: Factory) -> Path:
    module = inspect.getmodule(factory.create)
    file = module.__file__ if module else None
    assert file, f"{factory.component_type}: the module of its create function is unknown"
    return Path(file).parent / "README.md"


def _check_description(factory: Factory) -> None:
    name = factory.component_type
    for spelling in (name, *factory.aliases):
        assert str(ComponentId.parse(spelling)) == spelling
    assert issubclass(factory.config_type, ComponentConfig), (
        f"{name}: config_type must be a subclass of ComponentConfig"
    )
    assert factory.signals or factory.kind is ComponentKind.EXTENSION, f"{name}: must serve at least one signal"
    assert bool(factory.connects) == (factory.kind is ComponentKind.CONNECTOR), (
        f"{name}: connectors must set `connects`, other components must not"
    )


def _default_config(factory: Factory, examples: Sequence[tuple[str, Any]]) -> Any:
    try:
        return factory.config_type()
    except ValueError:  # a key is required, so there is no default configuration
        return examples[0][1]


def _check_round_trip(factory: Factory, examples: Sequence[tuple[str, Any]]) -> None:
    """The output of ``print-config`` can be read again and means the same."""
    for config in [_default_config(factory, examples), *(example for _, example in examples)]:
        again = factory.config_type.model_validate(config.model_dump(by_alias=True))
        assert again == config, (
            f"{factory.component_type}: the configuration does not survive being written and read: "
            f"{config!r} became {again!r}"
        )


def _on_loopback(config: Any) -> Any:
    """``config`` with every endpoint on a free loopback port, and without retries."""
    changed: dict[str, Any] = {}
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, RetryConfig):
            changed[name] = value.model_copy(update={"enabled": False})
        elif isinstance(value, BaseModel):
            moved = _on_loopback(value)
            if moved is not value:
                changed[name] = moved
        elif name.endswith(("endpoint", "listen_address")) and isinstance(value, str) and value:
            scheme, separator, rest = value.rpartition("://")
            path = "/" + rest.split("/", 1)[1] if separator and "/" in rest else ""
            changed[name] = f"{scheme}{separator}127.0.0.1:{free_port()}{path}"
    return config.model_copy(update=changed) if changed else config


def _data(signals: frozenset[Signal]) -> list[Batch]:
    return [make_batch(signal, items=items, seed=items) for signal in sorted(signals) for items in (1, 5, 64)]


# What construction must not do. An audit hook cannot be removed, so there is one, inactive unless _watched is set.
_IO_EVENTS = frozenset(
    {
        "socket.bind",
        "socket.connect",
        "socket.getaddrinfo",
        "subprocess.Popen",
        "os.fork",
        "os.mkdir",
        "os.remove",
        "os.rename",
    }
)
_watched: list[str] | None = None
_is_hooked = False


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    writes = (
        event == "open"
        and isinstance(arguments[1], str)
        and any(ch in arguments[1] for ch in "wax+")
        and "__pycache__" not in str(arguments[0])
    )
    if event in _IO_EVENTS or writes:
        _watched.append(f"{event}{arguments!r}")


@contextmanager
def _without_io(factory: Factory) -> Iterator[None]:
    global _watched, _is_hooked  # noqa: PLW0603 - an audit hook is global by nature
    if not _is_hooked:
        sys.addaudithook(_audit)
        _is_hooked = True
    done: list[str] = []
    _watched = done
    try:
        yield
    finally:
        _watched = None
    assert not done, f"{factory.component_type}: constructing the component must not do I/O, but it did: {done}"


class _Rig:
    """One component between sinks."""

    def __init__(self, factory: Factory, config: Any, signals: frozenset[Signal], host: FakeHost | None) -> None:
        self.telemetry = RecordingTelemetry()
        self.host = host or FakeHost()
        # Real time: the time-outs of clients are real, and a component must end even if no test moves a clock.
        self.settings: Settings = make_settings(factory, signals=signals, telemetry=self.telemetry, clock=_RealClock())
        with _without_io(factory):
            self.component = factory.create(self.settings, config)
        bases = _BASES[factory.kind]
        assert isinstance(self.component, bases), (
            f"{factory.component_type}: its factory returned a {type(self.component).__name__}, expected {bases}"
        )

    def emitted(self, signal: Signal) -> int:
        sink = self.settings.outputs.get(signal)
        return sink.item_count if isinstance(sink, Sink) else 0


class _RealClock:
    def time_unix_nano(self) -> int:
        import time  # noqa: PLC0415 - only this double may

        return time.time_ns()

    def monotonic_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


async def _stop(rig: _Rig, name: str) -> None:
    try:
        async with asyncio.timeout(_LIFE_CYCLE_TIMEOUT_S):
            await rig.component.shutdown()
    except TimeoutError:
        raise AssertionError(f"{name}: shutdown takes longer than {_LIFE_CYCLE_TIMEOUT_S:.0f} s") from None


async def _check_unstarted(factory: Factory, config: Any, signals: frozenset[Signal], host: FakeHost | None) -> None:
    rig = _Rig(factory, config, signals, host)
    rig.component.hand_over(config)
    await _stop(rig, f"{factory.component_type}, never started")
    await _stop(rig, f"{factory.component_type}, never started, the second time")


async def _check_running(
    factory: Factory, config: Any, signals: frozenset[Signal], data: Sequence[Batch], host: FakeHost | None
) -> None:
    name = factory.component_type
    rig = _Rig(factory, config, signals, host)
    async with asyncio.timeout(_LIFE_CYCLE_TIMEOUT_S):
        await rig.component.start(rig.host)
    wires = [batch.wire for batch in data]
    passed: dict[Signal, int] = dict.fromkeys(Signal, 0)
    component = rig.component
    for batch in data:
        if isinstance(component, Transform):
            out = component.transform(batch)
            assert out is None or out.signal is batch.signal
            passed[batch.signal] += 0 if out is None else out.item_count
        elif isinstance(component, Stage | Exporter | Connector):
            try:
                async with asyncio.timeout(_LIFE_CYCLE_TIMEOUT_S):
                    if isinstance(component, Connector) or not component.try_consume(batch):
                        await component.consume(batch)
            except ConsumeError:
                is_plain = isinstance(component, Exporter) and not component.settles_by_itself
                assert is_plain or getattr(component, "waits_for_result", False), (
                    f"{name}: consume raises ConsumeError although no sender waits for its result"
                )
    if isinstance(component, Receiver | Extension):
        data = []
    await _stop(rig, name)
    await _stop(rig, f"{name}, the second time")
    assert [batch.wire for batch in data] == wires[: len(data)], f"{name}: changed a batch that was passed to it"
    for signal in signals:
        taken = sum(batch.item_count for batch in data if batch.signal is signal)
        if isinstance(component, Transform):
            _close_transform(name, rig.telemetry, signal, taken, passed[signal])
        elif isinstance(component, Exporter):
            _close_exporter(name, rig.telemetry, component, signal, taken)
        elif isinstance(component, Stage | Connector):
            held_items = component.held_items()
            held = held_items if isinstance(held_items, int) else held_items.get(signal, 0)
            assert held == 0, f"{name}: holds {held} items after its shutdown"
            _close(name, rig.telemetry, signal, taken, rig.emitted(signal))
    _check_metrics(name, rig.telemetry)


def _close_transform(name: str, telemetry: RecordingTelemetry, signal: Signal, taken: int, out: int) -> None:
    """The service counts missing items under ``drop_reason``; additional items must be counted as ``created``."""
    ledger = telemetry.ledger
    left = taken + ledger.created[signal] - out - ledger.dropped_count(signal) - ledger.folded[signal]
    assert left >= 0, f"{name}: {signal}: {-left} more items left or were counted than arrived"


def _close(name: str, telemetry: RecordingTelemetry, signal: Signal, taken: int, out: int) -> None:
    ledger = telemetry.ledger
    came = taken + ledger.created[signal]
    went = out + ledger.dropped_count(signal) + ledger.folded[signal]
    assert went == came, f"{name}: {signal}: the ledger is not balanced: {came} in, {went} out, dropped or folded"


def _close_exporter(name: str, telemetry: RecordingTelemetry, exporter: Exporter, signal: Signal, taken: int) -> None:
    ledger = telemetry.ledger
    in_flight = exporter.in_flight_items().get(signal, 0)
    assert in_flight == 0, f"{name}: {in_flight} items are in flight after its shutdown"
    settled = ledger.delivered[signal] + ledger.dropped_count(signal) + ledger.refused_count(signal)
    if exporter.settles_by_itself:
        assert settled == taken, f"{name}: {signal}: received {taken}, but delivered + dropped + refused = {settled}"
    else:  # the service counts the remainder as delivered
        assert settled <= taken, f"{name}: {signal}: received {taken}, but it counted {settled}"
        assert not ledger.delivered[signal], f"{name}: the service counts what is delivered, or set settles_by_itself"


def _check_metrics(name: str, telemetry: RecordingTelemetry) -> None:
    for metric in telemetry.metrics.values():
        assert _METRIC.match(metric.name), f"{name}: the metric {metric.name!r} is neither otelcol_… nor tailrace_…"
        assert not metric.name.endswith("_total"), f"{name}: the Collector shows {metric.name!r} without _total"
        assert metric.description.strip(), f"{name}: the metric {metric.name!r} has no description"
        for labels, value in metric.current().items():
            assert len(labels) == len(metric.labels), (
                f"{name}: {metric.name!r}: {labels} are not the values of {metric.labels}"
            )
            assert value == value, f"{name}: {metric.name!r} is not a number"  # noqa: PLR0124 - NaN
