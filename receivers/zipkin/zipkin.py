"""The receiver ``zipkin``: one HTTP server for both versions of the API.

Source: open-telemetry/opentelemetry-collector-contrib receiver/zipkinreceiver/trace_receiver.go.
"""

from collections.abc import Callable
from functools import partial
from typing import Final, cast

from collector.api import Host, Receiver, ReceiverOutput, Settings
from collector.model import Signal
from collector.transport.context import ContextCache, SenderContexts
from collector.transport.endpoint import LocalAddresses
from collector.transport.http import HTTPServer, Request, Response, Route
from collector.transport.http.intake import Intake
from receivers.zipkin import _v1, _v2
from receivers.zipkin.config import ZipkinConfig

__all__ = ["ZipkinReceiver"]

_GRACE_S: Final = 5.0  # for requests in progress at shutdown
_V1_PATH: Final = "api/v1/spans"
_THRIFT: Final = b"application/x-thrift"
_PROTOBUF: Final = b"application/x-protobuf"


class _Spans(Intake):
    """``POST`` of one format."""

    accepted = Response(202)
    memory_factor = 8  # JSON is parsed into objects

    def __init__(self, decode: Callable[[bytes], bytes], *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self._decode = decode

    def decode(self, request: Request) -> bytes:
        """See the base."""
        return self._decode(request.body)


class _Formats(Route):
    """Chooses the format as the Collector does: by the path and the media type. JSON is what nothing else is."""

    def __init__(self, v1_thrift: _Spans, v1_json: _Spans, v2_proto: _Spans, v2_json: _Spans) -> None:
        self._v1 = {_THRIFT: v1_thrift}, v1_json
        self._v2 = {_PROTOBUF: v2_proto}, v2_json

    def _of(self, request: Request) -> _Spans:
        by_type, otherwise = self._v1 if _V1_PATH in request.path else self._v2
        media_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        return by_type.get(media_type, otherwise)

    def check(self, request: Request) -> Response | None:
        """See the base."""
        return self._of(request).check(request)

    def serve(self, request: Request) -> None:
        """See the base."""
        self._of(request).serve(request)

    def refusal(self, request: Request, error: Exception) -> Response:
        """See the base."""
        return self._of(request).refusal(request, error)  # type: ignore[arg-type]


class ZipkinReceiver(Receiver):
    """Serves Zipkin's API for spans. Every path leads to it, as in the Collector."""

    def __init__(self, settings: Settings, config: ZipkinConfig) -> None:
        self._log = settings.telemetry.log
        output = cast("ReceiverOutput", settings.outputs[Signal.TRACES])
        refused = settings.telemetry.counter(
            "tailrace_receiver_refused_requests",
            "Requests answered with an error, by protocol and reason",
            ("transport", "reason"),
        )
        senders = SenderContexts(
            ContextCache(),
            LocalAddresses(monotonic_s=settings.clock.monotonic_s),
            include_metadata=config.include_metadata,
            authenticates=config.auth is not None,
        )

        def spans(transport: str, decode: Callable[[bytes], bytes]) -> _Spans:
            return _Spans(
                decode,
                output.for_transport(transport),
                senders.of_request,
                lambda reason: refused.add(transport=transport, reason=reason),
            )

        parses = config.parse_string_tags
        formats = _Formats(
            spans("http_v1_thrift", _v1.decode_thrift),
            spans("http_v1_json", partial(_v1.decode_json, parse_string_tags=parses)),
            spans("http_v2_proto", partial(_v2.decode_proto, parse_string_tags=parses)),
            spans("http_v2_json", partial(_v2.decode_json, parse_string_tags=parses)),
        )
        self._server = HTTPServer(
            config,
            {},
            default=formats,
            key=f"receivers::{settings.id}",
            clock=settings.clock,
            log=settings.telemetry.log,
            on_refused=lambda reason: refused.add(transport="http_v2_json", reason=reason),
        )

    @property
    def signals(self) -> frozenset[Signal]:
        """Traces."""
        return frozenset({Signal.TRACES})

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._server.address

    async def start(self, host: Host) -> None:
        """Listen.

        Raises:
            OSError: the endpoint is in use or not an address of this machine; the message names the key.
        """
        await self._server.start(host)
        self._log.info("serving Zipkin over HTTP", endpoint=self._server.address)

    async def shutdown(self) -> None:
        """Stop accepting requests, finish those in progress within 5 s, and close all connections."""
        await self._server.shutdown(_GRACE_S)
