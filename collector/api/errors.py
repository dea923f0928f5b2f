"""Why a batch was not taken, and what the sender may do about it.

ConsumeError
├── PermanentError    the same bytes will never be accepted: do not send them again
│   └── TooLargeError   because of their size: smaller parts may be accepted
└── RetryableError    not at present: send again, but not before ``retry_after_s``
"""

__all__ = ["ConsumeError", "PermanentError", "RetryableError", "TooLargeError"]


class ConsumeError(Exception):
    """A batch was not taken. ``reason`` is a constant word for the ledger, such as ``queue_full`` or ``http_400``."""

    def __init__(self, message: str, *, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class PermanentError(ConsumeError):
    """Sending the same bytes again cannot succeed."""


class TooLargeError(PermanentError):
    """The request is larger than the receiver accepts; smaller parts of it may succeed."""


class RetryableError(ConsumeError):
    """Sending the same bytes later may succeed.

    ``retry_after_s`` is what the receiver asked for (Retry-After, RetryInfo), or None.
    """

    def __init__(self, message: str, *, reason: str = "error", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s
