"""Fuzz target: the server side of HTTP/2 and gRPC. However the bytes are split, calls and accounting are the same.

First byte: where the stream is cut; then frames, after the client's preface. Under atheris: ``python
tests/fuzz/fuzz_grpc.py CORPUS_DIR``.
"""

import asyncio
import contextlib
import sys
from collections import Counter
from typing import Any, Final

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(
        include=["collector.transport.grpc", "collector.transport.http2", "collector.transport.http"]
    )
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from collector.transport.grpc.method import Call, Reply
    from collector.transport.grpc.server import GRPCServer
    from collector.transport.http import HTTPServer, Request, Response, Route
from collector.testing import FakeClock, FakeHost, RecordingTelemetry
from collector.transport.endpoint import LocalAddresses
from config.blocks import GRPCServerConfig, HTTPServerConfig

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
GOAWAY: Final = 7
LOOP: Final = asyncio.new_event_loop()


class Wire(asyncio.Transport):
    """A transport that discards what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.is_closed = self.is_ended = False

    def write(self, data: Any) -> None:
        assert not self.is_closed
        assert not self.is_ended

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.is_ended = True

    def close(self) -> None:
        self.is_closed = True

    abort = close

    def is_closing(self) -> bool:
        return self.is_closed

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Echo(Route):
    """Serves requests that are not gRPC."""

    def __init__(self, served: list[Any]) -> None:
        self._served = served

    def serve(self, request: Request) -> None:
        self._served.append((request.method, request.path, request.body, request.header_values()))
        request.reply(Response(200, request.body))


async def run(pieces: list[bytes]) -> tuple[list[Any], Counter[str], Counter[str]]:
    """The calls served and refused, and why the server closed the connection."""
    telemetry, host = RecordingTelemetry(), FakeHost()
    served: list[Any] = []
    waiting: list[tuple[Reply, bytes]] = []
    refused: Counter[str] = Counter()
    closed: Counter[str] = Counter()

    def method(message: bytes, call: Call, reply: Reply) -> None:
        served.append((message, dict(call.metadata)))
        if len(served) % 2:
            reply(message)
        else:
            waiting.append((reply, message))

    common: dict[str, Any] = {"clock": FakeClock(), "log": telemetry.log}
    http = HTTPServer(
        HTTPServerConfig.model_validate({"max_request_body_size": 2000}), {}, key="h", default=Echo(served), **common
    )
    server = GRPCServer(
        GRPCServerConfig(max_recv_msg_size_mib=1),
        {"/a.B/C": method},
        key="k",
        addresses=LocalAddresses(),
        on_refused=lambda reason: refused.update([reason]),
        on_closed=lambda reason: closed.update([reason]),
        files={},
        http=http,
        **common,
    )
    connection = server.prepare(host).connection()
    wire = Wire()
    connection.connection_made(wire)
    for piece in pieces:
        connection.receive(piece)
    while waiting:
        reply, message = waiting.pop()
        reply(message)
    connection.flush()
    connection.connection_lost(None)
    assert host.admission.used_bytes == 0
    assert not connection.streams
    assert not telemetry.log.of_level("error")
    return served, refused, closed


def has_goaway(stream: bytes) -> bool:
    """Whether one of these frames is a GOAWAY."""
    at = 0
    while at + 9 <= len(stream):
        if stream[at + 3] == GOAWAY:
            return True
        at += 9 + int.from_bytes(stream[at : at + 3], "big")
    return False


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    step, stream = data[0] % 64 + 1, PREFACE + data[1:]
    whole = LOOP.run_until_complete(run([stream]))
    cut = LOOP.run_until_complete(run([stream[i : i + step] for i in range(0, len(stream), step)]))
    # How much waits to be acknowledged depends on how much comes at once; what comes after a GOAWAY is processed only
    # where it comes in the same piece.
    if "flood" not in whole[2] + cut[2] and not has_goaway(stream[len(PREFACE) :]):
        assert cut == whole


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
