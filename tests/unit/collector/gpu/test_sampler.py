"""The sampler, stepped by hand: unavailability, hung calls, lost devices, changed layouts, reloads.

The rules are those of docs/reference/gpu.md.
"""

import threading

import pytest

from collector.gpu import (
    BackendUnavailableError,
    Device,
    GpuSampler,
    GpuSourceConfig,
    LayoutChangedError,
    Reading,
    SamplerPool,
)
from collector.gpu.sampler import CallHungError, ThreadCaller
from collector.testing import RecordingLog

SECOND = 1_000_000_000


class Clock:
    def __init__(self):
        self.nano = 1_700_000_000 * SECOND

    def time(self):
        return self.nano

    def monotonic(self):
        return self.nano / SECOND

    def move(self, seconds):
        self.nano += round(seconds * SECOND)


class Inline:
    """A caller without a thread."""

    def call(self, function, timeout_s):
        return function()

    def may_call(self):
        return True

    def close(self):
        pass


class Scripted:
    """A backend that does what the test has scripted."""

    source = "scripted"

    def __init__(self):
        self.devices = [Device("GPU-a", "0"), Device("GPU-b", "1")]
        self.fails = None
        self.lost = set()
        self.changed = False
        self.opened = self.closed = 0

    def open(self, now):
        self.opened += 1
        if self.fails:
            raise self.fails
        self.changed = False
        return list(self.devices)

    def read(self, now):
        if self.fails:
            raise self.fails
        if self.changed:
            raise LayoutChangedError
        return [Reading(utilization=0.5, is_lost=device.id in self.lost) for device in self.devices]

    def close(self):
        self.closed += 1


def make(backend, caller=None, inherited=None, **config):
    clock, log = Clock(), RecordingLog()
    sampler = GpuSampler(
        lambda: backend,
        GpuSourceConfig(**config),
        log,
        caller=caller or Inline(),
        inherited=inherited,
        time_unix_nano=clock.time,
        monotonic_s=clock.monotonic,
    )
    return sampler, clock, log


def advance(sampler, clock, count=1, seconds=0.1):
    for _ in range(count):
        sampler.step()
        clock.move(seconds)


def test_samples_are_published():
    """Each step adds one sample per device and returns the rest of the interval."""
    sampler, clock, log = make(Scripted())
    assert sampler.step() == pytest.approx(0.1)
    clock.move(0.1)
    advance(sampler, clock, 4)
    snapshot = sampler.snapshot
    assert snapshot.is_available
    assert (snapshot.reason, snapshot.source) == ("ok", "scripted")
    assert [len(view) for view in snapshot.views] == [5, 5]
    assert (snapshot.sample_count, snapshot.gap_count) == (10, 0)
    assert not log.of_level("warning")


def test_without_a_device_there_is_one_warning_and_a_slow_probe():
    """Without a driver there is no call before reprobe_interval; a driver that appears later is found (rule 4)."""
    backend = Scripted()
    backend.fails = BackendUnavailableError("no_driver", "no driver is loaded")
    sampler, clock, log = make(backend)
    assert sampler.step() == pytest.approx(60.0)
    clock.move(1)
    sampler.step()
    assert backend.opened == 1
    for _ in range(3):
        clock.move(60)
        sampler.step()
    assert backend.opened == 4
    assert (sampler.snapshot.is_available, sampler.snapshot.reason) == (False, "no_driver")
    assert len(log.of_level("warning")) == 1
    backend.fails = None
    clock.move(60)
    advance(sampler, clock)
    assert sampler.snapshot.is_available


def test_a_driver_that_goes_away_warns_once_each_time():
    """A driver that goes twice causes two warnings; the history remains readable in between."""
    backend = Scripted()
    sampler, clock, log = make(backend)
    for _ in range(2):
        backend.fails = None
        advance(sampler, clock, 3)
        backend.fails = BackendUnavailableError("no_driver", "unloaded")
        advance(sampler, clock, 3)
        assert sampler.snapshot.reason == "no_driver"
        assert sampler.snapshot.devices
        assert len(sampler.snapshot.views[0])
        clock.move(60)
    assert len(log.of_level("warning")) == 2
    assert backend.closed == 2


def test_an_unexpected_error_is_unavailability():
    """The thread survives any exception that the library raises."""
    backend = Scripted()
    backend.fails = RuntimeError("surprise")
    sampler, _, log = make(backend)
    sampler.step()
    assert sampler.snapshot.reason == "error"
    assert "surprise" in log.of_level("warning")[0].fields["detail"]


def test_a_hung_call_is_abandoned():
    """The thread of a hung call is abandoned; the sampler continues without waiting for it (rule 5)."""
    gate, entered = threading.Event(), threading.Event()

    class Hangs(Scripted):
        def read(self, now):
            entered.set()
            gate.wait()
            return super().read(now)

    class Impatient(ThreadCaller):
        def call(self, function, timeout_s):
            return super().call(function, 0.05)

    sampler, clock, log = make(Hangs(), Impatient())
    try:
        sampler.step()
        assert entered.is_set()
        assert (sampler.snapshot.is_available, sampler.snapshot.reason) == (False, "hung")
        assert len(log.of_level("warning")) == 1
        clock.move(60)
        sampler.step()  # probes again, in a new thread
        assert sampler.snapshot.reason == "hung"
        assert len(log.of_level("warning")) == 1
    finally:
        gate.set()


def test_threads_stuck_in_the_driver_are_bounded():
    """After four threads have got stuck no more are started, until one returns (rule 5)."""
    gate, caller = threading.Event(), ThreadCaller()
    try:
        stuck = 0
        while caller.may_call():
            with pytest.raises(CallHungError):
                caller.call(gate.wait, 0.01)
            stuck += 1
        assert stuck == 4
    finally:
        gate.set()
    for worker in list(caller._hung):
        worker._thread.join(5)
    assert caller.may_call()
    assert caller.call(lambda: 7, 5.0) == 7
    caller.close()


def test_what_a_call_raises_reaches_the_caller():
    """A TimeoutError that the function itself raises is passed on."""
    caller = ThreadCaller()

    def fails():
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        caller.call(fails, 5.0)
    caller.close()


def test_a_lost_device_is_warned_of_once_and_initialised_again():
    """The other devices continue; the driver is restarted until the lost one returns (rule 6)."""
    backend = Scripted()
    sampler, clock, log = make(backend, reprobe_interval="10s")
    advance(sampler, clock, 2)
    backend.lost = {"GPU-b"}
    advance(sampler, clock, 90)
    assert sampler.snapshot.is_available
    assert [reading.is_lost for reading in sampler.snapshot.readings] == [False, True]
    assert backend.opened == 1
    advance(sampler, clock, 20)
    assert (backend.opened, backend.closed) == (2, 1)
    assert len(log.of_level("warning")) == 1
    backend.lost = {"GPU-a", "GPU-b"}
    advance(sampler, clock)
    assert (sampler.snapshot.is_available, sampler.snapshot.reason) == (False, "gpu_lost")
    backend.lost = set()
    advance(sampler, clock)
    assert sampler.snapshot.is_available


def test_a_changed_layout_is_read_at_once():
    """New slices are sampled at once, and devices that remain keep their history (rule 7)."""
    backend = Scripted()
    sampler, clock, _ = make(backend)
    advance(sampler, clock, 5)
    backend.devices = [backend.devices[0], Device("MIG-c", "1:0", parent_id="GPU-b")]
    backend.changed = True
    advance(sampler, clock)
    assert [device.id for device in sampler.snapshot.devices] == ["GPU-a", "MIG-c"]
    assert [len(view) for view in sampler.snapshot.views] == [6, 1]


def test_a_pause_is_a_gap():
    """A pause, for example a suspended machine, is counted and not covered (rule 2)."""
    sampler, clock, _ = make(Scripted())
    advance(sampler, clock, 3)
    clock.move(30)
    advance(sampler, clock, 2)
    assert sampler.snapshot.gap_count == 2  # one per device


def test_a_reload_inherits_the_history():
    """A sampler that replaces another starts with its history."""
    sampler, clock, _ = make(Scripted())
    advance(sampler, clock, 5)
    heir, heir_clock, _ = make(Scripted(), inherited=sampler.snapshot)
    heir_clock.nano = clock.nano
    advance(heir, heir_clock)
    assert [len(view) for view in heir.snapshot.views] == [6, 6]


def test_components_share_one_sampler():
    """Components share a sampler with the shortest interval; the last release stops it (rule 1)."""
    log, pool = RecordingLog(), SamplerPool()
    simulated = {"backend": "simulated", "simulated": {"seed": 99}}
    first = pool.acquire(GpuSourceConfig(**simulated, sample_interval="1s"), log)
    second = pool.acquire(GpuSourceConfig(**simulated, sample_interval="50ms", ring="20m"), log)
    other = pool.acquire(GpuSourceConfig(backend="simulated", simulated={"seed": 98}), log)
    try:
        assert first is second
        assert other is not first
        pool.release(first)
        assert not first._stop.is_set()
        assert (first._interval_s, first._ring_s) == (0.05, 1200.0)
    finally:
        pool.release(second)
        pool.release(other)
    assert first._stop.is_set()
    third = pool.acquire(GpuSourceConfig(**simulated), log)
    assert third is not first
    pool.release(third)


def test_auto_never_invents():
    """``auto`` and ``nvml`` share one sampler (rule 3)."""
    log, pool = RecordingLog(), SamplerPool()
    auto, nvml = pool.acquire(GpuSourceConfig(), log), pool.acquire(GpuSourceConfig(backend="nvml"), log)
    try:
        assert auto is nvml
        assert auto.snapshot.source == "nvml"
    finally:
        pool.release(auto)
        pool.release(nvml)
