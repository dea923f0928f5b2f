"""What the kernels raise. It says where a request is wrong; what to answer the sender is the receiver's decision."""

__all__ = ["MalformedBatch"]


class MalformedBatch(ValueError):  # noqa: N818 - the public name of the model, read as a noun: "a malformed batch"
    """A request that is no valid OTLP: refuse it whole (400, INVALID_ARGUMENT); sending it again cannot help.

    Attributes:
        path: the message that is wrong, field names from the request down, e.g.
            ``resource_spans.scope_spans.spans.attributes``.
        offset: byte offset in the request; -1 where it is not known (values of a JSON body).
        reason: what is wrong there.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(path, offset, reason)
        self.path = path
        self.offset = offset
        self.reason = reason

    def __str__(self) -> str:
        where = "" if self.offset < 0 else f" (byte {self.offset})"
        return f"{self.path or 'request'}: {self.reason}{where}"
