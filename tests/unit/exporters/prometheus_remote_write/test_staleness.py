"""Series of sources that vanish end with stale markers, if that is configured."""

import math
import struct

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.model import Metrics, Signal
from collector.testing import FakeClock, FakeHost, eventually, make_settings
from collector.transport.compression import decompress
from exporters.prometheus_remote_write import factory

STALE = 0x7FF0000000000002
STEP_MS = 1000


class Rig:
    """The exporter and its clock. ``send`` returns for each series the values and milliseconds since the start."""

    def __init__(self, write_request, **config):
        self.write_request = write_request
        self.clock = FakeClock()
        self.start_ms = self.clock.time_unix_nano() // 10**6
        self.settings = make_settings(factory, signals={Signal.METRICS}, clock=self.clock)
        self.sut = factory.create(
            self.settings,
            factory.config_type.model_validate(
                {"endpoint": "http://localhost:1/", "disable_scope_info": True, "target_info": {"enabled": False}}
                | config
            ),
        )

    def send(self, *hosts, ahead_ms=0, flags=0):
        made = ExportMetricsServiceRequest()
        times = {"time_unix_nano": self.clock.time_unix_nano() + ahead_ms * 10**6, "flags": flags}
        for host in hosts:
            metrics = made.resource_metrics.add().scope_metrics.add().metrics
            gauge, histogram = metrics.add(name="g").gauge, metrics.add(name="h").histogram
            native, summary = metrics.add(name="n").exponential_histogram, metrics.add(name="s").summary
            histogram.aggregation_temporality = native.aggregation_temporality = 2
            points = [
                gauge.data_points.add(as_double=1, **times),
                histogram.data_points.add(count=2, sum=1, bucket_counts=[1, 1], explicit_bounds=[1], **times),
                native.data_points.add(count=1, sum=1, zero_count=1, **times),
                summary.data_points.add(count=1, sum=1, **times),
            ]
            points[3].quantile_values.add(quantile=0.5, value=1)
            for point in points:
                point.attributes.add(key="host").value.string_value = host
        self.parts = self.sut.encode(Metrics.from_wire(made.SerializeToString()))
        found = {}
        for part in self.parts:
            for series in self.write_request.FromString(part.payload.body).timeseries:
                labels = {label.name: label.value for label in series.labels}
                key = labels["__name__"] + labels.get("le", "") + labels.get("quantile", ""), labels["host"]
                samples = [(sample.value, sample.timestamp) for sample in series.samples]
                samples += [(native.sum, native.timestamp) for native in series.histograms]
                found.setdefault(key, []).extend((value, time - self.start_ms) for value, time in samples)
        return found

    @staticmethod
    def ended(found):
        """The series with stale markers, and their times."""
        return {
            key: time
            for key, samples in found.items()
            for value, time in samples
            if struct.unpack("<Q", struct.pack("<d", value))[0] == STALE
        }


NAMES = ("g", "h_bucket1", "h_bucket+Inf", "h_sum", "h_count", "n", "s0.5", "s_sum", "s_count")


async def test_every_series_of_a_vanished_source_ends(write_request):
    """Once, with all that belongs to a histogram or summary, at the present time, beside the points in the ledger."""
    rig = Rig(write_request, stale_after="60s")
    rig.send("a", "b")
    await rig.clock.advance(59)
    assert not rig.ended(rig.send("a"))
    await rig.clock.advance(7)
    found = rig.send("a")
    assert rig.ended(found) == dict.fromkeys(((name, "b") for name in NAMES), 66 * STEP_MS)
    assert all(not math.isnan(value) for key, samples in found.items() if key[1] == "a" for value, _ in samples)
    assert sum(part.item_count for part in rig.parts) == 4
    await rig.clock.advance(66)
    assert not rig.ended(rig.send("a"))
    assert not rig.settings.telemetry.ledger.dropped


async def test_a_source_that_comes_back_continues_and_may_vanish_again(write_request):
    """A marker is sent each time; a source that has ended its series itself gets none."""
    rig = Rig(write_request, stale_after="60s")
    rig.send("a", "b")
    await rig.clock.advance(70)
    assert len(rig.ended(rig.send("a"))) == len(NAMES)
    rig.send("b")
    await rig.clock.advance(70)
    ended = rig.ended(rig.send("c"))
    assert {host for _, host in ended} == {"a", "b"}
    rig.send("c", flags=1)
    await rig.clock.advance(70)
    assert not rig.ended(rig.send("d"))


async def test_the_marker_is_after_the_last_sample(write_request):
    """Also if that was ahead of our clock."""
    rig = Rig(write_request, stale_after="60s")
    rig.send("a", ahead_ms=300_000)
    await rig.clock.advance(60)
    assert set(rig.ended(rig.send("b")).values()) == {300_001}


@pytest.mark.parametrize("config", [{}, {"stale_after": "0s"}])
async def test_it_is_off_by_default(write_request, config):
    """Nothing is sent for series that have ended."""
    rig = Rig(write_request, **config)
    rig.send("a", "b")
    await rig.clock.advance(3600)
    assert {host for _, host in rig.send("a")} == {"a"}


async def test_a_request_of_markers_may_be_cut(write_request):
    """Its parts carry all of the series, and no points."""
    rig = Rig(write_request, stale_after="60s")
    rig.send("a", "b")
    await rig.clock.advance(60)
    rig.send("c")
    marker = rig.parts[-1]
    halves = rig.sut.cut(marker)
    assert b"".join(half.payload.body for half in halves) == marker.payload.body
    assert [half.item_count for half in halves] == [0, 0]
    assert sum(len(half.payload.series) for half in halves) == len(marker.payload.series) == 8


@pytest.mark.parametrize("queue", ["memory", "none", "directory"])
async def test_markers_are_sent_although_no_batch_comes(write_request, queue, tmp_path):
    """A timer looks for them; they wait in the queue behind the samples, and the ledger does not see them."""
    received = []

    async def accept(request):
        body = decompress("snappy", await request.read(), 1 << 20)
        received.extend(write_request.FromString(body).timeseries)
        return web.Response(status=204)

    application = web.Application()
    application.router.add_post("/", accept)
    async with TestServer(application) as server:
        clock = FakeClock()
        settings = make_settings(factory, signals={Signal.METRICS}, clock=clock)
        config = {"endpoint": str(server.make_url("/")), "stale_after": "60s", "target_info": {"enabled": False}}
        keys = {"none": {"remote_write_queue": {"enabled": False}}, "directory": {"wal": {"directory": str(tmp_path)}}}
        keys = keys.get(queue, {})
        sut = factory.create(settings, factory.config_type.model_validate(config | keys))
        await sut.start(FakeHost())
        made = ExportMetricsServiceRequest()
        metric = made.resource_metrics.add().scope_metrics.add().metrics.add(name="g")
        metric.gauge.data_points.add(time_unix_nano=clock.time_unix_nano(), as_int=1)
        await sut.consume(Metrics.from_wire(made.SerializeToString()))
        await eventually(lambda: len(received) == 1)
        for _ in range(12):
            await eventually(lambda: clock.sleeper_count)
            await clock.advance(6)
        await eventually(lambda: len(received) == 2)
        assert struct.unpack("<Q", struct.pack("<d", received[1].samples[0].value))[0] == STALE
        assert sut.in_flight_items() == {Signal.METRICS: 0}
        await sut.shutdown()
