"""Removes the values from database statements: SQL, commands of Redis and Memcached, and queries in JSON.

Source: opentelemetry-collector-contrib processor/redactionprocessor/internal/db (which statements of which system),
github.com/DataDog/datadog-agent/pkg/obfuscate (what is a value).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from processors.redaction.config import DatabaseConfig, DatabasesConfig
from processors.redaction.redis import sanitize_redis
from processors.redaction.sql import sanitize_sql

__all__ = ["Sanitizer", "sanitize_json", "sanitize_memcached", "sanitizers"]


@dataclass(frozen=True, slots=True)
class Sanitizer:
    """How the statements of one kind of database are sanitized."""

    name: str
    """The key in the configuration."""
    systems: frozenset[str]
    """The values of ``db.system.name`` and ``db.system`` that it is for, in lower case."""
    attributes: frozenset[str]
    """The keys of attributes that hold statements."""
    statement: Callable[[str, str], str]
    """Sanitizes what is a statement of a system for sure, or as much of it as can be read."""
    text: Callable[[str, str], str]
    """Sanitizes a text that may be a statement of a system, which is "" if it is not known."""


def sanitizers(config: DatabasesConfig) -> tuple[Sanitizer, ...]:
    """The sanitizers that are enabled, in the order in which they are applied."""
    configs: Mapping[str, DatabaseConfig] = {
        "sql": config.sql,
        "redis": config.redis,
        "valkey": config.valkey,
        "memcached": config.memcached,
        "mongo": config.mongo,
        "opensearch": config.opensearch,
        "es": config.es,
    }
    return tuple(
        Sanitizer(name, _SYSTEMS[name], frozenset(one.attributes), _STATEMENTS[name], _TEXTS[name])
        for name, one in configs.items()
        if one.enabled
    )


def sanitize_memcached(command: str) -> str:
    r"""The command without the data that follows it.

    >>> sanitize_memcached("set greeting 0 60 5\r\nhello\r\n")
    'set greeting 0 60 5'
    """
    return command.partition("\r\n")[0].strip()


def sanitize_json(query: str) -> tuple[str, bool]:
    """The query without white space and with ``"?"`` in place of values, and whether it is valid JSON.

    What follows the first error becomes ``...``.

    >>> sanitize_json('{"find": "users", "ages": [1, 2]}')
    ('{"find":"?","ages":["?","?"]}', True)
    >>> sanitize_json('{"find": "use')
    ('{"find":...', False)
    """
    written: list[str] = []
    closing: list[str] = []
    expected = _VALUE
    at = 0
    while at < len(query):
        token = _JSON_TOKEN.match(query, at)
        if token is None or expected == _NOTHING:
            break
        at = token.end()
        text = token.group(1)
        if not text:  # white space at the end
            break
        if text in "{[" and expected & _VALUE:
            closing.append("}" if text == "{" else "]")
            expected = (_KEY if text == "{" else _VALUE) | _CLOSE
        elif text in "}]" and expected & _CLOSE and closing[-1] == text:
            closing.pop()
            expected = _after_value(closing)
        elif text == "," and expected & _COMMA:
            expected = _KEY if closing[-1] == "}" else _VALUE
        elif text == ":" and expected & _COLON:
            expected = _VALUE
        elif text[0] == '"' and expected & _KEY:
            expected = _COLON
        elif expected & _VALUE and text[0] not in "{[]},:":
            expected = _after_value(closing)
            text = '"?"'
        else:
            break
        written.append(text)
    else:
        if expected == _NOTHING:
            return "".join(written), True
    if expected == _NOTHING and not query[at:].strip(" \t\r\n"):
        return "".join(written), True
    return "".join(written) + "...", False


_KEY, _VALUE, _COLON, _COMMA, _CLOSE, _NOTHING = 1, 2, 4, 8, 16, 0
_JSON_TOKEN: Final = re.compile(
    r'[ \t\r\n]*+([{}\[\],:]|"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"'
    r"|-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?(?![0-9A-Za-z.+-])|(?:true|false|null)(?![0-9A-Za-z])|\Z)"
)


def _after_value(closing: list[str]) -> int:
    return _COMMA | _CLOSE if closing else _NOTHING


def _json_statement(query: str, _system: str) -> str:
    """Attributes are often cut off: what can be read is kept without its values, and nothing else."""
    sanitized, is_valid = sanitize_json(query)
    return sanitized if is_valid or query.lstrip(" \t\r\n")[:1] in {"{", "["} else query


def _json_text(text: str, _system: str) -> str:
    sanitized, is_valid = sanitize_json(text)
    return sanitized if is_valid else text


def _redis(commands: str, _system: str) -> str:
    return sanitize_redis(commands)


def _memcached(command: str, _system: str) -> str:
    return sanitize_memcached(command)


_SYSTEMS: Final[Mapping[str, frozenset[str]]] = {
    "sql": frozenset({"other_sql", "mysql", "postgresql", "mariadb", "sqlite"}),
    "redis": frozenset({"redis"}),
    "valkey": frozenset({"valkey"}),
    "memcached": frozenset({"memcached"}),
    "mongo": frozenset({"mongodb"}),
    "opensearch": frozenset({"opensearch"}),
    "es": frozenset({"elasticsearch"}),
}
_STATEMENTS: Final[Mapping[str, Callable[[str, str], str]]] = {
    "sql": sanitize_sql,
    "redis": _redis,
    "valkey": _redis,
    "memcached": _memcached,
    "mongo": _json_statement,
    "opensearch": _json_statement,
    "es": _json_statement,
}
_TEXTS: Final = {**_STATEMENTS, "mongo": _json_text, "opensearch": _json_text, "es": _json_text}
