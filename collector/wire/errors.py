"""The error of bytes that are no valid request. Not the item errors: those are counted, the request goes on."""

__all__ = ["MalformedBatch"]


class MalformedBatch(ValueError):  # noqa: N818 - the name of the contract: a batch that is malformed
    """A request that cannot be let in. The sender must not retry it unchanged."""

    def __init__(self, *, path: str, offset: int, reason: str) -> None:
        """``path`` is of field names (``resource_spans.scope_spans.spans``), ``offset`` in bytes from the start of the request."""
        super().__init__(f"{path or 'request'} at byte {offset}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason
