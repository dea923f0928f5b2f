"""Reads a page in the Prometheus text format (0.0.4, 1.0.0) or in OpenMetrics 1.0 into columns.

The kernel finds and checks everything on the page, but decodes nothing but numbers: series are slices of the page with
a hash, since they are the same from one scrape to the next. ``series_labels`` decodes one that is new.

As in Prometheus, a page with one invalid line is invalid as a whole, and names in quotes may have any characters.

Source: Prometheus documentation, "Exposition formats"; OpenMetrics 1.0; Prometheus' own parser
(model/textparse) where they leave something open.
"""

import os

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.math cimport isfinite, trunc
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcmp, memcpy

from collector.exposition.grammar cimport (
    Label, closing_quote, is_blank, is_digit, name_stop, read_label, read_number, skip_blanks, unescape,
)
from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.hash.siphash cimport Sip, sip_end, sip_padded, sip_start, sip_word, sip_words
from collector.wire.hash.places cimport load_tail
from collector.wire.proto cimport Ptr
from collector.wire.proto cimport is_utf8
from collector.wire.writer cimport Writer, close_writer, open_writer, put_bytes, take

__all__ = ["EXEMPLAR", "METADATA", "NO_TIMESTAMP", "PAGE_MAX_BYTES", "SAMPLE", "PageError", "TextPage", "series_labels"]

cdef struct Sample:
    uint64_t[2] key
    double value
    int64_t timestamp
    uint32_t start, end
    int32_t exemplar

cdef struct Exemplar:
    double value
    int64_t timestamp
    uint32_t start, end

cdef struct Metadata:
    uint32_t name, name_end, text, text_end
    uint8_t kind

SAMPLE = np.dtype(
    [
        ("key", "<u8", (2,)), ("value", "<f8"), ("timestamp", "<i8"), ("start", "<u4"), ("end", "<u4"),
        ("exemplar", "<i4"),
    ],
    align=True,
)
EXEMPLAR = np.dtype([("value", "<f8"), ("timestamp", "<i8"), ("start", "<u4"), ("end", "<u4")], align=True)
METADATA = np.dtype(
    [("name", "<u4"), ("name_end", "<u4"), ("text", "<u4"), ("text_end", "<u4"), ("kind", "u1")], align=True
)
NO_TIMESTAMP = INT64_MIN
PAGE_MAX_BYTES = 1 << 30

cdef enum:
    HELP = 0
    TYPE = 1
    UNIT = 2
    SAMPLE_BYTES_EXPECTED = 48  # of a line; only decides how much room is made at first

cdef uint64_t[2] KEY
KEY[0], KEY[1] = np.frombuffer(os.urandom(16), np.uint64).tolist()


class PageError(ValueError):
    """The page cannot be read; the message says where and why."""


ctypedef struct Reader:
    Ptr start
    Ptr end
    bint openmetrics
    Writer samples, exemplars, metadata
    int32_t exemplar_count
    Sip described           # hash of all metadata
    Ptr failed              # where the page is invalid
    const char* message


cdef class TextPage:
    """The contents of one page.

    Attributes:
        body: The page; the columns have places in it.
        samples: SAMPLE[n], in the order of the page: ``key`` is a hash of the text of the series, which is
            ``body[start:end]``; ``timestamp`` is in milliseconds, or NO_TIMESTAMP; ``exemplar`` is a row or -1.
        exemplars: EXEMPLAR[m]: ``body[start:end]`` are its labels with their braces.
        metadata_key: A hash of all metadata; the same as long as no metadata changes.
    """

    cdef readonly bytes body
    cdef readonly object samples, exemplars
    cdef readonly tuple metadata_key
    cdef object _metadata

    def __init__(self, bytes body not None, bint openmetrics=False):
        """Reads ``body``.

        Raises:
            PageError: It is not a valid page.
        """
        cdef Reader r
        cdef uint64_t[2] key
        cdef Py_ssize_t size = PyBytes_GET_SIZE(body)
        if size > PAGE_MAX_BYTES:
            raise PageError(f"the page has more than {PAGE_MAX_BYTES} bytes")
        r.start = <Ptr>PyBytes_AS_STRING(body)
        r.end = r.start + size
        r.openmetrics = openmetrics
        r.exemplar_count = 0
        r.failed = r.message = NULL
        sip_start(&r.described, KEY)
        open_writer(&r.samples, size // SAMPLE_BYTES_EXPECTED * sizeof(Sample))
        open_writer(&r.exemplars, 0)
        open_writer(&r.metadata, 0)
        try:
            if size > RELEASE_GIL_BYTES:
                with nogil:
                    read_page(&r)
            else:
                read_page(&r)
            if r.failed != NULL:
                line = body.count(b"\n", 0, r.failed - r.start) + 1
                raise PageError(f"line {line}: {r.message.decode()}")
            self.body = body
            self.samples = np.frombuffer(take(&r.samples), SAMPLE)
            self.exemplars = np.frombuffer(take(&r.exemplars), EXEMPLAR)
            self._metadata = np.frombuffer(take(&r.metadata), METADATA)
        finally:
            close_writer(&r.samples)
            close_writer(&r.exemplars)
            close_writer(&r.metadata)
        sip_end(&r.described, 0, key)
        self.metadata_key = (key[0], key[1])

    def metadata(self):
        """The metadata of each family: {name: {"HELP": …, "TYPE": …, "UNIT": …}} with the keys that are on the page."""
        cdef dict families = {}
        for name, name_end, text, text_end, kind in self._metadata.tolist():
            texts = families.setdefault(decoded(self.body, name, name_end), {})
            texts[("HELP", "TYPE", "UNIT")[kind]] = decoded(self.body, text, text_end)
        return families


def series_labels(bytes body not None, Py_ssize_t start, Py_ssize_t end):
    """The name of a metric (empty: none) and its labels as a list of pairs, from the text of a series.

    Raises:
        PageError: It is no series.
    """
    cdef Ptr base = <Ptr>PyBytes_AS_STRING(body)
    cdef Ptr p, stop
    cdef Label label
    cdef str name = ""
    cdef list labels = []
    if not 0 <= start <= end <= PyBytes_GET_SIZE(body):
        raise PageError("the series is not on the page")
    p, stop = base + start, base + end
    if p < stop and p[0] != 123:
        label.name_end = name_stop(p, stop, True)
        if label.name_end == NULL:
            raise PageError("a series without a name")
        name = text_of(p, label.name_end)
        p = skip_blanks(label.name_end, stop)
    if p < stop:
        p = skip_blanks(p + 1, stop)
        while p < stop and p[0] != 125:
            p = read_label(p, stop, &label)
            if p == NULL:
                raise PageError("a series with an invalid label")
            if label.value == NULL:
                name = text_of(label.name, label.name_end)
            else:
                labels.append((text_of(label.name, label.name_end), text_of(label.value, label.value_end)))
    return name, labels


cdef str decoded(bytes body, Py_ssize_t start, Py_ssize_t end):
    cdef Ptr base = <Ptr>PyBytes_AS_STRING(body)
    return text_of(base + start, base + end)


cdef str text_of(Ptr p, Ptr end):
    """The text between p and end without its escapes."""
    cdef bytes plain
    if memchr(p, 92, end - p) == NULL:
        return PyUnicode_DecodeUTF8(<const char*>p, end - p, "replace")
    plain = PyBytes_FromStringAndSize(NULL, end - p)
    return plain[: unescape(p, end, <uint8_t*>PyBytes_AS_STRING(plain))].decode("utf-8", "replace")


cdef void read_page(Reader* r) noexcept nogil:
    cdef Ptr p = r.start
    cdef bint ended = False
    if not is_utf8(r.start, r.end):
        fail(r, r.start, b"the page is not valid UTF-8")
        return
    while p != NULL and p < r.end:
        if ended:
            fail(r, p, b"there is text behind # EOF")
            return
        p = skip_blanks(p, r.end)
        if p >= r.end:
            break
        if p[0] == 10:
            p += 1
        elif p[0] == 35:
            if r.openmetrics and is_eof(p, r.end):
                ended = True
                p += 6
            else:
                p = read_comment(r, p)
        else:
            p = read_sample(r, p)
    if p != NULL and r.openmetrics and not ended:
        fail(r, r.end, b"the page does not end with # EOF")


cdef inline Ptr fail(Reader* r, Ptr at, const char* message) noexcept nogil:
    r.failed = at
    r.message = message
    return NULL


cdef inline bint is_eof(Ptr p, Ptr end) noexcept nogil:
    return end - p >= 5 and memcmp(p, b"# EOF", 5) == 0 and (end - p == 5 or p[5] == 10)


cdef inline Ptr line_stop(Ptr p, Ptr end) noexcept nogil:
    cdef Ptr found = <Ptr>memchr(p, 10, end - p)
    return end if found == NULL else found


cdef Ptr read_comment(Reader* r, Ptr p) noexcept nogil:
    """Reads a line that begins with #: metadata or a comment."""
    cdef Ptr line = p
    cdef Ptr stop = line_stop(p, r.end)
    cdef Ptr token
    cdef Metadata row
    cdef Sip* s = &r.described
    cdef Ptr after = stop + 1 if stop < r.end else stop
    p = skip_blanks(p + 1, stop)
    if p == line + 1 or stop - p < 5 or not is_blank(p[4]):
        return after
    if memcmp(p, b"HELP", 4) == 0:
        row.kind = HELP
    elif memcmp(p, b"TYPE", 4) == 0:
        row.kind = TYPE
    elif memcmp(p, b"UNIT", 4) == 0 and r.openmetrics:
        row.kind = UNIT
    else:
        return after
    p = skip_blanks(p + 4, stop)
    if p < stop and p[0] == 34:
        token = closing_quote(p + 1, stop)
        if token == NULL:
            return fail(r, line, b"the name of the metric has no closing quote")
        row.name = <uint32_t>(p + 1 - r.start)
        row.name_end = <uint32_t>(token - r.start)
        token += 1
    else:
        token = name_stop(p, stop, True)
        if token == NULL:
            return fail(r, line, b"metadata without the name of a metric")
        row.name = <uint32_t>(p - r.start)
        row.name_end = <uint32_t>(token - r.start)
    if token < stop and not is_blank(token[0]):
        return fail(r, line, b"the name of the metric has an invalid character")
    p = skip_blanks(token, stop)
    row.text = <uint32_t>(p - r.start)
    token = stop
    if row.kind != HELP:
        while token > p and is_blank((token - 1)[0]):
            token -= 1
        if row.kind == TYPE and not is_type(p, token, r.openmetrics):
            return fail(r, line, b"this type of metric does not exist")
    row.text_end = <uint32_t>(token - r.start)
    put_bytes(&r.metadata, &row, sizeof(Metadata))
    sip_word(s, <uint64_t>(stop - line))
    sip_padded(s, line, stop - line)
    return after


cdef bint is_type(Ptr p, Ptr end, bint openmetrics) noexcept nogil:
    cdef Py_ssize_t n = end - p
    if n == 7:
        return memcmp(p, b"counter", 7) == 0 or memcmp(p, b"summary", 7) == 0 or memcmp(p, b"untyped", 7) == 0 or (
            memcmp(p, b"unknown", 7) == 0
        )
    if n == 5:
        return memcmp(p, b"gauge", 5) == 0
    if n == 9:
        return memcmp(p, b"histogram", 9) == 0
    if not openmetrics:
        return False
    return (
        (n == 4 and memcmp(p, b"info", 4) == 0)
        or (n == 8 and memcmp(p, b"stateset", 8) == 0)
        or (n == 14 and memcmp(p, b"gaugehistogram", 14) == 0)
    )


cdef inline Ptr read_labels(Reader* r, Ptr p, Ptr stop, bint* has_name) noexcept nogil:
    """Reads the labels between braces; p is behind the opening one, and the result behind the closing one."""
    cdef Label label
    p = skip_blanks(p, stop)
    while p < stop and p[0] != 125:
        p = read_label(p, stop, &label)
        if p == NULL:
            return NULL
        if label.value == NULL:
            if has_name[0] or label.name == label.name_end:
                return NULL
            has_name[0] = True
    return p + 1 if p < stop else NULL


cdef Ptr read_sample(Reader* r, Ptr p) noexcept nogil:
    cdef Ptr line = p
    cdef Ptr stop = line_stop(p, r.end)
    cdef Ptr token, words
    cdef Sample row
    cdef Sip s
    cdef bint has_name = False
    row.start = <uint32_t>(p - r.start)
    row.exemplar = -1
    if p[0] != 123:
        p = name_stop(p, stop, True)
        if p == NULL:
            return fail(r, line, b"expected the name of a metric")
        has_name = True
    row.end = <uint32_t>(p - r.start)
    p = skip_blanks(p, stop)
    if p < stop and p[0] == 123:
        p = read_labels(r, p + 1, stop, &has_name)
        if p == NULL or not has_name:
            return fail(r, line, b"the labels are invalid" if has_name else b"a series without a name")
        row.end = <uint32_t>(p - r.start)
        p = skip_blanks(p, stop)
    elif p - r.start == row.end:
        return fail(r, line, b"expected a blank or labels behind the name of the metric")
    sip_start(&s, KEY)
    words = sip_words(&s, line, row.end - row.start)
    sip_end(
        &s, load_tail(words, (row.end - row.start) & 7) | (<uint64_t>(row.end - row.start) << 56), row.key
    )
    p = read_value(r, p, stop, &row.value, &row.timestamp)
    if p == NULL:
        return fail(r, line, b"the value or the timestamp is invalid")
    if p < stop:
        if not r.openmetrics or p[0] != 35:
            return fail(r, line, b"there is text behind the sample")
        p = read_exemplar(r, p, stop)
        if p == NULL:
            return fail(r, line, b"the exemplar is invalid")
        row.exemplar = r.exemplar_count
        r.exemplar_count += 1
    put_bytes(&r.samples, &row, sizeof(Sample))
    return stop + 1 if stop < r.end else stop


cdef Ptr read_exemplar(Reader* r, Ptr p, Ptr stop) noexcept nogil:
    """Reads an exemplar; p is at its #."""
    cdef Exemplar row
    cdef bint has_name = True
    p = skip_blanks(p + 1, stop)
    if p >= stop or p[0] != 123:
        return NULL
    row.start = <uint32_t>(p - r.start)
    p = read_labels(r, p + 1, stop, &has_name)
    if p == NULL:
        return NULL
    row.end = <uint32_t>(p - r.start)
    p = read_value(r, skip_blanks(p, stop), stop, &row.value, &row.timestamp)
    if p != stop:
        return NULL
    put_bytes(&r.exemplars, &row, sizeof(Exemplar))
    return p


cdef inline Ptr token_stop(Ptr p, Ptr stop) noexcept nogil:
    while p < stop and not is_blank(p[0]):
        p += 1
    return p


cdef inline Ptr read_value(Reader* r, Ptr p, Ptr stop, double* value, int64_t* timestamp) noexcept nogil:
    """Reads a value and, if there is one, a timestamp; returns where something else begins."""
    cdef Ptr token = token_stop(p, stop)
    cdef double seconds
    timestamp[0] = INT64_MIN
    if not read_number(p, token, value):
        return NULL
    p = skip_blanks(token, stop)
    if p >= stop or p[0] == 35:
        return p
    token = token_stop(p, stop)
    if r.openmetrics:
        if not read_number(p, token, &seconds) or not isfinite(seconds) or not -9e12 < seconds < 9e12:
            return NULL
        timestamp[0] = <int64_t>trunc(seconds * 1000)
    elif not read_integer(p, token, timestamp):
        return NULL
    return skip_blanks(token, stop)


cdef bint read_integer(Ptr p, Ptr end, int64_t* value) noexcept nogil:
    cdef bint negative = False
    cdef int64_t result = 0
    if p < end and (p[0] == 45 or p[0] == 43):
        negative = p[0] == 45
        p += 1
    if p >= end:
        return False
    while p < end:
        if not is_digit(p[0]) or result > (INT64_MAX - 9) // 10:
            return False
        result = 10 * result + (p[0] - 48)
        p += 1
    value[0] = -result if negative else result
    return True
