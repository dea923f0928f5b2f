"""Why a batch was not taken, and what the sender may do about it.

ConsumeError
├── PermanentError    the same bytes will never be accepted: do not send them again
│   └── TooLargeError   because of their size: smaller parts may be accepted
└── RetryableError    not at present: send again, but not before ``retry_after_s``
"""

from typing import Final

__all__ = ["ConsumeError", "PermanentError", "RetryableError", "TooLargeError", "out_of_memory"]

_MEMORY_RETRY_AFTER_S: Final = 1.0  # like the memory budget, which refuses before this happens


class ConsumeError(Exception):
    """A batch was not taken. ``reason`` is a constant word for the ledger, such as ``queue_full`` or ``http_400``.

    >>> try:
    ...     raise RetryableError("the queue of otlp_grpc is full", reason="queue_full")
    ... except ConsumeError as error:
    ...     print(error.reason, "-", error)
    queue_full - the queue of otlp_grpc is full
    """

    def __init__(self, message: str, *, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class PermanentError(ConsumeError):
    """Sending the same bytes again cannot succeed.

    Example::

        if status == 400:
            raise PermanentError(f"the server refused the request: {text}", reason="http_400")
    """


class TooLargeError(PermanentError):
    """The request is larger than the receiver accepts; smaller parts of it may succeed.

    Example::

        if status == 413:
            raise TooLargeError(f"the server refused {len(body)} bytes", reason="http_413")
    """


class RetryableError(ConsumeError):
    """Sending the same bytes later may succeed.

    ``retry_after_s`` is what the receiver asked for (Retry-After, RetryInfo), or None.

    >>> error = RetryableError("the server is overloaded", reason="http_503", retry_after_s=2.5)
    >>> error.reason, error.retry_after_s
    ('http_503', 2.5)
    """

    def __init__(self, message: str, *, reason: str = "error", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s


def out_of_memory() -> RetryableError:
    """What a sender is told whose data made an allocation fail (:class:`MemoryError`): the next attempt may find room.

    >>> out_of_memory().reason
    'memory_limit'
    """
    return RetryableError(
        "there was not enough memory for the request", reason="memory_limit", retry_after_s=_MEMORY_RETRY_AFTER_S
    )
