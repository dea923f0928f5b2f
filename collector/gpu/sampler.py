"""The sampler: one thread per process that samples the GPUs for the receiver and all processors of one ``backend``.

That thread never calls the driver itself. A *caller* thread does; if a call does not return in time, its thread is
abandoned and not joined, so a hung driver costs the pipelines nothing. Components read :attr:`GpuSampler.snapshot`,
which is immutable. Without a device the sampler keeps running: it warns once, reports ``available`` 0, and probes
again every ``reprobe_interval`` (docs/reference/gpu.md, rules 1 to 7).
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol, TypeVar

from collector.api import Scope, SharedKey
from collector.gpu.backend import Backend, BackendUnavailableError, Device, LayoutChangedError, Reading
from collector.gpu.config import GpuSourceConfig
from collector.gpu.nvml import NvmlBackend
from collector.gpu.replay import ReplayBackend
from collector.gpu.ring import Ring, RingView
from collector.gpu.simulated import SimulatedBackend

__all__ = [
    "SAMPLERS",
    "CallHungError",
    "Caller",
    "GpuSampler",
    "SamplerPool",
    "Snapshot",
    "ThreadCaller",
    "make_backend",
]

_T = TypeVar("_T")

_OPEN_TIMEOUT_S: Final = 30.0  # without persistence mode the driver initialises each board, which takes seconds
_READ_TIMEOUT_S: Final = 5.0
_MAX_HUNG_THREADS: Final = 4  # a thread that is stuck in the driver cannot be ended; there are never more of them
_MIN_GAP_S: Final = 1.0  # the driver averages over up to a second, so shorter pauses hide nothing
_GAP_INTERVALS: Final = 3


class CallHungError(Exception):
    """A call into the driver did not return in time."""


class Caller(Protocol):
    """Runs functions that may block indefinitely."""

    def call(self, function: Callable[[], _T], timeout_s: float) -> _T:
        """The function's result. Raises what the function raises, or CallHungError after ``timeout_s``."""
        ...

    def may_call(self) -> bool:
        """Whether a call is allowed: False while too many earlier calls are still stuck."""
        ...

    def close(self) -> None:
        """Accept no more calls, without waiting for the current one."""
        ...


class ThreadCaller:
    """Makes the calls in a daemon thread, and starts a new thread after a call that hung."""

    def __init__(self) -> None:
        self._worker: _Worker | None = None
        self._hung: list[_Worker] = []

    def call(self, function: Callable[[], _T], timeout_s: float) -> _T:
        """See :class:`Caller`."""
        if self._worker is None:
            self._worker = _Worker()
        future: Future[_T] = self._worker.submit(function)
        try:
            return future.result(timeout_s)
        except TimeoutError:
            if future.done():  # the function itself raised TimeoutError, or it has just finished
                return future.result()
            self._hung.append(self._worker)
            self._worker.stop()
            self._worker = None
            raise CallHungError from None

    def may_call(self) -> bool:
        """See :class:`Caller`."""
        self._hung = [worker for worker in self._hung if worker.is_alive()]
        return len(self._hung) < _MAX_HUNG_THREADS

    def close(self) -> None:
        """See :class:`Caller`."""
        if self._worker is not None:
            self._worker.stop()
            self._worker = None


class _Worker:
    """A daemon thread that runs one function at a time."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._job: tuple[Callable[[], Any], Future[Any]] | None = None
        self._is_stopped = False
        self._thread = threading.Thread(target=self._run, name="tailrace-gpu-driver", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], Any]) -> "Future[Any]":
        future: Future[Any] = Future()
        with self._condition:
            self._job = (function, future)
            self._condition.notify()
        return future

    def stop(self) -> None:
        with self._condition:
            self._is_stopped = True
            self._condition.notify()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._job is not None or self._is_stopped)
                job, self._job = self._job, None
            if job is None:
                return
            function, future = job
            try:
                future.set_result(function())
            except BaseException as exc:  # noqa: BLE001 - handed to the caller
                future.set_exception(exc)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What is known at one moment. ``devices``, ``views`` and ``readings`` are parallel; ``readings`` may be empty."""

    source: str
    is_available: bool = False
    """Whether at least one device answers."""
    reason: str = "starting"
    """A constant word for the metric; ``ok`` while available."""
    message: str = ""
    devices: tuple[Device, ...] = ()
    views: tuple[RingView, ...] = ()
    readings: tuple[Reading, ...] = ()
    newest_unix_nano: int = 0
    sample_interval_s: float = 0.1
    sample_count: int = 0
    gap_count: int = 0
    start_unix_nano: int = 0
    """When the sampling of these devices started: the start time of their counters."""


class GpuSampler:
    """Samples one backend. ``step`` takes one sample; ``start`` runs it in a thread."""

    def __init__(
        self,
        make_backend: Callable[[], Backend],
        config: GpuSourceConfig,
        log: Any,
        *,
        inherited: Snapshot | None = None,
        caller: Caller | None = None,
        time_unix_nano: Callable[[], int] = time.time_ns,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make_backend, self._log = make_backend, log
        self._caller: Caller = caller or ThreadCaller()
        self._time_unix_nano, self._monotonic_s = time_unix_nano, monotonic_s
        self._interval_s, self._ring_s, self._reprobe_s = config.sample_interval, config.ring, config.reprobe_interval
        self._backend: Backend | None = None
        self._devices: tuple[Device, ...] = ()
        self._rings: dict[str, Ring] = {}
        self._inherited = (
            dict(zip((device.id for device in inherited.devices), inherited.views, strict=False)) if inherited else {}
        )
        self._probe_at = -1.0
        self._reopen_at: float | None = None
        self._warned = ""
        self._stop = threading.Event()
        self.key = _key(config)
        self.users = 0
        self.snapshot = Snapshot(source=make_backend().source, sample_interval_s=self._interval_s)

    def widen(self, config: GpuSourceConfig) -> None:
        """Serve one more component: use the shortest interval and the longest ring of all of them."""
        self._interval_s = min(self._interval_s, config.sample_interval)
        self._reprobe_s = min(self._reprobe_s, config.reprobe_interval)
        self._ring_s = max(self._ring_s, config.ring)

    def start(self) -> None:
        """Start the sampling thread. Call it once."""
        threading.Thread(target=self._run, name="tailrace-gpu-sampler", daemon=True).start()

    def stop(self) -> None:
        """Tell the thread to end. It releases the driver itself and is not joined, because the driver may hang."""
        self._stop.set()

    def step(self) -> float:
        """Probe for devices if there are none, else take a sample; returns the seconds until the next step."""
        now = self._monotonic_s()
        try:
            if self._backend is None:
                if now < self._probe_at:
                    return self._probe_at - now
                self._probe_at = now + self._reprobe_s
                self._open()
            elif self._reopen_at is not None and now >= self._reopen_at:
                self._restart()
            self._sample()
        except BackendUnavailableError as exc:
            self._unavailable(exc.reason, str(exc))
        except CallHungError:
            self._backend = None  # abandoned with its thread: it must never be called again
            self._unavailable("hung", "a call into the GPU driver did not return in time")
        except Exception as exc:  # noqa: BLE001 - the boundary to a foreign library; the thread must survive
            self._unavailable("error", f"{type(exc).__name__}: {exc}")
        if self._backend is None:
            return max(0.0, self._probe_at - self._monotonic_s())
        return max(0.0, self._interval_s - (self._monotonic_s() - now))

    def _run(self) -> None:
        while not self._stop.is_set():
            self._stop.wait(self.step())
        backend = self._backend
        if backend is not None:
            try:
                self._caller.call(backend.close, _READ_TIMEOUT_S)
            except CallHungError:
                self._log.warning(
                    "the GPU driver could not be released: the call did not return in time", source=backend.source
                )
        self._caller.close()

    def _open(self) -> None:
        if not self._caller.may_call():
            raise BackendUnavailableError("hung", "too many earlier calls into the GPU driver have not returned")
        backend = self._make_backend()
        devices = self._caller.call(lambda: backend.open(self._time_unix_nano()), _OPEN_TIMEOUT_S)
        self._backend = backend
        self._adopt(devices)
        self._log.info("found GPUs", source=backend.source, devices=len(self._devices))

    def _reopen(self) -> None:
        backend = self._backend
        assert backend is not None
        self._adopt(self._caller.call(lambda: backend.open(self._time_unix_nano()), _OPEN_TIMEOUT_S))

    def _restart(self) -> None:
        """Initialise the driver again, which is the only way for a lost device to come back."""
        backend = self._backend
        assert backend is not None
        self._reopen_at = None
        self._caller.call(backend.close, _READ_TIMEOUT_S)
        self._reopen()

    def _adopt(self, devices: Sequence[Device]) -> None:
        self._devices = tuple(devices)
        # The history of a device that has gone is dropped: its spans cannot be told from those of a new layout.
        self._rings = {device.id: self._rings.get(device.id) or self._ring(device.id) for device in devices}

    def _ring(self, device_id: str) -> Ring:
        past = self._inherited.pop(device_id, None)
        now = self._time_unix_nano()
        return Ring(self._capacity(), gap_s=self._gap_s(), hold_s=self._interval_s, origin_unix_nano=now, past=past)

    def _capacity(self) -> int:
        return max(2, round(self._ring_s / self._interval_s))

    def _gap_s(self) -> float:
        return max(_GAP_INTERVALS * self._interval_s, _MIN_GAP_S)

    def _sample(self) -> None:
        backend = self._backend
        assert backend is not None
        before = self._time_unix_nano()
        try:
            readings = tuple(self._caller.call(lambda: backend.read(before), _READ_TIMEOUT_S))
        except LayoutChangedError:
            self._log.info("the set of GPUs has changed", source=backend.source)
            self._reopen()
            before = self._time_unix_nano()
            try:
                readings = tuple(self._caller.call(lambda: backend.read(before), _READ_TIMEOUT_S))
            except LayoutChangedError:  # slices are being created right now: the next step tries again
                return
        now = before + max(0, self._time_unix_nano() - before) // 2
        gap_count = 0
        views = []
        for device, reading in zip(self._devices, readings, strict=True):
            ring = self._rings[device.id]
            ring.resize(self._capacity(), gap_s=self._gap_s(), hold_s=self._interval_s)
            gap_count += ring.append(now, reading)
            views.append(ring.view)
        lost = [device.id for device, reading in zip(self._devices, readings, strict=True) if reading.is_lost]
        self._report_lost(lost)
        snapshot = self.snapshot
        is_available = len(lost) < len(self._devices)
        self.snapshot = Snapshot(
            source=backend.source,
            is_available=is_available,
            reason="ok" if is_available else "gpu_lost",
            devices=self._devices,
            views=tuple(views),
            readings=readings,
            newest_unix_nano=now,
            sample_interval_s=self._interval_s,
            sample_count=snapshot.sample_count + len(readings),
            gap_count=snapshot.gap_count + gap_count,
            start_unix_nano=snapshot.start_unix_nano if snapshot.devices == self._devices else now,
        )

    def _report_lost(self, lost: list[str]) -> None:
        if not lost:
            self._warned = ""
            self._reopen_at = None
            return
        if self._reopen_at is None:
            self._reopen_at = self._monotonic_s() + self._reprobe_s
        if self._warned != "gpu_lost":
            self._warned = "gpu_lost"
            self._log.warning("a GPU was lost; it will not have any readings until it is reset", devices=lost)

    def _unavailable(self, reason: str, message: str) -> None:
        if self._backend is not None:
            backend, self._backend = self._backend, None
            try:
                self._caller.call(backend.close, _READ_TIMEOUT_S)
            except CallHungError:
                reason = "hung"
            self._probe_at = self._monotonic_s() + self._reprobe_s
        self._reopen_at = None
        self.snapshot = replace(self.snapshot, is_available=False, reason=reason, message=message, readings=())
        if not self._warned:
            self._warned = reason
            self._log.warning(
                "no GPU can be sampled; items pass through unchanged",
                reason=reason,
                detail=message,
                reprobe_interval_s=self._reprobe_s,
            )


def make_backend(config: GpuSourceConfig) -> Backend:
    """The configured backend. Does no I/O."""
    if config.backend == "simulated":
        return SimulatedBackend(config.simulated)
    if config.backend == "replay":
        return ReplayBackend(config.replay)
    return NvmlBackend()


class SamplerPool:
    """The running samplers of one service: one per backend, shared by all components that sample the same devices."""

    def __init__(self) -> None:
        self._samplers: dict[object, GpuSampler] = {}

    def acquire(self, config: GpuSourceConfig, log: Any, predecessor: GpuSampler | None = None) -> GpuSampler:
        """The sampler of the configured backend, running. Pair with :meth:`release`.

        ``predecessor`` is the sampler of a previous configuration: if it samples the same devices, its history is kept.
        """
        key = _key(config)
        sampler = self._samplers.get(key)
        if sampler is None:
            is_same = predecessor is not None and predecessor.key == key
            inherited = predecessor.snapshot if predecessor is not None and is_same else None
            sampler = self._samplers[key] = GpuSampler(lambda: make_backend(config), config, log, inherited=inherited)
        sampler.widen(config)
        sampler.users += 1
        if sampler.users == 1:
            sampler.start()
        return sampler

    def release(self, sampler: GpuSampler) -> None:
        """Stop using a sampler; the last user's release stops it."""
        sampler.users -= 1
        if sampler.users == 0:
            self._samplers.pop(sampler.key, None)
            sampler.stop()


SAMPLERS: Final = SharedKey("gpu.samplers", SamplerPool, scope=Scope.SERVICE)


def _key(config: GpuSourceConfig) -> object:
    if config.backend == "simulated":
        return ("simulated", config.simulated)
    if config.backend == "replay":
        return ("replay", config.replay)
    return ("nvml",)
