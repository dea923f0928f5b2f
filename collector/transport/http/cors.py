"""Which origins' scripts may read the answers. Source: the Fetch standard, rs/cors as the Collector sets it up (credentials allowed)."""

from typing import Final

from collector.transport.http.answer import Answer
from collector.transport.http.headers import HEADER_NAME, HeaderList, checked
from config.blocks import CORSConfig

__all__ = ["CORS"]

_METHODS: Final = frozenset({"GET", "POST", "HEAD"})
_ALWAYS: Final = frozenset(
    {"accept", "accept-language", "content-language", "content-type", "origin", "x-requested-with"}
)
_VARY: Final = ("Vary", "Origin")
_VARY_PREFLIGHT: Final = ("Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers")
_PREFLIGHT: Final = Answer(204)
_CREDENTIALS: Final = ("Access-Control-Allow-Credentials", "true")


class CORS:
    """The answers to preflights, and the headers of the actual answers."""

    def __init__(self, config: CORSConfig, key: str) -> None:
        patterns = [origin.lower() for origin in config.allowed_origins]
        self._any_origin = "*" in patterns
        self._exact = frozenset(pattern for pattern in patterns if "*" not in pattern)
        self._wild = tuple(pattern.split("*", 1) for pattern in patterns if "*" in pattern)
        self._any_header = "*" in config.allowed_headers
        self._headers = _ALWAYS | {name.lower() for name in config.allowed_headers}
        exposed = (
            [("Access-Control-Expose-Headers", ", ".join(config.exposed_headers))] if config.exposed_headers else []
        )
        self._actual = [_CREDENTIALS, *checked(exposed, f"{key}::cors::exposed_headers")]
        self._max_age = [("Access-Control-Max-Age", str(config.max_age))] if config.max_age else []

    def apply(
        self, method: str, origin: str, requested_method: str, requested_headers: str
    ) -> tuple[Answer | None, HeaderList]:
        """The answer to a preflight, or None; and the headers to add to the answer."""
        if method == "OPTIONS" and requested_method:
            return _PREFLIGHT, [_VARY_PREFLIGHT, *self._preflight(origin, requested_method.upper(), requested_headers)]
        if not self._allows(origin) or method not in _METHODS:
            return None, [_VARY]
        return None, [_VARY, self._allow_origin(origin), *self._actual]

    def _preflight(self, origin: str, method: str, requested: str) -> HeaderList:
        names = [name.strip().lower() for name in requested.split(",") if name.strip()]
        if not all(HEADER_NAME.fullmatch(name) for name in names):
            return []
        if not self._allows(origin) or method not in _METHODS:
            return []
        if not self._any_header and any(name not in self._headers for name in names):
            return []
        allowed = [("Access-Control-Allow-Headers", ", ".join(names))] if names else []
        return [
            self._allow_origin(origin),
            ("Access-Control-Allow-Methods", method),
            _CREDENTIALS,
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
            or origin in self._exact
            or any(
                len(origin) >= len(start) + len(end) and origin.startswith(start) and origin.endswith(end)
                for start, end in self._wild
            )
        )
