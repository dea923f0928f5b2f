"""Fuzz target: one end of an HTTP/2 connection. However the bytes are split, events and held bytes are the same.

First byte: where the stream is cut, and in bit 6 which end it is; then frames, for a server after the client's preface.
Under atheris: ``python tests/fuzz/fuzz_session.py CORPUS_DIR``.
"""

import contextlib
import sys
from collections.abc import Iterable
from typing import Any, Final

if __name__ == "__main__":
    import atheris

    instrumented: contextlib.AbstractContextManager[Any] = atheris.instrument_imports(
        include=["collector.transport.http2"]
    )
else:
    instrumented = contextlib.nullcontext()
with instrumented:
    from collector.transport.http2 import sessions
    from collector.transport.http2.events import HTTP2Error, StreamEvent
    from collector.transport.http2.header_fields import HeaderFields, decode_header_block
    from collector.transport.http2.session import Session

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CLIENT_BIT: Final = 0x40
CALL: Final = HeaderFields(
    ((b":method", b"POST"), (b":scheme", b"http"), (b":path", b"/a.B/C"), (b":authority", b"x"), (b"te", b"trailers"))
)
HEAD: Final = HeaderFields(((b":status", b"200"), (b"content-type", b"application/grpc")))
STATUS: Final = HeaderFields(((b"grpc-status", b"0"),))

Heard = tuple[dict[int, list[Any]], list[str], bool]


def new(*, is_client: bool) -> Session:
    """One end of a connection; a client has sent two requests."""
    if not is_client:
        return sessions.server_session(
            max_message_bytes=1000, max_concurrent_streams=10, max_header_bytes=1000, cut_off_bytes=2000
        )
    session = sessions.client_session(max_message_bytes=1000)
    for _ in range(2):
        session.request(CALL, b"\0\0\0\0\4", b"body")
    session.output(1 << 20)
    return session


def run(session: Session, pieces: list[bytes]) -> Heard:
    """The outcome of each stream, the names of other events, and whether the connection broke."""
    streams: dict[int, list[Any]] = {}
    others: list[str] = []
    for piece in pieces:
        try:
            hear(session.receive(piece, 0.0), streams, others)
        except HTTP2Error:
            hear(session.take_events(), streams, others)
            assert session.held_bytes == session.queued_bytes == 0
            return streams, others, True
    answer(session, streams)
    return streams, others, False


def hear(events: Iterable[Any], streams: dict[int, list[Any]], others: list[str]) -> None:
    """Adds events to the outcome."""
    for event in events:
        if not isinstance(event, StreamEvent):
            others.append(type(event).__name__)
            continue
        heard = streams.setdefault(event.stream_id, [None, None, b"", None, 0, None])
        if event.head is not None:
            assert heard[0] is None
            heard[0] = (decode_header_block(event.head), event.timeout, event.is_grpc)
        if event.message is not None:
            assert heard[1] is None
            assert event.is_end
            heard[1] = (event.is_compressed, event.message)
        heard[2] += event.data
        heard[3] = event.trailers if event.trailers is not None else heard[3]
        heard[4] += event.is_end
        assert heard[4] < 2
        if event.is_closed:
            assert heard[5] is None
            heard[5] = event.error_code


def answer(session: Session, streams: dict[int, list[Any]]) -> None:
    """Consumes everything that was received; afterwards nothing is held and nothing crashes."""
    for stream_id, heard in streams.items():
        with contextlib.suppress(HTTP2Error):
            if heard[4]:
                session.respond(stream_id, HEAD, b"x" * 20_000, STATUS)
            elif stream_id % 4 == 1:
                session.switch_to_raw(stream_id)
                session.send(stream_id, b"more")
            else:
                session.reset(stream_id, 8)
    assert session.held_bytes == 0
    with contextlib.suppress(HTTP2Error):
        while session.output(10_000):
            pass
        session.send_goaway(0, b"bye")
        session.output(1)
    session.take_events()
    session.close()
    assert session.queued_bytes == 0


def test_one_input(data: bytes) -> None:
    """Runs the target once; raises if a property does not hold."""
    if not data:
        return
    is_client, step = bool(data[0] & CLIENT_BIT), data[0] % 64 + 1
    stream = data[1:] if is_client else PREFACE + data[1:]
    whole = run(new(is_client=is_client), [stream])
    cut = run(new(is_client=is_client), [stream[i : i + step] for i in range(0, len(stream), step)])
    # What comes after a GOAWAY, nonsense included, is processed only where it comes in the same piece.
    if "GoAwayReceived" not in whole[1]:
        assert cut == whole, (cut, whole)


def main() -> None:
    atheris.Setup(sys.argv, test_one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
