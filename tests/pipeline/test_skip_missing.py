"""A service that runs without the components that do not exist here."""

import aiohttp

from collector.service import Service
from collector.testing import traces
from config.load import load

PARTLY_HERE = """
receivers: {source: {}, nosuch_source: {}}
processors: {every: {}, k8sattributes: {}}
exporters: {target: {}}
connectors: {passer: {}}
service:
  telemetry: {metrics: {address: "127.0.0.1:0"}}
  pipelines:
    traces: {receivers: [source, nosuch_source], processors: [k8sattributes, every], exporters: [target]}
    logs: {receivers: [nosuch_source], exporters: [passer]}
    logs/2: {receivers: [passer], exporters: [target]}
"""


async def own_metrics(service):
    """The gauges about what is left out."""
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{service.admin_port}/metrics") as response,
    ):
        lines = (await response.text()).splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    values = {name.partition("{")[0]: float(value) for name, value in pairs}
    return values["tailrace_service_left_out_components"], values["tailrace_service_affected_pipelines"]


async def test_the_rest_runs_and_the_gauges_say_what_is_left_out(world):
    """Data passes through what exists, the ledger balances, and a reload to a complete file resets the gauges."""
    config = load([f"yaml:{PARTLY_HERE}"], (), world.registry(), skip_missing=True)
    service = Service(config, shutdown_timeout_s=5.0)
    try:
        await service.start()
        assert set(world.made) == {"receivers/source", "processors/every@traces", "exporters/target"}
        assert await own_metrics(service) == (2, 3)
        await world.source().consume(traces(spans=4))
        assert world.made["exporters/target"].item_count == 4
        complete = PARTLY_HERE.replace("nosuch_source", "source/2").replace("k8sattributes", "every/2")
        assert await service.reload(load([f"yaml:{complete}"], (), world.registry(), skip_missing=True))
        assert await own_metrics(service) == (0, 0)
        assert "processors/every/2@traces" in world.made
    finally:
        await service.shutdown()
    assert all(row.imbalance == 0 for row in service.ledger.snapshot())
