"""A route that takes telemetry in another format than OTLP: the body is decoded, and the result goes to the door."""

import asyncio
import html
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from collector.api import ConsumeError, Receipt, ReceiverOutput, out_of_memory
from collector.model import Context, MalformedBatch
from collector.transport.failure import UNREAD_REASONS, failure_of
from collector.transport.http.headers import HeaderList
from collector.transport.http.request import Request, Route
from collector.transport.http.response import Refused, Response

__all__ = ["Intake"]

_LEAVES_LOOP_FROM_BYTES: Final = 256 * 1024
_PLAIN: Final = "text/plain; charset=utf-8"


class Intake(Route):
    """``POST`` of one format. Subclasses say how to decode it.

    ``refused`` is called with the reason of each refusal; ``context_of`` returns the context of a request's sender.
    Errors are answered in plain text: 400 for what cannot be decoded, 503 with Retry-After if there is no room.

    Example::

        class Spans(Intake):
            accepted = Response(202)

            def decode(self, request: Request) -> bytes:
                return decode_spans(request.body)
    """

    accepted: ClassVar[Response]
    """The response to what was accepted."""
    media_types: ClassVar[frozenset[bytes] | None] = None
    """The media types that are supported, in lower case; None: the media type does not matter."""
    unsupported_status: ClassVar[int] = 415
    """The status for another media type."""
    memory_factor: ClassVar[int] = 3
    """How much more memory than the body its decoding takes, about."""

    def __init__(
        self, output: ReceiverOutput, context_of: Callable[[Request], Context], refused: Callable[[str], None]
    ) -> None:
        self._output, self._context_of, self._refused = output, context_of, refused

    @abstractmethod
    def decode(self, request: Request) -> bytes:
        """The Export…ServiceRequest that the body corresponds to; empty if it has no items.

        For a large body it is called in a thread.

        Raises:
            MalformedBatch: the body is not valid in its format.
        """

    def check(self, request: Request) -> Response | None:
        """Refuse other methods and media types; sets ``media_type``."""
        if request.method != "POST":
            self._refused("method")
            return _text(405, "405 method not allowed, supported: [POST]", [("Allow", "POST")])
        request.media_type = request.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
        if self.media_types is not None and request.media_type not in self.media_types:
            self._refused("media_type")
            supported = ", ".join(sorted(media_type.decode() for media_type in self.media_types))
            return _text(self.unsupported_status, f"unsupported media type, supported: [{supported}]")
        return None

    def serve(self, request: Request) -> None:
        """Decode the body and hand it on; the response follows from the outcome."""
        if len(request.body) >= _LEAVES_LOOP_FROM_BYTES:
            request.spawn(self._serve_large(request))
            return
        try:
            wire = self.decode(request)
        except MalformedBatch as exc:
            self._answer(request, exc)
        else:
            self._submit(request, wire)

    def refusal(self, request: Request, error: Refused | ConsumeError) -> Response:  # noqa: ARG002 - see the base
        """The response to a body that is refused before it is decoded."""
        if error.reason in UNREAD_REASONS:
            self._output.refuse_unread(error.reason)
        if isinstance(error, Refused):
            self._refused(error.reason)
            return _text(error.status, str(error))
        return self._failed(error)

    async def _serve_large(self, request: Request) -> None:
        try:
            with request.reserve(len(request.body) * self.memory_factor):
                wire = await asyncio.to_thread(self.decode, request)
        except MalformedBatch as exc:
            self._answer(request, exc)
        else:
            self._submit(request, wire)

    def _submit(self, request: Request, wire: bytes) -> None:
        if wire:
            self._output.try_consume_request(wire, self._context_of(request), partial(self._answer, request))
        else:
            request.reply(self.accepted)

    def _answer(self, request: Request, outcome: Receipt | Exception) -> None:
        if isinstance(outcome, MemoryError):
            outcome = out_of_memory()
        if isinstance(outcome, Receipt):
            request.reply(self.accepted)
        elif isinstance(outcome, MalformedBatch | ConsumeError):
            request.reply(self._failed(outcome))
        else:
            request.reply(outcome)

    def _failed(self, error: MalformedBatch | ConsumeError) -> Response:
        failure = failure_of(error)
        self._refused(failure.reason)
        has_delay = failure.retry_after_header and failure.http_status in {429, 503}
        return _text(
            failure.http_status, failure.message, [("Retry-After", failure.retry_after_header)] if has_delay else []
        )


def _text(status: int, message: str, headers: HeaderList = ()) -> Response:
    """A response in plain text. The message may contain bytes of the request."""
    shown = html.escape(message).encode("utf-8", "replace")
    return Response(status, shown, _PLAIN, [*headers, ("X-Content-Type-Options", "nosniff")])
