"""Compiles layouts of times, of strptime and of Go, for :mod:`collector.log_operators.times`; and finds time zones.

The directives of strptime are those of the Collector, which stand for elements of a Go layout: ``%L``, ``%f`` and
``%s`` are fractions of a second, ``%i``, ``%j``, ``%k`` and ``%w`` offsets.
Source: opentelemetry-collector-contrib internal/coreinternal/timeutils (v0.156); Go 1.26 time/format.go.
"""

import os
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from collector.log_operators.times import CODES, EPOCHS, TimeLayout, TimeReader
from collector.text.cache import cached_by_text

__all__ = ["epoch_reader", "gotime_reader", "strptime_reader", "zone_of"]

_Element = tuple[int, bytes, int, bool, bool]

# The elements of a Go layout, longest first among those with a common beginning: (text, code, is it two digits wide?).
_ELEMENTS: Final[tuple[tuple[str, str, bool], ...]] = (
    ("January", "long_month", False),
    ("Jan", "short_month", False),
    ("Monday", "long_weekday", False),
    ("Mon", "short_weekday", False),
    ("MST", "zone_abbreviation", False),
    ("002", "year_day", False),
    ("01", "number_month", True),
    ("02", "day", True),
    ("03", "hour_12", True),
    ("04", "minute", True),
    ("05", "second", True),
    ("06", "short_year", False),
    ("15", "hour", False),
    ("1", "number_month", False),
    ("2006", "long_year", False),
    ("2", "day", False),
    ("__2", "under_year_day", False),
    ("_2", "under_day", False),
    ("3", "hour_12", False),
    ("4", "minute", False),
    ("5", "second", False),
    ("PM", "upper_pm", False),
    ("pm", "lower_pm", False),
    ("-070000", "offset_seconds", False),
    ("-07:00:00", "offset_colon_seconds", False),
    ("-0700", "offset_plain", False),
    ("-07:00", "offset_colon", False),
    ("-07", "offset_short", False),
    ("Z070000", "iso_seconds", False),
    ("Z07:00:00", "iso_colon_seconds", False),
    ("Z0700", "iso_plain", False),
    ("Z07:00", "iso_colon", False),
    ("Z07", "iso_short", False),
)
_FRACTION: Final = re.compile(r"[.,](0+|9+)(?!\d)")

_NUMBERS: Final = {"%m": "1", "%o": "1", "%q": "1", "%d": "2", "%e": "2", "%g": "2", "%I": "3", "%M": "4", "%S": "5"}
_DIRECTIVES: Final[Mapping[str, tuple[str, ...]]] = {
    **{directive: (layout,) for directive, layout in _NUMBERS.items()},
    "%Y": ("2006",),
    "%y": ("06",),
    "%b": ("Jan",),
    "%h": ("Jan",),
    "%B": ("January",),
    "%a": ("Mon",),
    "%A": ("Monday",),
    "%H": ("15",),
    "%l": ("3",),
    "%p": ("PM",),
    "%P": ("pm",),
    "%L": ("999",),
    "%f": ("999999",),
    "%s": ("999999999",),
    "%Z": ("MST",),
    "%z": ("Z0700",),
    "%w": ("-070000",),
    "%i": ("-07",),
    "%j": ("-07:00",),
    "%k": ("-07:00:00",),
    "%D": ("1/2/2006", "1/2/06"),
    "%x": ("1/2/2006", "1/2/06"),
    "%F": ("2006-1-2",),
    "%T": ("15:4:5",),
    "%X": ("15:4:5",),
    "%r": ("3:4:5 pm",),
    "%R": ("15:4",),
    "%n": ("\n",),
    "%t": ("\t",),
    "%%": ("%",),
    "%c": ("Mon Jan 2 15:4:5 2006",),
}
_DIRECTIVE: Final = re.compile(r"%.", re.DOTALL)
_ALTERNATIVES_MAX: Final = 8


def zone_of(name: str) -> tzinfo:
    """A time zone of the tz database; ``Local`` is that of this machine.

    Raises:
        ValueError: it does not have this zone.
    """
    if name in {"", "UTC"}:
        return UTC
    if name == "Local":
        return _local_zone()
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"{name!r} is not in the time zone database (example: Europe/Berlin)") from None


def _local_zone() -> tzinfo:
    name = os.environ.get("TZ", "").lstrip(":")
    if name:
        try:
            return zone_of(name)
        except ValueError:
            return UTC
    try:
        with Path("/etc/localtime").open("rb") as file:
            return ZoneInfo.from_file(file)
    except (OSError, ValueError):
        return UTC


def epoch_reader(layout: str) -> TimeReader:
    """A reader of epochs in the unit ``s``, ``ms``, ``us`` or ``ns``, or with a fraction: ``s.ms``, ``s.us``, ``s.ns``.

    Raises:
        ValueError: there is no such layout.
    """
    if layout not in EPOCHS:
        raise ValueError(f"{layout!r} is not a layout of an epoch; it must be one of {', '.join(EPOCHS)}")
    return TimeReader([], EPOCHS[layout], None)


def gotime_reader(layout: str, location: str, zones: Mapping[str, str]) -> TimeReader:
    """A reader of a layout such as ``2006-01-02T15:04:05Z07:00``. For ``zones``, see :func:`strptime_reader`.

    Raises:
        ValueError: the layout or a location is not valid.
    """
    if match := re.search(r"[^.,9]9+", layout):
        raise ValueError(f"{match.group()!r} in the layout {layout!r}: a fraction of a second must follow '.' or ','")
    return _reader([_elements(layout)], layout, location, zones)


def strptime_reader(layout: str, location: str, zones: Mapping[str, str]) -> TimeReader:
    """A reader of a layout such as ``%Y-%m-%dT%H:%M:%S.%L%z``.

    ``location`` is the time zone of times that name none: UTC without one if the layout ends with Z, else that of this
    machine. ``zones`` maps abbreviations to locations.

    Raises:
        ValueError: the layout or a location is not valid.
    """
    if match := re.search(r"\d", layout):
        raise ValueError(f"the strptime layout {layout!r} must not contain digits, but it has {match.group()!r}")
    if match := re.search(r"[^.,]%[Lfs]", layout):
        raise ValueError(f"{match.group()!r} in the layout {layout!r}: a fraction of a second must follow '.' or ','")
    native = [""]
    at = 0
    for match in _DIRECTIVE.finditer(layout):
        meanings = _DIRECTIVES.get(match.group())
        if meanings is None:
            raise ValueError(f"{match.group()!r} in the layout {layout!r} is not a directive (examples: %Y, %m, %d)")
        literal = layout[at : match.start()]
        native = [made + literal + meaning for made in native for meaning in meanings][:_ALTERNATIVES_MAX]
        at = match.end()
    return _reader([_lenient(_elements(made + layout[at:])) for made in native], layout, location, zones)


def _elements(layout: str) -> list[_Element]:
    """The elements of a Go layout, with the texts between them."""
    made: list[_Element] = []
    literal = ""
    at = 0
    while at < len(layout):
        fraction = _FRACTION.match(layout, at)
        found = next(
            (
                element
                for element in _ELEMENTS
                if layout.startswith(element[0], at)
                and not (element[0] in {"Jan", "Mon"} and layout[at + 3 : at + 4].islower())
                and not (element[0] == "_2" and layout.startswith("_2006", at))
            ),
            None,
        )
        if fraction is None and found is None:
            literal += layout[at]
            at += 1
            continue
        if literal:
            made.append((CODES["literal"], literal.encode(), 0, False, False))
            literal = ""
        if fraction is not None:
            digits = fraction.group(1)
            code = "fraction_exact" if digits[0] == "0" else "fraction_any"
            made.append((CODES[code], b"", len(digits), False, False))
            at = fraction.end()
        elif found is not None:
            text, code, is_fixed = found
            made.append((CODES[code], b"", 0, is_fixed, False))
            at += len(text)
    if literal:
        made.append((CODES["literal"], literal.encode(), 0, False, False))
    return made


_SKIPPING: Final = frozenset(
    CODES[name]
    for name in ("long_year", "short_year", "number_month", "day", "hour", "hour_12", "minute", "second", "iso_any")
)


def _lenient(elements: list[_Element]) -> list[_Element]:
    """The elements as strptime reads them: spaces may come before numbers, and ``%z`` reads any kind of offset."""
    made = []
    for code, literal, digits, is_fixed, _ in elements:
        read = CODES["iso_any"] if code == CODES["iso_plain"] else code
        made.append((read, literal, digits, is_fixed, read in _SKIPPING))
    return made


def _reader(alternatives: list[list[_Element]], layout: str, location: str, zones: Mapping[str, str]) -> TimeReader:
    zone = zone_of(location or ("UTC" if layout.endswith("Z") else "Local"))
    found = {name: zone_of(place) for name, place in zones.items()}
    fixed = 0 if zone is UTC or getattr(zone, "key", None) in {"UTC", "Etc/UTC"} else None
    return TimeReader([TimeLayout(elements) for elements in alternatives], 0, offset_finder(zone, found), fixed)


def offset_finder(zone: tzinfo, zones: Mapping[str, tzinfo]) -> Callable[[bytes | None, int], int]:
    """A function from the abbreviation of a time zone and a time of its clock to the offset from UTC in seconds."""

    def offset_of(name: bytes | None, seconds: int) -> int:
        try:
            moment = datetime(1970, 1, 1) + timedelta(seconds=seconds)  # noqa: DTZ001 - a time of the clock
        except OverflowError:
            raise ValueError("the time is out of range") from None
        if name is None:
            return _offset(zone, moment)
        return _named_offset(name.decode("ascii", "replace"), zones.get(name.decode("ascii", "replace"), zone), moment)

    return offset_of


def _named_offset(name: str, zone: tzinfo, moment: datetime) -> int:
    """The offset that the name stands for in the zone or, if it has no such name, in the zone that is called so."""
    found = _offset_by_name(name, zone, moment)
    if found is not None:
        return found
    if name.startswith(("GMT+", "GMT-")) and name[4:].isdigit():
        return int(name[3:]) * 3600
    named = _zone_named(name)
    found = _offset_by_name(name, named, moment)
    return _offset(named, moment) if found is None else found


def _offset_by_name(name: str, zone: tzinfo, moment: datetime) -> int | None:
    for other in (moment, moment + timedelta(days=182), moment - timedelta(days=182)):
        for fold in (0, 1):
            there = other.replace(tzinfo=zone, fold=fold)
            if there.tzname() == name:
                delta = there.utcoffset()
                return int(delta.total_seconds()) if delta else 0
    return None


def _found_zone(name: str) -> tzinfo | None:
    try:
        return zone_of(name)
    except ValueError:
        return None


_cached_zone: Final = cached_by_text(_found_zone)  # the names come from data


def _zone_named(name: str) -> tzinfo:
    zone = _cached_zone(name)
    if zone is None:
        raise ValueError(f"{name!r} is not in the time zone database")
    return zone


def _offset(zone: tzinfo, moment: datetime) -> int:
    delta = moment.replace(tzinfo=zone).utcoffset()
    return int(delta.total_seconds()) if delta else 0
