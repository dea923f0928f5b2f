"""Decodes Jaeger's Thrift in the binary and the compact protocol: a Batch, or a packet of the agent that holds one.

Nothing is allocated by a size or count that the sender claims, and nothing is read outside the input.
Source: Apache Thrift doc/specs/thrift-{binary,compact}-protocol.md; jaeger-idl thrift/{jaeger,agent}.thrift.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp

from collector.wire.errors import MalformedBatch

from collector.wire.proto cimport Ptr
from collector.wire.thrift cimport (
    T_BOOL, T_BYTE, T_DOUBLE, T_I32, T_I64, T_LIST, T_STRUCT, T_TEXT, Field, Input, Text, fail, read_bool, read_double,
    read_field, read_integer, read_text, read_unsigned, skip, structs,
)
from receivers.jaeger._spans cimport (
    TAG_BOOL, TAG_BYTES, TAG_DOUBLE, TAG_INT, TAG_TEXT, TAG_UNKNOWN, Log, Reference, Span, SpanWriter, Tag,
)

__all__ = ["decode_batch", "decode_packet"]

cdef enum:
    COMPACT_ID = 0x82
    MESSAGE_CALL = 1
    MESSAGE_ONEWAY = 4
    # Fields that must be there, as bits of their numbers.
    SPAN_REQUIRED = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9
    TAG_REQUIRED = 1 << 1 | 1 << 2
    LOG_REQUIRED = 1 << 1 | 1 << 2
    REFERENCE_REQUIRED = 1 << 1 | 1 << 2 | 1 << 3 | 1 << 4
    PROCESS_REQUIRED = 1 << 1
    BATCH_REQUIRED = 1 << 1 | 1 << 2


cdef inline bint ended(Input* inp, uint32_t seen, uint32_t required, const char* path) noexcept nogil:
    """At the end of a struct: whether all is well, and every required field was there."""
    if inp.problem == NULL and (seen & required) != required:
        fail(inp, "a required field is missing")
    if inp.problem != NULL and inp.path == NULL:
        inp.path = path
    return inp.problem == NULL


cdef bint read_tag(Input* inp, Tag* tag) noexcept nogil:
    cdef Field field
    cdef int64_t type = 0, number = 0
    cdef bint flag = False
    cdef Text text, octets
    cdef double real = 0
    cdef uint32_t seen = 0
    cdef bint good = True
    text.data = octets.data = NULL
    text.size = octets.size = 0
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_TEXT:
            good = read_text(inp, &tag.key)
        elif field.id == 2 and field.type == T_I32:
            good = read_integer(inp, T_I32, &type)
        elif field.id == 3 and field.type == T_TEXT:
            good = read_text(inp, &text)
        elif field.id == 4 and field.type == T_DOUBLE:
            good = read_double(inp, &real)
        elif field.id == 5 and field.type == T_BOOL:
            good = read_bool(inp, &flag)
        elif field.id == 6 and field.type == T_I64:
            good = read_integer(inp, T_I64, &number)
        elif field.id == 7 and field.type == T_TEXT:
            good = read_text(inp, &octets)
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    if type == 0:
        tag.kind, tag.text = TAG_TEXT, text
    elif type == 1:
        tag.kind, tag.real = TAG_DOUBLE, real
    elif type == 2:
        tag.kind, tag.number = TAG_BOOL, flag
    elif type == 3:
        tag.kind, tag.number = TAG_INT, number
    elif type == 4:
        tag.kind, tag.text = TAG_BYTES, octets
    else:
        tag.kind, tag.number = TAG_UNKNOWN, type
    return ended(inp, seen, TAG_REQUIRED, "tags")


cdef bint read_log(Input* inp, SpanWriter out) noexcept nogil:
    cdef Field field
    cdef Log* log = out.add_log()
    cdef Tag* tag
    cdef int64_t time_us = 0
    cdef Py_ssize_t count, i
    cdef uint32_t seen = 0
    cdef bint good = True
    if log == NULL:
        return fail(inp, "no memory")
    log.first = log.last = out.field_count
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_I64:
            good = read_integer(inp, T_I64, &time_us)
        elif field.id == 2 and field.type == T_LIST:
            out.field_count = log.first
            good = structs(inp, &field, &count)
            i = 0
            while good and i < count:
                tag = out.add_field()
                good = tag != NULL and read_tag(inp, tag)
                i += 1
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    log.time_unix_nano = nanoseconds(time_us)
    log.last = out.field_count
    return ended(inp, seen, LOG_REQUIRED, "logs")


cdef bint read_reference(Input* inp, SpanWriter out) noexcept nogil:
    cdef Field field
    cdef Reference* reference = out.add_reference()
    cdef int64_t number = 0
    cdef uint32_t seen = 0
    cdef bint good = True
    if reference == NULL:
        return fail(inp, "no memory")
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_I32:
            good = read_integer(inp, T_I32, &number)
            reference.is_child_of = number == 0
        elif 2 <= field.id <= 4 and field.type == T_I64:
            good = read_integer(inp, T_I64, &number)
            if field.id == 2:
                reference.trace_low = <uint64_t>number
            elif field.id == 3:
                reference.trace_high = <uint64_t>number
            else:
                reference.span_id = <uint64_t>number
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    return ended(inp, seen, REFERENCE_REQUIRED, "references")


cdef inline uint64_t nanoseconds(int64_t microseconds) noexcept nogil:
    """Nanoseconds since 1970, within the range of OTLP's timestamps."""
    if microseconds <= 0:
        return 0
    return <uint64_t>microseconds * 1000 if <uint64_t>microseconds <= <uint64_t>-1 // 1000 else <uint64_t>-1


cdef void find_parent(SpanWriter out) noexcept nogil:
    """Without a parent id, the first CHILD_OF in the same trace is the parent, otherwise the first FOLLOWS_FROM."""
    cdef Py_ssize_t i
    cdef Reference* reference
    cdef Reference* follows = NULL
    cdef Span* span = &out.span
    if span.parent_id:
        return
    for i in range(out.reference_count):
        reference = &out.references[i]
        if reference.trace_high != span.trace_high or reference.trace_low != span.trace_low:
            continue
        if reference.is_child_of:
            span.parent_id = reference.span_id
            return
        if follows == NULL:
            follows = reference
    if follows != NULL:
        span.parent_id = follows.span_id


cdef bint read_tags(Input* inp, Field* field, SpanWriter out) noexcept nogil:
    cdef Py_ssize_t count, i = 0
    cdef Tag* tag
    cdef bint good = structs(inp, field, &count)
    out.tag_count = 0
    while good and i < count:
        tag = out.add_tag()
        good = tag != NULL and read_tag(inp, tag)
        i += 1
    return good


cdef bint read_span(Input* inp, SpanWriter out) noexcept nogil:
    cdef Field field
    cdef Span* span = &out.span
    cdef int64_t number = 0, start_us = 0, duration_us = 0
    cdef Py_ssize_t count, i
    cdef uint32_t seen = 0
    cdef bint good = True
    out.begin_span()
    field.id = 0
    while good and read_field(inp, &field):
        if 1 <= field.id <= 4 and field.type == T_I64:
            good = read_integer(inp, T_I64, &number)
            if field.id == 1:
                span.trace_low = <uint64_t>number
            elif field.id == 2:
                span.trace_high = <uint64_t>number
            elif field.id == 3:
                span.span_id = <uint64_t>number
            else:
                span.parent_id = <uint64_t>number
        elif field.id == 5 and field.type == T_TEXT:
            good = read_text(inp, &span.name)
        elif field.id == 6 and field.type == T_LIST:
            good = structs(inp, &field, &count)
            out.reference_count = i = 0
            while good and i < count:
                good = read_reference(inp, out)
                i += 1
        elif field.id == 7 and field.type == T_I32:
            good = read_integer(inp, T_I32, &number)
            span.flags = <uint32_t>number
        elif field.id == 8 and field.type == T_I64:
            good = read_integer(inp, T_I64, &start_us)
        elif field.id == 9 and field.type == T_I64:
            good = read_integer(inp, T_I64, &duration_us)
        elif field.id == 10 and field.type == T_LIST:
            good = read_tags(inp, &field, out)
        elif field.id == 11 and field.type == T_LIST:
            good = structs(inp, &field, &count)
            out.log_count = out.field_count = i = 0
            while good and i < count:
                good = read_log(inp, out)
                i += 1
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    span.start_unix_nano = nanoseconds(start_us)
    span.end_unix_nano = nanoseconds(<int64_t>(<uint64_t>start_us + <uint64_t>duration_us))
    find_parent(out)
    return ended(inp, seen, SPAN_REQUIRED, "spans")


cdef bint read_spans(Input* inp, SpanWriter out) noexcept nogil:
    """The list of spans; they are written as they are read."""
    cdef Field field
    cdef Py_ssize_t count, i = 0
    cdef bint good
    field.id = 0
    good = structs(inp, &field, &count)
    while good and i < count:
        good = read_span(inp, out)
        if good:
            out.end_span(0)
        i += 1
    return good


cdef bint read_process(Input* inp, SpanWriter out, Text* name) noexcept nogil:
    cdef Field field
    cdef uint32_t seen = 0
    cdef bint good = True
    out.begin_span()
    field.id = 0
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_TEXT:
            good = read_text(inp, name)
        elif field.id == 2 and field.type == T_LIST:
            good = read_tags(inp, &field, out)
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    return ended(inp, seen, PROCESS_REQUIRED, "process")


cdef int read_batch(Input* inp, SpanWriter out) except -1:
    """A Batch. The process is written before the spans, wherever it stands."""
    cdef Field field
    cdef Text name
    cdef Ptr spans = NULL
    cdef Ptr rest
    cdef uint32_t seen = 0
    cdef bint good = True
    name.data, name.size = NULL, 0
    field.id = 0
    out.begin_span()
    while good and read_field(inp, &field):
        if field.id == 1 and field.type == T_STRUCT:
            good = read_process(inp, out, &name)
            if good and not seen & (1 << 1):
                out.add_scope(out.add_resource(name))
        elif field.id == 2 and field.type == T_LIST:
            spans = inp.at
            if seen & (1 << 1) and not seen & (1 << 2):
                with nogil:
                    good = read_spans(inp, out)
                spans = NULL
            else:
                good = skip(inp, T_LIST, 0)
        else:
            good = skip(inp, field.type, 0)
            continue
        seen |= <uint32_t>1 << field.id
    ended(inp, seen, BATCH_REQUIRED, "batch")
    if inp.problem == NULL and spans != NULL and not out.groups.span_count:
        rest, inp.at = inp.at, spans
        read_spans(inp, out)
        inp.at = rest
    return 0


cdef bint read_message_head(Input* inp) noexcept nogil:
    """The head of a call of ``emitBatch``."""
    cdef uint64_t raw = 0
    cdef int64_t number = 0
    cdef Text name
    cdef int type
    if inp.end - inp.at < 4:
        return fail(inp, "not a Thrift message")
    if inp.is_compact:
        if inp.at[0] != COMPACT_ID or (inp.at[1] & 0x1F) != 1:
            return fail(inp, "not a message of Thrift's compact protocol")
        type = inp.at[1] >> 5
        inp.at += 2
        if not (read_unsigned(inp, &raw) and read_text(inp, &name)):
            return False
    elif inp.at[0] & 0x80:
        if inp.at[0] != 0x80 or inp.at[1] != 1:
            return fail(inp, "not a message of Thrift's binary protocol")
        type = inp.at[3]
        inp.at += 4
        if not (read_text(inp, &name) and read_integer(inp, T_I32, &number)):
            return False
    else:  # the old form without a version
        if not (read_text(inp, &name) and read_integer(inp, T_BYTE, &number)):
            return False
        type = <int>number
        if not read_integer(inp, T_I32, &number):
            return False
    if type != MESSAGE_CALL and type != MESSAGE_ONEWAY:
        return fail(inp, "not a call")
    if name.size != 9 or memcmp(name.data, <const char*>b"emitBatch", 9) != 0:
        return fail(inp, "not a call of emitBatch")
    return True


cdef bytes decode(bytes data, bint is_compact, bint is_packet):
    cdef Input inp
    cdef Field field
    cdef bint is_found = False
    cdef SpanWriter out = SpanWriter(True, PyBytes_GET_SIZE(data))
    inp.at = <Ptr>PyBytes_AS_STRING(data)
    inp.end = inp.at + PyBytes_GET_SIZE(data)
    inp.is_compact, inp.bool_value, inp.problem, inp.path = is_compact, -1, NULL, NULL
    if not is_packet:
        read_batch(&inp, out)
    elif read_message_head(&inp):
        field.id = 0
        while inp.problem == NULL and read_field(&inp, &field):
            if field.id == 1 and field.type == T_STRUCT and not is_found:
                is_found = True
                read_batch(&inp, out)
            else:
                skip(&inp, field.type, 0)
        if not is_found:
            fail(&inp, "the call has no batch")
    if out.failed:
        raise MemoryError
    if inp.problem != NULL:
        raise MalformedBatch(
            inp.path.decode() if inp.path != NULL else "batch",
            inp.at - <Ptr>PyBytes_AS_STRING(data),
            inp.problem.decode(),
        )
    return out.groups.finish()


def decode_batch(bytes data not None, bint is_compact=False):
    """The OTLP request that a Thrift ``Batch`` corresponds to; empty without spans.

    Raises:
        MalformedBatch: it is not a valid Batch; the offset is about where.
    """
    return decode(data, is_compact, False)


def decode_packet(bytes data not None, bint is_compact):
    """The OTLP request that a packet to the agent corresponds to: a call of ``emitBatch``.

    Raises:
        MalformedBatch: it is not such a call.
    """
    return decode(data, is_compact, True)
