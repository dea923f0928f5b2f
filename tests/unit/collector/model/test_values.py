"""Single values between Python, bytes and text."""

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from collector.model.values import any_value_text, double_text
from collector.wire.encode import encode_value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(
            (0.0, "0"),
            (-0.0, "-0"),
            (1.0, "1"),
            (-2.5, "-2.5"),
            (1e20, "100000000000000000000"),
            (1e21, "1e+21"),
            (1.5e300, "1.5e+300"),
        ),
        *(
            (0.000001, "0.000001"),
            (1.5e-5, "0.000015"),
            (1e-7, "1e-7"),
            (123456789.125, "123456789.125"),
            (5e-324, "5e-324"),
        ),
        *((float("nan"), "NaN"), (float("inf"), "Infinity"), (float("-inf"), "-Infinity"), (-1.25e-6, "-0.00000125")),
    ],
)
def test_doubles_as_text(value, text):
    """Doubles are written as Go's JSON writes them."""
    assert double_text(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        *(("a", "a"), (True, "true"), (-1, "-1"), (b"\xff", "/w=="), ([], "[]"), ({}, "{}"), (None, "")),
        ([1, [2.0, b"x"], {"k": None}], '[1,[2,"eA=="],{"k":null}]'),
        ({"b": 'quote"', "a": float("inf")}, '{"a":"Infinity","b":"quote\\""}'),
    ],
)
def test_values_as_bytes_and_text(value, text):
    """Protobuf reads the encoded value, and its text follows the specification."""
    content = encode_value(value)
    assert AnyValue.FromString(content).SerializeToString() == content
    assert any_value_text(content) == text


@pytest.mark.parametrize(
    ("value", "error"), [(2**63, ValueError), (-(2**63) - 1, ValueError), (object(), TypeError), ([{1, 2}], TypeError)]
)
def test_what_is_no_value_is_refused(value, error):
    """Values that are too large or of an unsupported type are refused."""
    with pytest.raises(error):
        encode_value(value)


def test_nesting_has_a_limit():
    """Values that the door would refuse cannot be encoded."""
    value = "x"
    for _ in range(29):
        value = [value]
    assert encode_value(value)
    with pytest.raises(ValueError, match="nest"):
        encode_value([[value]])


def test_damaged_bytes_have_some_text():
    """The decoder stops at the first invalid field and never raises."""
    for content in (b"\x0a", b"\x0a\x05a", b"\x80", b"\x0b", b"\x21\x00", b"\x2a\x02\x0a\x09"):
        assert isinstance(any_value_text(content), str)
