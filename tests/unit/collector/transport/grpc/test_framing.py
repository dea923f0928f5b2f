"""gRPC's encodings, against their definitions and in round trips."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.transport.grpc.framing import (
    FramingError,
    MessageReader,
    MessageTooLarge,
    code_from_http_status,
    decode_binary,
    decode_percent,
    encode_binary,
    encode_message,
    encode_percent,
    encode_timeout,
    invalid_message_error,
    parse_status_code,
)
from http2_peer import seconds_of


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=60)), max_size=5), st.data())
def test_any_split_gives_the_same_messages(messages, data):
    """However the bytes are cut into chunks."""
    wire = b"".join(encode_message(body, compressed=flag) for flag, body in messages)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=8)))
    reader, found = MessageReader(60), []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        reader.feed(wire[start:end])
        found += reader.take_messages()
    assert found == messages
    assert reader.size_bytes == 0


def test_a_message_is_refused_by_its_header_alone():
    """A message over the limit is refused before it arrives, and no memory is allocated for it."""
    reader = MessageReader(10)
    with pytest.raises(MessageTooLarge, match=r"11 vs\. 10"):
        reader.feed(b"\x00\x00\x00\x00\x0b")
    with pytest.raises(FramingError):
        MessageReader(10).feed(b"\x02\x00\x00\x00\x00")


def test_messages_are_counted():
    """A unary stream carries one; however small messages are, a peer can only create that many objects."""
    reader = MessageReader(10, max_count=1)
    reader.feed(encode_message(b"a"))
    with pytest.raises(FramingError, match="more than 1"):
        reader.feed(encode_message(b""))


@given(st.floats(min_value=1e-9, max_value=1e9))
def test_a_timeout_survives(seconds):
    """At least five significant digits; from 99 999.999 s on, eight digits hold whole seconds."""
    assert seconds_of(encode_timeout(seconds)) == pytest.approx(seconds, rel=1e-5, abs=5e-10)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "ends within"),
        (b"\0\0\0\0", "ends within"),
        (b"\0\0\0\0\2a", "ends within"),
        (b"\0\0\0\0\1ab", "more than one"),
        (b"\2\0\0\0\1a", "flag"),
        (b"\0\0\0\4\1a", "larger than max (1025 vs. 1024)"),
    ],
)
def test_why_bytes_are_no_message(body, says):
    """One sentence per kind of error."""
    assert says in str(invalid_message_error(body, 1024))


@given(st.text())
def test_texts_survive(text):
    """Any text becomes printable ASCII; surrogates are replaced."""
    encoded = encode_percent(text)
    assert all(0x20 <= byte < 0x7F for byte in encoded)
    assert decode_percent(encoded) == text.encode("utf-8", "replace").decode()


def test_a_wrong_escape_stays():
    """A receiver must not fail on invalid escapes."""
    assert decode_percent(b"100% %zz %41") == "100% %zz A"


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=4), st.booleans())
def test_binary_values_survive(values, padded):
    """They are decoded with and without padding, and if one header has several of them."""
    encoded = [encode_binary(value) for value in values]
    if padded:
        encoded = [value + b"=" * (-len(value) % 4) for value in encoded]
    assert decode_binary(b", ".join(encoded)) == values


def test_invalid_base64():
    with pytest.raises(FramingError):
        decode_binary(b"!!!")


def test_codes():
    """Numbers that gRPC does not define become UNKNOWN."""
    assert parse_status_code(b"14") is grpc.StatusCode.UNAVAILABLE
    assert {parse_status_code(value) for value in (b"", b"99", b"-1", b"x", b"1" * 5000)} == {grpc.StatusCode.UNKNOWN}
    assert code_from_http_status(503) is grpc.StatusCode.UNAVAILABLE
    assert code_from_http_status(418) is grpc.StatusCode.UNKNOWN
