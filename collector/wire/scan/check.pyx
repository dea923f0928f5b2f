"""Validates an Export…ServiceRequest to full depth and lists where its items are, in one pass over the bytes.

This is not a decoder: rows consist of offsets and numbers (``layout.py``), and attributes and children are indexed on
first use (``index``). Its rules are described in docs/architecture.md: whatever is accepted is read in the same way by
every parser.

``request`` walks the request, ``traces``, ``metrics`` and ``logs`` walk the items, and ``values`` their attributes. All
of them read through ``readers`` and keep rows and errors in ``state``.

Source: opentelemetry-proto 1.x for the fields, https://protobuf.dev/programming-guides/encoding/ for the encoding, upb
and the Collector's pdata for what parsers refuse.
"""

from collector.wire import layout
from collector.wire.errors import MalformedBatch
from collector.wire.normalise import reencode
from collector.wire.scan.repair import repair

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t
from libc.stdlib cimport free, malloc

from collector.wire.gil cimport RELEASE_GIL_BYTES
from collector.wire.layout cimport FrameRow, MetricRow, PointRow, RecordRow, ResourceRow, ScopeRow, SpanRow
from collector.wire.scan.request cimport walk_request
from collector.wire.scan.state cimport (
    BAD_SPAN_ID, BAD_TEXT, BAD_TRACE_ID, LOGS, METRICS, NO_NAME, NOT_PLAIN, OLD_FIELD, TRACES, Range, Scan, array,
    begin, error, finish, prepare,
)

__all__ = ["check", "check_joined", "frames", "scan", "without_unknown_fields"]


def check(str signal not None, bytes wire not None):
    """The valid part of an untrusted request: (wire, tables, rejected_count, message, repaired_count).

    ``wire`` is the same object if nothing had to change. ``scan`` describes the tables.

    Raises:
        MalformedBatch: The request is not valid OTLP.
    """
    cdef Scan s
    cdef int code = signal_of(signal)
    cdef uint32_t flags
    cdef int64_t rejected = 0
    cdef int attempt
    cdef str message = ""
    repaired = 0
    for attempt in range(3):               # as received; normalised; without the rejected items
        begin(&s, wire, code, True)
        try:
            run(&s)
            flags = s.flags
            if not flags and s.drops.count == 0:
                return wire, tables(&s), rejected, message, repaired
            if not flags:
                rejected += s.rejected
                message = rejection(code, s.rejected, s.item_errors)
                drops = PyBytes_FromStringAndSize(<char*>s.drops.rows, s.drops.count * sizeof(Range))
        finally:
            finish(&s)
        if not flags:
            wire, _ = repair(signal, wire, drops)
            continue
        if flags & (BAD_TEXT | OLD_FIELD):
            wire, count = repair(signal, wire, b"")
            repaired += count
        if flags & NOT_PLAIN:
            wire = reencode(signal, wire)
    raise MalformedBatch("", 0, "the request cannot be normalised")


def check_joined(str signal not None, list wires not None):
    """Several requests validated and joined: (the joined bytes, tables, list of the item count of each).

    Returns None unless all of them are valid as received: then each needs ``check``. One pass serves all, because a
    small request costs less than making its tables.
    """
    cdef Scan s
    cdef bytes wire = b"".join(wires)
    cdef Py_ssize_t count = len(wires), i
    cdef int64_t end = 0
    cdef int64_t* ends
    cdef int rc
    begin(&s, wire, signal_of(signal), True)
    ends = <int64_t*>malloc((2 * count + 1) * sizeof(int64_t))   # and the item counts
    if ends == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            end += len(<bytes?>wires[i])
            ends[i] = end
        make_room(&s)
        if s.length > RELEASE_GIL_BYTES:
            with nogil:
                rc = walk_requests(&s, count, ends, ends + count)
        else:
            rc = walk_requests(&s, count, ends, ends + count)
        if rc < 0 or s.flags or s.drops.count:
            return None
        return wire, tables(&s), [ends[count + i] for i in range(count)]
    finally:
        free(ends)
        finish(&s)


def scan(str signal not None, bytes wire not None):
    """The index of bytes that passed ``check`` or were written by us; nothing below the rows is validated.

    The tables are read-only record arrays of ``layout`` in document order: RESOURCE, SCOPE and then SPAN (traces),
    RECORD (logs), or METRIC and POINT (metrics).

    Raises:
        MalformedBatch: The bytes did not pass ``check``.
    """
    cdef Scan s
    begin(&s, wire, signal_of(signal), False)
    try:
        run(&s)
        if s.flags & OLD_FIELD or s.drops.count:
            raise MalformedBatch("", 0, "the request was not validated before")
        return tables(&s)
    finally:
        finish(&s)


def frames(str signal not None, bytes wire not None):
    """Like ``scan``, for traces or logs, with items as ``layout.FRAME``: enough for cutting, in a fraction of the time.

    Raises:
        MalformedBatch: The bytes did not pass ``check``.
        ValueError: The signal is metrics, whose items are not directly below the scopes.
    """
    cdef Scan s
    cdef int code = signal_of(signal)
    if code == METRICS:
        raise ValueError("metrics have no frames of their points")
    begin(&s, wire, code, False)
    s.only_frames = True
    try:
        run(&s)
        if s.flags & OLD_FIELD:
            raise MalformedBatch("", 0, "the request was not validated before")
        return tables(&s)
    finally:
        finish(&s)


def without_unknown_fields(str signal not None, bytes wire not None):
    """A request that passed ``check`` without the fields that no message knows; the same object if there are none.

    Raises:
        MalformedBatch: The bytes did not pass ``check``.
    """
    cdef Scan s
    begin(&s, wire, signal_of(signal), True)
    s.lists_unknown = True
    try:
        run(&s)
        if s.drops.count == 0:
            return wire
        unknown = PyBytes_FromStringAndSize(<char*>s.drops.rows, s.drops.count * sizeof(Range))
    finally:
        finish(&s)
    return repair(signal, wire, unknown)[0]


cdef int signal_of(str signal) except -1:
    if signal == "traces":
        return TRACES
    if signal == "metrics":
        return METRICS
    if signal == "logs":
        return LOGS
    raise ValueError(f"expected the signal traces, metrics or logs, got {signal!r}")


cdef void make_room(Scan* s):
    """Allocates row arrays of a likely size; finish() must follow, even after an error."""
    cdef Py_ssize_t length = s.length
    cdef Py_ssize_t size = sizeof(PointRow)
    cdef bint from_outside = s.deep and not s.lists_unknown
    if s.only_frames:
        size = sizeof(FrameRow)
    elif s.signal == TRACES:
        size = sizeof(SpanRow)
    elif s.signal == LOGS:
        size = sizeof(RecordRow)
    prepare(&s.resources, sizeof(ResourceRow), length, 4, from_outside)
    prepare(&s.scopes, sizeof(ScopeRow), length, 8, from_outside)
    prepare(&s.items, size, length, 16 + length // 256, from_outside)
    prepare(&s.drops, sizeof(Range), length, 0)
    if s.signal == METRICS:
        prepare(&s.metrics, sizeof(MetricRow), length, 16 + length // 1024, from_outside)


cdef int run(Scan* s) except -1:
    """Fills the row arrays; finish() must follow, even after an error."""
    cdef int rc
    make_room(s)
    if s.length > RELEASE_GIL_BYTES:
        with nogil:
            rc = walk_request(s, s.base, s.base + s.length)
    else:
        rc = walk_request(s, s.base, s.base + s.length)
    if rc < 0:
        raise error(s)
    return 0


cdef int walk_requests(Scan* s, Py_ssize_t count, const int64_t* ends, int64_t* counts) noexcept nogil:
    """Walks requests that are joined end to end, each within its own bytes; sets the item count of each."""
    cdef Py_ssize_t i
    cdef int64_t start = 0, before
    for i in range(count):
        before = s.items.count
        if walk_request(s, s.base + start, s.base + ends[i]) < 0:
            return -1
        counts[i] = s.items.count - before
        start = ends[i]
    return 0


cdef tuple tables(Scan* s):
    resources = array(&s.resources, layout.RESOURCE)
    scopes = array(&s.scopes, layout.SCOPE)
    if s.only_frames:
        return resources, scopes, array(&s.items, layout.FRAME)
    if s.signal == TRACES:
        return resources, scopes, array(&s.items, layout.SPAN)
    if s.signal == LOGS:
        return resources, scopes, array(&s.items, layout.RECORD)
    return resources, scopes, array(&s.metrics, layout.METRIC), array(&s.items, layout.POINT)


cdef str rejection(int signal, int64_t count, uint32_t errors):
    noun = ("span", "data point", "log record")[signal]
    reasons = []
    if errors & BAD_TRACE_ID:
        reasons.append("trace_id must be empty or 16 bytes")
    if errors & BAD_SPAN_ID:
        reasons.append("span_id must be empty or 8 bytes")
    if errors & NO_NAME:
        reasons.append("a metric must have a name")
    return f"{count} {noun}{'' if count == 1 else 's'} rejected: {'; '.join(reasons)}"
