"""The kernel that leaves out attributes whose values have passed before."""

import numpy as np
import pytest
import redaction_cases
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from collector.model import Traces
from processors.redaction._passed import PassedValues

VALUES = st.one_of(st.text(max_size=20), st.integers(0, 3), st.booleans(), st.just([1]), st.just(None), st.binary())


def attributes_of(rows):
    request = ExportTraceServiceRequest()
    scope = request.resource_spans.add().scope_spans.add()
    for values in rows:
        scope.spans.add(attributes=redaction_cases._attributes(values))
    return Traces.from_wire(request.SerializeToString()).attributes()


def encoded(attributes, actions):
    return np.array([actions.get(key.decode(), 0) for key in attributes.keys], np.uint16).tobytes()


@given(
    st.lists(st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), VALUES, max_size=4), max_size=6),
    st.dictionaries(st.sampled_from(["a", "b", "c", "d"]), st.integers(0, 4)),
    st.booleans(),
)
def test_agrees_with_a_slow_reference(rows, actions, all_kinds):
    """A set of kinds and values; every second value that is asked for passes."""
    attributes = attributes_of(rows)
    passed, known = PassedValues(100), set()
    for _ in range(3):
        which = passed.to_check(attributes.rows, attributes.source, encoded(attributes, actions), all_kinds).tolist()
        expected = []
        for place, row in enumerate(attributes.rows):
            action = actions.get(attributes.keys[row["key_code"]].decode(), 0)
            if action == 0 and (row["kind"] == 1 or all_kinds):
                if value_of(attributes, row) not in known:
                    expected.append(place)
            elif action > 1:
                expected.append(place)
        assert which == expected
        added = attributes.rows.take(which[::2])
        passed.add(added, attributes.source)
        known.update(value_of(attributes, row) for row in added)


def value_of(attributes, row):
    start, length = (row["value"], row["value_len"]) if row["kind"] == 1 else (row["any"], row["any_len"])
    return row["kind"], attributes.source[max(start, 0) : max(start, 0) + length]


def test_it_is_bounded_and_keeps_what_is_used():
    """A value that is asked for again and again stays, whatever else comes."""
    passed = PassedValues(1000)
    kept = attributes_of([{"k": "kept"}])
    actions = encoded(kept, {})
    passed.add(kept.rows, kept.source)
    for start in range(0, 20_000, 500):
        others = attributes_of([{"k": f"value {number}"} for number in range(start, start + 500)])
        passed.add(others.rows, others.source)
        assert not len(passed.to_check(kept.rows, kept.source, actions, all_kinds=False))
    assert passed.memory_bytes <= 2 * 2048 * 16
    first = attributes_of([{"k": "value 0"}])
    assert passed.to_check(first.rows, first.source, actions, all_kinds=False).tolist() == [0]


@pytest.mark.parametrize("field", ["key_code", "value_len", "value"])
def test_rows_that_do_not_fit_are_refused(field):
    """No slice outside the source is read."""
    attributes = attributes_of([{"k": "text"}])
    rows = attributes.rows.copy()
    rows[field] = 2**31 - 1
    with pytest.raises(ValueError, match=r"key code|outside"):
        PassedValues(10).to_check(rows, attributes.source, encoded(attributes, {}), all_kinds=False)
    with pytest.raises(ValueError, match="ATTRIBUTE"):
        PassedValues(10).to_check(np.zeros(3), b"", b"\0\0", all_kinds=False)
