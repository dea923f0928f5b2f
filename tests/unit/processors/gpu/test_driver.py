"""The rules of docs/reference/gpu.md from the driver's library up to the span, over nvidia-ml-py and a C stand-in."""

import os
import threading

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.gpu import GpuSampler
from collector.gpu.nvml import NvmlBackend
from collector.gpu.sampler import ThreadCaller
from collector.model import Context, Signal, Traces
from collector.testing import FakeClock, RecordingTelemetry, make_settings
from processors.gpu import factory
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.gpu import GpuProcessor
from processors.gpu.locality import HostIdentity

SECOND = 1_000_000_000
GIB = 1 << 30
MIG = "GPU-a/Model A/80;GPU-b/Model B/80/mig,MIG-x:10,MIG-y:20"
WATTS = 250


class Inline:
    """Calls the driver in the test's own thread."""

    def call(self, function, timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


class ShortTimeouts(ThreadCaller):
    """A caller with shorter timeouts than in production, so that tests of hung calls are short."""

    def call(self, function, timeout_s):
        return super().call(function, 0.15)


class Bench:
    """A processor, a sampler that is stepped by hand, and boards that draw 250 W."""

    def __init__(self, nvml, caller=None, interval=0.1, **config):
        self.nvml, self.interval = nvml, interval
        self.clock, self.telemetry = FakeClock(), RecordingTelemetry()
        self.counter_start = self.clock.time_unix_nano()
        # All calls return the same value of a quantity, so any other value is wrong.
        nvml.set(power=WATTS * 1000, power_average=WATTS * 1000, power_usage=WATTS * 1000, reserved=0, temperature=61)
        self.config = GpuProcessorConfig(sample_interval=f"{interval}s", **config)
        self.sampler = GpuSampler(
            NvmlBackend, self.config, self.telemetry.log, caller=caller or Inline(),
            time_unix_nano=self.clock.time_unix_nano,
            monotonic_s=self.clock.monotonic_s,
        )  # fmt: skip
        settings = make_settings(factory, signals={Signal.TRACES}, telemetry=self.telemetry, clock=self.clock)
        host = HostIdentity.of({"machine-1"}, {"node-1"})
        self.processor = GpuProcessor(settings, self.config, sampler=self.sampler, host=host)

    def sample_for(self, seconds):
        """Sample for some seconds; afterwards the newest sample is of now."""
        for _ in range(round(seconds / self.interval)):
            self.clock.move(self.interval)
            joules = WATTS * (self.clock.time_unix_nano() - self.counter_start) / SECOND
            self.nvml.set(energy=round(joules * 1000), energy_total=round(joules * 1000))
            self.sampler.step()

    def batch(self, *ids, ago=2.0, lasts=1.0):
        """A batch with one span per ``hw.id``; None leaves the attribute out."""
        message = ExportTraceServiceRequest()
        scope = message.resource_spans.add().scope_spans.add()
        start = self.clock.time_unix_nano() - round(ago * SECOND)
        for number, hw_id in enumerate(ids or [None]):
            span = scope.spans.add(
                name="encode", kind=1, trace_id=bytes(15) + b"\1", span_id=(number + 1).to_bytes(8, "big"),
                start_time_unix_nano=start,
                end_time_unix_nano=start + round(lasts * SECOND),
            )  # fmt: skip
            if hw_id is not None:
                span.attributes.add(key="hw.id").value.string_value = hw_id
        return Traces.from_wire(message.SerializeToString(), Context(local_peer=True))

    def enriched(self, *ids, **times):
        """The attributes of the spans after the processor."""
        message = ExportTraceServiceRequest.FromString(self.processor.transform(self.batch(*ids, **times)).wire)
        spans = [span for resource in message.resource_spans for scope in resource.scope_spans for span in scope.spans]
        return [{a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes} for span in spans]

    def is_untouched(self, **times):
        """Whether the batch passes as the same object."""
        batch = self.batch(**times)
        return self.processor.transform(batch) is batch

    @property
    def state(self):
        return self.sampler.snapshot.reason

    @property
    def available(self):
        return self.telemetry.value("tailrace_gpu_available", reason=self.state)

    @property
    def warnings(self):
        return len(self.telemetry.log.of_level("warning"))


RIGHT = {
    "gpu.utilization.mean": 0.4, "gpu.utilization.max": 0.4, "gpu.memory.used.max": 2 * GIB,
    "gpu.memory.limit": 80 * GIB,
    "gpu.power.mean": WATTS, "gpu.device.energy": WATTS, "gpu.coverage": 1.0, "gpu.samples": 11,
    "gpu.sample_interval": 0.1,
}  # fmt: skip


def numbers(enriched):
    return {key: value for key, value in enriched.items() if not isinstance(value, str)}


def test_a_span_is_told_what_the_driver_said(nvml):
    """The figures are right through C library, nvidia-ml-py, sampler, ring, join and attributes."""
    nvml.set(boards="GPU-a/Model A/80", pids=os.getpid())
    bench = Bench(nvml)
    bench.sample_for(5)
    (enriched,) = bench.enriched()
    assert numbers(enriched) == pytest.approx(RIGHT | {"gpu.processes": 1})
    assert {key: enriched[key] for key in ("hw.id", "hw.model", "gpu.source", "gpu.attribution.method")} == {
        "hw.id": "GPU-a", "hw.model": "Model A", "gpu.source": "nvml", "gpu.attribution.method": "single",
    }  # fmt: skip


def test_several_gpus_are_told_apart_by_pid_and_never_by_index(nvml):
    """The method ``process`` decides if the pid computes on a GPU; an index does not name a GPU (rules 17 and 20)."""
    nvml.set(**{"pids@1": os.getpid(), "power@1": 100_000})
    bench = Bench(nvml)
    bench.sample_for(3)
    assert bench.enriched(None, "0", "1") == [{}, {"hw.id": "0"}, {"hw.id": "1"}]
    message = ExportTraceServiceRequest.FromString(bench.batch().wire)
    message.resource_spans[0].resource.attributes.add(key="process.pid").value.int_value = os.getpid()
    for span in message.resource_spans[0].scope_spans[0].spans:
        span.start_time_unix_nano, span.end_time_unix_nano = (
            bench.clock.time_unix_nano() - SECOND,
            bench.clock.time_unix_nano(),
        )
    found = bench.processor._attribution  # the spans of the fake clock are older than the process
    found._pid_starts[:] = 0
    out = ExportTraceServiceRequest.FromString(
        bench.processor.transform(Traces.from_wire(message.SerializeToString(), Context(local_peer=True))).wire
    )
    attributes = {a.key: a.value for a in out.resource_spans[0].scope_spans[0].spans[0].attributes}
    assert attributes["hw.id"].string_value.endswith("1")
    assert attributes["gpu.attribution.method"].string_value == "process"
    assert attributes["gpu.power.mean"].double_value == pytest.approx(100.0)


def test_under_mig_memory_and_id_are_the_slices_and_energy_the_boards(nvml):
    """Under MIG memory and id are per slice, power and energy are the board's, utilisation is absent (rule 10)."""
    nvml.set(boards=MIG)
    bench = Bench(nvml)
    bench.sample_for(3)
    whole, part, both = bench.enriched("GPU-a", "MIG-y", "MIG-x,MIG-y")
    assert (part["hw.parent"], part["gpu.memory.used.max"], part["gpu.memory.limit"]) == ("GPU-b", GIB, 20 * GIB)
    assert (part["gpu.power.mean"], part["gpu.device.energy"]) == pytest.approx((WATTS, WATTS))
    assert (both["gpu.memory.limit"], both["gpu.device.energy"]) == pytest.approx((30 * GIB, WATTS))
    assert "gpu.utilization.mean" in whole
    assert {"gpu.utilization.mean", "gpu.utilization.max"}.isdisjoint(part.keys() | both.keys())


def test_a_changed_layout_is_enumerated_again(nvml):
    """Slices created at run time are found within a second; spans of removed ones are left alone (rule 7)."""
    nvml.set(boards="GPU-a/Model A/80;GPU-b/Model B/80")
    bench = Bench(nvml)
    bench.sample_for(3)
    assert bench.enriched("GPU-b")[0]["gpu.utilization.mean"] == pytest.approx(0.4)
    nvml.set(boards=MIG)
    bench.sample_for(3)
    enriched = bench.enriched("MIG-x", "GPU-b", lasts=0.5, ago=1.0)
    assert enriched[0]["gpu.memory.limit"] == 10 * GIB
    assert enriched[1]["gpu.power.mean"] == pytest.approx(WATTS)
    nvml.set(boards="GPU-a/Model A/80")
    bench.sample_for(3)
    assert bench.enriched("GPU-b") == [{"hw.id": "GPU-b"}]
    assert bench.state == "ok"
    assert not bench.warnings


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"fail": "nvmlInitWithFlags=12"}, "no_library"),
        ({"fail": "nvmlInitWithFlags=9"}, "no_driver"),
        ({"fail": "nvmlInitWithFlags=18"}, "driver_mismatch"),
        ({"boards": ""}, "no_device"),
    ],
)
def test_no_library_driver_or_device_passes_items_unchanged(nvml, settings, reason):
    """Without a driver there is one warning and ``available`` is 0; one that is installed later is found (rule 4)."""
    nvml.set(**settings)
    bench = Bench(nvml)
    bench.sample_for(200)
    assert bench.is_untouched()
    assert (bench.state, bench.available, bench.warnings) == (reason, 0.0, 1)
    assert nvml.calls("nvmlInitWithFlags") == 4  # at once, and every reprobe_interval
    nvml.set(fail="", boards="GPU-a/Model A/80")
    bench.sample_for(62)
    assert (bench.state, bench.available, bench.warnings) == ("ok", 1.0, 1)
    assert numbers(bench.enriched()[0]) == pytest.approx(RIGHT | {"gpu.processes": 0})


def test_a_driver_that_goes_away_and_comes_back(nvml):
    """Figures from before a driver reload stay right, the gap is not covered, and energy is reset (rule 11)."""
    nvml.set(boards="GPU-a/Model A/80")
    bench = Bench(nvml)
    bench.sample_for(5)
    nvml.set(fail="nvmlDeviceGetFieldValues=1")
    bench.sample_for(10)
    assert (bench.state, bench.available, bench.warnings) == ("no_driver", 0.0, 1)
    assert bench.is_untouched(ago=3.0)
    assert bench.enriched(ago=12.0)[0]["gpu.device.energy"] == pytest.approx(WATTS)
    bench.counter_start = bench.clock.time_unix_nano()  # when the counter restarted
    nvml.set(fail="")
    bench.sample_for(65)
    assert bench.state == "ok"
    assert bench.enriched()[0]["gpu.device.energy"] == pytest.approx(WATTS)


def test_energy_that_falls_is_a_reset(nvml):
    """A driver reload between two samples yields neither a negative energy nor the whole new counter (rule 11)."""
    nvml.set(boards="GPU-a/Model A/80")
    bench = Bench(nvml)
    bench.sample_for(5)
    bench.counter_start = bench.clock.time_unix_nano()
    bench.sample_for(1)
    assert bench.enriched(ago=2.0, lasts=2.0)[0]["gpu.device.energy"] == pytest.approx(2 * WATTS)


def test_a_lost_gpu_is_left_out_and_the_others_go_on(nvml):
    """Spans on a lost GPU are untouched, a loss inside a span lowers its coverage, and the GPU can return (rule 6)."""
    bench = Bench(nvml)
    bench.sample_for(5)
    first, second = (device.id for device in bench.sampler.snapshot.devices)
    nvml.set(fail="*@1=15")
    bench.sample_for(4)
    enriched = bench.enriched(first, second, ago=3.0)
    assert numbers(enriched[0]) == pytest.approx(RIGHT | {"gpu.processes": 0})
    assert enriched[1] == {"hw.id": second}
    half = bench.enriched(second, ago=5.0, lasts=2.0)[0]
    assert half["gpu.coverage"] == pytest.approx(0.5, abs=0.06)
    assert half["gpu.device.energy"] == pytest.approx(2 * WATTS * half["gpu.coverage"])
    assert (bench.state, bench.warnings) == ("ok", 1)
    nvml.set(fail="*@0=15,*@1=15")
    bench.sample_for(2)
    assert (bench.state, bench.available) == ("gpu_lost", 0.0)
    nvml.set(fail="")
    bench.sample_for(70)
    assert (bench.state, bench.available) == ("ok", 1.0)
    assert bench.enriched(second)[0]["gpu.coverage"] == 1.0


HANGS = [
    "nvmlInitWithFlags", "nvmlSystemGetDriverVersion", "nvmlDeviceGetCount_v2", "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetMigMode", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetFieldValues", "nvmlDeviceGetUtilizationRates",
    "nvmlDeviceGetTemperatureV", "nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlShutdown",
]  # fmt: skip


@pytest.mark.parametrize("function", HANGS)
def test_a_hung_call_is_abandoned_not_joined(nvml, function):
    """If any call hangs the next probe uses a new thread, and the old one does no harm when it returns (rule 5)."""
    nvml.set(boards="GPU-a/Model A/80")
    caller = ShortTimeouts()
    bench = Bench(nvml, caller)
    bench.sample_for(0.5)
    nvml.set(hang=function)
    if function in {"nvmlInitWithFlags", "nvmlShutdown", "nvmlSystemGetDriverVersion", "nvmlDeviceGetHandleByIndex_v2"}:
        nvml.set(boards="GPU-a/Model A/80;GPU-b/Model B/80" if function != "nvmlShutdown" else "GPU-a/Model A/80")
        if function in {"nvmlInitWithFlags", "nvmlShutdown"}:
            nvml.set(fail="nvmlDeviceGetFieldValues=9")  # it is called when the driver is opened again, or given up
    bench.clock.move(1)
    bench.sampler.step()
    bench.clock.move(61)
    nvml.set(fail="")
    if function != "nvmlShutdown":
        bench.sampler.step()
    assert (bench.state, bench.available, bench.warnings) == ("hung", 0.0, 1)
    assert bench.is_untouched()
    stuck = [worker._thread for worker in caller._hung]
    assert stuck
    assert all(thread.is_alive() and thread.daemon for thread in stuck)
    nvml.set(hang="", boards="GPU-a/Model A/80")
    bench.clock.move(61)
    bench.sample_for(3)
    assert (bench.state, bench.available) == ("ok", 1.0)
    for thread in stuck:
        thread.join(10)
        assert not thread.is_alive()
    bench.sample_for(1)
    assert numbers(bench.enriched()[0])["gpu.coverage"] == 1.0
    caller.close()


def test_a_hung_call_does_not_slow_the_pipeline(nvml):
    """While the sampler waits for the driver, batches pass with the figures known so far (rule 5)."""
    nvml.set(boards="GPU-a/Model A/80")
    caller = ThreadCaller()
    bench = Bench(nvml, caller)
    bench.sample_for(5)
    before = nvml.calls("nvmlDeviceGetFieldValues")
    nvml.set(hang="nvmlDeviceGetFieldValues")
    bench.clock.move(0.1)
    sampling = threading.Thread(target=bench.sampler.step, daemon=True)
    sampling.start()
    while nvml.calls("nvmlDeviceGetFieldValues") == before:
        pass
    for _ in range(20):
        assert bench.enriched(ago=3.0)[0]["gpu.device.energy"] == pytest.approx(WATTS)
    assert sampling.is_alive()
    nvml.set(hang="")
    sampling.join(10)
    assert bench.state == "ok"
    caller.close()


def test_a_clock_step_re_anchors(nvml):
    """If the clock is set back or forward, spans of the new clock get the right figures (rule 12)."""
    nvml.set(boards="GPU-a/Model A/80")
    bench = Bench(nvml)
    bench.sample_for(5)
    wall = bench.sampler._time_unix_nano
    for step in (-3, 3600, -3500):
        bench.sampler._time_unix_nano = lambda step=step, wall=wall: wall() + step * SECOND
        now = bench.sampler._time_unix_nano
        bench.processor._clock = type("Clock", (), {"time_unix_nano": staticmethod(now)})()
        bench.sample_for(4)
        batch_at = bench.clock.time_unix_nano
        bench.clock.time_unix_nano = now
        enriched = bench.enriched(ago=2.0)
        bench.clock.time_unix_nano = batch_at
        assert numbers(enriched[0]) == pytest.approx(
            RIGHT | {"gpu.processes": 0, "gpu.samples": enriched[0]["gpu.samples"]}
        )
        assert abs(enriched[0]["gpu.samples"] - 11) <= 1


def test_sentinels_never_reach_a_span(nvml):
    """A value that the driver calls not available is absent (rule 9)."""
    nvml.set(boards="GPU-a/Model A/80")
    bench = Bench(nvml)
    blanks = {
        "power": 2**32 - 1,
        "power_average": 2**32 - 1,
        "power_usage": 2**32 - 1,
        "used": 2**64 - 1,
        "utilization": 2**32 - 1,
    }
    nvml.set(**blanks)
    for _ in range(30):
        bench.clock.move(0.1)
        nvml.set(energy=9223372036854775794, energy_total=2**64 - 1)
        bench.sampler.step()
    (enriched,) = bench.enriched()
    honest = {"gpu.memory.limit", "gpu.coverage", "gpu.samples", "gpu.sample_interval", "gpu.processes"}
    assert numbers(enriched).keys() == honest


CODES = [*range(1, 31), 999]


@pytest.mark.parametrize("function", [
    "nvmlDeviceGetComputeRunningProcesses_v3", "nvmlDeviceGetCount_v2", "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetHandleByIndex_v2",
    "nvmlDeviceGetMaxMigDeviceCount", "nvmlDeviceGetMemoryInfo_v2", "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetName", "nvmlDeviceGetTemperatureV", "nvmlDeviceGetUUID", "nvmlDeviceGetUtilizationRates",
    "nvmlInitWithFlags",
    "nvmlShutdown", "*@0", "*@1",
])  # fmt: skip
def test_no_error_code_of_any_call_leaves_transform_or_makes_a_wrong_value(nvml, function):
    """With any error code, from the start or in the middle of a span, figures are right or absent."""
    for code in CODES:
        for is_first in (False, True):
            nvml.set(boards=MIG, fail=f"{function}={code}" if is_first else "")
            bench = Bench(nvml, interval=0.5)
            bench.sample_for(2)
            nvml.set(fail=f"{function}={code}")
            bench.sample_for(2)
            whole, part = bench.enriched("GPU-a", "MIG-y", ago=3.0, lasts=2.0)
            for enriched, right in (
                (whole, RIGHT | {"gpu.device.energy": 2 * WATTS}),
                (
                    part,
                    {
                        "gpu.memory.used.max": GIB,
                        "gpu.memory.limit": 20 * GIB,
                        "gpu.power.mean": WATTS,
                        "gpu.device.energy": 2 * WATTS,
                    },
                ),
            ):
                coverage = enriched.get("gpu.coverage", 0.0)
                right = {**right, "gpu.device.energy": right["gpu.device.energy"] * coverage}
                for key in right.keys() - {"gpu.coverage", "gpu.samples", "gpu.sample_interval"}:
                    assert key not in enriched or enriched[key] == pytest.approx(right[key]), (code, is_first, key)
                assert enriched.get("hw.parent", "GPU-b") == "GPU-b"
            assert "gpu.utilization.mean" not in part
            assert bench.warnings <= 1
