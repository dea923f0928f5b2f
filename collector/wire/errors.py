"""The error that kernels raise for an invalid request. How to answer the sender is the receiver's decision."""

__all__ = ["MalformedBatch"]


class MalformedBatch(ValueError):  # noqa: N818 - the public name of the model, read as a noun: "a malformed batch"
    """A request that is not valid OTLP. Refuse it as a whole (400, INVALID_ARGUMENT): sending it again cannot help.

    Attributes:
        path: The invalid message, as field names from the request down, such as
            ``resource_spans.scope_spans.spans.attributes``.
        offset: The byte offset in the request; -1 if it is not known (values of a JSON body).
        reason: What is wrong there.

    >>> from collector.model import Logs
    >>> try:
    ...     Logs.check(bytes.fromhex("0a05"))  # a length of 5 with no bytes behind it
    ... except MalformedBatch as error:
    ...     print(error)
    resource_logs: the length is truncated or reaches beyond the enclosing message (byte 1)
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        where = "" if self.offset < 0 else f" (byte {self.offset})"
        return f"{self.path or 'request'}: {self.reason}{where}"
