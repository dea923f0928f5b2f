"""Content encodings of OTLP and related protocols: compress a body, or decompress one within a bound.

The bound holds *while* decompressing: a decompression bomb costs at most ``max_bytes`` (briefly twice that), never its
full size. Names are those of HTTP's Content-Encoding and gRPC's grpc-encoding as the Collector reads them: ``deflate``
is zlib, ``x-gzip`` is gzip, ``snappy`` is the block format, ``x-snappy-framed`` the stream format, ``lz4`` the frame
format. Large bodies take milliseconds: whether to leave the event loop is up to the caller.

Source: open-telemetry/opentelemetry-collector config/confighttp/compression.go; RFC 1952 §2.2 (several gzip members);
    RFC 9110 §8.4.1.3 (x-gzip).
"""

import zlib
from collections.abc import Callable, Iterable
from typing import Final

import cramjam
from isal import isal_zlib

from collector.text.printable import printable

__all__ = ["DECODERS", "ENCODERS", "BadEncoding", "TooLarge", "compress", "decompress", "unsupported_encoding"]

_GZIP_WBITS: Final = 31
_ZLIB_WBITS: Final = 15
_ISAL_MAX_LEVEL: Final = 3  # ISA-L has no higher levels; zlib serves those that users configure
_IsalError: Final[type[Exception]] = isal_zlib.error  # type: ignore[assignment] # its stub declares an instance
_CHUNK_BYTES: Final = 64 * 1024
_MAX_MEMBERS: Final = 4096
_FIRST_GUESS_FACTOR: Final = 8
_MIN_BUFFER_BYTES: Final = 64 * 1024
_GROWTH: Final = 4
_DST_TOO_SMALL: Final = "failed to write whole buffer"  # cramjam 2.9 to 2.14: std::io::ErrorKind::WriteZero


class TooLarge(ValueError):  # noqa: N818 - the condition, as callers test for it
    """The decompressed body would exceed the bound: answer 413 or RESOURCE_EXHAUSTED."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"decompressed body is larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


class BadEncoding(ValueError):  # noqa: N818 - the condition, as callers test for it
    """The body is not valid in its encoding, or the encoding is unknown: answer 400 or UNIMPLEMENTED."""


def compress(name: str, data: bytes, level: int | None = None) -> bytes:
    """Return ``data`` in encoding ``name``; unchanged for ``""``, ``none`` and ``identity``.

    ``level`` is on the encoding's own scale; None and -1 mean its default. snappy has no levels and ignores it.

    Raises:
        BadEncoding: the encoding is not supported.
    """
    encoder = ENCODERS.get(name)
    if encoder is None:
        raise BadEncoding(unsupported_encoding(name, ENCODERS))
    return encoder(data, None if level == -1 else level)


def decompress(name: str, data: bytes, max_bytes: int) -> bytes:
    """Return the decompressed ``data``, at most ``max_bytes``; unchanged for ``""`` and ``identity``.

    Raises:
        TooLarge: it would be larger.
        BadEncoding: it is corrupt, truncated or followed by other bytes, or the encoding is not supported.
    """
    decoder = DECODERS.get(name)
    if decoder is None:
        raise BadEncoding(unsupported_encoding(name, DECODERS))
    return decoder(data, max_bytes)


def unsupported_encoding(name: str, known: Iterable[str]) -> str:
    """Return the message about an encoding that is not among the ``known`` ones."""
    supported = ", ".join(sorted(filter(None, known))) or "none"
    return f"unsupported Content-Encoding: {printable(name[:40])}, supported: [{supported}]"


def _identity(data: bytes, level: int | None) -> bytes:  # noqa: ARG001 - one signature for all encoders
    return data


def _deflate_family(wbits: int) -> Callable[[bytes, int | None], bytes]:
    def encode(data: bytes, level: int | None) -> bytes:
        if level is not None and level > _ISAL_MAX_LEVEL:
            return zlib.compress(data, min(level, 9), wbits)
        # ISA-L's level 0 still compresses; it is the fastest, as is Go's level 1.
        chosen = isal_zlib.ISAL_DEFAULT_COMPRESSION if level is None else max(level, 0)
        return bytes(isal_zlib.compress(data, chosen, wbits))

    return encode


def _zstd(data: bytes, level: int | None) -> bytes:
    return bytes(cramjam.zstd.compress(data, level=level))


def _snappy_block(data: bytes, level: int | None) -> bytes:  # noqa: ARG001 - one signature for all encoders
    return bytes(cramjam.snappy.compress_raw(data))


def _snappy_framed(data: bytes, level: int | None) -> bytes:  # noqa: ARG001 - one signature for all encoders
    return bytes(cramjam.snappy.compress(data))


def _lz4_frame(data: bytes, level: int | None) -> bytes:
    return bytes(cramjam.lz4.compress(data, level=level))


ENCODERS: Final[dict[str, Callable[[bytes, int | None], bytes]]] = {
    "": _identity,
    "none": _identity,
    "identity": _identity,
    "gzip": _deflate_family(_GZIP_WBITS),
    "zlib": _deflate_family(_ZLIB_WBITS),
    "deflate": _deflate_family(_ZLIB_WBITS),
    "zstd": _zstd,
    "snappy": _snappy_block,
    "x-snappy-framed": _snappy_framed,
    "lz4": _lz4_frame,
}


def _no_encoding(data: bytes, max_bytes: int) -> bytes:
    if len(data) > max_bytes:
        raise TooLarge(max_bytes)
    return data


def _inflate(wbits: int, *, members: bool) -> Callable[[bytes, int], bytes]:
    """Return a decoder of gzip or zlib streams. ``members``: allow several members in a row."""
    kind = "gzip" if members else "zlib"

    def decode(data: bytes, max_bytes: int) -> bytes:
        parts: list[bytes] = []
        room = max_bytes
        stream = isal_zlib.decompressobj(wbits=wbits)
        position = 0
        member_count = 1
        # In chunks: input after a member is copied, so whole bodies of tiny members would take quadratic time.
        while position < len(data):
            chunk = data[position : position + _CHUNK_BYTES]
            try:
                # One byte more than there is room for shows whether the data is too large.
                part = stream.decompress(chunk, room + 1)
            except _IsalError as exc:
                raise BadEncoding(f"corrupt {kind} data: {exc}") from exc
            if len(part) > room:
                raise TooLarge(max_bytes)
            if part:
                parts.append(part)
                room -= len(part)
            position += len(chunk) - len(stream.unused_data)
            if not stream.eof or position == len(data):
                continue
            if not members:
                raise BadEncoding("trailing bytes after zlib data")
            if data[position] == 0 and not data[position:].strip(b"\0"):
                break  # zero padding after the last member is allowed
            member_count += 1
            if member_count > _MAX_MEMBERS:
                raise BadEncoding(f"more than {_MAX_MEMBERS} gzip members")
            stream = isal_zlib.decompressobj(wbits=wbits)
        if not stream.eof:
            raise BadEncoding(f"truncated {kind} data")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    return decode


def _growing(
    decode_into: Callable[[bytes, bytearray], int], guess_bytes: Callable[[bytes], int]
) -> Callable[[bytes, int], bytes]:
    """Return a decoder that tries a buffer of guessed size, then larger ones while it is too small, up to the bound."""

    def decode(data: bytes, max_bytes: int) -> bytes:
        size = min(max(guess_bytes(data), 1), max(max_bytes, 1))
        while True:
            buffer = bytearray(size)
            try:
                written = decode_into(data, buffer)
            except cramjam.DecompressionError as exc:
                if _DST_TOO_SMALL not in str(exc):
                    raise BadEncoding(f"corrupt data: {exc}") from exc
                if size >= max_bytes:
                    raise TooLarge(max_bytes) from exc
                size = min(size * _GROWTH, max_bytes)
            else:
                if written > max_bytes:
                    raise TooLarge(max_bytes)
                return bytes(memoryview(buffer)[:written])

    return decode


def _default_guess(data: bytes) -> int:
    return max(_FIRST_GUESS_FACTOR * len(data), _MIN_BUFFER_BYTES)


def _zstd_content_size(data: bytes) -> int:
    """Return the Frame_Content_Size of the first frame, or a guess without one. Source: RFC 8878 §3.1.1.1."""
    if len(data) < 6 or data[:4] != b"\x28\xb5\x2f\xfd":
        return _default_guess(data)
    descriptor = data[4]
    single_segment = bool(descriptor & 0x20)
    start = 5 + (0 if single_segment else 1) + (0, 1, 2, 4)[descriptor & 3]
    width = (1 if single_segment else 0, 2, 4, 8)[descriptor >> 6]
    if not width or len(data) < start + width:
        return _default_guess(data)
    size = int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)
    # A wrong size costs at most one more round: nothing implausible for the input's length is allocated.
    return min(size, max(_default_guess(data) * 32, _MIN_BUFFER_BYTES))


def _snappy_block_decode(data: bytes, max_bytes: int) -> bytes:
    try:
        size = int(cramjam.snappy.decompress_raw_len(data))
    except cramjam.DecompressionError as exc:
        raise BadEncoding(f"corrupt snappy data: {exc}") from exc
    if size > max_bytes:
        raise TooLarge(max_bytes)
    if size > 64 * len(data):  # a 3-byte copy yields at most 64 bytes: do not allocate for a false header
        raise BadEncoding("corrupt snappy data: the declared length exceeds what the input can hold")
    buffer = bytearray(size)
    try:
        written = int(cramjam.snappy.decompress_raw_into(data, buffer))
    except cramjam.DecompressionError as exc:
        raise BadEncoding(f"corrupt snappy data: {exc}") from exc
    return bytes(memoryview(buffer)[:written])


DECODERS: Final[dict[str, Callable[[bytes, int], bytes]]] = {
    "": _no_encoding,
    "identity": _no_encoding,
    "gzip": _inflate(_GZIP_WBITS, members=True),
    "x-gzip": _inflate(_GZIP_WBITS, members=True),
    "zlib": _inflate(_ZLIB_WBITS, members=False),
    "deflate": _inflate(_ZLIB_WBITS, members=False),
    "zstd": _growing(cramjam.zstd.decompress_into, _zstd_content_size),
    "snappy": _snappy_block_decode,
    "x-snappy-framed": _growing(cramjam.snappy.decompress_into, _default_guess),
    "lz4": _growing(cramjam.lz4.decompress_into, _default_guess),
}
