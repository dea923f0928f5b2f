"""Dead letters of a whole service: on disk, in the ledger and in the metrics, over a restart."""

import json

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from collector.api import ComponentKind
from collector.registry import Registry
from collector.testing import eventually, traces

GRAPH = """
receivers: {{source: {{}}}}
exporters:
  otlp_http/keeps:
    endpoint: "{url}"
    dead_letter: {{storage: file_storage}}
    retry_on_failure: {{enabled: false}}
extensions: {{file_storage: {{directory: "{directory}", create_directory: true}}}}
service:
  extensions: [file_storage]
  pipelines: {{traces: {{receivers: [source], exporters: [otlp_http/keeps]}}}}
"""


@pytest.fixture
def graph(world, monkeypatch):
    """A world that also has the real exporter and the real storage."""
    others = world.registry

    def registry():
        made, real = others(), Registry()
        for kind, name in ((ComponentKind.EXPORTER, "otlp_http"), (ComponentKind.EXTENSION, "file_storage")):
            made._offers[kind].update(Registry.of([real.find(kind, name)])._offers[kind])
        return made

    monkeypatch.setattr(world, "registry", registry)
    return world


async def page(service, path, method="GET"):
    async with (
        aiohttp.ClientSession() as session,
        session.request(method, f"http://127.0.0.1:{service.admin_port}{path}") as response,
    ):
        return await response.text()


async def test_dead_letters_survive_a_restart_and_can_be_replayed(graph, tmp_path):
    """The ledger closes at every step, and says how much of what was lost is kept."""
    statuses, bodies = [503, 503], []

    async def answer(request):
        status = statuses.pop(0) if statuses else 200
        body = await request.read()
        if status == 200:
            bodies.append(body)
        return web.Response(status=status)

    app = web.Application()
    app.router.add_post("/v1/traces", answer)
    server = TestServer(app)
    await server.start_server()
    text = GRAPH.format(url=server.make_url("/"), directory=tmp_path / "storage")
    admin = 'address: "127.0.0.1:0"'
    kept = 'tailrace_exporter_dead_letter_items{data_type="traces",exporter="otlp_http/keeps"} '
    async with graph.running(text, metrics=admin) as service:
        for count in (3, 4, 5):
            await graph.source().consume(traces(spans=count))
            await eventually(lambda: not any(row.held for row in service.ledger.snapshot()))
        await eventually(lambda: sum(row.dead_lettered for row in service.ledger.snapshot()) == 7)
        (row,) = (row for row in json.loads(await page(service, "/ledger"))["nodes"] if "exporters" in row["node"])
        assert (row["delivered"], row["dropped"], row["dead_lettered"], row["imbalance"]) == (
            5,
            {"retry_disabled": 7},
            7,
            0,
        )
        metrics = await page(service, "/metrics")
        labels = 'component="exporters/otlp_http/keeps",outcome="dead_lettered",signal="traces"'
        assert f"tailrace_items_total{{{labels}}} 7.0" in metrics
        assert kept + "7.0" in metrics
    async with graph.running(text, metrics=admin) as service:
        assert kept + "7.0" in await page(service, "/metrics")
        answered = json.loads(await page(service, "/dead-letters/replay", "POST"))["otlp_http/keeps"]
        assert (answered["delivered"], answered["items"]) == (2, 7)
        assert service.ledger.imbalances() == []
        assert kept + "0.0" in await page(service, "/metrics")
    assert len(bodies) == 3
    await server.close()
