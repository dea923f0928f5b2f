"""Why a batch was not taken, as the sender has to understand it.

ConsumeError
├── PermanentError    the same bytes will never be taken: do not send them again
│   └── TooLargeError   for their size: parts of them may be
└── RetryableError    not now: send again, not before ``retry_after_s``
"""

__all__ = ["ConsumeError", "PermanentError", "RetryableError", "TooLargeError"]


class ConsumeError(Exception):
    """A batch was not taken. ``reason`` is a short constant word for the ledger (``queue_full``, ``memory_limit``, ``http_400``)."""

    def __init__(self, message: str, *, reason: str = "error") -> None:
        super().__init__(message)
        self.reason = reason


class PermanentError(ConsumeError):
    """Sending the same bytes again cannot succeed."""


class TooLargeError(PermanentError):
    """The request is larger than the receiver takes: sent in parts it may succeed."""


class RetryableError(ConsumeError):
    """Sending the same bytes later may succeed.

    ``retry_after_s`` is the receiver's own wish (Retry-After, RetryInfo), None when it stated none.
    """

    def __init__(self, message: str, *, reason: str = "error", retry_after_s: float | None = None) -> None:
        super().__init__(message, reason=reason)
        self.retry_after_s = retry_after_s
