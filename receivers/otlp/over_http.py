"""OTLP over HTTP: three paths, protobuf and JSON.

A body above the limit is answered 413, as the specification says, where the Collector answers 400.

All errors are a google.rpc.Status in the encoding of the request; in JSON if the request has another media type.

Source: OTLP specification "OTLP/HTTP"; the Collector's receiver/otlpreceiver/otlphttp.go for the texts of 405 and 415.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

import grpc

from collector.api import ConsumeError, Receipt, ReceiverOutput, out_of_memory
from collector.model import MalformedBatch, Signal, from_json
from collector.transport.context import SenderContexts
from collector.transport.failure import UNREAD_REASONS, WHOLE_REQUEST, Failure, failure_of
from collector.transport.http import Refused, Request, Response, Route
from collector.transport.http.headers import HeaderList
from receivers.otlp.config import OTLPHTTPConfig
from receivers.otlp.responses import partial_success_json, partial_success_proto

__all__ = ["OTLPOverHTTP"]

_PROTOBUF: Final = b"application/x-protobuf"
_JSON: Final = b"application/json"
_JSON_LEAVES_LOOP_FROM_BYTES: Final = 1024 * 1024
_JSON_MEMORY_FACTOR: Final = 8  # how much more memory than the body its parsed objects take, about
_NOT_FOUND: Final = Failure(grpc.StatusCode.UNIMPLEMENTED, "404 page not found", "path")
_METHOD_NOT_ALLOWED: Final = Failure(
    grpc.StatusCode.UNIMPLEMENTED, "405 method not allowed, supported: [POST]", "method"
)
_UNSUPPORTED: Final = Failure(
    grpc.StatusCode.INVALID_ARGUMENT,
    "415 unsupported media type, supported: [application/json, application/x-protobuf]",
    "media_type",
)
_TAKEN: Final = {_PROTOBUF: Response(200, b"", _PROTOBUF.decode()), _JSON: Response(200, b"{}", _JSON.decode())}
_CODES: Final = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


class OTLPOverHTTP:
    """The routes of the HTTP server. ``refused`` is called with the reason of each refusal."""

    def __init__(
        self,
        config: OTLPHTTPConfig,
        outputs: Mapping[Signal, ReceiverOutput],
        *,
        senders: SenderContexts,
        refused: Callable[[str], None],
    ) -> None:
        self.context = senders.of_request
        self.refused = refused
        paths = {
            Signal.TRACES: config.traces_url_path,
            Signal.METRICS: config.metrics_url_path,
            Signal.LOGS: config.logs_url_path,
        }
        self.routes: dict[str, Route] = {
            paths[signal]: _Export(self, signal, output.for_transport("http")) for signal, output in outputs.items()
        }
        self.default_route: Route = _Unknown(self)
        """For all other paths."""


class _Unknown(Route):
    """Answers 404."""

    def __init__(self, shared: OTLPOverHTTP) -> None:
        self._shared = shared

    def check(self, request: Request) -> Response:
        """Refuse the request by its path."""
        self._shared.refused(_NOT_FOUND.reason)
        return _refused_by_head(request, 404, _NOT_FOUND, [("X-Content-Type-Options", "nosniff")])


class _Export(Route):
    """``POST`` of one signal. The ``media_type`` of a request is that of its body and of the response."""

    def __init__(self, shared: OTLPOverHTTP, signal: Signal, output: ReceiverOutput) -> None:
        self._shared = shared
        self._signal = signal
        self._output = output

    def check(self, request: Request) -> Response | None:
        """Check the method and the media type; returns an error response, or None if they are supported."""
        if request.method != "POST":
            self._shared.refused(_METHOD_NOT_ALLOWED.reason)
            return _refused_by_head(request, 405, _METHOD_NOT_ALLOWED, [("Allow", "POST")])
        media_type = request.headers.get(b"content-type", b"")
        if media_type not in _TAKEN:
            media_type = _without_parameters(media_type)
            if media_type not in _TAKEN:
                self._shared.refused(_UNSUPPORTED.reason)
                return _refused_by_head(request, 415, _UNSUPPORTED)
        request.media_type = media_type
        return None

    def serve(self, request: Request) -> None:
        """Hand the body on; the response follows from the outcome."""
        body = request.body
        if request.media_type == _JSON:
            if len(body) >= _JSON_LEAVES_LOOP_FROM_BYTES:
                request.spawn(self._serve_large_json(request))
                return
            try:
                body = from_json(self._signal, body)
            except MalformedBatch as exc:
                self._answered(request, exc)
                return
        self._submit(request, body)

    def refusal(self, request: Request, error: Refused | ConsumeError) -> Response:
        """The response to a refused request: a google.rpc.Status."""
        if error.reason in UNREAD_REASONS:
            self._output.refuse_unread(error.reason)
        if isinstance(error, Refused):
            message = str(error).encode("utf-8", "replace").decode()  # it may contain bytes of the request
            field = WHOLE_REQUEST if error.status == 400 else ""
            failure = Failure(_CODES.get(error.status, grpc.StatusCode.UNKNOWN), message, error.reason, field=field)
            return self._failed(request, failure, error.status)
        failure = failure_of(error)
        return self._failed(request, failure, failure.http_status)

    async def _serve_large_json(self, request: Request) -> None:
        try:
            with request.reserve(len(request.body) * _JSON_MEMORY_FACTOR):
                body = await asyncio.to_thread(from_json, self._signal, request.body)
        except MalformedBatch as exc:
            self._answered(request, exc)
        else:
            self._submit(request, body)

    def _submit(self, request: Request, wire: bytes) -> None:
        if wire:
            self._output.try_consume_request(wire, self._shared.context(request), partial(self._answered, request))
        else:
            request.reply(_TAKEN[request.media_type])  # an empty request succeeds and does not enter a pipeline

    def _answered(self, request: Request, outcome: Receipt | Exception) -> None:
        answer: Response | Exception
        if isinstance(outcome, MemoryError):
            outcome = out_of_memory()
        if isinstance(outcome, Receipt):
            if not outcome.rejected_count and not outcome.message:
                answer = _TAKEN[request.media_type]
            elif request.media_type == _JSON:
                answer = Response(200, partial_success_json(self._signal, outcome), _JSON.decode())
            else:
                answer = Response(200, partial_success_proto(outcome), _PROTOBUF.decode())
        elif isinstance(outcome, MalformedBatch | ConsumeError):
            failure = failure_of(outcome)
            answer = self._failed(request, failure, failure.http_status)
        else:
            answer = outcome
        request.reply(answer)

    def _failed(self, request: Request, failure: Failure, status: int) -> Response:
        self._shared.refused(failure.reason)
        headers = (
            [("Retry-After", failure.retry_after_header)] if failure.retry_after_header and status in {429, 503} else []
        )
        body = failure.status_json() if request.media_type == _JSON else failure.status_proto()
        return Response(status, body, request.media_type.decode(), headers)


def _without_parameters(media_type: bytes) -> bytes:
    """The media type alone: parameters have no meaning here."""
    return media_type.partition(b";")[0].strip().lower()


def _refused_by_head(request: Request, status: int, failure: Failure, headers: HeaderList = ()) -> Response:
    """The response to a request that was refused before its media type was known to be supported."""
    if _without_parameters(request.headers.get(b"content-type", b"")) == _PROTOBUF:
        return Response(status, failure.status_proto(), _PROTOBUF.decode(), headers)
    return Response(status, failure.status_json(), _JSON.decode(), headers)
