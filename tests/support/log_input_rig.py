"""A receiver of log entries at a free port, with a sink behind it."""

import asyncio
import socket

from collector.model import Signal
from collector.service.process import SystemClock
from collector.testing import FakeHost, RecordingTelemetry, Sink, make_settings

ADDRESS = "127.0.0.1:0"


class Running:
    """A receiver at a free port, with a sink behind it."""

    def __init__(self, factory, config, sink=None):
        self.sink = sink or Sink(Signal.LOGS)
        self.telemetry = RecordingTelemetry()
        self.writers = []
        settings = make_settings(
            signals={Signal.LOGS}, outputs={Signal.LOGS: self.sink}, telemetry=self.telemetry, clock=SystemClock()
        )
        self.receiver = factory.create(settings, factory.config_type.model_validate(config))

    async def __aenter__(self):
        await self.receiver.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.receiver.shutdown()
        for writer in self.writers:
            writer.close()

    @property
    def port(self):
        return int(self.receiver.address.rpartition(":")[2])

    def bodies(self):
        return [text for batch in self.sink.batches for text in batch.field("body").as_text().to_list()]

    def attribute(self, key):
        return [text for batch in self.sink.batches for text in batch.attribute(key).as_text().to_list()]

    async def send(self, *parts, tls=None):
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, ssl=tls, server_hostname="localhost" if tls else None
        )
        self.writers.append(writer)
        for part in parts:
            writer.write(part)
            await writer.drain()
        return writer

    def send_datagrams(self, *texts):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for text in texts:
                sender.sendto(text, ("127.0.0.1", self.port))
            return sender.getsockname()
