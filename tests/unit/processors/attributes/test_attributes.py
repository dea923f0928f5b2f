"""``attributes``: actions and matching together, on every signal."""

import pytest
from pydantic import ValidationError

from collector.model import Signal
from collector.testing import batch as make_batch
from collector.testing import check_component, make_settings, traces
from processors.attributes import factory
from processors.attributes.config import AttributesConfig


def make(signal=Signal.TRACES, **config):
    return factory.create(make_settings(factory, signals={signal}), AttributesConfig.model_validate(config))


async def test_factory_keeps_the_contract():
    """The component contract holds and the README's examples are valid."""
    await check_component(factory)


@pytest.mark.parametrize("signal", list(Signal))
def test_items_are_changed_and_nothing_else(signal):
    """The attribute is set on every item and not on resources."""
    batch = make_batch(signal)
    out = make(signal, actions=[{"key": "env", "action": "upsert", "value": "prod"}]).transform(batch)
    assert out.attribute("env").text.to_list() == ["prod"] * batch.item_count
    assert not out.attribute("env", "resources").present.any()


def test_only_what_matches_is_changed():
    """Only items that match include and not exclude are changed."""
    batch = traces(spans=40)
    services = batch.attribute("service.name", inherit=True).as_text()
    chosen = services.distinct[0]
    out = make(
        include={"match_type": "strict", "services": [chosen]},
        exclude={"match_type": "strict", "span_kinds": ["SPAN_KIND_SERVER"]},
        actions=[{"key": "env", "action": "insert", "value": 1}],
    ).transform(batch)
    assert (out.attribute("env").present == (services.equals(chosen) & (batch.field("kind") != 2))).all()
    assert out.attribute("env").present.any()


def test_nothing_to_do_is_the_same_batch():
    """If no item matches the batch is the same object."""
    batch = traces()
    processor = make(
        include={"match_type": "strict", "services": ["none"]}, actions=[{"key": "env", "action": "insert", "value": 1}]
    )
    assert processor.transform(batch) is batch


def test_property_of_another_signal_is_refused_when_made():
    """A property of another signal is refused when the processor is created."""
    with pytest.raises(ValueError, match="span_names cannot be used for logs"):
        make(
            Signal.LOGS,
            include={"match_type": "strict", "span_names": ["a"]},
            actions=[{"key": "a", "action": "delete"}],
        )


@pytest.mark.parametrize("config", [{}, {"actions": []}])
def test_actions_are_required(config):
    """A configuration without actions is refused, as in the Collector."""
    with pytest.raises(ValidationError):
        AttributesConfig.model_validate(config)
