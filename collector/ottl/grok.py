"""``ExtractGrokPatterns``: regular expressions with named building blocks, such as ``%{IP:client.address}``.

The building blocks are the general ones of Logstash, written for RE2; more can be given in the statement.
Source: Elastic's grok reference; github.com/elastic/go-grok for what names and types mean.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from collector.ottl.text import parse_bool, parse_double, parse_int
from collector.ottl.values import Scalar
from collector.text.patterns import compile_pattern

__all__ = ["Grok", "check_grok"]

_REFERENCE: Final = re.compile(r"%{(\w+)(?::([\w+.]+)(?::(\w+))?)?}")
_DOT: Final = "___"
_MAX_ROUNDS: Final = 100
_MAX_CHARS: Final = 100_000

_YEAR = r"(?:\d\d){1,2}"
_DEFINITIONS: Final[dict[str, str]] = {
    "USERNAME": r"[a-zA-Z0-9._-]+",
    "USER": r"%{USERNAME}",
    "EMAILLOCALPART": r"[a-zA-Z][a-zA-Z0-9_.+=:-]+",
    "EMAILADDRESS": r"%{EMAILLOCALPART}@%{HOSTNAME}",
    "INT": r"[+-]?(?:[0-9]+)",
    "BASE10NUM": r"[+-]?(?:(?:[0-9]+(?:\.[0-9]+)?)|(?:\.[0-9]+))",
    "NUMBER": r"%{BASE10NUM}",
    "BASE16NUM": r"[+-]?(?:0x)?(?:[0-9A-Fa-f]+)",
    "BASE16FLOAT": r"[+-]?(?:0x)?(?:(?:[0-9A-Fa-f]+(?:\.[0-9A-Fa-f]*)?)|(?:\.[0-9A-Fa-f]+))",
    "POSINT": r"\b(?:[1-9][0-9]*)\b",
    "NONNEGINT": r"\b(?:[0-9]+)\b",
    "WORD": r"\b\w+\b",
    "NOTSPACE": r"\S+",
    "SPACE": r"\s*",
    "DATA": r".*?",
    "GREEDYDATA": r".*",
    "QUOTEDSTRING": r'(?:"(?:\\.|[^\\"])*"|\'(?:\\.|[^\\\'])*\'|`(?:\\.|[^\\`])*`)',
    "QS": r"%{QUOTEDSTRING}",
    "UUID": r"[A-Fa-f0-9]{8}-(?:[A-Fa-f0-9]{4}-){3}[A-Fa-f0-9]{12}",
    "URN": r"urn:[0-9A-Za-z][0-9A-Za-z-]{0,31}:(?:%[0-9a-fA-F]{2}|[0-9A-Za-z()+,.:=@;$_!*'/?#-])+",
    "MAC": r"(?:%{CISCOMAC}|%{WINDOWSMAC}|%{COMMONMAC})",
    "CISCOMAC": r"(?:(?:[A-Fa-f0-9]{4}\.){2}[A-Fa-f0-9]{4})",
    "WINDOWSMAC": r"(?:(?:[A-Fa-f0-9]{2}-){5}[A-Fa-f0-9]{2})",
    "COMMONMAC": r"(?:(?:[A-Fa-f0-9]{2}:){5}[A-Fa-f0-9]{2})",
    "IPV6": r"(?:(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}|(?:[0-9A-Fa-f]{1,4}:){0,6}[0-9A-Fa-f]{0,4}::"
    r"(?:[0-9A-Fa-f]{1,4}:){0,6}[0-9A-Fa-f]{0,4}(?:(?:\d{1,3}\.){3}\d{1,3})?)(?:%.+)?",
    "IPV4": r"(?:(?:25[0-5]|2[0-4][0-9]|[0-1]?[0-9]{1,2})\.){3}(?:25[0-5]|2[0-4][0-9]|[0-1]?[0-9]{1,2})",
    "IP": r"(?:%{IPV6}|%{IPV4})",
    "HOSTNAME": r"\b(?:[0-9A-Za-z][0-9A-Za-z_-]{0,62})(?:\.(?:[0-9A-Za-z][0-9A-Za-z-]{0,62}))*(?:\.?|\b)",
    "HOST": r"%{HOSTNAME}",
    "IPORHOST": r"(?:%{IP}|%{HOSTNAME})",
    "HOSTPORT": r"%{IPORHOST}:%{POSINT}",
    "UNIXPATH": r"(?:/[\w_%!$@:.,+~-]*)+",
    "WINPATH": r"(?:[A-Za-z]+:|\\)(?:\\[^\\?*]*)+",
    "PATH": r"(?:%{UNIXPATH}|%{WINPATH})",
    "TTY": r"(?:/dev/(?:pts|tty(?:[pq])?)(?:\w+)?/?(?:[0-9]+))",
    "URIPROTO": r"[A-Za-z][A-Za-z0-9+\-.]+",
    "URIHOST": r"%{IPORHOST}(?::%{POSINT})?",
    "URIPATH": r"(?:/[A-Za-z0-9$.+!*'(){},~:;=@#%&_\-]*)+",
    "URIQUERY": r"[A-Za-z0-9$.+!*'|(){},~@#%&/=:;_?\-\[\]<>]*",
    "URIPARAM": r"\?%{URIQUERY}",
    "URIPATHPARAM": r"%{URIPATH}(?:\?%{URIQUERY})?",
    "URI": r"%{URIPROTO}://(?:%{USER}(?::[^@]*)?@)?(?:%{URIHOST})?(?:%{URIPATH}(?:\?%{URIQUERY})?)?",
    "MONTH": r"\b(?:[Jj]an(?:uary)?|[Ff]eb(?:ruary)?|[Mm]ar(?:ch)?|[Aa]pr(?:il)?|[Mm]ay|[Jj]un(?:e)?|[Jj]ul(?:y)?|"
    r"[Aa]ug(?:ust)?|[Ss]ep(?:tember)?|[Oo]ct(?:ober)?|[Nn]ov(?:ember)?|[Dd]ec(?:ember)?)\b",
    "MONTHNUM": r"(?:0?[1-9]|1[0-2])",
    "MONTHNUM2": r"(?:0[1-9]|1[0-2])",
    "MONTHDAY": r"(?:(?:0[1-9])|(?:[12][0-9])|(?:3[01])|[1-9])",
    "DAY": r"(?:Mon(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Fri(?:day)?|Sat(?:urday)?|Sun(?:day)?)",
    "YEAR": _YEAR,
    "HOUR": r"(?:2[0123]|[01]?[0-9])",
    "MINUTE": r"(?:[0-5][0-9])",
    "SECOND": r"(?:(?:[0-5]?[0-9]|60)(?:[:.,][0-9]+)?)",
    "TIME": r"%{HOUR}:%{MINUTE}(?::%{SECOND})",
    "DATE_US": r"%{MONTHNUM}[/-]%{MONTHDAY}[/-]%{YEAR}",
    "DATE_EU": r"%{MONTHDAY}[./-]%{MONTHNUM}[./-]%{YEAR}",
    "DATE": r"(?:%{DATE_US}|%{DATE_EU})",
    "DATESTAMP": r"%{DATE}[- ]%{TIME}",
    "ISO8601_TIMEZONE": r"(?:Z|[+-]%{HOUR}(?::?%{MINUTE}))",
    "ISO8601_SECOND": r"%{SECOND}",
    "TIMESTAMP_ISO8601": r"%{YEAR}-%{MONTHNUM}-%{MONTHDAY}[T ]%{HOUR}:?%{MINUTE}(?::?%{SECOND})?%{ISO8601_TIMEZONE}?",
    "TZ": r"(?:[APMCE][SD]T|UTC)",
    "DATESTAMP_RFC822": r"%{DAY} %{MONTH} %{MONTHDAY} %{YEAR} %{TIME} %{TZ}",
    "DATESTAMP_RFC2822": r"%{DAY}, %{MONTHDAY} %{MONTH} %{YEAR} %{TIME} %{ISO8601_TIMEZONE}",
    "DATESTAMP_OTHER": r"%{DAY} %{MONTH} %{MONTHDAY} %{TIME} %{TZ} %{YEAR}",
    "HTTPDATE": r"%{MONTHDAY}/%{MONTH}/%{YEAR}:%{TIME} %{INT}",
    "SYSLOGTIMESTAMP": r"%{MONTH} +%{MONTHDAY} %{TIME}",
    "PROG": r"[\x21-\x5a\x5c\x5e-\x7e]+",
    "SYSLOGPROG": r"%{PROG:process.name}(?:\[%{POSINT:process.pid:int}\])?",
    "SYSLOGHOST": r"%{IPORHOST}",
    "SYSLOGBASE": r"%{SYSLOGTIMESTAMP:timestamp} (?:%{SYSLOGHOST:host.hostname} )?%{SYSLOGPROG}:",
    "LOGLEVEL": r"(?:[Aa]lert|ALERT|[Tt]race|TRACE|[Dd]ebug|DEBUG|[Nn]otice|NOTICE|[Ii]nfo?(?:rmation)?|"
    r"INFO?(?:RMATION)?|[Ww]arn?(?:ing)?|WARN?(?:ING)?|[Ee]rr?(?:or)?|ERR?(?:OR)?|[Cc]rit?(?:ical)?|"
    r"CRIT?(?:ICAL)?|[Ff]atal|FATAL|[Ss]evere|SEVERE|EMERG(?:ENCY)?|[Ee]merg(?:ency)?)",
    "HTTPDUSER": r"(?:%{EMAILADDRESS}|%{USER})",
    "COMMONAPACHELOG": r"%{IPORHOST:source.address} (?:-|%{HTTPDUSER:apache.access.user.identity}) "
    r"(?:-|%{HTTPDUSER:user.name}) \[%{HTTPDATE:timestamp}\] "
    r'"(?:%{WORD:http.request.method} %{NOTSPACE:url.original}(?: HTTP/%{NUMBER:http.version})?|%{DATA})" '
    r"(?:-|%{INT:http.response.status_code:int}) (?:-|%{INT:http.response.body.size:int})",
    "COMBINEDAPACHELOG": r'%{COMMONAPACHELOG} "(?:-|%{DATA:http.request.referrer})" '
    r'"(?:-|%{DATA:user_agent.original})"',
}
_CONVERT: Final[Mapping[str, Callable[[str], Scalar]]] = {
    "string": str,
    "int": parse_int,
    "long": parse_int,
    "float": parse_double,
    "double": parse_double,
    "bool": parse_bool,
    "boolean": parse_bool,
}


class Grok:
    """A compiled pattern."""

    def __init__(self, pattern: str, *, named_only: bool = False, definitions: Mapping[str, str] | None = None) -> None:
        """``named_only``: only references with a name are extracted.

        Raises:
            ValueError: a building block or a type does not exist, or the expression is not valid.
        """
        known = {**_DEFINITIONS, **(definitions or {})}
        self._types: dict[str, str] = {}
        used: dict[str, int] = {}

        def replaced(match: re.Match[str]) -> str:
            block, name, kind = match.groups()
            if block not in known:
                raise ValueError(f"the grok pattern {block!r} is not known; give it in pattern_definitions")
            if named_only and name is None:
                return f"(?:{known[block]})"
            group = (name or block).replace(".", _DOT)
            if kind is not None:
                if kind not in _CONVERT:
                    raise ValueError(f"{kind!r} is not a type of grok; expected one of {', '.join(_CONVERT)}")
                self._types[group] = kind
            number = used[group] = used.get(group, 0) + 1
            return f"(?P<{group}{'' if number == 1 else f'__{number}'}>{known[block]})"

        for _ in range(_MAX_ROUNDS):
            expanded = _REFERENCE.sub(replaced, pattern)
            if expanded == pattern:
                break
            pattern = expanded
            if len(pattern) > _MAX_CHARS:
                raise ValueError("the grok pattern expands to more than 100000 characters")
        else:
            raise ValueError("the definitions of the grok patterns refer to themselves")
        self._pattern: Any = compile_pattern(pattern, max_chars=_MAX_CHARS)
        self._groups = [(group, re.sub(r"__\d+$", "", group)) for group in self._pattern.groupindex]

    @property
    def has_groups(self) -> bool:
        """Whether anything is extracted."""
        return bool(self._groups)

    def extract(self, text: str) -> dict[str, Scalar]:
        """What the pattern finds in a text; empty if it does not match."""
        match = self._pattern.search(text)
        if match is None:
            return {}
        made: dict[str, Scalar] = {}
        for group, name in self._groups:
            content = match.group(group)
            if content:
                made[name.replace(_DOT, ".")] = _CONVERT[self._types.get(name, "string")](content)
        return made


def definitions_of(texts: list[str]) -> dict[str, str]:
    """The definitions in the form ``NAME=expression``.

    Raises:
        ValueError: one of them does not have this form.
    """
    made: dict[str, str] = {}
    for text in texts:
        name, equals, expression = text.partition("=")
        if not equals:
            raise ValueError(f"the pattern definition {text[:20]!r} must have the form NAME=expression")
        if ":" in name:
            raise ValueError(f"the name of the pattern definition {name!r} must not contain ':'")
        made[name] = expression
    return made


def check_grok(literals: Mapping[int, Scalar]) -> None:
    """Check the pattern and the definitions of ``ExtractGrokPatterns``."""
    definitions = definitions_of(literals.get(3) or [])
    if isinstance(literals.get(1), str):
        grok = Grok(literals[1], named_only=bool(literals.get(2)), definitions=definitions)
        if literals.get(2) and not grok.has_groups:
            raise ValueError("the pattern has no named reference, such as %{IP:client}")
