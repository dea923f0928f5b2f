"""The outcome of a request at the door, as the answer to a gRPC call whose response has no fields."""

from collector.api import ConsumeError, Receipt, out_of_memory
from collector.model import MalformedBatch
from collector.transport.failure import failure_of
from collector.transport.grpc.method import Aborted, Reply

__all__ = ["aborted", "answer"]


def aborted(error: MalformedBatch | ConsumeError) -> Aborted:
    """The status of a call that failed with ``error``."""
    failure = failure_of(error)
    details = failure.status_proto() if failure.field or failure.retry_after_s is not None else b""
    return Aborted(failure.code, failure.message, reason=failure.reason, details=details)


def answer(reply: Reply, outcome: Receipt | Exception) -> None:
    """Answer a call: empty if the request was accepted."""
    if isinstance(outcome, MemoryError):
        outcome = out_of_memory()
    if isinstance(outcome, Receipt):
        reply(b"")
    elif isinstance(outcome, MalformedBatch | ConsumeError):
        reply(aborted(outcome))
    else:
        reply(outcome)
