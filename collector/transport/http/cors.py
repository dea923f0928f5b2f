"""CORS: which origins' scripts may read the responses.

Credentials are allowed to origins that are configured, not to the origin ``*``: browsers refuse a response that allows
both, and any page could send requests in the name of its visitor if the server named each origin instead.

Source: the Fetch standard; rs/cors as the Collector configures it, except that it answers ``*`` with credentials.
"""

from typing import Final

from collector.transport.http.headers import HeaderList
from collector.transport.http.response import Response
from config.blocks import CORSConfig
from config.blocks.headers import HEADER_NAME

__all__ = ["CORS"]

_METHODS: Final = frozenset({"GET", "POST", "HEAD"})
_ALWAYS_ALLOWED_HEADERS: Final = frozenset(
    {"accept", "accept-language", "content-language", "content-type", "origin", "x-requested-with"}
)
_VARY: Final = ("Vary", "Origin")
_VARY_PREFLIGHT: Final = ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_PREFLIGHT: Final = Response(204)
_CREDENTIALS: Final = ("Access-Control-Allow-Credentials", "true")


class CORS:
    """Returns the responses to preflights, and the headers of all other responses."""

    def __init__(self, config: CORSConfig) -> None:
        patterns = [origin.lower() for origin in config.allowed_origins]
        self._any_origin = "*" in patterns
        self._exact_origins = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._wildcard_origins = tuple(pattern.split("*", 1) for pattern in patterns if "*" in pattern)
        self._any_header = "*" in config.allowed_headers
        self._allowed_headers = _ALWAYS_ALLOWED_HEADERS | {name.lower() for name in config.allowed_headers}
        exposed = (
            [("Access-Control-Expose-Headers", ", ".join(config.exposed_headers))] if config.exposed_headers else []
        )
        self._credentials = [] if self._any_origin else [_CREDENTIALS]
        self._response_headers = [*self._credentials, *exposed]
        self._max_age = [("Access-Control-Max-Age", str(config.max_age))] if config.max_age else []

    def apply(
        self, method: str, origin: str, requested_method: str, requested_headers: str
    ) -> tuple[Response | None, HeaderList]:
        """Return the response to a preflight, or None; and the headers to add to the response."""
        if method == "OPTIONS" and requested_method:
            return _PREFLIGHT, [_VARY_PREFLIGHT, *self._preflight(origin, requested_method.upper(), requested_headers)]
        if not self._allows(origin) or method not in _METHODS:
            return None, [_VARY]
        return None, [_VARY, self._allow_origin(origin), *self._response_headers]

    def _preflight(self, origin: str, method: str, requested: str) -> HeaderList:
        names = [name.strip().lower() for name in requested.split(",") if name.strip()]
        if not all(HEADER_NAME.fullmatch(name) for name in names):
            return []
        if not self._allows(origin) or method not in _METHODS:
            return []
        if not self._any_header and any(name not in self._allowed_headers for name in names):
            return []
        allowed = [("Access-Control-Allow-Headers", ", ".join(names))] if names else []
        return [
            self._allow_origin(origin),
            ("Access-Control-Allow-Methods", method),
            *self._credentials,
            *allowed,
            *self._max_age,
        ]

    def _allow_origin(self, origin: str) -> tuple[str, str]:
        return ("Access-Control-Allow-Origin", "*" if self._any_origin else origin)

    def _allows(self, origin: str) -> bool:
        if not origin:
            return False
        origin = origin.lower()
        return (
            self._any_origin
            or origin in self._exact_origins
            or any(
                len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
                for start, end in self._wildcard_origins
            )
        )
