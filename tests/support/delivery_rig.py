"""An exporter with a queue, its scripted backend, and the books that have to close between them."""

import asyncio
from collections import deque

from collector.api import RetryableError
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal
from collector.testing import FakeClock, FakeHost, RecordingTelemetry, eventually, make_settings

__all__ = ["OK", "Backend", "Probe", "Rig", "down"]

OK = object()


class Backend:
    """What the server does: it answers from a script, then with ``default``; ``gate`` holds requests back."""

    def __init__(self, *script, default=OK):
        self.script = deque(script)
        self.default = default
        self.seen = []
        self.times = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.concurrent = 0
        self.concurrent_max = 0


class Probe(QueuedExporter[Batch]):
    """Sends to the scripted backend; the waits between attempts have no jitter."""

    def __init__(self, settings, config, backend):
        super().__init__(settings, config, uniform=lambda low, high: (low + high) / 2)
        self.backend = backend

    async def send(self, payload):
        backend = self.backend
        backend.seen.append(payload)
        backend.times.append(self.settings.clock.monotonic_s())
        backend.concurrent += 1
        backend.concurrent_max = max(backend.concurrent_max, backend.concurrent)
        try:
            await backend.gate.wait()
        finally:
            backend.concurrent -= 1
        answer = backend.script.popleft() if backend.script else backend.default
        if callable(answer):
            answer = answer(payload)
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, int) else None


class Rig:
    """A started exporter, whose books are checked after every step and at the end."""

    def __init__(self, backend, type_=Probe, *, shared=None, **config):
        self.backend = backend
        self.telemetry = RecordingTelemetry()
        self.clock = FakeClock()
        self.host = FakeHost()
        settings = make_settings(
            signals=frozenset(Signal),
            telemetry=self.telemetry,
            clock=self.clock,
            component_id="probe/a",
            shared=shared,
        )
        self.exporter = type_(settings, ExporterConfig.model_validate(config), backend)
        self.received = 0

    async def __aenter__(self):
        await self.exporter.start(self.host)
        return self

    async def __aexit__(self, kind, *_):
        stopping = asyncio.ensure_future(self.exporter.shutdown())
        while not stopping.done():
            await self.clock.advance(1)
        await stopping
        if kind is None:
            self.check()
            assert not any(self.exporter.in_flight_items().values())
            assert self.host.admission.used_bytes == 0, "everything charged is released"

    async def consume(self, *batches):
        for batch in batches:
            self.received += batch.item_count
            await self.exporter.consume(batch)
        self.check()

    def count(self, kind):
        return sum(getattr(self.telemetry.ledger, kind).values())

    @property
    def delivered(self):
        return self.count("delivered")

    def reasons(self, kind):
        counts = {}
        for (_, reason), count in getattr(self.telemetry.ledger, kind).items():
            counts[reason] = counts.get(reason, 0) + count
        return counts

    def check(self):
        in_flight = sum(self.exporter.in_flight_items().values())
        assert self.received == self.delivered + self.count("dropped") + self.count("refused") + in_flight

    async def settled(self):
        await eventually(lambda: not self.telemetry.value("otelcol_exporter_queue_size"))
        assert not any(self.exporter.in_flight_items().values())
        self.check()


def down(**more):
    return RetryableError("connection refused", reason="connect", **more)
