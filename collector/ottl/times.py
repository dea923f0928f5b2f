"""Converters that parse, format and take apart times.

The directives are those of the Collector, which differ from C's strptime: ``%L``, ``%f`` and ``%s`` are fractions of a
second, ``%i``, ``%j``, ``%k`` and ``%w`` offsets.
Source: opentelemetry-collector-contrib internal/coreinternal/timeutils (v0.156); Go 1.26 time, layouts.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import TYPE_CHECKING, Any, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from collector.ottl.values import Duration, EvaluationError, Kind, Scalar, Time, Values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from collector.ottl.view import View

__all__ = ["check_format", "check_time", "format_time", "now", "part", "time_from_unix", "time_parser", "truncate_time"]

_SECOND: Final = 10**9
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LIMIT: Final = 2**63
_MONTHS: Final = ("January", "February", "March", "April", "May", "June", "July", "August", "September", "October",
                  "November", "December")  # fmt: skip
_DAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_GROUPS: Final = {
    "%D": "%m/%d/%Y",
    "%x": "%m/%d/%Y",
    "%F": "%Y-%m-%d",
    "%T": "%H:%M:%S",
    "%X": "%H:%M:%S",
    "%r": "%I:%M:%S %P",
    "%R": "%H:%M",
    "%c": "%a %b %d %H:%M:%S %Y",
    "%n": "\n",
    "%t": "\t",
}
_NUMBER: Final = r"\s*(\d{1,2})"
_OFFSET: Final = r"([+-]\d\d(?::?\d\d)?|Z)"
_READ: Final[Mapping[str, str]] = {
    "%Y": r"(\d{4})",
    "%y": r"(\d\d)",
    **dict.fromkeys(("%m", "%o", "%q", "%d", "%e", "%g", "%I", "%M", "%S"), _NUMBER),
    "%H": r"(\d{1,2})",
    "%l": r"(\d{1,2})",
    **dict.fromkeys(("%b", "%h"), r"((?i:" + "|".join(month[:3] for month in _MONTHS) + "))"),
    "%B": r"((?i:" + "|".join(_MONTHS) + "))",
    "%a": r"((?i:" + "|".join(day[:3] for day in _DAYS) + "))",
    "%A": r"((?i:" + "|".join(_DAYS) + "))",
    "%p": r"(AM|PM)",
    "%P": r"(am|pm)",
    "%Z": r"([A-Z]{3,5}|[+-]\d\d(?:\d\d)?)",
    "%z": _OFFSET,
    "%w": r"([+-]\d{6})",
    "%i": r"([+-]\d\d)",
    "%j": r"([+-]\d\d:\d\d)",
    "%k": r"([+-]\d\d:\d\d:\d\d)",
    "%%": "%()",
}
_FRACTIONS: Final = {"%L": 3, "%f": 6, "%s": 9}
_DIRECTIVE: Final = re.compile(r"%.", re.DOTALL)


def _checked(form: str) -> str:
    if not form:
        raise ValueError("the format must not be empty")
    if re.search(r"\d", form):
        raise ValueError(f"the format {form!r} must not contain digits")
    if match := re.search(r"[^.,]%[Lfs]", form):
        raise ValueError(f"{match.group()!r} in the format {form!r}: a fraction must follow '.' or ','")
    for directive in _DIRECTIVE.findall(form):
        if directive not in _READ and directive not in _GROUPS and directive not in _FRACTIONS:
            raise ValueError(f"{directive!r} in the format {form!r} is not a supported directive")
    return form


def check_format(literals: Mapping[int, Scalar]) -> None:
    """Check the format of ``FormatTime``."""
    _checked(literals[1])


def check_time(literals: Mapping[int, Scalar]) -> None:
    """Check the format, location and locale of ``Time``."""
    _Parser(literals[1], literals.get(2) or "")
    locale = literals.get(3)
    if locale is not None and not re.fullmatch(r"(?i)en([-_][a-z]{2})?", locale):
        raise ValueError(f"the locale {locale!r} is not supported; only English names of months and days are")


def zone_of(name: str) -> tzinfo:
    """A time zone of the tz database.

    Raises:
        ValueError: it does not have this zone.
    """
    if name in {"", "UTC"}:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"the location {name!r} is not in the time zone database (example: Europe/Berlin)") from None


_REST: Final = ((("%d", "%e", "%g"), 1), (("%M",), 0), (("%S",), 0))


class _Parser:
    """A format as a regular expression."""

    def __init__(self, form: str, location: str) -> None:
        self._zone = zone_of(location) if location else UTC if form.endswith("Z") else _local()
        expanded = _checked(form)
        for directive, meaning in _GROUPS.items():
            expanded = expanded.replace(directive, meaning)
        two_digit_year = expanded
        self._patterns = [_pattern(expanded)]
        if "%D" in form or "%x" in form:
            two_digit_year = expanded.replace("%m/%d/%Y", "%m/%d/%y")
            self._patterns.append(_pattern(two_digit_year))

    def parse(self, text: str) -> Time:
        """The time that a text represents.

        Raises:
            EvaluationError: it does not have the format, or is out of range.
        """
        for pattern, names in self._patterns:
            match = pattern.fullmatch(text)
            if match is not None:
                try:
                    return self._made(dict(zip(names, match.groups(), strict=True)))
                except (ValueError, OverflowError):
                    raise EvaluationError from None
        raise EvaluationError

    def _made(self, found: dict[str, str | None]) -> Time:
        def number(*names: str, default: int) -> int:
            return next((int(found[name] or 0) for name in names if name in found), default)

        year = number("%Y", default=0)
        if "%y" in found:
            short = number("%y", default=0)
            year = short + (1900 if short >= 69 else 2000)
        month = number("%m", "%o", "%q", default=1)
        for name in ("%b", "%h", "%B"):
            if text := found.get(name):
                month = [known[:3].lower() for known in _MONTHS].index(text[:3].lower()) + 1
        hour = number("%H", "%I", "%l", default=0)
        half = (found.get("%p") or found.get("%P") or "").lower()
        if "%I" in found or "%l" in found:
            if hour > 12 or (hour == 0 and False):  # noqa: SIM223
                raise ValueError(hour)
            if half == "pm" and hour < 12:
                hour += 12
            elif half == "am" and hour == 12:
                hour = 0
        fraction = found.get("%S.") or ""
        nanoseconds = int(fraction[:9].ljust(9, "0")) if fraction else 0
        day, minute, second = (number(*names, default=default) for names, default in _REST)
        moment = datetime(year or 4, month, day, hour, minute, second)  # noqa: DTZ001 - the zone comes later
        zone = self._zone_in(found)
        if not year:
            moment = _near_now(moment, zone)
        return _time_of(moment, nanoseconds, zone)

    def _zone_in(self, found: dict[str, str | None]) -> tzinfo:
        for name in ("%z", "%w", "%i", "%j", "%k"):
            if text := found.get(name):
                return _offset(text)
        text = found.get("%Z")
        if not text:
            return self._zone
        if text[0] in "+-":
            return _offset(text)
        if text in {"UTC", "GMT"}:
            return UTC
        sample = datetime.now(self._zone)
        if text in {sample.tzname(), (sample + timedelta(days=182)).tzname()}:
            return self._zone
        try:
            return zone_of(text)
        except ValueError:
            raise EvaluationError from None


def _local() -> tzinfo:
    return datetime.now().astimezone().tzinfo or UTC


def _offset(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    digits = text[1:].replace(":", "").ljust(6, "0")
    hours, minutes, seconds = int(digits[:2]), int(digits[2:4]), int(digits[4:6])
    if hours > 24 or minutes > 59 or seconds > 59:
        raise ValueError(text)
    delta = timedelta(hours=hours, minutes=minutes, seconds=seconds)
    return timezone(-delta if text[0] == "-" else delta) if delta else UTC


def _near_now(moment: datetime, zone: tzinfo) -> datetime:
    """The moment in this year, or in the last if it would be more than a week ahead."""
    now = datetime.now(zone).replace(tzinfo=None)
    moment = moment.replace(year=now.year)
    return moment.replace(year=now.year - 1) if moment > now + timedelta(days=7) else moment


def _time_of(moment: datetime, nanoseconds: int, zone: tzinfo) -> Time:
    delta = moment.replace(tzinfo=zone) - _EPOCH
    total = (delta.days * 86_400 + delta.seconds) * _SECOND + nanoseconds
    if not -_LIMIT <= total < _LIMIT:
        raise EvaluationError
    return Time.at(total, zone)


def _pattern(form: str) -> tuple[re.Pattern[str], list[str]]:
    """The regular expression of a format without groups of directives, and the directives of its groups."""
    made: list[str] = []
    names: list[str] = []
    at = 0
    for match in _DIRECTIVE.finditer(form):
        made.append(_literal(form[at : match.start()]))
        directive = match.group()
        at = match.end()
        if directive in _FRACTIONS:
            made[-1] = re.sub(r"(\\\.|,)$", "", made[-1])
            made.append(r"(?:[.,](\d+))?")
            names.append("%S.")
            continue
        made.append(_READ[directive])
        names.append(directive)
        following = form[at : at + 3]
        if directive == "%S" and not re.match(r"[.,]%[Lfs]", following):
            made.append(r"(?:[.,](\d+))?")  # as in Go, a fraction that the format does not mention is read
            names.append("%S.")
    made.append(_literal(form[at:]))
    return re.compile("".join(made)), names


def _literal(text: str) -> str:
    return re.escape(text).replace("\\ ", r"\s*")


def time_parser(literals: Sequence[Any]) -> Callable[[str], Time]:
    """A parser for the format and the location of ``Time``."""
    return _Parser(literals[0], literals[1] or "").parse


# Writing.


def _moment(value: Scalar) -> tuple[datetime, int]:
    if not isinstance(value, Time):
        raise EvaluationError
    seconds, nanoseconds = divmod(int(value), _SECOND)
    try:
        return (_EPOCH + timedelta(seconds=seconds)).astimezone(value.zone or UTC), nanoseconds
    except OverflowError:
        raise EvaluationError from None


def format_time(value: Scalar, form: str) -> str:
    """A time as text."""
    moment, nanoseconds = _moment(value)
    for directive, meaning in _GROUPS.items():
        form = form.replace(directive, meaning)
    pieces: list[str] = []
    at = 0
    for match in _DIRECTIVE.finditer(form):
        literal = form[at : match.start()]
        at = match.end()
        if match.group() in _FRACTIONS:
            digits = f"{nanoseconds:09d}"[: _FRACTIONS[match.group()]].rstrip("0")
            pieces.append(literal + digits if digits else literal[:-1])
        else:
            pieces.append(literal + _written(match.group(), moment))
    return "".join(pieces) + form[at:]


def _written(directive: str, moment: datetime) -> str:
    hour12 = moment.hour % 12 or 12
    match directive:
        case "%Y":
            return f"{moment.year:04d}"
        case "%y":
            return f"{moment.year % 100:02d}"
        case "%m":
            return f"{moment.month:02d}"
        case "%o":
            return f"_{moment.month}"
        case "%q":
            return str(moment.month)
        case "%b" | "%h":
            return _MONTHS[moment.month - 1][:3]
        case "%B":
            return _MONTHS[moment.month - 1]
        case "%d":
            return f"{moment.day:02d}"
        case "%e":
            return f"{moment.day:2d}"
        case "%g":
            return str(moment.day)
        case "%a":
            return _DAYS[moment.weekday()][:3]
        case "%A":
            return _DAYS[moment.weekday()]
        case "%H":
            return f"{moment.hour:02d}"
        case "%l":
            return str(hour12)
        case "%I":
            return f"{hour12:02d}"
        case "%p":
            return "PM" if moment.hour >= 12 else "AM"
        case "%P":
            return "pm" if moment.hour >= 12 else "am"
        case "%M":
            return f"{moment.minute:02d}"
        case "%S":
            return f"{moment.second:02d}"
        case "%Z":
            name = moment.tzname() or ""
            return name if name and not name.startswith("UTC") else _zone_name(moment)
        case "%%":
            return "%"
        case _:
            return _written_offset(directive, moment)


def _zone_name(moment: datetime) -> str:
    offset = moment.utcoffset() or timedelta()
    return "UTC" if not offset else _written_offset("%z", moment)


def _written_offset(directive: str, moment: datetime) -> str:
    total = int((moment.utcoffset() or timedelta()).total_seconds())
    if directive == "%z" and not total:
        return "Z"
    sign, total = "-" if total < 0 else "+", abs(total)
    hours, minutes, seconds = total // 3600, total // 60 % 60, total % 60
    return {
        "%z": f"{sign}{hours:02d}{minutes:02d}",
        "%w": f"{sign}{hours:02d}{minutes:02d}{seconds:02d}",
        "%i": f"{sign}{hours:02d}",
        "%j": f"{sign}{hours:02d}:{minutes:02d}",
        "%k": f"{sign}{hours:02d}:{minutes:02d}:{seconds:02d}",
    }[directive]


# Parts.


def part(name: str) -> Callable[[Scalar], int]:
    """A function from a time to its year, month, day, hour, minute, second, nanosecond or weekday (0 is Sunday)."""

    def get(value: Scalar) -> int:
        moment, nanoseconds = _moment(value)
        if name == "nanosecond":
            return nanoseconds
        if name == "weekday":
            return moment.isoweekday() % 7
        number: int = getattr(moment, name)
        return number

    return get


_GO_ZERO_S: Final = -62_135_596_800
"""Seconds from 1970 to the year 1, from which Go truncates times."""


def truncate_time(value: Scalar, duration: Scalar) -> Time:
    """A time rounded down to a multiple of a duration since the year 1."""
    if not isinstance(value, Time) or not isinstance(duration, Duration):
        raise EvaluationError
    if duration <= 0:
        return value
    rest = (int(value) - _GO_ZERO_S * _SECOND) % int(duration)
    return Time.at(int(value) - rest, value.zone)


def time_from_unix(seconds: Scalar, nanoseconds: Scalar = 0) -> Time:
    """The time that many seconds and nanoseconds after 1970."""
    if type(seconds) is not int or type(nanoseconds) is not int:
        raise EvaluationError
    total = seconds * _SECOND + nanoseconds
    if not -_LIMIT <= total < _LIMIT:
        raise EvaluationError
    return Time(total)


def now(view: View | None, _: Sequence[Any]) -> Values:
    """The present time, the same for all rows."""
    del view
    return Values.of_numbers(Kind.TIME, np.array([time.time_ns()]))
