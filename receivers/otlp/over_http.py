"""OTLP over HTTP: three paths, protobuf and JSON.

Source: OTLP specification "OTLP/HTTP"; the Collector's receiver/otlpreceiver/otlphttp.go for the texts of 405 and 415.
One deliberate difference: a body over the limit is answered 413, as the specification says; the Collector says 400.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import grpc
from aiohttp import web

from collector.api import ConsumeError, ReceiverOutput
from collector.helpers.http_server import Answer, Handler, HTTPServer, Refused, header_values
from collector.helpers.peer import LocalAddresses
from collector.model import Context, MalformedBatch, Signal, from_json
from receivers.otlp.answers import Failure, failure_of, partial_success_json, partial_success_proto
from receivers.otlp.config import OTLPHTTPConfig
from receivers.otlp.context import ContextMaker

__all__ = ["OTLPOverHTTP"]

_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_JSON_LEAVES_LOOP_FROM_BYTES: Final = 1024 * 1024
_METHOD_NOT_ALLOWED: Final = Answer.text(405, "405 method not allowed, supported: [POST]", [("Allow", "POST")])
_UNSUPPORTED: Final = Answer.text(415, "415 unsupported media type, supported: [application/json, application/x-protobuf]")
_TAKEN: Final = {_PROTOBUF: Answer(200, b"", _PROTOBUF), _JSON: Answer(200, b"{}", _JSON)}
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class OTLPOverHTTP:
    """The routes of the HTTP server. ``server`` is set once both exist; ``refused`` is told the reason of each refusal."""

    server: HTTPServer

    def __init__(
        self,
        config: OTLPHTTPConfig,
        outputs: Mapping[Signal, ReceiverOutput],
        *,
        addresses: LocalAddresses,
        contexts: ContextMaker,
        refused: Callable[[str], None],
    ) -> None:
        self._config = config
        self._addresses = addresses
        self._contexts = contexts
        self._refused = refused
        self._keeps_nothing = not config.include_metadata and config.auth is None
        paths = {Signal.TRACES: config.traces_url_path, Signal.METRICS: config.metrics_url_path, Signal.LOGS: config.logs_url_path}
        self.routes: dict[str, Handler] = {paths[signal]: self._route(signal, output.over("http")) for signal, output in outputs.items()}

    def _route(self, signal: Signal, output: ReceiverOutput) -> Handler:
        async def export(request: web.BaseRequest) -> Answer:
            if request.method != "POST":
                self._refused("method")
                return _METHOD_NOT_ALLOWED
            content_type = request.headers.get("Content-Type", "")
            if content_type not in _TAKEN:
                content_type = content_type.partition(";")[0].strip().lower()  # parameters say nothing here
                if content_type not in _TAKEN:
                    self._refused("media_type")
                    return _UNSUPPORTED
            try:
                context = self._plain_context(request) if self._keeps_nothing else await self._context(request)
                body = await self.server.read_body(request)
                if content_type == _JSON:
                    body = await _wire_of(signal, body)
                if not body:
                    return _TAKEN[content_type]  # an empty request succeeds and never enters a pipeline
                receipt = await output.admit(body, context)
            except Refused as exc:
                failure = Failure(_CODES.get(exc.status, grpc.StatusCode.UNKNOWN), str(exc), exc.reason)
                return self._refusal(failure, content_type, exc.status)
            except (MalformedBatch, ConsumeError) as exc:
                failure = failure_of(exc)
                return self._refusal(failure, content_type, failure.http_status)
            if not receipt.rejected_count and not receipt.message:
                return _TAKEN[content_type]
            if content_type == _JSON:
                return Answer(200, partial_success_json(signal, receipt), _JSON)
            return Answer(200, partial_success_proto(receipt), _PROTOBUF)

        return export

    def _refusal(self, failure: Failure, content_type: str, status: int) -> Answer:
        self._refused(failure.reason)
        headers = [("Retry-After", failure.retry_after_header)] if failure.retry_after_header and status in {429, 503} else []
        return Answer(status, failure.status_json() if content_type == _JSON else failure.status_proto(), content_type, headers)

    def _plain_context(self, request: web.BaseRequest) -> Context:
        return self._contexts.plain(self._is_local(request))

    async def _context(self, request: web.BaseRequest) -> Context:
        claims = await self.server.authenticate(request)
        metadata = header_values(request) if self._config.include_metadata else {}
        return self._contexts.of(self._is_local(request), metadata, claims)

    def _is_local(self, request: web.BaseRequest) -> bool | None:
        transport = request.transport
        if transport is None:
            return None
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            return self._addresses.is_local(peer[0])
        return True if self.server.is_unix else None


async def _wire_of(signal: Signal, body: bytes) -> bytes:
    if len(body) < _JSON_LEAVES_LOOP_FROM_BYTES:
        return from_json(signal, body)
    return await asyncio.to_thread(from_json, signal, body)
