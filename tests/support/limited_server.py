"""An exporter under test and an HTTP server that refuses requests above a size limit, as backends do."""

from typing import ClassVar

from aiohttp import web
from aiohttp.test_utils import TestServer

from collector.api import Factory
from collector.model import Signal
from collector.testing import FakeHost, RecordingTelemetry, eventually, make_settings
from collector.transport.compression import decompress

__all__ = ["LimitedServerRig"]


class LimitedServerRig:
    """Starts both as an async context manager. A subclass names the exporter and stores what the server accepts.

    ``refusal`` is the status and text of the answer to requests whose decompressed body exceeds ``limit_bytes``; the
    sizes of those requests are in ``refused_sizes``.
    """

    factory: ClassVar[Factory]
    signal: ClassVar[Signal]
    path: ClassVar[str]
    limit_bytes: ClassVar[int] = 100_000

    def __init__(self, refusal=(413, ""), **config):
        self.refusal = refusal
        self.config = config
        self.refused_sizes = []
        self.telemetry = RecordingTelemetry()

    def accept(self, body, headers):
        """Store a request that is within the limit."""
        raise NotImplementedError

    async def __aenter__(self):
        app = web.Application(client_max_size=100_000_000, handler_args={"auto_decompress": False})
        app.router.add_post(self.path, self._handle)
        self._server = TestServer(app)
        await self._server.start_server()
        config = self.factory.config_type.model_validate(
            {"endpoint": str(self._server.make_url(self.path)), **self.config}
        )
        settings = make_settings(self.factory, telemetry=self.telemetry, signals={self.signal})
        self.exporter = self.factory.create(settings, config)
        await self.exporter.start(FakeHost())
        return self

    async def __aexit__(self, *_):
        await self.exporter.shutdown()
        await self._server.close()

    async def send(self, batch):
        """Give the batch to the exporter and wait until it is settled, and what the exporter adds is sent too."""
        await self.exporter.consume(batch)
        await eventually(lambda: not self.telemetry.value("otelcol_exporter_queue_size"), timeout_s=20)

    @property
    def delivered_count(self):
        return self.telemetry.ledger.delivered[self.signal]

    @property
    def refused(self):
        """Refused items by reason."""
        return {reason: count for (_, reason), count in self.telemetry.ledger.refused.items()}

    async def _handle(self, request):
        body = decompress("snappy", await request.read(), 100_000_000)
        if len(body) > self.limit_bytes:
            self.refused_sizes.append(len(body))
            return web.Response(status=self.refusal[0], text=self.refusal[1])
        self.accept(body, request.headers)
        return web.Response(status=204)
