"""Parses syslog messages of RFC 3164 and RFC 5424 into fields.

Source: RFC 3164, RFC 5424, RFC 6587; github.com/leodido/go-syslog v4 for what it accepts beyond them, and
opentelemetry-collector-contrib pkg/stanza/operator/parser/syslog (v0.156) for the names of the fields.
"""

import numpy as np

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp

from collector.log_operators.entries cimport CANNOT_SET, MISSING, NOT_PARSED, WRONG_TYPE, Entries, Path, Row
from collector.log_operators.nodes cimport (
    Arena, K_MAP, K_TEXT, Node, append_member, drop_duplicates, find_member, keep_text, new_int, new_node, new_text,
    put_named, take_memory,
)
from collector.log_operators.times cimport TimeReader

__all__ = ["read_syslog"]

cdef enum:
    RFC3164 = 1
    RFC5424 = 2

cdef const char** FACILITIES = [
    b"kern", b"user", b"mail", b"daemon", b"auth", b"syslog", b"lpr", b"news", b"uucp", b"cron", b"authpriv", b"ftp",
    b"ntp", b"security", b"console", b"solaris-cron", b"local0", b"local1", b"local2", b"local3", b"local4", b"local5",
    b"local6", b"local7",
]
cdef int* FACILITY_SIZES = [4, 4, 4, 6, 4, 6, 3, 4, 4, 4, 8, 3, 3, 8, 7, 12, 6, 6, 6, 6, 6, 6, 6, 6]
cdef const char** SEVERITIES = [b"emerg", b"alert", b"crit", b"err", b"warning", b"notice", b"info", b"debug"]
cdef int* SEVERITY_SIZES = [5, 5, 4, 3, 7, 6, 4, 5]
cdef int* SEVERITY_NUMBERS = [21, 19, 18, 17, 13, 10, 9, 5]

ctypedef struct Reader:
    const char* at
    const char* end
    Arena* arena
    Node* map
    int priority        # -1: there is none


cdef inline bint _is_graph(char c) noexcept nogil:
    return 33 <= <uint8_t>c <= 126


cdef bint _priority(Reader* r, bint may_be_missing) noexcept nogil:
    cdef int value = 0, digits = 0
    cdef const char* p = r.at
    r.priority = -1
    if p < r.end and p[0] == b"<":
        p += 1
        while p < r.end and b"0" <= p[0] <= b"9" and digits < 4:
            value = value * 10 + p[0] - 48
            digits += 1
            p += 1
        if p >= r.end or p[0] != b">" or not 1 <= digits <= 3 or value > 191:
            return False
        if digits > 1 and r.at[1] == b"0":
            return False
        r.at = p + 1
        r.priority = value
        return True
    return may_be_missing


cdef bint _word(Reader* r, const char* name, int name_size, int size_max, bint nil) noexcept nogil:
    """Reads a word, as a field unless it is ``-`` and ``nil`` says that this means none."""
    cdef const char* start = r.at
    while r.at < r.end and _is_graph(r.at[0]):
        r.at += 1
    if r.at == start or r.at - start > size_max:
        return False
    if not (nil and r.at - start == 1 and start[0] == b"-"):
        put_named(r.map, name, name_size, new_text(r.arena, start, r.at - start))
    return True


cdef inline bint _space(Reader* r) noexcept nogil:
    if r.at < r.end and r.at[0] == b" ":
        r.at += 1
        return True
    return False


cdef bint _is_timestamp(const char* p, Py_ssize_t size) noexcept nogil:
    """Whether it is a time of RFC 5424 section 6.2.3, but for the ranges of its numbers."""
    cdef int i = 0
    if size < 20 or p[4] != b"-" or p[7] != b"-" or p[10] != b"T" or p[13] != b":" or p[16] != b":":
        return False
    i = 19
    if p[i] == b".":
        i += 1
        if not (i < size and b"0" <= p[i] <= b"9"):
            return False
        while i < size and b"0" <= p[i] <= b"9":
            i += 1
        if i > 26:
            return False
    return (size - i == 1 and p[i] == b"Z") or (size - i == 6 and (p[i] == b"+" or p[i] == b"-"))


cdef bint _is_sd_name(char c) noexcept nogil:
    return _is_graph(c) and c != b"=" and c != b"]" and c != b'"'


cdef bint _structured_data(Reader* r) noexcept nogil:
    cdef Node* data
    cdef Node* element
    cdef Node* value
    cdef const char* start
    cdef const char* name
    cdef uint32_t name_size
    cdef bint has_escapes
    cdef char* out
    cdef const char* p
    cdef int size
    if r.at < r.end and r.at[0] == b"-":
        r.at += 1
        return True
    data = new_node(r.arena, K_MAP)
    if data == NULL or r.at >= r.end or r.at[0] != b"[":
        return False
    while r.at < r.end and r.at[0] == b"[":
        r.at += 1
        start = r.at
        while r.at < r.end and _is_sd_name(r.at[0]):
            r.at += 1
        if r.at == start or r.at - start > 32 or find_member(data, start, <uint32_t>(r.at - start)) != NULL:
            return False
        element = new_node(r.arena, K_MAP)
        if element == NULL:
            return False
        put_named(data, start, r.at - start, element)
        while _space(r):
            name = r.at
            while r.at < r.end and _is_sd_name(r.at[0]):
                r.at += 1
            name_size = <uint32_t>(r.at - name)
            if not 1 <= name_size <= 32 or r.end - r.at < 2 or r.at[0] != b"=" or r.at[1] != b'"':
                return False
            r.at += 2
            start = r.at
            has_escapes = False
            while r.at < r.end and r.at[0] != b'"' and r.at[0] != b"]":
                if r.at[0] == b"\\":
                    has_escapes = True
                    r.at += 1
                r.at += 1
            if r.at >= r.end or r.at[0] != b'"':
                return False
            value = new_text(r.arena, start, r.at - start)
            if value == NULL:
                return False
            if has_escapes:
                out = <char*>take_memory(r.arena, r.at - start + 1)
                if out == NULL:
                    return False
                p = start
                size = 0
                while p < r.at:
                    if p[0] == b"\\" and (p[1] == b"\\" or p[1] == b'"' or p[1] == b"]"):
                        p += 1
                    out[size] = p[0]
                    size += 1
                    p += 1
                value.text = out
                value.text_size = size
            value.key, value.key_size = name, name_size
            append_member(element, value)
            r.at += 1
        drop_duplicates(element)
        if r.at >= r.end or r.at[0] != b"]":
            return False
        r.at += 1
    put_named(r.map, b"structured_data", 15, data)
    return True


cdef bint _rfc5424(Reader* r, const char** time, Py_ssize_t* time_size) noexcept nogil:
    cdef int version = 0, digits = 0
    while r.at < r.end and b"0" <= r.at[0] <= b"9" and digits < 4:
        version = version * 10 + r.at[0] - 48
        digits += 1
        r.at += 1
    if not 1 <= digits <= 3 or (r.at - digits)[0] == b"0" or not _space(r):
        return False
    put_named(r.map, b"version", 7, new_int(r.arena, version))
    time[0] = r.at
    while r.at < r.end and r.at[0] != b" ":
        r.at += 1
    time_size[0] = r.at - time[0]
    if time_size[0] == 1 and time[0][0] == b"-":
        time_size[0] = 0
    elif not _is_timestamp(time[0], time_size[0]):
        return False
    if not (
        _space(r) and _word(r, b"hostname", 8, 255, True)
        and _space(r) and _word(r, b"appname", 7, 48, True)
        and _space(r) and _word(r, b"proc_id", 7, 128, True)
        and _space(r) and _word(r, b"msg_id", 6, 32, True)
        and _space(r) and _structured_data(r)
    ):
        return False
    if r.at < r.end:
        if not _space(r):
            return False
        if r.at < r.end:
            put_named(r.map, b"message", 7, new_text(r.arena, r.at, r.end - r.at))
    return True


cdef bint _rfc3164(Reader* r, const char** time, Py_ssize_t* time_size) noexcept nogil:
    cdef const char* start
    cdef const char* tag_end
    cdef const char* p
    cdef const char* words
    while _space(r):
        pass
    if r.end - r.at < 16:
        return False
    time[0], time_size[0] = r.at, 15
    p = r.at
    if p[3] != b" " or p[6] != b" " or p[9] != b":" or p[12] != b":":
        return False
    r.at += 15
    if not _space(r):
        return False
    while _space(r):
        pass
    # A word is the host unless it is a tag, which a colon or a bracket ends.
    start = r.at
    while r.at < r.end and _is_graph(r.at[0]) and r.at[0] != b":":
        r.at += 1
    if r.at < r.end and r.at[0] == b" " and 0 < r.at - start <= 255:
        put_named(r.map, b"hostname", 8, new_text(r.arena, start, r.at - start))
        while _space(r):
            pass
    else:
        r.at = start
    words = r.at
    while r.at < r.end and _is_graph(r.at[0]) and r.at[0] != b":" and r.at[0] != b"[":
        r.at += 1
    tag_end = r.at
    # A word with a colon or a bracket behind it is the tag, also without the space that separates it from the message.
    if 0 < tag_end - words <= 48 and tag_end < r.end and tag_end[0] != b" ":
        p = tag_end
        put_named(r.map, b"appname", 7, new_text(r.arena, words, tag_end - words))
        if p[0] == b"[":
            start = p + 1
            p = start
            while p < r.end and p[0] != b"]" and p[0] != b"[":
                p += 1
            if p < r.end and p[0] == b"]":
                put_named(r.map, b"proc_id", 7, new_text(r.arena, start, p - start))
                p += 1
        if r.end - p >= 2 and p[0] == b":" and p[1] == b" ":
            words = p + 2
    if words >= r.end:
        return False
    p = words
    while p < r.end:
        if <uint8_t>p[0] < 32 and p[0] != b"\t" and not (p[0] == b"\n" and p == r.end - 1):
            return False
        p += 1
    if (r.end - 1)[0] == b"\n":
        r.end -= 1
    put_named(r.map, b"message", 7, new_text(r.arena, words, r.end - words))
    return True


def read_syslog(Entries entries, const int32_t[::1] numbers, Path source, Path target, int protocol, TimeReader times,
                bint octets, int64_t octets_max, bint skips_priority, int trailer):
    """Parses messages: fields to ``target``, time and severity to the records; uint8[n]: failures.

    ``octets``: a message begins with its length. ``skips_priority``: a message may lack its priority. ``trailer``: the
    byte that ends a message, or -1.
    """
    cdef Py_ssize_t i
    cdef Row* row
    cdef Node* node
    cdef Reader r
    cdef const char* time
    cdef Py_ssize_t time_size
    cdef int64_t length, found
    cdef bint parsed
    cdef int code
    failures = np.zeros(numbers.shape[0], np.uint8)
    cdef uint8_t[::1] failed = failures
    entries.kept.append(target)
    for i in range(numbers.shape[0]):
        row = &entries.rows[numbers[i]]
        node = entries.get(row, source)
        if node == NULL or node.kind != K_TEXT:
            failed[i] = MISSING if node == NULL else WRONG_TYPE
            continue
        r.at, r.end, r.arena = node.text, node.text + node.text_size, &entries.arena
        r.map = new_node(r.arena, K_MAP)
        if r.map == NULL:
            break
        if octets:
            length = 0
            while r.at < r.end and b"0" <= r.at[0] <= b"9" and length < 1 << 40:
                length = length * 10 + r.at[0] - 48
                r.at += 1
            if protocol != 0 or r.at != node.text:
                if r.at == node.text or not _space(&r) or length == 0 or (octets_max > 0 and length > octets_max):
                    failed[i] = NOT_PARSED
                    continue
            if protocol and r.end - r.at > length:
                r.end = r.at + length
        elif trailer >= 0:
            if r.at < r.end and (r.end - 1)[0] == <char>trailer:
                r.end -= 1
            elif trailer == 0:
                failed[i] = NOT_PARSED
                continue
        if protocol == 0:
            time = r.at
            if not _priority(&r, True):
                r.priority = -1
            r.at = time
            put_named(r.map, b"message", 7, new_text(r.arena, r.at, r.end - r.at))
            time_size = 0
        else:
            time_size = 0
            if not _priority(&r, skips_priority):
                failed[i] = NOT_PARSED
                continue
            parsed = _rfc5424(&r, &time, &time_size) if protocol == RFC5424 else _rfc3164(&r, &time, &time_size)
            if not parsed:
                failed[i] = NOT_PARSED
                continue
            found = 0
            if time_size:
                if not times.read_text(time, time_size, &found):
                    failed[i] = NOT_PARSED
                    continue
                row.time = found
        if r.priority >= 0:
            put_named(r.map, b"priority", 8, new_int(r.arena, r.priority))
            code = r.priority >> 3
            put_named(r.map, b"facility", 8, new_int(r.arena, code))
            put_named(r.map, b"facility_text", 13, new_text(r.arena, FACILITIES[code], FACILITY_SIZES[code]))
            code = r.priority & 7
            row.severity = SEVERITY_NUMBERS[code]
            row.severity_text, row.severity_text_size = SEVERITIES[code], SEVERITY_SIZES[code]
        if not entries.set(row, target, r.map):
            failed[i] = CANNOT_SET
    entries.check()
    return failures
