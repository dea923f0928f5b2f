"""The hand-written messages of failures are compared with Google's classes."""

import pytest
from google.protobuf import json_format
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.api import ConsumeError, PermanentError, RetryableError
from collector.model import MalformedBatch
from collector.transport.failure import failure_of


@settings(deadline=None)
@given(message=st.text(max_size=300), retry=st.none() | st.floats(0, 1e6))
def test_retry_info_reads_back(message, retry):
    """google.rpc.Status with RetryInfo can be read in both encodings."""
    failure = failure_of(RetryableError(message, retry_after_s=retry))
    status = status_pb2.Status.FromString(failure.status_proto())
    assert (status.code, status.message) == (code_pb2.UNAVAILABLE, message)
    assert json_format.Parse(failure.status_json(), status_pb2.Status()) == status
    if retry is None:
        assert not status.details
        return
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.ToNanoseconds() == pytest.approx(retry * 1e9, abs=1)


@settings(deadline=None)
@given(path=st.text(max_size=300), reason=st.text(max_size=300))
def test_bad_request_reads_back(path, reason):
    """The field and the reason can be read, for any text that a request may have contained."""
    failure = failure_of(MalformedBatch(path=path, offset=1, reason=reason))
    status = status_pb2.Status.FromString(failure.status_proto())
    assert json_format.Parse(failure.status_json(), status_pb2.Status()) == status
    bad = error_details_pb2.BadRequest()
    assert status.details[0].Unpack(bad)
    assert [(v.field, v.description) for v in bad.field_violations] == [(path or "request", status.message)]


@pytest.mark.parametrize(
    ("error", "code", "http_status"),
    [
        (MalformedBatch(path="a", offset=0, reason="r"), code_pb2.INVALID_ARGUMENT, 400),
        (RetryableError("r"), code_pb2.UNAVAILABLE, 503),
        (PermanentError("r"), code_pb2.INTERNAL, 500),
        (ConsumeError("r"), code_pb2.UNAVAILABLE, 503),
    ],
)
def test_errors_map_as_in_the_collector(error, code, http_status):
    """The mapping is that of the Collector's errors.go."""
    failure = failure_of(error)
    assert (failure.code.value[0], failure.http_status) == (code, http_status)


def test_lone_surrogates_do_not_break_the_answer():
    """A message may quote arbitrary bytes of the request."""
    assert status_pb2.Status.FromString(failure_of(PermanentError("\udcff")).status_proto()).message == "?"
