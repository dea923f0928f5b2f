"""Names and values of configured headers: what HTTP and gRPC can send, and what the client writes itself."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from config.blocks.base import InvalidSettings
from config.blocks.values import Secret

__all__ = [
    "HEADER_NAME",
    "check_grpc_metadata",
    "check_header_names",
    "check_request_headers",
    "check_response_headers",
]

HEADER_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""A token of RFC 9110 §5.6.2."""

_METADATA_NAME: Final = re.compile(r"[0-9A-Za-z_.-]+")
# What the request's body is, how it is framed, and whether the connection is kept.
_WRITTEN_BY_HTTP: Final = frozenset(
    {
        "accept-encoding", "connection", "content-encoding", "content-length", "content-type", "expect", "keep-alive",
        "proxy-authorization", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
    }
)  # fmt: skip
# How a response is framed and what its body is: a second value would make it a different message.
_WRITTEN_BY_SERVER: Final = frozenset(
    {"connection", "content-encoding", "content-length", "keep-alive", "trailer", "transfer-encoding", "upgrade"}
)
# Connection-specific fields of HTTP/1, with which a request is malformed in HTTP/2. Source: RFC 9113 §8.2.2.
_NOT_IN_HTTP2: Final = frozenset(
    {"connection", "content-length", "host", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"}
)
_WRITTEN_BY_GRPC: Final = {"content-type": "remove it", "te": "remove it", "user-agent": "set user_agent instead"}


def check_request_headers(headers: Mapping[str, Secret], reserved: Collection[str]) -> None:
    """Refuse what an HTTP/1.1 request cannot have, or its client writes itself; ``reserved``: further such names.

    Raises:
        InvalidSettings: with a finding for each header, which shows no value.
    """
    reserved = {*_WRITTEN_BY_HTTP, *reserved}

    def problem(name: str, value: str) -> str:
        if name.lower() in reserved:
            return f"{name} cannot be configured, because the exporter sets it itself; remove it"
        return _http_problem(name, value)

    _check(headers, problem)


def check_response_headers(headers: Mapping[str, Secret]) -> None:
    """Refuse what an HTTP response cannot have, or its server writes itself.

    Raises:
        InvalidSettings: with a finding for each header, which shows no value.
    """

    def problem(name: str, value: str) -> str:
        if name.lower() in _WRITTEN_BY_SERVER:
            return f"{name} cannot be configured, because the server sets it itself; remove it"
        return _http_problem(name, value)

    _check(headers, problem)


def check_grpc_metadata(headers: Mapping[str, Secret]) -> None:
    """Refuse what gRPC cannot send as metadata, or writes itself.

    Raises:
        InvalidSettings: with a finding for each header, which shows no value.
    """

    def problem(name: str, value: str) -> str:
        lowered = name.lower()
        if lowered.startswith("grpc-") or lowered in _NOT_IN_HTTP2 or not _METADATA_NAME.fullmatch(name):
            return f"{name!r} is not allowed as the name of gRPC metadata"
        if lowered in _WRITTEN_BY_GRPC:
            return f"{name} cannot be configured, because gRPC sets it itself; {_WRITTEN_BY_GRPC[lowered]}"
        if not lowered.endswith("-bin") and not (value.isascii() and value.isprintable()):
            return (
                f"the value of {name} is not printable ASCII; only headers with names ending in -bin may have other "
                "values"
            )
        return ""

    _check(headers, problem)


def check_header_names(names: Iterable[str]) -> None:
    """Refuse what is not the name of a header, nor ``*``, in a list of names.

    Raises:
        InvalidSettings: with a finding for each name.
    """
    found = [((place,), _name_problem(name)) for place, name in enumerate(names)]
    if found := [(keys, problem) for keys, problem in found if problem]:
        raise InvalidSettings(*found)


def _name_problem(name: str) -> str:
    if HEADER_NAME.fullmatch(name):
        return ""
    return f"{name!r} is not a valid header name: expected ASCII letters, digits and !#$%&'*+-.^_`|~"


def _http_problem(name: str, value: str) -> str:
    if any(character in value for character in "\r\n\0"):
        return _name_problem(name) or f"the value of {name} contains a line break or NUL"
    return _name_problem(name)


def _check(headers: Mapping[str, Secret], problem_of: Callable[[str, str], str]) -> None:
    found: list[tuple[tuple[str, ...], str]] = []
    seen: set[str] = set()
    for name, value in headers.items():
        problem = problem_of(name, value.get_secret_value())
        if not problem and name.lower() in seen:
            problem = f"{name} is given twice: names of headers do not differ by their case"
        seen.add(name.lower())
        if problem:
            found.append(((name,), problem))
    if found:
        raise InvalidSettings(*found)
