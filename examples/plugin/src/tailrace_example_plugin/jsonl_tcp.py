"""The ``jsonl_tcp`` exporter: OTLP/JSON over TCP, one request per line, as Vector and Fluent Bit can receive it."""

import asyncio
import contextlib
from typing import Final, Self
from urllib.parse import urlsplit

from pydantic import model_validator

from collector.api import ComponentKind, Factory, RetryableError, Settings, Stability
from collector.delivery import ExporterConfig, QueuedExporter
from collector.model import Batch, Signal, to_json
from config import ByteSize

__all__ = ["JsonlTcpConfig", "JsonlTcpExporter", "factory"]

_LEAVE_LOOP_FROM_BYTES: Final = 256 * 1024


class JsonlTcpConfig(ExporterConfig):
    """What the user writes under ``exporters: jsonl_tcp:``, in addition to queue, retry and timeout."""

    endpoint: str
    """``host:port`` of the server."""
    max_request_bytes: ByteSize = 1024 * 1024
    """Larger batches are split. JSON is about four times as large as the protobuf that this limit applies to."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        self.address()
        return self

    def address(self) -> tuple[str, int]:
        """Host and port of ``endpoint``.

        Raises:
            ValueError: the endpoint is not ``host:port``.
        """
        try:
            parts = urlsplit(f"//{self.endpoint}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or not port:
            raise ValueError(f"endpoint: {self.endpoint!r} is not host:port, for example localhost:5170")
        return host, port


class JsonlTcpExporter(QueuedExporter[Batch]):
    """Sends over one connection, which is opened when there is something to send.

    The protocol has no acknowledgement: a batch counts as delivered once the operating system has taken it.
    """

    def __init__(self, settings: Settings, config: JsonlTcpConfig) -> None:
        super().__init__(settings, config)
        self.max_request_bytes = config.max_request_bytes
        self._address = config.address()
        self._lock = asyncio.Lock()  # several senders share the connection
        self._connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, payload: Batch) -> None:
        """Send one batch as one line. See :class:`QueuedExporter`."""
        is_large = payload.size_bytes > _LEAVE_LOOP_FROM_BYTES
        line = await asyncio.to_thread(to_json, payload) if is_large else to_json(payload)
        async with self._lock:
            try:
                writer = await self._connected()
                writer.write(line + b"\n")
                await writer.drain()
            except OSError as error:
                self._disconnect()
                raise RetryableError(f"sending failed: {error}", reason="connection_failed") from error
            except asyncio.CancelledError:  # the timeout: the line will be sent again, over a new connection
                self._disconnect()
                raise

    async def close(self) -> None:
        """Close the connection. See :class:`QueuedExporter`."""
        if self._connection is not None:
            _, writer = self._connection
            self._disconnect()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _connected(self) -> asyncio.StreamWriter:
        if self._connection is not None and self._connection[0].at_eof():  # the server has closed it
            self._disconnect()
        if self._connection is None:
            self._connection = await asyncio.open_connection(*self._address)
        return self._connection[1]

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection[1].close()
            self._connection = None


factory = Factory(
    component_type="jsonl_tcp",
    kind=ComponentKind.EXPORTER,
    config_type=JsonlTcpConfig,
    create=JsonlTcpExporter,
    signals=frozenset(Signal),
    stability=Stability.ALPHA,
)
