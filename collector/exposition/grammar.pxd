# What the text formats of Prometheus have in common below the level of lines: blanks, names, quoted texts, labels and
# numbers. Inline functions that never leave the buffer and do not need the GIL; they return NULL for what is invalid.
# Source: Prometheus documentation, "Exposition formats"; OpenMetrics 1.0 "ABNF"; Prometheus proposal
# 0028 (quoted UTF-8 names).
from libc.math cimport INFINITY, NAN
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from collector.wire.proto cimport Ptr

cdef enum:
    NUMBER_MAX_CHARS = 511

ctypedef struct Label:
    Ptr name                # between the quotes, if it is quoted
    Ptr name_end
    Ptr value               # between the quotes, still escaped; NULL: a quoted text alone, which names the metric
    Ptr value_end

cdef extern from "Python.h":
    double PyOS_string_to_double(const char*, char**, void*) except? -1.0

cdef extern from *:
    """
    static const double tailrace_power10[] = {1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13,
                                              1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    """
    const double* POWER10 "tailrace_power10"


cdef inline bint is_blank(uint8_t c) noexcept nogil:
    return c == 32 or c == 9


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return <uint8_t>(c - 48) < 10


cdef inline bint is_name_start(uint8_t c) noexcept nogil:
    return <uint8_t>((c | 32) - 97) < 26 or c == 95


cdef inline Ptr skip_blanks(Ptr p, Ptr end) noexcept nogil:
    while p < end and is_blank(p[0]):
        p += 1
    return p


cdef inline Ptr name_stop(Ptr p, Ptr end, bint colons) noexcept nogil:
    """The end of the name that begins at p, or NULL; only names of metrics have colons."""
    if p >= end or not (is_name_start(p[0]) or (colons and p[0] == 58)):
        return NULL
    p += 1
    while p < end and (is_name_start(p[0]) or is_digit(p[0]) or (colons and p[0] == 58)):
        p += 1
    return p


cdef inline Ptr closing_quote(Ptr p, Ptr end) noexcept nogil:
    """The quote that ends the text whose first character is at p, or NULL."""
    while p < end and p[0] != 34 and p[0] != 10:
        p += 2 if p[0] == 92 else 1
    return p if p < end and p[0] == 34 else NULL


cdef inline Ptr read_label(Ptr p, Ptr end, Label* label) noexcept nogil:
    """Reads the label at p, and the comma behind it; the next character is a label's or the closing brace."""
    if p < end and p[0] == 34:
        label.name = p + 1
        label.name_end = closing_quote(p + 1, end)
        if label.name_end == NULL:
            return NULL
        p = label.name_end + 1
    else:
        label.name = p
        label.name_end = name_stop(p, end, False)
        if label.name_end == NULL:
            return NULL
        p = label.name_end
    p = skip_blanks(p, end)
    label.value = label.value_end = NULL
    if p < end and p[0] == 61:
        p = skip_blanks(p + 1, end)
        if p >= end or p[0] != 34:
            return NULL
        label.value = p + 1
        label.value_end = closing_quote(p + 1, end)
        if label.value_end == NULL:
            return NULL
        p = skip_blanks(label.value_end + 1, end)
    elif (label.name - 1)[0] != 34:
        return NULL
    if p < end and p[0] == 44:
        return skip_blanks(p + 1, end)
    return p if p < end and p[0] == 125 else NULL


cdef inline Py_ssize_t unescape(Ptr p, Ptr end, uint8_t* out) noexcept nogil:
    """Writes the text without its escapes, which is never longer; returns its length. Unknown escapes stay."""
    cdef uint8_t* at = out
    while p < end:
        if p[0] == 92 and p + 1 < end and (p[1] == 92 or p[1] == 34 or p[1] == 110):
            at[0] = 10 if p[1] == 110 else p[1]
            p += 2
        else:
            at[0] = p[0]
            p += 1
        at += 1
    return at - out


cdef inline bint is_word(Ptr p, Ptr end, const char* word, Py_ssize_t length) noexcept nogil:
    """Whether the token is the word, which is in lower case, in whatever case."""
    cdef Py_ssize_t i
    if end - p != length:
        return False
    for i in range(length):
        if (p[i] | 32) != <uint8_t>word[i]:
            return False
    return True


cdef inline bint read_number(Ptr p, Ptr end, double* number) noexcept nogil:
    """Reads the token [p, end) as a double, correctly rounded; False if it is not a number.

    Up to 2**53 and 10**22, one multiplication or division of exact doubles is correctly rounded (Clinger 1990); the
    rest is left to Python's own conversion.
    """
    cdef Ptr at = p
    cdef bint negative = False, has_digits = False, is_exact = True, exponent_is_negative = False
    cdef uint64_t mantissa = 0
    cdef int exponent = 0, written = 0
    cdef double value
    if at < end and (at[0] == 43 or at[0] == 45):
        negative = at[0] == 45
        at += 1
    if at < end and not is_digit(at[0]) and at[0] != 46:
        if is_word(at, end, b"inf", 3) or is_word(at, end, b"infinity", 8):
            number[0] = -INFINITY if negative else INFINITY
            return True
        if is_word(at, end, b"nan", 3):
            number[0] = NAN
            return True
        return False
    while at < end and is_digit(at[0]):
        has_digits = True
        if mantissa < <uint64_t>100000000000000000:
            mantissa = 10 * mantissa + (at[0] - 48)
        else:
            is_exact = False
        at += 1
    if at < end and at[0] == 46:
        at += 1
        while at < end and is_digit(at[0]):
            has_digits = True
            if mantissa < <uint64_t>100000000000000000:
                mantissa = 10 * mantissa + (at[0] - 48)
                exponent -= 1
            else:
                is_exact = False
            at += 1
    if not has_digits:
        return False
    if at < end and (at[0] | 32) == 101:
        at += 1
        if at < end and (at[0] == 43 or at[0] == 45):
            exponent_is_negative = at[0] == 45
            at += 1
        if at >= end:
            return False
        while at < end and is_digit(at[0]):
            if written < 100000:
                written = 10 * written + (at[0] - 48)
            at += 1
        exponent += -written if exponent_is_negative else written
    if at != end:
        return False
    if is_exact and mantissa <= (<uint64_t>1 << 53) and -22 <= exponent <= 22:
        value = <double>mantissa
        value = value / POWER10[-exponent] if exponent < 0 else value * POWER10[exponent]
        number[0] = -value if negative else value
        return True
    return convert_number(p, end, number)


cdef inline bint convert_number(Ptr p, Ptr end, double* number) noexcept nogil:
    """The conversion of a token that is known to be a number of at most NUMBER_MAX_CHARS characters."""
    cdef char[NUMBER_MAX_CHARS + 1] text
    if end - p > NUMBER_MAX_CHARS:
        return False
    memcpy(text, p, end - p)
    text[end - p] = 0
    with gil:
        number[0] = PyOS_string_to_double(text, NULL, NULL)
    return True
