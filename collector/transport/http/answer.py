"""What a request is answered with, whatever version of HTTP it came over."""

from http import HTTPStatus

from collector.transport.http.headers import HeaderList, header_bytes

__all__ = ["Answer", "Refused"]


class Refused(Exception):  # noqa: N818 - an answer, not a fault
    """The request gets this status; ``str()`` is for the sender."""

    def __init__(self, status: int, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason
        """A constant word for counters."""


class Answer:
    """A whole response but for the headers that change from one to the next (Date, Connection, CORS). Immutable, so it may be shared."""

    __slots__ = ("body", "headers", "http1_head", "status")

    def __init__(self, status: int, body: bytes = b"", content_type: str = "", headers: HeaderList = ()) -> None:
        found = [("Content-Type", content_type)] if content_type else []
        if status != HTTPStatus.NO_CONTENT:
            found.append(("Content-Length", str(len(body))))
        self.status = status
        self.headers = (*found, *headers)
        self.body = body
        self.http1_head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n".encode() + header_bytes(self.headers)
        """Status line and headers as HTTP/1.1 has them, without the empty line."""

    @classmethod
    def text(cls, status: int, message: str, headers: HeaderList = ()) -> "Answer":
        """A plain text answer."""
        return cls(status, message.encode("utf-8", "replace"), "text/plain", headers)
