"""gRPC's encoding within HTTP/2 frames: length-prefixed messages, time-outs, percent-encoded texts, binary metadata.

Source: gRPC's doc/PROTOCOL-HTTP2.md, doc/statuscodes.md and doc/http-grpc-status-mapping.md.
"""

import base64
import binascii
import re
from typing import Final

import grpc

__all__ = [
    "CODES",
    "HEADER_BYTES",
    "FramingError",
    "MessageReader",
    "MessageTooLarge",
    "code_from_http_status",
    "decode_binary",
    "decode_percent",
    "encode_binary",
    "encode_message",
    "encode_percent",
    "encode_timeout",
    "invalid_message_error",
    "parse_status_code",
]

HEADER_BYTES: Final = 5  # before each message: compressed flag and length
CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}  # unescaped in grpc-message: printable ASCII but %
_MAX_TIMEOUT_DIGITS: Final = 8
_SMALL_BYTES: Final = 1024
_HTTP_STATUS: Final = {
    400: grpc.StatusCode.INTERNAL,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.UNIMPLEMENTED,
    429: grpc.StatusCode.UNAVAILABLE,
    502: grpc.StatusCode.UNAVAILABLE,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.UNAVAILABLE,
}


class FramingError(ValueError):
    """The bytes are not a sequence of gRPC messages."""


class MessageTooLarge(ValueError):  # noqa: N818 - the condition, as callers test for it
    """The header of a message announces more bytes than the limit."""

    def __init__(self, size_bytes: int, max_bytes: int) -> None:
        super().__init__(f"received message larger than max ({size_bytes} vs. {max_bytes})")
        self.size_bytes = size_bytes


class MessageReader:
    """Assembles messages from DATA chunks. Memory grows with what was received, never with what a header announces.

    ``max_count``: the most messages it accepts between two calls of :meth:`take_messages`.
    """

    __slots__ = ("_chunks", "_max_bytes", "_max_count", "_messages", "_whole_at_bytes", "size_bytes")

    def __init__(self, max_bytes: int, max_count: int = 100) -> None:
        self._max_bytes = max_bytes
        self._max_count = max_count
        # together they hold the incomplete message; small ones share a bytearray
        self._chunks: list[bytes | bytearray] = []
        self._messages: list[tuple[bool, bytes]] = []
        self._whole_at_bytes = 0  # size_bytes at which the current message is complete; 0: its header is incomplete
        self.size_bytes = 0
        """Bytes held of an incomplete message."""

    def feed(self, data: bytes) -> None:
        """Add one chunk.

        Raises:
            MessageTooLarge: as soon as the header of the message has arrived.
            FramingError: the compressed flag is neither 0 nor 1, or there are more messages than ``max_count``.
        """
        if not data:
            return
        self._hold(data)
        if self.size_bytes < self._whole_at_bytes:
            return
        chunks = self._chunks
        start = 0  # of the next message in the first chunk
        while self.size_bytes >= HEADER_BYTES:
            if len(chunks[0]) - start < HEADER_BYTES:
                chunks[:] = [b"".join(chunks)]  # start is 0: after the first message there is one chunk
            head = chunks[0]
            flag, size = _read_header(head, start, self._max_bytes)
            remaining_bytes = self.size_bytes - HEADER_BYTES - size
            if remaining_bytes < 0:
                self._whole_at_bytes = HEADER_BYTES + size
                break
            if len(self._messages) == self._max_count:
                unit = "message" if self._max_count == 1 else "messages"
                raise FramingError(f"more than {self._max_count} {unit}")
            last = chunks[-1]  # the message ends in it: otherwise it would have been complete before
            end = len(last) - remaining_bytes
            with memoryview(head) as first, memoryview(last) as final:
                if head is last:
                    message = bytes(first[start + HEADER_BYTES : end])
                else:
                    message = b"".join((first[HEADER_BYTES:], *chunks[1:-1], final[:end]))
                    chunks[:] = [last]
            self._messages.append((flag == 1, message))
            self.size_bytes, start, self._whole_at_bytes = remaining_bytes, end, 0
        if start:
            chunks[:] = [chunks[0][start:]] if self.size_bytes else []

    def _hold(self, data: bytes) -> None:
        self.size_bytes += len(data)
        chunks = self._chunks
        if len(data) >= _SMALL_BYTES or not chunks:
            chunks.append(data)
        elif isinstance(chunks[-1], bytearray):  # frames of one byte would cost forty times their size
            chunks[-1] += data
        else:
            chunks.append(bytearray(data))

    def take_messages(self) -> list[tuple[bool, bytes]]:
        """Return the messages completed since the last call, as (is compressed, bytes)."""
        messages, self._messages = self._messages, []
        return messages


def encode_message(message: bytes, *, compressed: bool = False) -> bytes:
    """Return the message with its header."""
    return (b"\x01" if compressed else b"\x00") + len(message).to_bytes(4, "big") + message


def invalid_message_error(body: bytes, max_bytes: int) -> FramingError | MessageTooLarge:
    """Return why ``body``, or the part received of it, is not exactly one message and cannot become one."""
    if len(body) >= HEADER_BYTES:
        try:
            _, size = _read_header(body, 0, max_bytes)
        except (FramingError, MessageTooLarge) as error:
            return error
        if len(body) > HEADER_BYTES + size:
            return FramingError("more than one message; expected exactly one")
    return FramingError("the body ends within a message")


def _read_header(data: bytes | bytearray, start: int, max_bytes: int) -> tuple[int, int]:
    """Return the compressed flag and the length of the message that begins at ``start``."""
    flag, size = data[start], int.from_bytes(data[start + 1 : start + HEADER_BYTES], "big")
    if flag > 1:
        raise FramingError("the compressed flag of a message is neither 0 nor 1")
    if size > max_bytes:
        raise MessageTooLarge(size, max_bytes)
    return flag, size


def encode_timeout(seconds: float) -> bytes:
    """Return a ``grpc-timeout`` in the finest unit whose number has at most eight digits; never 0."""
    for unit, scale in ((b"n", 1e-9), (b"u", 1e-6), (b"m", 1e-3), (b"S", 1.0), (b"M", 60.0), (b"H", 3600.0)):
        number = max(round(seconds / scale), 1)
        if number < 10**_MAX_TIMEOUT_DIGITS:
            return b"%d%s" % (number, unit)
    return b"99999999H"


def encode_percent(text: str) -> bytes:
    """Return a text as ``grpc-message``: UTF-8, percent-encoded."""
    raw = text.encode("utf-8", "replace")
    if all(byte in _PLAIN for byte in raw):
        return raw
    return b"".join(bytes((byte,)) if byte in _PLAIN else b"%%%02X" % byte for byte in raw)


def decode_percent(value: bytes) -> str:
    """Return the text of a ``grpc-message``; invalid escapes stay as they are."""
    if b"%" not in value:
        return value.decode("utf-8", "replace")
    out = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes((int(match[1], 16),)), value)
    return out.decode("utf-8", "replace")


def encode_binary(value: bytes) -> bytes:
    """Return the value of a ``-bin`` header, without padding as the specification recommends."""
    return base64.b64encode(value).rstrip(b"=")


def decode_binary(value: bytes) -> list[bytes]:
    """Return the values of a ``-bin`` header: several may be joined by commas; padding is optional.

    Raises:
        FramingError: a value is not valid base64.
    """
    try:
        return [
            base64.b64decode(part.strip() + b"=" * (-len(part.strip()) % 4), validate=True)
            for part in value.split(b",")
        ]
    except (binascii.Error, ValueError) as exc:
        raise FramingError("a binary header is not valid base64") from exc


def parse_status_code(value: bytes) -> grpc.StatusCode:
    """Return the code of a ``grpc-status``; UNKNOWN unless it is a known number."""
    return (
        CODES.get(int(value), grpc.StatusCode.UNKNOWN)
        if value.isdigit() and len(value) < 3
        else grpc.StatusCode.UNKNOWN
    )


def code_from_http_status(status: int) -> grpc.StatusCode:
    """Return the code for a response without ``grpc-status``."""
    return _HTTP_STATUS.get(status, grpc.StatusCode.UNKNOWN)
