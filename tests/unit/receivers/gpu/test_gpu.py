"""The receiver: names, units, attributes and values of its metrics, and when it sends them (docs/reference/gpu.md)."""

import asyncio
import math

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from collector.api import RetryableError
from collector.gpu import Device, GpuSampler, Reading, Snapshot
from collector.model import Signal
from collector.prometheus.labels import SeriesLabels
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, Sink, check_component, make_settings
from receivers.gpu import factory
from receivers.gpu.config import GpuReceiverConfig
from receivers.gpu.gpu import GpuReceiver
from receivers.gpu.metrics import MetricsMaker

SECOND = 1_000_000_000
NOW = 1_700_000_000 * SECOND
GIB = 1 << 30
BOARD = Device("GPU-aaaa", "0", "Model A", 80.0 * GIB, serial="S1", driver_version="580")
SLICE = Device("MIG-bbbb", "1:0", "Model A MIG", 10.0 * GIB, parent_id="GPU-cccc", serial="S2", driver_version="580")
FULL = Reading(
    utilization=0.4, memory_used_bytes=20.0 * GIB, power_w=250.0, energy_j=1000.0, temperature_c=61.0,
    throttle_s=(1.0, 2.0, 3.0, 4.0, 5.0),
    encoder_utilization=0.05, decoder_utilization=0.06, pcie_transmit_bytes=10.0, pcie_receive_bytes=20.0,
    errors_corrected=3.0, errors_uncorrected=0.0,
)  # fmt: skip


def snapshot(*pairs, readings=True):
    return Snapshot(
        source="nvml", is_available=readings, devices=tuple(d for d, _ in pairs),
        readings=tuple(r for _, r in pairs) if readings else (),
        start_unix_nano=NOW - 60 * SECOND,
    )  # fmt: skip


def maker(**config):
    return MetricsMaker(GpuReceiverConfig(**config), {"host.name": "node-1"}, "1.0")


def read(batch):
    """name → (unit, kind, [(attributes, value, start)])."""
    found = {}
    for resource in ExportMetricsServiceRequest.FromString(batch.wire).resource_metrics:
        assert {a.key: a.value.string_value for a in resource.resource.attributes} == {"host.name": "node-1"}
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = metric.WhichOneof("data")
                points = getattr(metric, kind).data_points
                if kind == "sum":
                    assert metric.sum.aggregation_temporality == 2
                    kind = "counter" if metric.sum.is_monotonic else "level"
                found[metric.name] = (
                    metric.unit,
                    kind,
                    [
                        (
                            {a.key: a.value.string_value for a in p.attributes},
                            getattr(p, p.WhichOneof("value")),
                            p.start_time_unix_nano,
                        )
                        for p in points
                    ],
                )
    return found


def values(metric, attribute):
    return {attributes.get(attribute): value for attributes, value, _ in metric[2]}


def test_every_metric_of_the_conventions():
    """The metrics have the right names, units, kinds and values (rule 29)."""
    found = read(maker().make(snapshot((BOARD, FULL)), NOW))
    assert {name: metric[:2] for name, metric in found.items()} == {
        "hw.gpu.utilization": ("1", "gauge"),
        "hw.gpu.memory.utilization": ("1", "gauge"),
        "hw.gpu.memory.usage": ("By", "level"),
        "hw.gpu.memory.limit": ("By", "level"),
        "hw.gpu.io": ("By", "counter"),
        "hw.energy": ("J", "counter"),
        "hw.power": ("W", "gauge"),
        "hw.temperature": ("Cel", "gauge"),
        "hw.errors": ("{error}", "counter"),
        "hw.status": ("1", "level"),
        "gpu.throttle.time": ("s", "counter"),
    }
    assert values(found["hw.gpu.utilization"], "hw.gpu.task") == {"general": 0.4, "encoder": 0.05, "decoder": 0.06}
    assert values(found["hw.gpu.io"], "network.io.direction") == {"transmit": 10.0, "receive": 20.0}
    assert values(found["hw.errors"], "error.type") == {"corrected": 3.0, "uncorrected": 0.0}
    assert values(found["hw.status"], "hw.state") == {"ok": 1, "degraded": 0, "failed": 0}
    assert values(found["gpu.throttle.time"], "gpu.throttle.reason")["hw_thermal"] == 4.0
    assert values(found["hw.gpu.memory.usage"], "hw.id") == {"GPU-aaaa": 20 * GIB}
    assert values(found["hw.gpu.memory.utilization"], "hw.id") == {"GPU-aaaa": 0.25}
    for name, (_, _, points) in found.items():
        for attributes, _, _ in points:
            assert {
                "hw.id": "GPU-aaaa",
                "hw.type": "gpu",
                "hw.name": "GPU 0",
                "hw.model": "Model A",
            }.items() <= attributes.items()
            assert ("hw.serial_number" in attributes) == ("hw.driver_version" in attributes) == (name == "hw.status")


def test_what_a_device_does_not_report_has_no_point():
    """A MIG slice has memory and its parent, but no power or utilisation; no metric is empty (rules 8 and 10)."""
    found = read(maker().make(snapshot((SLICE, Reading(memory_used_bytes=1.0 * GIB))), NOW))
    assert set(found) == {"hw.gpu.memory.usage", "hw.gpu.memory.limit", "hw.gpu.memory.utilization", "hw.status"}
    assert found["hw.gpu.memory.usage"][2][0][0]["hw.parent"] == "GPU-cccc"


@pytest.mark.parametrize(("label", "devices"), [("index", {"0", "1:0"}), ("uuid", {"GPU-aaaa", "MIG-bbbb"})])
def test_legacy_names_share_device_and_resource(label, devices):
    """The older metrics have equal labels, so they can be divided, and names that stay as they are (rule 31)."""
    readings = (BOARD, FULL), (SLICE, FULL)
    found = read(maker(legacy_names=True, device_label=label).make(snapshot(*readings), NOW))
    for name, first in (
        ("cuda_memory_usage_bytes", 20.0 * GIB),
        ("cuda_memory_total_bytes", 80.0 * GIB),
        ("cuda_utilization_percent", 40.0),
    ):
        unit, kind, points = found[name]
        assert (unit, kind) == ("", "gauge")
        assert [set(attributes) for attributes, _, _ in points] == [{"device"}] * 2
        assert {attributes["device"] for attributes, _, _ in points} == devices
        assert points[0][1] == pytest.approx(first)
    assert "cuda_memory_usage_bytes" not in read(maker().make(snapshot(*readings), NOW))


@pytest.mark.parametrize(
    ("reading", "state"),
    [(FULL, "ok"), (Reading(is_lost=True), "failed"), (Reading(errors_uncorrected=1.0), "degraded"), (Reading(), "ok")],
)
def test_the_state_of_a_device(reading, state):
    """The metric is 1 for the current state and 0 for all others."""
    found = read(maker().make(snapshot((BOARD, reading)), NOW))
    assert {name for name, value in values(found["hw.status"], "hw.state").items() if value} == {state}


def test_a_driver_that_went_away_is_failure():
    """If the driver is gone, the known devices are reported as failed, without figures (rule 6)."""
    found = read(maker().make(snapshot((BOARD, FULL), readings=False), NOW))
    assert values(found["hw.status"], "hw.state")["failed"] == 1
    assert "hw.power" not in found


def test_no_device_no_metrics():
    """Nothing is sent if no device has ever been found."""
    assert maker().make(Snapshot(source="nvml"), NOW) is None


def test_a_counter_that_falls_begins_again():
    """After a driver reload a counter has a new start time and its new value (rule 30)."""
    made = maker()

    def energy(joules, at):
        reading = Reading(energy_j=joules)
        return read(made.make(snapshot((BOARD, reading)), at))["hw.energy"][2][0][1:]

    start = NOW - 60 * SECOND
    assert energy(1000.0, NOW) == (1000.0, start)
    assert energy(1100.0, NOW + SECOND) == (1100.0, start)
    assert energy(5.0, NOW + 2 * SECOND) == (5.0, NOW + SECOND)
    assert energy(9.0, NOW + 3 * SECOND) == (9.0, NOW + SECOND)


class Inline:
    def call(self, function, timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


async def running(output=None, **config):
    from collector.gpu import make_backend

    clock, telemetry = FakeClock(), RecordingTelemetry()
    settings = GpuReceiverConfig(backend="simulated", **config)
    sampler = GpuSampler(
        lambda: make_backend(settings), settings, telemetry.log, caller=Inline(),
        time_unix_nano=clock.time_unix_nano, monotonic_s=clock.monotonic_s,
    )  # fmt: skip
    sampler.step()
    sink = output or Sink(Signal.METRICS)
    outputs = {Signal.METRICS: sink}
    receiver = GpuReceiver(
        make_settings(factory, telemetry=telemetry, clock=clock, outputs=outputs), settings, sampler=sampler
    )
    await receiver.start(FakeHost())
    return receiver, clock, sink, telemetry


async def test_metrics_come_every_collection_interval():
    """Metrics are sent every collection_interval, not before the first and not after shutdown."""
    receiver, clock, sink, telemetry = await running(
        collection_interval="10s", simulated={"gpus": 2, "host_name": "demo"}
    )
    await clock.advance(9.9)
    assert sink.item_count == 0
    await clock.advance(0.2)
    first = sink.item_count
    assert first > 20
    await clock.advance(10)
    assert sink.item_count == 2 * first
    await receiver.shutdown()
    await clock.advance(100)
    assert sink.item_count == 2 * first
    assert telemetry.value("tailrace_gpu_samples") == 2.0


@pytest.mark.parametrize("error", [RetryableError("no room", reason="memory_limit"), ValueError("a bug")])
async def test_a_failed_send_does_not_end_the_receiver(error):
    """If the pipeline refuses the metrics, or fails, the next collection sends newer values. A failure is logged."""

    class Fails:
        tries = 0

        async def consume(self, batch):
            self.tries += 1
            raise error

    receiver, clock, door, telemetry = await running(Fails(), collection_interval="1s")
    await clock.advance(3.5)
    await receiver.shutdown()
    assert door.tries == 3
    failures = [event for event in telemetry.log.of_level("error") if event.fields.get("exc_info") is error]
    assert len(failures) == (0 if isinstance(error, RetryableError) else 3)


async def test_a_hanging_output_does_not_delay_the_shutdown():
    """The send in progress is cancelled."""
    sink = Sink(Signal.METRICS)
    sink.hang()
    receiver, clock, _, _ = await running(sink, collection_interval="1s")
    await clock.advance(1.0)
    await asyncio.wait_for(receiver.shutdown(), 5.0)
    sink.resume()
    await clock.advance(5.0)
    assert sink.item_count == 0


def test_a_nan_is_never_sent():
    """An absent quantity has no point (rule 8)."""
    batch = maker(legacy_names=True).make(snapshot((Device("GPU-x", "0"), Reading(utilization=0.5))), NOW)
    assert not any(math.isnan(value) for _, _, points in read_any(batch) for _, value, _ in points)


def read_any(batch):
    return read(batch).values()


async def test_the_contract_is_kept():
    """The component contract holds with the defaults and with simulated devices."""
    await check_component(factory)
    await check_component(factory, config=GpuReceiverConfig(backend="simulated"))


async def test_hosts_have_series_of_their_own():
    """Prometheus tells hosts apart by ``instance``, which is the service.instance.id of the resource."""
    found = set()
    for host in ("a", "b"):
        receiver, clock, sink, _ = await running(
            collection_interval="10s", simulated={"gpus": 1, "host_name": host}, legacy_names=True
        )
        await clock.advance(10.1)
        await receiver.shutdown()
        sent = ExportMetricsServiceRequest.FromString(sink.batches[0].wire).resource_metrics[0]
        attributes = {each.key: each.value.string_value for each in sent.resource.attributes}
        assert attributes == {"service.instance.id": host, "host.name": host}
        found |= set(SeriesLabels.job_and_instance(attributes).items())
    assert found == {("instance", "a"), ("instance", "b")}
