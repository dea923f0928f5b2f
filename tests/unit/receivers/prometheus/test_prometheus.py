import json
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from pydantic import ValidationError

from collector.model import Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, Sink, eventually, make_settings
from receivers.prometheus import factory
from receivers.prometheus.scrape import Scraper

PAGE = "# TYPE a counter\na 1\nb 2\n"
TEXT = {"Content-Type": "text/plain; version=0.0.4"}


class Pages:
    """A server whose response a test changes."""

    def __init__(self):
        self.body, self.headers, self.status, self.requests = PAGE, dict(TEXT), 200, []

    async def handle(self, request):
        self.requests.append(request)
        return web.Response(text=self.body, status=self.status, headers=self.headers)


@asynccontextmanager
async def serving(handler):
    app = web.Application()
    app.router.add_get("/{path:.*}", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@asynccontextmanager
async def scraping(job, **config):
    """The receiver with one job; yields the clock, the sink and the telemetry."""
    clock, sink, telemetry = FakeClock(), Sink(Signal.METRICS), RecordingTelemetry()
    settings = make_settings(factory, outputs={Signal.METRICS: sink}, clock=clock, telemetry=telemetry)
    jobs = [{"job_name": "j", "scrape_interval": "10s", **job}]
    sut = factory.create(settings, factory.config_type.model_validate({"config": {"scrape_configs": jobs, **config}}))
    await sut.start(FakeHost())
    try:
        yield clock, sink, telemetry
    finally:
        await sut.shutdown()


async def next_batch(clock, sink):
    """The batch of the next scrape."""
    before = len(sink.batches)
    await clock.advance(10)
    await eventually(lambda: len(sink.batches) > before)
    return values(sink.batches[before])


def values(batch):
    """Metric → value, or None for a point without one."""
    rows = batch.table("points").rows["parent"].tolist()
    names, flags = batch.field("name", "metrics").to_list(), batch.field("flags").tolist()
    found = zip(rows, batch.field("value").tolist(), flags, strict=True)
    return {names[row]: None if flag else value for row, value, flag in found}


def static(address):
    return {"static_configs": [{"targets": [address], "labels": {"x": "y"}}]}


async def test_scrapes_every_interval():
    """The points of the page and those about the scrape, once per interval."""
    pages = Pages()
    async with serving(pages.handle) as address, scraping(static(address)) as (clock, sink, _):
        first = await next_batch(clock, sink)
        assert (first["a"], first["b"], first["up"], first["scrape_samples_scraped"]) == (1, 2, 1, 2)
        assert (first["scrape_series_added"], first["scrape_samples_post_metric_relabeling"]) == (2, 2)
        assert (await next_batch(clock, sink))["scrape_series_added"] == 0
        assert len(pages.requests) == 2
        assert pages.requests[0].headers["Accept"].startswith("application/openmetrics-text;version=1.0.0")
        assert pages.requests[0].headers["X-Prometheus-Scrape-Timeout-Seconds"] == "10"


@pytest.mark.parametrize(
    ("change", "job", "error"),
    [
        ({"status": 500}, {}, "500"),
        ({"body": "a 1 x y\n"}, {}, "line 1"),
        ({"headers": {"Content-Type": "text/html"}}, {}, "Content-Type"),
        ({"body": PAGE + "c 1\n"}, {"sample_limit": 2}, "sample_limit"),
        ({"body": PAGE + "#" * 200}, {"body_size_limit": "100B"}, "body_size_limit"),
        ({"body": 'a{k="12345"} 1\n'}, {"label_value_length_limit": 20, "label_limit": 4}, "label_limit"),
    ],
)
async def test_a_scrape_that_fails_marks_everything(change, job, error):
    """``up`` is 0, the points have no value any more, the error is logged once; then it goes on."""
    pages = Pages()
    async with serving(pages.handle) as address, scraping({**static(address), **job}) as (clock, sink, telemetry):
        await next_batch(clock, sink)
        vars(pages).update(change)
        failed = await next_batch(clock, sink)
        assert (failed["up"], failed["a"], failed["b"]) == (0, None, None)
        assert failed["scrape_samples_post_metric_relabeling"] == 0
        await next_batch(clock, sink)
        logged = [str(event) for event in telemetry.log.events if "a scrape failed" in str(event)]
        assert len(logged) == 1
        assert error in logged[0]
        assert telemetry.value("tailrace_prometheus_scrapes", result="failed") == 2
        vars(pages).update(body=PAGE, headers=dict(TEXT), status=200)
        again = await next_batch(clock, sink)
        assert (again["up"], again["a"]) == (1, 1)


async def test_an_unexpected_error_does_not_end_the_scraping(monkeypatch):
    """It is counted and logged, and the next scrape takes place."""
    pages, real, calls = Pages(), Scraper.scrape, []

    async def scrape(self):
        calls.append(1)
        if len(calls) == 1:
            raise KeyError("defect")
        await real(self)

    monkeypatch.setattr(Scraper, "scrape", scrape)
    async with serving(pages.handle) as address, scraping(static(address)) as (clock, sink, telemetry):
        await clock.advance(10)
        await eventually(lambda: len(calls) == 1)
        assert (await next_batch(clock, sink))["up"] == 1
        assert "unexpected error" in str(telemetry.log.events)


async def test_authentication_headers_and_parameters(tmp_path):
    """They are sent, and a file with a secret is read for each request."""
    secret = tmp_path / "token"
    secret.write_text("one\n")
    pages = Pages()
    job = {
        "authorization": {"credentials_file": str(secret)},
        "params": {"q": ["1"]},
        "http_headers": {"X-Scope": {"values": ["a"], "secrets": ["b"]}},
    }
    async with serving(pages.handle) as address, scraping({**static(address), **job}) as (clock, sink, _):
        await next_batch(clock, sink)
        secret.write_text("two")
        await next_batch(clock, sink)
    assert [request.headers["Authorization"] for request in pages.requests] == ["Bearer one", "Bearer two"]
    assert (pages.requests[0].headers["X-Scope"], pages.requests[0].query_string) == ("a,b", "q=1")


async def test_compressed_pages_are_limited(tmp_path):
    """A small body that becomes a large page is refused."""

    async def bomb(_request):
        response = web.Response(text="#" * 10_000_000, headers=TEXT)
        response.enable_compression(web.ContentCoding.gzip)
        return response

    job = {"body_size_limit": "1MB"}
    async with serving(bomb) as address, scraping({**static(address), **job}) as (clock, sink, _):
        assert (await next_batch(clock, sink))["up"] == 0


def replace(file, text):
    """Writes a file at once: a reader never finds it empty."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.replace(file)


async def test_targets_from_files_come_and_go(tmp_path):
    """A target that is gone is marked; a file that cannot be read keeps its targets."""
    pages, file = Pages(), tmp_path / "targets.yaml"
    async with serving(pages.handle) as address:
        file.write_text(f"- {{targets: ['{address}'], labels: {{x: y}}}}")
        async with scraping({"file_sd_configs": [{"files": [str(tmp_path / "*.yaml")]}]}) as (clock, sink, telemetry):
            await eventually(lambda: telemetry.value("tailrace_prometheus_targets", state="up") == 1)
            assert (await next_batch(clock, sink))["up"] == 1
            replace(file, "[")
            assert (await next_batch(clock, sink))["up"] == 1
            replace(file, "[]")
            before = len(sink.batches)
            while telemetry.value("tailrace_prometheus_targets", state="up"):
                await clock.advance(5)
            await eventually(lambda: len(sink.batches) > before)
            assert values(sink.batches[-1])["up"] is None


async def test_targets_from_http(tmp_path):
    """The list is asked for with the job's own refresh interval."""
    pages = Pages()

    async def handle(request):
        if request.path == "/targets":
            return web.Response(text=json.dumps([{"targets": [request.host], "labels": {"x": "y"}}]))
        return await pages.handle(request)

    async with serving(handle) as address:
        job = {"http_sd_configs": [{"url": f"http://{address}/targets"}]}
        async with scraping(job) as (clock, sink, telemetry):
            await eventually(lambda: telemetry.value("tailrace_prometheus_targets", state="up") == 1)
            assert (await next_batch(clock, sink))["up"] == 1


async def test_above_the_target_limit_nothing_is_scraped():
    """As in Prometheus."""
    job = {"static_configs": [{"targets": ["a:1", "b:1"]}], "target_limit": 1}
    async with scraping(job) as (_, _, telemetry):
        assert telemetry.value("tailrace_prometheus_targets", state="up") == 0
        assert "target_limit" in str(telemetry.log.events)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "scrape_configs: required"),
        ({"target_allocator": {"endpoint": "x"}}, "target_allocator: not supported"),
        ({"config": {"scrape_configs": [{"job_name": "a"}, {"job_name": "a"}]}}, "2 jobs with the name"),
        (
            {"config": {"scrape_configs": [{"job_name": "a", "scrape_interval": "5s", "scrape_timeout": "6s"}]}},
            "longer",
        ),
        ({"config": {"scrape_configs": [{"job_name": "a", "scrape_interval": "5x"}]}}, "not a valid duration"),
        ({"config": {"scrape_configs": [{"job_name": "a", "body_size_limit": "5"}]}}, "not a valid size"),
        ({"config": {"scrape_configs": [{"job_name": "a", "dns_sd_configs": [{"names": ["x"]}]}]}}, "SRV"),
        ({"config": {"remote_write": []}}, "remote_write"),
        (
            {"config": {"scrape_configs": [{"job_name": "a", "basic_auth": {}, "bearer_token": "x"}]}},
            "at most one of basic_auth",
        ),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(config, message):
    """With the key."""
    with pytest.raises(ValidationError, match=message):
        factory.config_type.model_validate(config)


def test_durations_and_sizes_are_those_of_prometheus():
    """Days are known, and a megabyte has 1024 · 1024 bytes."""
    job = {"job_name": "a", "scrape_interval": "1d2h", "body_size_limit": "2MB"}
    config = factory.config_type.model_validate({"config": {"scrape_configs": [job]}}).config.scrape_configs[0]
    assert (config.scrape_interval, config.body_size_limit) == (93_600, 2 * 1024 * 1024)
