"""Reads times by compiled layouts, as Go's ``time.Parse`` does, and epochs.

What a layout is made of comes from ``layouts.py``; time zones that are not plain offsets come from there as well, and
the last answer is kept, because the lines of a log have increasing times.
Source: Go 1.26 time/format.go; opentelemetry-collector-contrib pkg/stanza/operator/helper/time.go (v0.156).
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp
from libc.time cimport time as unix_time, time_t

from collector.log_operators.nodes cimport K_DOUBLE, K_INT, K_TEXT, Node

__all__ = ["CODES", "EPOCHS", "TimeLayout", "TimeReader"]

cdef enum Code:
    LITERAL
    LONG_YEAR
    SHORT_YEAR
    SHORT_MONTH
    LONG_MONTH
    NUMBER_MONTH
    SHORT_WEEKDAY
    LONG_WEEKDAY
    DAY
    UNDER_DAY
    YEAR_DAY
    UNDER_YEAR_DAY
    HOUR
    HOUR_12
    MINUTE
    SECOND
    UPPER_PM
    LOWER_PM
    ZONE_ABBREVIATION
    OFFSET_SECONDS      # -070000; each of these also reads Z if it is one of the second five
    OFFSET_COLON_SECONDS
    OFFSET_PLAIN
    OFFSET_COLON
    OFFSET_SHORT
    ISO_SECONDS
    ISO_COLON_SECONDS
    ISO_PLAIN
    ISO_COLON
    ISO_SHORT
    ISO_ANY             # +0200, +02:00, +02 or Z: what %z stands for
    FRACTION_EXACT
    FRACTION_ANY

CODES = {
    "literal": LITERAL, "long_year": LONG_YEAR, "short_year": SHORT_YEAR, "short_month": SHORT_MONTH,
    "long_month": LONG_MONTH, "number_month": NUMBER_MONTH, "short_weekday": SHORT_WEEKDAY,
    "long_weekday": LONG_WEEKDAY, "day": DAY, "under_day": UNDER_DAY, "year_day": YEAR_DAY,
    "under_year_day": UNDER_YEAR_DAY, "hour": HOUR, "hour_12": HOUR_12, "minute": MINUTE, "second": SECOND,
    "upper_pm": UPPER_PM, "lower_pm": LOWER_PM, "zone_abbreviation": ZONE_ABBREVIATION,
    "offset_seconds": OFFSET_SECONDS, "offset_colon_seconds": OFFSET_COLON_SECONDS, "offset_plain": OFFSET_PLAIN,
    "offset_colon": OFFSET_COLON, "offset_short": OFFSET_SHORT, "iso_seconds": ISO_SECONDS,
    "iso_colon_seconds": ISO_COLON_SECONDS, "iso_plain": ISO_PLAIN, "iso_colon": ISO_COLON, "iso_short": ISO_SHORT,
    "iso_any": ISO_ANY, "fraction_exact": FRACTION_EXACT, "fraction_any": FRACTION_ANY,
}

cdef enum Epoch:
    EPOCH_NONE
    EPOCH_S
    EPOCH_MS
    EPOCH_US
    EPOCH_NS
    EPOCH_S_MS
    EPOCH_S_US
    EPOCH_S_NS

EPOCHS = {"s": EPOCH_S, "ms": EPOCH_MS, "us": EPOCH_US, "ns": EPOCH_NS, "s.ms": EPOCH_S_MS, "s.us": EPOCH_S_US,
          "s.ns": EPOCH_S_NS}

cdef enum:
    BUCKET_S = 900      # the offset of a time zone is the same within a quarter of an hour of the clock
    WEEK_S = 604_800

cdef int64_t SECOND_NS = 1_000_000_000
cdef int64_t SECONDS_MAX = 9_223_372_036    # what fits into 64 bits of nanoseconds

cdef const char** MONTHS = [
    b"January", b"February", b"March", b"April", b"May", b"June", b"July", b"August", b"September", b"October",
    b"November", b"December",
]
cdef const char** WEEKDAYS = [b"Sunday", b"Monday", b"Tuesday", b"Wednesday", b"Thursday", b"Friday", b"Saturday"]
cdef int* MONTH_SIZES = [7, 8, 5, 5, 3, 4, 4, 6, 9, 7, 8, 8]
cdef int* WEEKDAY_SIZES = [6, 6, 7, 9, 8, 6, 8]
cdef int* DAYS_IN = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]


cdef int64_t days_from_civil(int64_t year, int64_t month, int64_t day) noexcept nogil:
    """Days since 1970. Source: Howard Hinnant, chrono-compatible low-level date algorithms."""
    cdef int64_t era, year_of_era, day_of_year
    year -= month <= 2
    era = (year if year >= 0 else year - 399) // 400
    year_of_era = year - era * 400
    day_of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468


cdef int64_t _year_of(int64_t seconds) noexcept nogil:
    cdef int64_t days = seconds // 86_400 + 719_468
    cdef int64_t era = (days if days >= 0 else days - 146_096) // 146_097
    cdef int64_t day_of_era = days - era * 146_097
    cdef int64_t year_of_era = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
    cdef int64_t day_of_year = day_of_era - (365 * year_of_era + year_of_era // 4 - year_of_era // 100)
    return year_of_era + era * 400 + (day_of_year >= 306)


cdef int64_t with_year(int64_t month, int64_t day, int64_t second_of_day) noexcept nogil:
    """The time in this year, or in the last one if it would be more than a week ahead."""
    cdef int64_t now = <int64_t>unix_time(NULL)
    cdef int64_t year = _year_of(now)
    cdef int64_t seconds = days_from_civil(year, month, day) * 86_400 + second_of_day
    if seconds > now + WEEK_S:
        seconds = days_from_civil(year - 1, month, day) * 86_400 + second_of_day
    return seconds


cdef inline bint _is_leap(int64_t year) noexcept nogil:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


cdef inline bint _is_digit(const char* text, Py_ssize_t size, int at) noexcept nogil:
    return at < size and b"0" <= text[at] <= b"9"


cdef inline char _lower(char c) noexcept nogil:
    return c + 32 if b"A" <= c <= b"Z" else c


cdef int _name(const char* text, Py_ssize_t size, const char** names, int* sizes, int count, int short_size,
               int* used) noexcept nogil:
    """The number of the name, in any case, with which the text begins; -1 without one."""
    cdef int i, j, length
    for i in range(count):
        length = short_size if short_size else sizes[i]
        if size < length:
            continue
        j = 0
        while j < length and _lower(text[j]) == _lower(names[i][j]):
            j += 1
        if j == length:
            used[0] = length
            return i
    return -1


cdef class TimeLayout:
    """One sequence of elements, each ``(code, literal, digits, is_fixed, skips_spaces)``."""

    def __cinit__(self, elements):
        cdef int i
        cdef bytes literal
        self.count = len(elements)
        self.kept = []
        self.elements = <Element*>calloc(self.count + 1, sizeof(Element))
        if self.elements == NULL:
            raise MemoryError
        for i, (code, literal, digits, is_fixed, skips_spaces) in enumerate(elements):
            self.kept.append(literal)
            self.elements[i].code = code
            self.elements[i].literal = literal
            self.elements[i].literal_size = len(literal)
            self.elements[i].digits = digits
            self.elements[i].is_fixed = is_fixed
            self.elements[i].skips_spaces = skips_spaces

    def __dealloc__(self):
        free(self.elements)

    cdef bint read(self, const char* text, Py_ssize_t size, Parsed* parsed) noexcept nogil:
        cdef const char* p = text
        cdef const char* end = text + size
        cdef Element* element
        cdef Element* following
        cdef int i, j, n, code, value, used = 0, sign
        cdef int64_t year = 0, month = -1, day = -1, year_day = -1, hour = 0, minute = 0, second = 0
        cdef int pm = 0     # 1: before noon, 2: after noon
        parsed.nanoseconds = 0
        parsed.offset = 0
        parsed.zone = ZONE_NONE
        for i in range(self.count):
            element = &self.elements[i]
            code = element.code
            if code == LITERAL:
                j = 0
                while j < element.literal_size:
                    if element.literal[j] == b" ":
                        if p < end and p[0] != b" ":
                            return False
                        while j < element.literal_size and element.literal[j] == b" ":
                            j += 1
                        while p < end and p[0] == b" ":
                            p += 1
                        continue
                    if p >= end or p[0] != element.literal[j]:
                        return False
                    p += 1
                    j += 1
                continue
            if element.skips_spaces:
                while p < end and (p[0] == b" " or 9 <= p[0] <= 13):
                    p += 1
            n = <int>(end - p) if end - p < 1_000_000 else 1_000_000
            if code == LONG_YEAR:
                if n < 4 or not (_is_digit(p, n, 0) and _is_digit(p, n, 1) and _is_digit(p, n, 2)
                                 and _is_digit(p, n, 3)):
                    return False
                year = (p[0] - 48) * 1000 + (p[1] - 48) * 100 + (p[2] - 48) * 10 + p[3] - 48
                p += 4
            elif code == SHORT_YEAR:
                if not (_is_digit(p, n, 0) and _is_digit(p, n, 1)):
                    return False
                year = (p[0] - 48) * 10 + p[1] - 48
                year += 1900 if year >= 69 else 2000
                p += 2
            elif code == SHORT_MONTH or code == LONG_MONTH:
                value = _name(p, n, MONTHS, MONTH_SIZES, 12, 3 if code == SHORT_MONTH else 0, &used)
                if value < 0:
                    return False
                month = value + 1
                p += used
            elif code == SHORT_WEEKDAY or code == LONG_WEEKDAY:
                if _name(p, n, WEEKDAYS, WEEKDAY_SIZES, 7, 3 if code == SHORT_WEEKDAY else 0, &used) < 0:
                    return False
                p += used
            elif code == YEAR_DAY or code == UNDER_YEAR_DAY:
                for j in range(2):
                    if code == UNDER_YEAR_DAY and p < end and p[0] == b" ":
                        p += 1
                n = <int>(end - p) if end - p < 9 else 9
                j = 0
                year_day = 0
                while j < 3 and _is_digit(p, n, j):
                    year_day = year_day * 10 + p[j] - 48
                    j += 1
                if j == 0 or (code == YEAR_DAY and j != 3):
                    return False
                p += j
            elif code <= SECOND:        # one or two digits
                if code == UNDER_DAY and n and p[0] == b" ":
                    p += 1
                    n -= 1
                if not _is_digit(p, n, 0):
                    return False
                value = p[0] - 48
                if _is_digit(p, n, 1):
                    value = value * 10 + p[1] - 48
                    p += 2
                elif element.is_fixed:
                    return False
                else:
                    p += 1
                if code == NUMBER_MONTH:
                    if not 0 < value <= 12:
                        return False
                    month = value
                elif code == DAY or code == UNDER_DAY:
                    day = value
                elif code == HOUR:
                    if value >= 24:
                        return False
                    hour = value
                elif code == HOUR_12:
                    if value > 12:
                        return False
                    hour = value
                elif code == MINUTE:
                    if value >= 60:
                        return False
                    minute = value
                else:
                    if value >= 60:
                        return False
                    second = value
                    following = &self.elements[i + 1] if i + 1 < self.count else NULL
                    if following != NULL and following.code == LITERAL and i + 2 < self.count:
                        following = &self.elements[i + 2]   # Go looks for the next element behind the literal
                    if not (following != NULL
                            and (following.code == FRACTION_EXACT or following.code == FRACTION_ANY)):
                        p += _fraction(p, end, parsed, 0)
            elif code == UPPER_PM or code == LOWER_PM:
                if n < 2:
                    return False
                if memcmp(p, b"PM", 2) == 0 if code == UPPER_PM else memcmp(p, b"pm", 2) == 0:
                    pm = 2
                elif memcmp(p, b"AM", 2) == 0 if code == UPPER_PM else memcmp(p, b"am", 2) == 0:
                    pm = 1
                else:
                    return False
                p += 2
            elif code == ZONE_ABBREVIATION:
                used = _zone_name(p, n)
                if not used:
                    return False
                if used >= 3 and memcmp(p, b"UTC", 3) == 0:
                    parsed.zone = ZONE_OFFSET
                    parsed.offset = 0
                    used = 3
                elif parsed.zone == ZONE_NONE:
                    parsed.zone = ZONE_NAME
                    parsed.name, parsed.name_size = p, used
                p += used
            elif code <= ISO_ANY:
                used = _offset(p, n, code, parsed)
                if not used:
                    return False
                p += used
            elif code == FRACTION_EXACT:
                used = _fraction(p, end, parsed, element.digits)
                if used != element.digits + 1:
                    return False
                p += used
            else:
                p += _fraction(p, end, parsed, 0)
        if p != end:
            return False
        if pm == 2 and hour < 12:
            hour += 12
        elif pm == 1 and hour == 12:
            hour = 0
        if year_day >= 0:
            if not 1 <= year_day <= 365 + _is_leap(year):
                return False
            value = 0
            while year_day > DAYS_IN[value] + (value == 1 and _is_leap(year)):
                year_day -= DAYS_IN[value] + (value == 1 and _is_leap(year))
                value += 1
            if (month >= 0 and month != value + 1) or (day >= 0 and day != year_day):
                return False
            month, day = value + 1, year_day
        if month < 0:
            month = 1
        if day < 0:
            day = 1
        if day < 1 or day > DAYS_IN[month - 1] + (month == 2 and _is_leap(year)):
            return False
        if year == 0:
            parsed.seconds = with_year(month, day, hour * 3600 + minute * 60 + second)
        else:
            parsed.seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second
        return True


cdef int _fraction(const char* p, const char* end, Parsed* parsed, int exact) noexcept nogil:
    """Reads a point or comma and the digits behind it; the number of characters, 0 if there are none."""
    cdef int used = 1
    cdef int32_t value = 0
    cdef int place = 0
    if end - p < 2 or not (p[0] == b"." or p[0] == b",") or not (b"0" <= p[1] <= b"9"):
        return 0
    while p + used < end and b"0" <= p[used] <= b"9" and (not exact or used <= exact):
        if place < 9:
            value = value * 10 + p[used] - 48
            place += 1
        used += 1
    while place < 9:
        value *= 10
        place += 1
    parsed.nanoseconds = value
    return used


cdef int _pair(const char* p) noexcept nogil:
    return (p[0] - 48) * 10 + p[1] - 48 if b"0" <= p[0] <= b"9" and b"0" <= p[1] <= b"9" else -1


cdef int _offset(const char* p, int n, int code, Parsed* parsed) noexcept nogil:
    """Reads an offset from UTC; the number of characters, 0 if it is none."""
    cdef int hours, minutes = 0, seconds = 0, used = 3
    if code >= ISO_SECONDS and n and p[0] == b"Z":
        parsed.zone = ZONE_OFFSET
        parsed.offset = 0
        return 1
    if n < 3 or not (p[0] == b"+" or p[0] == b"-"):
        return 0
    hours = _pair(p + 1)
    if code == ISO_ANY:
        code = OFFSET_COLON if n >= 6 and p[3] == b":" else OFFSET_PLAIN if n >= 5 and _pair(p + 3) >= 0 else OFFSET_SHORT
    elif code >= ISO_SECONDS:
        code -= ISO_SECONDS - OFFSET_SECONDS
    if code == OFFSET_PLAIN or code == OFFSET_SECONDS:
        if n < (5 if code == OFFSET_PLAIN else 7):
            return 0
        minutes = _pair(p + 3)
        used = 5
        if code == OFFSET_SECONDS:
            seconds = _pair(p + 5)
            used = 7
    elif code == OFFSET_COLON or code == OFFSET_COLON_SECONDS:
        if n < (6 if code == OFFSET_COLON else 9) or p[3] != b":":
            return 0
        minutes = _pair(p + 4)
        used = 6
        if code == OFFSET_COLON_SECONDS:
            if p[6] != b":":
                return 0
            seconds = _pair(p + 7)
            used = 9
    if not (0 <= hours <= 24 and 0 <= minutes <= 60 and 0 <= seconds <= 60):
        return 0
    parsed.zone = ZONE_OFFSET
    parsed.offset = (hours * 60 + minutes) * 60 + seconds
    if p[0] == b"-":
        parsed.offset = -parsed.offset
    return used


cdef int _zone_name(const char* p, int n) noexcept nogil:
    """The length of the abbreviation of a time zone, 0 if it is none. Source: Go's parseTimeZone."""
    cdef int upper = 0, hours = 0, used
    if n < 3:
        return 0
    if n >= 4 and (memcmp(p, b"ChST", 4) == 0 or memcmp(p, b"MeST", 4) == 0):
        return 4
    if memcmp(p, b"GMT", 3) == 0:
        used = _signed_hours(p + 3, n - 3)
        return 3 + used
    if p[0] == b"+" or p[0] == b"-":
        return _signed_hours(p, n)
    while upper < 6 and upper < n and b"A" <= p[upper] <= b"Z":
        upper += 1
    if upper == 5:
        return 5 if p[4] == b"T" else 0
    if upper == 4:
        return 4 if p[3] == b"T" or memcmp(p, b"WITA", 4) == 0 else 0
    return 3 if upper == 3 else 0


cdef int _signed_hours(const char* p, int n) noexcept nogil:
    cdef int used = 1, value = 0
    if n < 2 or not (p[0] == b"+" or p[0] == b"-"):
        return 0
    while used < n and b"0" <= p[used] <= b"9" and used < 6:
        value = value * 10 + p[used] - 48
        used += 1
    return used if used > 1 and value <= 23 else 0


cdef class TimeReader:
    """Reads times by layouts, the first that fits, or as epochs.

    ``offset_of(name, seconds)`` returns the offset from UTC, in seconds, of a time zone at a time of its clock; ``name``
    is the abbreviation in the text, or None for the default zone. It raises ValueError if there is no such zone.
    """

    def __init__(self, layouts, epoch, offset_of, fixed_offset=None):
        self.layouts = list(layouts)
        self.epoch = epoch
        self.offset_of = offset_of
        self.has_fixed_offset = fixed_offset is not None
        self.fixed_offset = fixed_offset or 0
        self.last_name = ...    # nothing is kept yet

    def read_bytes(self, bytes text):
        """The time in a text, in nanoseconds since 1970; None if it is none. For tests and rare places."""
        cdef int64_t found = 0
        return found if self.read_text(text, len(text), &found) else None

    cdef bint read_node(self, Node* node, int64_t* time_unix_nano) except -1:
        """Whether the value is a time. Numbers are times only as epochs."""
        if node.kind == K_TEXT:
            return self.read_text(node.text, node.text_size, time_unix_nano)
        if self.epoch == EPOCH_NONE:
            return False
        if node.kind == K_INT:
            return self._of_epoch(node.number, time_unix_nano)
        if node.kind != K_DOUBLE or not -9.2e18 < node.real < 9.2e18:
            return False
        if self.epoch <= EPOCH_NS:
            return self._of_epoch(<int64_t>node.real, time_unix_nano)
        digits = 3 if self.epoch == EPOCH_S_MS else 6 if self.epoch == EPOCH_S_US else 9
        made = b"%.*f" % (digits, node.real)
        return self.read_text(made, len(made), time_unix_nano)

    cdef bint _of_epoch(self, int64_t value, int64_t* time_unix_nano):
        cdef int64_t unit = 1
        if self.epoch == EPOCH_S or self.epoch >= EPOCH_S_MS:
            unit = SECOND_NS
        elif self.epoch == EPOCH_MS:
            unit = 1_000_000
        elif self.epoch == EPOCH_US:
            unit = 1_000
        if value < 0 or value > (<int64_t>0x7FFFFFFFFFFFFFFF) // unit:
            return False
        time_unix_nano[0] = value * unit
        return True

    cdef bint read_text(self, const char* text, Py_ssize_t size, int64_t* time_unix_nano) except -1:
        cdef Parsed parsed
        cdef TimeLayout layout
        cdef int64_t seconds, offset
        if self.epoch != EPOCH_NONE:
            return self._epoch_text(text, size, time_unix_nano)
        for layout in self.layouts:
            if layout.read(text, size, &parsed):
                break
        else:
            return False
        seconds = parsed.seconds
        if parsed.zone == ZONE_OFFSET:
            offset = parsed.offset
        elif parsed.zone == ZONE_NONE and self.has_fixed_offset:
            offset = self.fixed_offset
        else:
            name = parsed.name[: parsed.name_size] if parsed.zone == ZONE_NAME else None
            if self.last_bucket != seconds // BUCKET_S or self.last_name != name:
                try:
                    self.last_offset = self.offset_of(name, seconds)
                except ValueError:
                    return False
                self.last_bucket = seconds // BUCKET_S
                self.last_name = name
            offset = self.last_offset
        seconds -= offset
        if seconds < 0 or seconds >= SECONDS_MAX:
            return False
        time_unix_nano[0] = seconds * SECOND_NS + parsed.nanoseconds
        return True

    cdef bint _epoch_text(self, const char* text, Py_ssize_t size, int64_t* time_unix_nano):
        cdef int64_t whole = 0, part = 0
        cdef Py_ssize_t i = 0
        if size and text[0] == b"+":
            i = 1
        if not _is_digit(text, size, <int>i) or size > 40:
            return False
        while i < size and b"0" <= text[i] <= b"9":
            if whole > 922_337_203_685_477_579:
                return False
            whole = whole * 10 + text[i] - 48
            i += 1
        if self.epoch <= EPOCH_NS:
            return i == size and self._of_epoch(whole, time_unix_nano)
        if i >= size or text[i] != b"." or whole >= SECONDS_MAX:
            return False
        i += 1
        if not _is_digit(text, size, <int>i):
            return False
        while i < size and b"0" <= text[i] <= b"9":
            if part > 10**12:
                return False
            part = part * 10 + text[i] - 48
            i += 1
        if i != size:
            return False
        part *= 1_000_000 if self.epoch == EPOCH_S_MS else 1_000 if self.epoch == EPOCH_S_US else 1
        if part >= SECOND_NS * (SECONDS_MAX - whole):
            return False
        time_unix_nano[0] = whole * SECOND_NS + part
        return True
