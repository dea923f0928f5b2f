"""The pages show what the service reports, with every text escaped."""

import sys

import aiohttp
import orjson
import pytest

from collector.api import HealthCheck, Overview, PipelineOverview
from collector.model import Signal
from collector.testing import FakeHost, make
from extensions.zpages import factory

OVERVIEW = Overview(
    version="1.2.3",
    instance_id="instance-7",
    start_time_unix_nano=1_700_000_000_000_000_000,
    pipelines=(
        PipelineOverview("traces/a", Signal.TRACES, ("otlp",), ("memory_limiter", "batch"), ("otlp_grpc/<b>",)),
    ),
    extensions=("zpages", "health_check/x"),
    statuses={
        "exporters/otlp_grpc/<b>": "recoverable_error: <script>alert(1)</script>\x1b[31m",
        "extensions/zpages": "ok",
        "extensions/health_check/x": "stopping",
    },
    ledger=(
        {
            "node": "exporters/otlp_grpc/<b>",
            "signal": "traces",
            "received": 100,
            "created": 0,
            "out": 0,
            "delivered": 41,
            "folded": 0,
            "rejected": 0,
            "held": 7,
            "dropped": {"queue_full": 40},
            "refused": {"http_400": 12},
            "imbalance": 0,
        },
    ),
)


@pytest.fixture
async def get():
    host = FakeHost()
    host.shown = OVERVIEW
    host.add_health_check("exporter", lambda: HealthCheck("exporter <i>", healthy=False, message="no & connection"))
    config = factory.config_type.model_validate({"endpoint": "127.0.0.1:0", "expvar": {"enabled": True}})
    extension = make(factory, config)
    await extension.start(host)

    async def request(path, method="GET"):
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, f"http://127.0.0.1:{extension.port}{path}") as response,
        ):
            return response.status, await response.text(), response.headers

    yield request
    await extension.shutdown()
    await extension.shutdown()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("servicez", ["1.2.3", "instance-7", "2023-11-14T22:13:20.000+00:00", "exporter &lt;i&gt;", "no &amp; connec"]),
        ("pipelinez", ["traces/a", "memory_limiter → batch", "otlp_grpc/&lt;b&gt;", "&lt;script&gt;alert(1)"]),
        ("extensionz", ["<td>zpages</td><td>ok</td>", "<td>health_check/x</td><td>stopping</td>"]),
        ("featurez", ["no feature gates"]),
        ("tracez", ["41", "52", "queue_full", "http_400", "otlp_grpc/&lt;b&gt;"]),
    ],
)
async def test_each_page_shows_its_part_escaped(get, page, expected):
    """Neither markup nor control characters of ids and messages reach the page."""
    status, text, headers = await get(f"/debug/{page}")
    assert status == 200
    for part in expected:
        assert part in text
    assert not any(markup in text for markup in ("<script", "<b>", "<i>", "\x1b"))
    assert headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in headers["Content-Security-Policy"]


async def test_expvarz_has_no_values_of_the_command_line(get, monkeypatch):
    """Settings on the command line may be secrets."""
    monkeypatch.setattr(sys, "argv", ["tailrace", "run", "--set", "exporters.a.headers.x=s3cret", "--config=a.yaml"])
    status, text, _ = await get("/debug/expvarz")
    document = orjson.loads(text)
    assert status == 200
    assert document["cmdline"] == [
        "tailrace",
        "run",
        "--set",
        "exporters.a.headers.x=[REDACTED]",
        "--config=[REDACTED]",
    ]
    assert document["memstats"]["rss_bytes"] > 1_000_000
    assert document["health"] == {"exporter <i>": False}
    assert document["ledger"][0]["delivered"] == 41


async def test_other_paths_name_the_pages(get):
    """A typing error is answered with what there is."""
    status, text, _ = await get("/debug/pipelines")
    assert status == 404
    assert "/debug/pipelinez\n" in text
    assert (await get("/debug/servicez", "POST"))[0] == 405


async def test_expvarz_is_off_by_default():
    """As in the Collector, it is only served if it is enabled."""
    extension = make(factory, factory.config_type.model_validate({"endpoint": "127.0.0.1:0"}))
    await extension.start(FakeHost())
    async with aiohttp.ClientSession() as session:
        response = await session.get(f"http://127.0.0.1:{extension.port}/debug/expvarz")
        assert response.status == 404
        assert "expvarz" not in await response.text()
    await extension.shutdown()
