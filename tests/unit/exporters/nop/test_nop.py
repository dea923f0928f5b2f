"""nop accepts every batch and does nothing with it."""

from collector.testing import check_component, logs, make
from exporters.nop import factory


async def test_a_batch_is_accepted_at_once():
    """The service counts it as delivered."""
    assert make(factory).try_consume(logs(records=5))


async def test_factory_keeps_the_contract():
    """The contract covers the life cycle, the ledger and the example in the README."""
    await check_component(factory)
