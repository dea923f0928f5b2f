"""``resource``: actions on resources, on every signal."""

import pytest
from pydantic import ValidationError

from collector.model import Signal
from collector.testing import batch as make_batch
from collector.testing import check_component, make_settings
from processors.resource import factory
from processors.resource.config import ResourceConfig


async def test_factory_keeps_the_contract():
    """The component contract holds and the README's examples are valid."""
    await check_component(factory)


@pytest.mark.parametrize("signal", list(Signal))
def test_resources_are_changed_and_nothing_else(signal):
    """Actions are applied in order, and items keep their attributes."""
    batch = make_batch(signal)
    config = ResourceConfig.model_validate(
        {
            "attributes": [
                {"key": "cluster", "action": "insert", "value": "eu"},
                {"key": "name.copy", "action": "upsert", "from_attribute": "service.name"},
                {"key": "service.name", "action": "delete"},
            ]
        }
    )
    out = factory.create(make_settings(factory, signals={signal}), config).transform(batch)
    resources = batch.table("resources").row_count
    assert out.item_count == batch.item_count
    assert out.attribute("cluster", "resources").text.to_list() == ["eu"] * resources
    assert (
        out.attribute("name.copy", "resources").text.to_list()
        == batch.attribute("service.name", "resources").text.to_list()
    )
    assert not out.attribute("service.name", "resources").present.any()
    assert out.attributes().key.to_list() == batch.attributes().key.to_list()


@pytest.mark.parametrize("config", [{}, {"attributes": []}, {"attributes": [{"key": "a"}]}])
def test_attributes_are_required(config):
    """A configuration without actions is refused, as in the Collector."""
    with pytest.raises(ValidationError):
        ResourceConfig.model_validate(config)
