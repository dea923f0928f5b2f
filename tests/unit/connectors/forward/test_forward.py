"""``forward`` passes on the batches it receives."""

import pytest

from collector.model import Signal
from collector.testing import batch, make, make_settings
from connectors.forward import factory


@pytest.mark.parametrize("signal", list(Signal))
async def test_passes_the_same_batch_on(signal):
    """The same object, and only to the output of its signal."""
    settings = make_settings(factory)
    connector = factory.create(settings, factory.config_type())
    sent = batch(signal)
    await connector.consume(sent)
    for each, sink in settings.outputs.items():
        assert sink.batches == ([sent] if each is signal else [])
    assert not make(factory).held_items()
