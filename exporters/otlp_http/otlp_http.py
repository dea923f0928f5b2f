"""Sends OTLP over HTTP/1.1, with compressed protobuf or JSON bodies.

Source: OTLP specification "OTLP/HTTP"; the Collector's exporter/otlphttpexporter otlp.go.
"""

import asyncio
from typing import Final

from collector.api import Host, Settings
from collector.delivery import QueuedExporter
from collector.model import Batch, Signal, to_json
from collector.otlp.responses import partial_success, partial_success_from_json
from collector.transport.http.client import HTTPClient, HTTPResponse
from collector.transport.user_agent import user_agent
from config.blocks import InvalidSettings
from exporters.otlp_http.config import OTLPHTTPConfig

__all__ = ["OTLPHTTPExporter"]

_MISSING_URL: Final = "this key or endpoint is required, because a {} pipeline uses this exporter"
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_JSON_SIZE_FACTOR: Final = 4  # how much larger than protobuf JSON may be
_THREAD_MIN_BYTES: Final = 256 * 1024  # larger batches are converted to JSON in a thread


class OTLPHTTPExporter(QueuedExporter[Batch]):
    """Sends batches as they are (the bytes of a batch are an export request), or as OTLP/JSON."""

    isolated_reasons = frozenset({"http_400"})
    enforces_timeout = True  # as that of the HTTP client, which knows whether a 2xx status has arrived by then

    def __init__(self, settings: Settings, config: OTLPHTTPConfig) -> None:
        super().__init__(settings, config)
        self._json = config.encoding == "json"
        self.max_request_bytes = (
            config.max_request_bytes // _JSON_SIZE_FACTOR if self._json else config.max_request_bytes
        )
        self._urls = {signal: config.url(signal) for signal in sorted(settings.signals)}
        if missing := [signal for signal, url in self._urls.items() if not url]:
            raise InvalidSettings(*(((f"{signal}_endpoint",), _MISSING_URL.format(signal)) for signal in missing))
        self._client = HTTPClient(
            config, key=f"exporters::{settings.id}", clock=settings.clock, user_agent=user_agent(settings)
        )

    async def open(self, host: Host) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.open(host)

    async def close(self) -> None:
        """See :class:`QueuedExporter`."""
        await self._client.close()

    async def send(self, payload: Batch) -> int:
        """See :class:`QueuedExporter`."""
        signal, body = payload.signal, payload.wire
        if self._json:
            large = payload.size_bytes > _THREAD_MIN_BYTES
            body = await asyncio.to_thread(to_json, payload) if large else to_json(payload)
        response = await self._client.post(self._urls[signal], body, content_type=_JSON if self._json else _PROTOBUF)
        try:
            rejected, message = _partial_success(signal, response)
        except ValueError as exc:
            self.note_unusable_response(signal, str(exc))
            return 0
        if rejected or message:
            self.note_partial_success(signal, rejected, self._client.redactor.excerpt(message))
        return rejected


def _partial_success(signal: Signal, response: HTTPResponse) -> tuple[int, str]:
    """Rejected items and message; a body of any other content type is ignored, as in the Collector.

    Raises:
        ValueError: the body is not complete, or not an export response.
    """
    if response.is_truncated:
        raise ValueError("the body of the response is cut off, too large or not decodable")
    if not response.body:
        return 0, ""
    if response.content_type == _PROTOBUF:
        return partial_success(signal, response.body)
    if response.content_type == _JSON:
        return partial_success_from_json(signal, response.body)
    return 0, ""
