"""Several requests checked in one pass give the same result as one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.testing import logs_request, metrics_request, traces_request
from collector.wire.errors import MalformedBatch
from collector.wire.scan import check as scan

MAKE = {
    "traces": lambda count, seed: traces_request(spans=count, seed=seed),
    "metrics": lambda count, seed: metrics_request(points=count, seed=seed),
    "logs": lambda count, seed: logs_request(records=count, seed=seed),
}
GOOD = {
    signal: [b""] + [make(count, seed).SerializeToString() for count, seed in ((1, 1), (3, 2), (20, 3))]
    for signal, make in MAKE.items()
}
# an empty resource, an unknown field
GOOD = {signal: [*bodies, b"\x0a\x00", b"\x7a\x02ab"] for signal, bodies in GOOD.items()}


def alone(signal: str, wire: bytes):
    try:
        return scan.check(signal, wire)
    except MalformedBatch:
        return None


@pytest.mark.parametrize("signal", MAKE)
@given(data=st.data())
def test_joined_is_one_by_one(signal, data):
    """The tables are those of the joined bytes, the counts those of each; None if one would be changed or refused."""
    bodies = data.draw(st.lists(st.sampled_from(GOOD[signal]), max_size=5))
    if bodies and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(bodies) - 1))
        body = bytearray(bodies[place])
        if body and data.draw(st.booleans()):
            body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
        else:
            body = body[: data.draw(st.integers(0, len(body)))]
        bodies[place] = bytes(body)
    each = [alone(signal, body) for body in bodies]
    plain = all(
        found is not None and found[0] is body and not found[2] for found, body in zip(each, bodies, strict=True)
    )
    joined = scan.check_joined(signal, bodies)
    assert (joined is not None) == plain
    if joined is not None:
        wire, tables, counts = joined
        assert wire == b"".join(bodies)
        assert counts == [len(found[1][-1]) for found in each]
        for table, expected in zip(tables, scan.check(signal, wire)[1], strict=True):
            np.testing.assert_array_equal(table, expected)


@pytest.mark.parametrize("signal", MAKE)
def test_a_request_cannot_reach_into_the_next(signal):
    """A length that ends in the next request is an error, even though the joined bytes would parse."""
    body = MAKE[signal](1, 1).SerializeToString()
    assert len(scan.check(signal, body)[1][0]) == 1  # one resource: no cut leaves two requests
    for cut in range(1, len(body)):
        assert scan.check_joined(signal, [body[:cut], body[cut:]]) is None


def test_many_release_the_interpreter_and_count_the_same():
    """Above the size at which the kernel releases the GIL."""
    bodies = [traces_request(spans=400, seed=seed).SerializeToString() for seed in range(4)]
    wire, tables, counts = scan.check_joined("traces", bodies)
    assert len(wire) > 262144
    assert counts == [400] * 4
    assert len(tables[-1]) == 1600
