"""Forward passes on what it gets."""

import pytest

from collector.model import Signal
from collector.testing import batch, make, make_settings
from connectors.forward import factory


@pytest.mark.parametrize("signal", list(Signal))
async def test_passes_the_same_batch_on(signal):
    """The object itself, to the output of its signal alone."""
    settings = make_settings(factory)
    connector = factory.create(settings, factory.config_type())
    sent = batch(signal)
    await connector.consume(sent)
    for each, sink in settings.outputs.items():
        assert sink.batches == ([sent] if each is signal else [])
    assert make(factory).held_items() == 0
