"""Replaces the values in commands of Redis and Valkey by ``?``; keys and other arguments stay.

Source: github.com/DataDog/datadog-agent/pkg/obfuscate redis.go, which the Collector uses (which arguments are values).
"""

import re
from typing import Final

__all__ = ["sanitize_redis"]

_ARGUMENT: Final = re.compile(r'((?:"(?:[^"\\]|\\.)*+(?:"|\\?\Z)|\\.|[^ \n"\\]|\\\Z)*+)(?:[ \t\r]*+)(\n?)', re.DOTALL)

# Of each command: the place of the argument that is a value.
_VALUE_PLACES: Final = {
    **dict.fromkeys(("APPEND", "GETSET", "LPUSHX", "GEORADIUSBYMEMBER", "RPUSHX", "SET", "SETNX"), 1),
    **dict.fromkeys(("SISMEMBER", "ZRANK", "ZREVRANK", "ZSCORE"), 1),
    **dict.fromkeys(("HSETNX", "LREM", "LSET", "SETBIT", "SETEX", "PSETEX", "SETRANGE", "ZINCRBY", "SMOVE"), 2),
    "RESTORE": 2,
    "LINSERT": 3,
}
_ALL_BUT_FIRST: Final = frozenset({"GEOHASH", "GEOPOS", "GEODIST", "LPUSH", "RPUSH", "SREM", "ZREM", "SADD"})
# Of each command: the place of the first value, and how far the next one is.
_EVERY: Final = {"GEOADD": (3, 3), "HSET": (2, 2), "HMSET": (2, 2), "MSET": (1, 2), "MSETNX": (1, 2)}
_ZADD_OPTIONS: Final = frozenset({"NX", "XX", "CH", "INCR"})


def sanitize_redis(commands: str) -> str:
    r"""The commands, one per line, with ``?`` in place of values.

    >>> sanitize_redis('SET greeting "hello world" EX 60\nGET greeting')
    'SET greeting ? EX 60\nGET greeting'
    """
    written: list[str] = []
    rest = commands.strip()
    at = 0
    while at < len(rest):
        name, arguments, at = _command(rest, at)
        if name:
            written.append(" ".join([name, *_sanitized(name.upper(), arguments)]))
    return "\n".join(written)


def _command(text: str, at: int) -> tuple[str, list[str], int]:
    """The name and the arguments of the command at a place, and where the next one begins."""
    while at < len(text) and text[at] in " \t\r":
        at += 1
    end = at
    while end < len(text) and text[end] not in " \n":
        end += 1
    name = text[at:end]
    while end < len(text) and text[end] in " \t\r":
        end += 1
    if end < len(text) and text[end] == "\n":
        return name, [], end + 1
    arguments: list[str] = []
    while end < len(text):
        argument = _ARGUMENT.match(text, end)
        assert argument is not None  # it matches nothing as well
        arguments.append(argument.group(1))
        is_last = bool(argument.group(2))
        end = argument.end() if argument.end() > end else end + 1
        if is_last:
            break
    return name, arguments, end


def _sanitized(name: str, arguments: list[str]) -> list[str]:
    count = len(arguments)
    if not count:
        return arguments
    values: set[int] = set()
    if name == "AUTH":
        return ["?"]
    if name in _ALL_BUT_FIRST:
        return [arguments[0], "?"] if count > 1 else arguments
    if name in _VALUE_PLACES:
        values = {_VALUE_PLACES[name]}
    elif name in _EVERY:
        values = set(range(_EVERY[name][0], count, _EVERY[name][1]))
    elif name == "CONFIG" and arguments[0].upper() == "SET":
        values = {2}
    elif name == "BITFIELD":
        values = _bitfield_values(arguments)
    elif name == "ZADD":
        first = next((place for place in range(1, count) if arguments[place] not in _ZADD_OPTIONS), count - 1)
        values = set(range(first + 1, count, 2))
    return ["?" if place in values else argument for place, argument in enumerate(arguments)]


def _bitfield_values(arguments: list[str]) -> set[int]:
    """The value of the last SET before it: ``SET type offset value``."""
    found = 0
    for place, argument in enumerate(arguments):
        if argument.upper() == "SET":
            found = place
        if found and place - found == 3:
            return {place}
    return set()
