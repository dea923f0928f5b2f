"""span_metrics in a service: between pipelines of two signals, and next to a pipeline that samples."""

import aiohttp
import pytest

from collector.api import ComponentKind, RetryableError
from collector.model import EMPTY_CONTEXT, Signal
from collector.registry import Registry
from collector.testing import eventually, traces_request
from connectors.span_metrics import factory

GRAPH = """
receivers: {source: {}}
exporters: {target/kept: {}, target/metrics: {}}
processors: {every: {do: half}}
connectors:
  span_metrics/a: {metrics_flush_interval: 50ms}
  span_metrics/b: {names: http}
service:
  pipelines:
    traces/all: {receivers: [source], exporters: [span_metrics/a, span_metrics/b]}
    traces/kept: {receivers: [source], processors: [every], exporters: [target/kept]}
    metrics: {receivers: [span_metrics/a, span_metrics/b], exporters: [target/metrics]}
"""


@pytest.fixture
def graph(world, monkeypatch):
    """A world that also has the connector."""
    others = world.registry

    def registry():
        made = others()
        made._offers[ComponentKind.CONNECTOR].update(Registry.of([factory])._offers[ComponentKind.CONNECTOR])
        return made

    monkeypatch.setattr(world, "registry", registry)
    return world


async def test_counts_every_span_whatever_another_pipeline_samples(graph):
    """Half of the spans are kept and all are counted; the ledger balances for spans and points."""
    async with graph.running(GRAPH) as service:
        for seed in range(3):
            await graph.source().consume_request(traces_request(spans=40, seed=seed).SerializeToString(), EMPTY_CONTEXT)
        await eventually(lambda: graph.target("target/metrics").item_count > 0)
    assert graph.target("target/kept").item_count == 60
    last = {}
    for batch in graph.target("target/metrics").batches:
        if batch.field("name", "metrics").distinct[0].startswith("http"):
            continue
        values = batch.field("int_value", "points")[
            batch.table("metrics").rows["type"][batch.table("points").parent] == 2
        ]
        last = values
    assert int(last.sum()) == 120
    rows = {(row.node, row.signal): row for row in service.ledger.snapshot()}
    assert rows["connectors/span_metrics/a", Signal.TRACES].folded == 120


async def test_a_full_queue_of_the_metrics_exporter_refuses_no_spans(graph):
    """Admission only checks the exporters of spans for room."""
    async with graph.running(GRAPH):
        graph.target("target/metrics").room = False
        receipt = await graph.source().consume_request(traces_request(spans=4).SerializeToString(), EMPTY_CONTEXT)
        assert receipt.accepted_count == 4
        graph.target("target/kept").room = False
        with pytest.raises(RetryableError):
            await graph.source().consume_request(traces_request(spans=4).SerializeToString(), EMPTY_CONTEXT)


async def test_the_admin_port_shows_all_connectors_of_the_type(graph):
    """GET /span_metrics shows them by id."""
    async with graph.running(GRAPH, metrics="address: '127.0.0.1:0'") as service, aiohttp.ClientSession() as session:
        await graph.source().consume_request(traces_request(spans=40).SerializeToString(), EMPTY_CONTEXT)
        async with session.get(f"http://127.0.0.1:{service.admin_port}/span_metrics") as answer:
            document = await answer.json()
    assert document.keys() == {"span_metrics/a", "span_metrics/b"}
    assert sum(each["calls"] for each in document["span_metrics/a"]["services"]) > 0


async def test_a_reload_keeps_the_counts(graph):
    """The connector with the same id continues its counts."""
    async with graph.running(GRAPH) as service:
        await graph.source().consume_request(traces_request(spans=40).SerializeToString(), EMPTY_CONTEXT)
        old = next(node.component for node in service.graph.nodes() if str(node.id) == "span_metrics/a")
        await service.reload(graph.config(GRAPH.replace("50ms", "20ms")))
        new = next(node.component for node in service.graph.nodes() if str(node.id) == "span_metrics/a")
        assert new is not old
        await graph.source().consume_request(traces_request(spans=40, seed=1).SerializeToString(), EMPTY_CONTEXT)
        [document] = (await new._show({})).values()
        assert sum(sum(each["calls"] for each in service["operations"]) for service in document["services"]) > 40
