"""What the connector ``service_graph`` costs: CPU seconds for a million spans, over the number of distinct edges.

    python benchmarks/service_graph.py [--plot]

``together``: both spans of a request stand in one batch. ``apart``: the servers' batch comes after the clients', so
every span is stored once. ``--plot`` draws docs/images/service-graph-cost.png (extra ``docs``).
"""

import argparse
import asyncio
import time
from pathlib import Path

import numpy as np

from collector.model import Traces, TracesBuilder
from collector.testing import FakeHost, make_settings
from connectors.service_graph import factory

PLOT = Path(__file__).parents[1] / "docs" / "images" / "service-graph-cost.png"
BATCH, ROUNDS = 8192, 12
EDGES = (10, 100, 1_000, 10_000)
SERVER, CLIENT = 2, 3
NOW = 1_700_000_000_000_000_000


def half(kind, ids, services, builder=None):
    """Spans of one side of requests ``ids``, in resources by service."""
    builder = builder or TracesBuilder()
    rng = np.random.default_rng(1)
    for service in np.unique(services).tolist():
        mine = ids[services == service]
        scope = builder.scope(
            builder.resource({"service.name": f"service-{service}", "deployment.environment": "prod"})
        )
        start = np.full(len(mine), NOW, np.uint64)
        builder.spans(
            scope,
            names="POST /v1/embeddings",
            trace_ids=np.stack([mine, mine * np.uint64(7919)], axis=1),
            span_ids=mine if kind == CLIENT else mine + np.uint64(1 << 40),
            parent_span_ids=np.zeros(len(mine), np.uint64) if kind == CLIENT else mine,
            start_times=start,
            end_times=start + rng.integers(10**6, 10**9, len(mine)).astype(np.uint64),
            kinds=np.full(len(mine), kind, np.int32),
            attributes={
                "http.request.method": "POST",
                "url.path": "/v1/embeddings",
                "server.address": "embedding-server",
            },
        )
    return builder


def batches(edge_count, how):
    """``ROUNDS`` times the bytes of one batch (together) or of two (apart), 8 192 spans each."""
    rng = np.random.default_rng(2)
    side = max(2, round(edge_count**0.5))
    for turn in range(ROUNDS):
        count = BATCH // 2 if how == "together" else BATCH
        ids = np.arange(1 + turn * BATCH, 1 + turn * BATCH + count, dtype=np.uint64)
        edge = rng.integers(0, edge_count, count)
        clients, servers = edge % side, 10_000 + edge // side
        if how == "together":
            yield [half(SERVER, ids, servers, half(CLIENT, ids, clients)).build_wire()]
        else:
            yield [half(CLIENT, ids, clients).build_wire(), half(SERVER, ids, servers).build_wire()]


async def cost(edge_count, how):
    """CPU seconds for a million spans, reading the request included; the first round is not counted."""
    settings = make_settings(factory)
    config = factory.config_type.model_validate(
        {"store": {"max_items": 100_000, "ttl": "1h"}, "aggregation_cardinality_limit": 0}
    )
    connector = factory.create(settings, config)
    await connector.start(FakeHost())
    spans, seconds = 0, 0.0
    for turn, wires in enumerate(batches(edge_count, how)):
        for wire in wires:
            begin = time.process_time()
            batch = Traces.check(wire).batch
            await connector.consume(batch)
            if turn:
                seconds += time.process_time() - begin
                spans += batch.item_count
    assert not any(connector.held_items().values())
    series = len(connector.state.series)
    await connector.shutdown()
    return seconds / spans * 1e6, series


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", action="store_true")
    options = parser.parse_args()
    found = {}
    print(f"{'edges':>8}{'series':>8}{'together':>12}{'apart':>12}   CPU s for a million spans")
    for edge_count in EDGES:
        (together, series), (apart, _) = (asyncio.run(cost(edge_count, how)) for how in ("together", "apart"))
        found[edge_count] = together, apart
        print(f"{edge_count:>8}{series:>8}{together:>12.2f}{apart:>12.2f}")
    if options.plot:
        draw(found)


def draw(found):
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panel = plt.subplots(figsize=(6, 3.4), dpi=90)
    for number, how in enumerate(("both spans in one batch", "each span stored once")):
        panel.plot(list(found), [costs[number] for costs in found.values()], marker="o", label=how)
    panel.set_xscale("log")
    panel.set_ylim(0)
    panel.set_xlabel("distinct edges (client, server)")
    panel.set_ylabel("CPU s for a million spans")
    panel.grid(alpha=0.3)
    panel.legend(fontsize=8)
    figure.tight_layout()
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(PLOT)


if __name__ == "__main__":
    main()
