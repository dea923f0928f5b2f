"""Fuzz target: the server side of HTTP/1.1. However the bytes are split, responses and accounting are the same.

First byte: where the stream is cut. Under atheris: ``python tests/fuzz/fuzz_http1.py CORPUS_DIR -max_total_time=60``.
"""

import asyncio
import contextlib
import sys
from typing import Any, Final

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(
        include=["collector.transport.http"]
    )
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from collector.transport.http import Request, Response, Route
    from collector.transport.http.http1 import HTTP1Connection
    from collector.transport.http.http1_connections import HTTP1Connections
    from collector.transport.http.request import HTTPRoutes
from collector.testing import FakeClock, FakeHost, RecordingTelemetry
from config.blocks import HTTPServerConfig

CONFIG: Final = HTTPServerConfig.model_validate(
    {"max_request_body_size": 2000, "cors": {"allowed_origins": ["https://*.example.com"]}}
)
LOOP: Final = asyncio.new_event_loop()
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 1)})
        self.written = b""
        self.is_closed = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        self.written += data

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Echo(Route):
    """Answers ``/now`` at once, and all other requests at the end in reverse order."""

    def __init__(self) -> None:
        self.served: list[tuple[Any, ...]] = []
        self.waiting: list[Request] = []

    def check(self, request: Request) -> Response | None:
        return Response.text(405, "no") if request.method == "PUT" else None

    def serve(self, request: Request) -> None:
        self.served.append((request.method, request.path, request.body, request.header_values()))
        if request.path == "/now":
            request.reply(Response(200, request.body))
        else:
            self.waiting.append(request)


async def run(pieces: list[bytes]) -> tuple[Any, ...]:
    """The requests served, the bytes written and the counters."""
    telemetry, host, route = RecordingTelemetry(), FakeHost(), Echo()
    service = HTTPRoutes(CONFIG, {}, default_route=route, key="k", clock=FakeClock(), log=telemetry.log)
    service.open(host)
    refused: list[str] = []
    connection, wire = HTTP1Connection(HTTP1Connections(service, refused.append)), Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.feed(piece)
    while route.waiting:
        route.waiting.pop().reply(Response(200, b"later"))
    connection.connection_lost(None)
    assert host.admission.used_bytes == 0
    assert not telemetry.log.of_level("error")
    return route.served, wire.written.replace(CONTINUE, b""), refused, connection._takes_no_more


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    step, stream = data[0] % 64 + 1, data[1:]
    whole = LOOP.run_until_complete(run([stream]))
    assert LOOP.run_until_complete(run([stream[i : i + step] for i in range(0, len(stream), step)])) == whole


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
