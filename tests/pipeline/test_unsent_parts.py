"""Parts that a stage has taken out and not sent yet are still held, while the exporter behind it hangs and afterwards."""

import asyncio

import pytest

from collector.api import ComponentKind
from collector.model import Context
from collector.registry import Registry
from collector.testing import eventually, traces
from processors.batch import factory as batch
from processors.sampling import factory as sampling
from processors.tail_sampling import factory as tail_sampling

GRAPH = """
receivers: {source: {}}
processors: {%s: {%s}}
exporters: {target: {do: wait_hang}}
service: {pipelines: {traces: {receivers: [source], processors: [%s], exporters: [target]}}}
"""
STAGES = {
    "batch": "send_batch_size: 20, send_batch_max_size: 20, timeout: 50ms",
    "tail_sampling": "decision_wait: 50ms, policies: [{name: all, type: always_sample}]",
    "sampling": "decision_wait: 50ms, rules: [{name: rest, ratio: 1.0}]",
}


@pytest.fixture
def graph(world, monkeypatch):
    """A world that also has the stages."""
    others = world.registry

    def registry():
        made = others()
        stages = Registry.of([batch, tail_sampling, sampling])
        made._offers[ComponentKind.PROCESSOR].update(stages._offers[ComponentKind.PROCESSOR])
        return made

    monkeypatch.setattr(world, "registry", registry)
    return world


async def send(output, *, is_one_batch):
    if is_one_batch:  # it is split
        await output.consume(traces(spans=60))
        return
    for tenant in ("a", "b", "c"):  # batches of different tenants are not joined
        await output.consume(traces(spans=20).with_context(Context(tenant=tenant)))


@pytest.mark.parametrize("stage", STAGES)
async def test_parts_behind_a_hanging_one_are_held_and_dropped_at_shutdown(graph, stage):
    """The ledger balances while the first of three parts hangs, and after a shutdown that timed out."""
    service = graph.service(GRAPH % (stage, STAGES[stage], stage), shutdown_timeout_s=0.1)
    await service.start()
    sender = asyncio.ensure_future(send(graph.source(), is_one_batch=stage == "batch"))
    await eventually(lambda: graph.target().waiting)
    (row,) = (row for row in service.ledger.snapshot() if row.kind is ComponentKind.PROCESSOR)
    assert row.held == row.received - graph.target().waiting > 0
    assert service.ledger.imbalances() == []
    await service.shutdown()
    assert service.ledger.imbalances() == []
    (row,) = (row for row in service.ledger.snapshot() if row.kind is ComponentKind.PROCESSOR)
    assert row.dropped == {"shutdown": row.received - row.out}
    sender.cancel()
