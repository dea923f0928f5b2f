"""The response to a request, for any version of HTTP."""

from http import HTTPStatus

from collector.transport.http.headers import HeaderList, header_bytes

__all__ = ["Refused", "Response"]


class Refused(Exception):  # noqa: N818 - an answer, not a bug
    """The request is answered with this status; ``str()`` is for the client."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """A constant word for counters."""


class Response:
    """A whole response, except the headers that change (Date, Connection, CORS). Immutable, so it may be shared."""

    __slots__ = ("body", "headers", "http1_head", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: str = "", headers: HeaderList = ()) -> None:
        own_headers = [("Content-Type", content_type)] if content_type else []
        if status != HTTPStatus.NO_CONTENT:
            own_headers.append(("Content-Length", str(len(body))))
        self.status = status
        self.headers = (*own_headers, *headers)
        self.body = body
        self.http1_head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() + header_bytes(self.headers)
        """Status line and headers in HTTP/1.1, without the empty line."""

    @classmethod
    def text(cls, status: int, message: str, headers: HeaderList = ()) -> "Response":
        """Return a plain text response."""
        return cls(status, message.encode("utf-8", "replace"), "text/plain", headers)
