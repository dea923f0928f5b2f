"""Loki's push requests, protobuf and JSON, to OTLP.

Source: Loki pkg/push/push.proto and the reference of its HTTP API; open-telemetry/opentelemetry-collector-contrib
pkg/translator/loki/loki_to_otlp.go.
"""

from datetime import datetime

import orjson

from collector.wire.errors import MalformedBatch

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t

from collector.wire.json.repair cimport repaired
from collector.wire.proto cimport Ptr, read_length, read_tag, read_varint, skip_field
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_fixed64, put_slice, take,
)

__all__ = ["decode_json", "decode_proto", "encode_labels"]

cdef enum:
    # Field number << 3 | wire type.
    RESOURCE_LOGS = 0x0A
    SCOPE_LOGS = 0x12
    RECORDS = 0x12
    RECORD_TIME = 0x09
    RECORD_BODY = 0x2A
    RECORD_ATTRIBUTES = 0x32
    RECORD_OBSERVED_TIME = 0x59
    PAIR_KEY = 0x0A
    PAIR_VALUE = 0x12
    VALUE_TEXT = 0x0A

cdef object MAX_NS = (1 << 63) - 1


cdef class Request:
    """Writes one request. ``labels_of`` returns the encoded attributes of a stream's labels."""

    cdef Writer records
    cdef uint64_t now_ns
    cdef bint keeps_time
    cdef object labels_of

    def __cinit__(self, Py_ssize_t size_bytes, uint64_t now_ns, bint keeps_time, labels_of):
        self.now_ns, self.keeps_time, self.labels_of = now_ns, keeps_time, labels_of
        open_writer(&self.records, size_bytes)

    def __dealloc__(self):
        close_writer(&self.records)

    cdef Py_ssize_t begin_record(self, uint64_t time_ns, const void* line, Py_ssize_t size, bytes labels):
        """Write a record but for its structured metadata; pass the result to ``end``."""
        cdef Writer* w = &self.records
        cdef Py_ssize_t record = begin(w, RECORDS), body
        put_fixed64(w, RECORD_TIME, time_ns if self.keeps_time and time_ns else self.now_ns)
        put_fixed64(w, RECORD_OBSERVED_TIME, self.now_ns)
        body = begin(w, RECORD_BODY)
        put_slice(w, VALUE_TEXT, line, size)
        end(w, body)
        put_bytes(w, PyBytes_AS_STRING(labels), PyBytes_GET_SIZE(labels))
        return record

    cdef bytes finish(self):
        cdef Writer w
        cdef Py_ssize_t resource, scope
        if not self.records.size:
            return b""
        open_writer(&w, self.records.size + 32)
        try:
            resource = begin(&w, RESOURCE_LOGS)
            scope = begin(&w, SCOPE_LOGS)
            put_bytes(&w, self.records.data, self.records.size)
            end(&w, scope)
            end(&w, resource)
            self.records.failed |= w.failed
            if self.records.failed:
                raise MemoryError
            return take(&w)
        finally:
            close_writer(&w)


cdef int put_pair(Writer* w, const void* key, Py_ssize_t key_size, const void* value, Py_ssize_t value_size) except -1:
    cdef Py_ssize_t pair = begin(w, RECORD_ATTRIBUTES), inner
    put_slice(w, PAIR_KEY, key, key_size)
    inner = begin(w, PAIR_VALUE)
    put_slice(w, VALUE_TEXT, value, value_size)
    end(w, inner)
    end(w, pair)
    return 0


cdef int put_text_pair(Writer* w, str key, str value) except -1:
    cdef Py_ssize_t key_size, value_size
    cdef const char* name = PyUnicode_AsUTF8AndSize(key, &key_size)
    cdef const char* text = PyUnicode_AsUTF8AndSize(value, &value_size)
    return put_pair(w, name, key_size, text, value_size)


def encode_labels(dict labels not None):
    """Labels as the encoded attributes of a record. Names that begin with two underscores are internal."""
    cdef Writer w
    cdef str key
    open_writer(&w, 256)
    try:
        for key, value in labels.items():
            if not key.startswith("__"):
                put_text_pair(&w, key, value)
        return take(&w)
    finally:
        close_writer(&w)


# Protobuf.


cdef bint read_time(Ptr p, Ptr end_, uint64_t* time_ns) noexcept:
    """A google.protobuf.Timestamp in nanoseconds; 0 for one before 1970 or too late."""
    cdef uint32_t tag = 0
    cdef uint64_t number = 0, seconds = 0, nanos = 0
    while p < end_:
        p = read_tag(p, end_, &tag)
        if p != NULL and (tag == 0x08 or tag == 0x10):
            p = read_varint(p, end_, &number)
            if tag == 0x08:
                seconds = number
            else:
                nanos = number
        elif p != NULL:
            p = skip_field(p, end_, tag)
        if p == NULL:
            return False
    time_ns[0] = seconds * 1_000_000_000 + nanos if seconds < 9_000_000_000 and nanos < 1_000_000_000 else 0
    return True


cdef bint write_metadata(Writer* w, Ptr p, Ptr end_) except -1:
    """A pair of structured metadata as an attribute."""
    cdef uint32_t tag = 0
    cdef Ptr stop = NULL
    cdef Ptr name = NULL
    cdef Ptr value = NULL
    cdef Py_ssize_t name_size = 0, value_size = 0
    while p < end_:
        p = read_tag(p, end_, &tag)
        if p != NULL and (tag == 0x0A or tag == 0x12):
            p = read_length(p, end_, &stop)
            if p != NULL:
                if tag == 0x0A:
                    name, name_size = p, stop - p
                else:
                    value, value_size = p, stop - p
                p = stop
        elif p != NULL:
            p = skip_field(p, end_, tag)
        if p == NULL:
            return False
    put_pair(w, name, name_size, value, value_size)
    return True


cdef bint read_entry(Request request, Ptr p, Ptr end_, bytes labels) except -1:
    cdef uint32_t tag = 0
    cdef uint64_t time_ns = 0
    cdef Ptr stop = NULL
    cdef Ptr line = NULL
    cdef Ptr start = p
    cdef Py_ssize_t size = 0, record
    cdef bint has_metadata = False
    while p < end_:
        p = read_tag(p, end_, &tag)
        if p != NULL and (tag == 0x0A or tag == 0x12 or tag == 0x1A):
            p = read_length(p, end_, &stop)
            if p != NULL:
                if tag == 0x0A:
                    if not read_time(p, stop, &time_ns):
                        return False
                elif tag == 0x12:
                    line, size = p, stop - p
                else:
                    has_metadata = True
                p = stop
        elif p != NULL:
            p = skip_field(p, end_, tag)
        if p == NULL:
            return False
    record = request.begin_record(time_ns, line, size, labels)
    p = start
    while has_metadata and p < end_:
        p = read_tag(p, end_, &tag)
        if tag == 0x1A:
            p = read_length(p, end_, &stop)
            if not write_metadata(&request.records, p, stop):
                return False
            p = stop
        else:
            p = skip_field(p, end_, tag)
    end(&request.records, record)
    return True


cdef bint read_stream(Request request, Ptr p, Ptr end_) except -1:
    cdef uint32_t tag = 0
    cdef Ptr stop = NULL
    cdef Ptr start = p
    cdef str text = ""
    cdef bytes labels
    cdef bint has_entries = False
    while p < end_:
        p = read_tag(p, end_, &tag)
        if p != NULL and (tag == 0x0A or tag == 0x12):
            p = read_length(p, end_, &stop)
            if p != NULL:
                if tag == 0x0A:
                    text = (<const char*>p)[: stop - p].decode("utf-8", "replace")
                else:
                    has_entries = True
                p = stop
        elif p != NULL:
            p = skip_field(p, end_, tag)
        if p == NULL:
            return False
    if not has_entries:
        return True
    labels = request.labels_of(text)
    p = start
    while p < end_:
        p = read_tag(p, end_, &tag)
        if tag == 0x12:
            p = read_length(p, end_, &stop)
            if not read_entry(request, p, stop, labels):
                return False
            p = stop
        else:
            p = skip_field(p, end_, tag)
    return True


def decode_proto(bytes data not None, uint64_t now_ns, bint keeps_time, labels_of):
    """The OTLP request that a decompressed ``PushRequest`` corresponds to; empty without entries.

    ``labels_of`` returns the encoded attributes of a text such as ``{job="a"}``; ``keeps_time``: whether records have the
    time of their entries, or ``now_ns``.

    Raises:
        MalformedBatch: it is not one.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data) * 2, now_ns, keeps_time, labels_of)
    cdef Ptr p = <Ptr>PyBytes_AS_STRING(data)
    cdef Ptr start = p
    cdef Ptr end_ = p + PyBytes_GET_SIZE(data)
    cdef Ptr stop = NULL
    cdef Ptr field
    cdef uint32_t tag = 0
    while p < end_:
        field = p
        p = read_tag(p, end_, &tag)
        if p != NULL and tag == 0x0A:
            p = read_length(p, end_, &stop)
            if p != NULL:
                p = stop if read_stream(request, p, stop) else NULL
        elif p != NULL:
            p = skip_field(p, end_, tag)
        if p == NULL:
            raise MalformedBatch("streams", field - start, "invalid or truncated")
    return request.finish()


# JSON.


cdef uint64_t nanoseconds(value) except? 0:
    """The time of an entry: nanoseconds as a text or number, or RFC 3339; 0 for one that is out of range."""
    if type(value) is str and not (value.isascii() and value.isdigit()):
        return rfc3339(value)
    number = int(value) if type(value) is str and len(value) < 30 else value
    if type(number) is not int:
        raise ValueError("expected a time in nanoseconds, as a text")
    return number if 0 <= number <= MAX_NS else 0


cdef uint64_t rfc3339(str text) except? 0:
    """Nanoseconds of a time such as 2024-02-03T04:05:06.123456789Z."""
    head, dot, rest = text.partition(".")
    digits = ""
    while rest[:1].isascii() and rest[:1].isdigit():
        digits += rest[0]
        rest = rest[1:]
    moment = datetime.fromisoformat(head + rest)
    if moment.tzinfo is None or (dot and not digits):
        raise ValueError("expected a time with a zone")
    whole = int(moment.timestamp()) * 1_000_000_000 + int(digits[:9].ljust(9, "0"))
    return whole if 0 <= whole <= MAX_NS else 0


cdef int write_json_entry(Request request, uint64_t time_ns, line, bytes labels, metadata) except -1:
    cdef Py_ssize_t size, record
    cdef const char* data
    if type(line) is not str:
        raise ValueError("expected a line of text")
    data = PyUnicode_AsUTF8AndSize(line, &size)
    record = request.begin_record(time_ns, data, size, labels)
    if metadata is not None:
        if type(metadata) is not dict:
            raise ValueError("expected structured metadata as an object")
        for key, value in metadata.items():
            put_text_pair(&request.records, key, value if type(value) is str else orjson.dumps(value).decode())
    end(&request.records, record)
    return 0


cdef int write_json_stream(Request request, stream) except -1:
    cdef bytes labels
    if type(stream) is not dict:
        raise ValueError("expected an object")
    given = stream.get("stream")
    if given is None:
        labels = request.labels_of(stream.get("labels") or "{}")
    elif type(given) is dict and all(type(value) is str for value in given.values()):
        labels = encode_labels(given)
    else:
        raise ValueError("expected labels as an object of texts")
    values, entries = stream.get("values") or (), stream.get("entries") or ()
    if type(values) not in (list, tuple) or type(entries) not in (list, tuple):
        raise ValueError("expected a list of entries")
    for value in values:
        if type(value) is not list or len(value) < 2:
            raise ValueError("expected entries of a time and a line")
        write_json_entry(request, nanoseconds(value[0]), value[1], labels, value[2] if len(value) > 2 else None)
    for entry in entries:  # the form of /api/prom/push
        if type(entry) is not dict:
            raise ValueError("expected entries as objects")
        time = entry.get("ts", entry.get("timestamp"))
        write_json_entry(request, nanoseconds(time) if time is not None else 0, entry.get("line"), labels, None)
    return 0


def decode_json(bytes data not None, uint64_t now_ns, bint keeps_time, labels_of):
    """The OTLP request that a push request in JSON corresponds to; empty without entries. See :func:`decode_proto`.

    Raises:
        MalformedBatch: it is not one; the message names the stream.
    """
    cdef Request request = Request(PyBytes_GET_SIZE(data) * 2, now_ns, keeps_time, labels_of)
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        mended = repaired(data)
        try:
            found = orjson.loads(mended if mended is not None else data)
        except orjson.JSONDecodeError:
            raise MalformedBatch("", -1, f"not valid JSON: {error}") from None
    streams = found.get("streams") if type(found) is dict else None
    if type(streams) is not list:
        raise MalformedBatch("", -1, "expected an object with streams")
    for number, stream in enumerate(streams):
        try:
            write_json_stream(request, stream)
        except (ValueError, OverflowError) as error:
            if isinstance(error, MalformedBatch):
                raise
            raise MalformedBatch(f"streams[{number}]", -1, str(error)) from None
    return request.finish()
