"""Decodes Jaeger's Thrift in the binary and the compact protocol: a Batch, or a packet of the agent that holds one.

Nothing is allocated by a size or count that the sender claims, and nothing is read outside the input.
Source: Apache Thrift doc/specs/thrift-{binary,compact}-protocol.md; jaeger-idl thrift/{jaeger,agent}.thrift.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from collector.wire.errors import MalformedBatch

from collector.wire.proto cimport Ptr, load_be64, load_le64, read_varint
from receivers.jaeger._spans cimport (
    TAG_BOOL, TAG_BYTES, TAG_DOUBLE, TAG_INT, TAG_TEXT, TAG_UNKNOWN, Log, Reference, Span, SpanWriter, Tag, Text,
)

__all__ = ["decode_batch", "decode_packet"]

cdef enum:
    MAX_DEPTH = 64  # of fields that are skipped
    # Types, as the binary protocol numbers them.
    T_STOP = 0
    T_BOOL = 2
    T_BYTE = 3
    T_DOUBLE = 4
    T_I16 = 6
    T_I32 = 8
    T_I64 = 10
    T_TEXT = 11
    T_STRUCT = 12
    T_MAP = 13
    T_SET = 14
    T_LIST = 15
    T_UUID = 16
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

# The types of the compact protocol: 1 and 2 are a bool with its value.
cdef int[14] COMPACT_TYPES = [
    T_STOP, T_BOOL, T_BOOL, T_BYTE, T_I16, T_I32, T_I64, T_DOUBLE, T_TEXT, T_LIST, T_SET, T_MAP, T_STRUCT, T_UUID
]

ctypedef struct Input:
    Ptr at
    Ptr end
    bint is_compact
    int bool_value          # the value of a bool that the field's head of the compact protocol holds; -1 = none
    const char* problem     # what is wrong; NULL as long as nothing is
    const char* path        # where

ctypedef struct Field:
    int type
    int32_t id


cdef inline bint fail(Input* inp, const char* problem) noexcept nogil:
    if inp.problem == NULL:
        inp.problem = problem
    return False


cdef bint read_unsigned(Input* inp, uint64_t* value) noexcept nogil:
    """A varint."""
    cdef Ptr p = read_varint(inp.at, inp.end, value)
    if p == NULL:
        return fail(inp, "an invalid or truncated number")
    inp.at = p
    return True


cdef bint read_integer(Input* inp, int type, int64_t* value) noexcept nogil:
    """An integer of this type."""
    cdef uint64_t raw = 0
    cdef int size = 1 if type == T_BYTE else 2 if type == T_I16 else 4 if type == T_I32 else 8, i
    if inp.is_compact and type != T_BYTE:
        if not read_unsigned(inp, &raw):
            return False
        value[0] = <int64_t>(raw >> 1) ^ -<int64_t>(raw & 1)
        if type == T_I32:
            value[0] = <int32_t>value[0]
        return True
    if inp.end - inp.at < size:
        return fail(inp, "a truncated number")
    for i in range(size):
        raw = raw << 8 | inp.at[i]
    inp.at += size
    if size == 8:
        value[0] = <int64_t>raw
    else:
        value[0] = <int64_t>(raw << (64 - 8 * size)) >> (64 - 8 * size)
    return True


cdef bint read_double(Input* inp, double* value) noexcept nogil:
    cdef uint64_t bits
    if inp.end - inp.at < 8:
        return fail(inp, "a truncated number")
    bits = load_le64(inp.at) if inp.is_compact else load_be64(inp.at)
    memcpy(value, &bits, 8)
    inp.at += 8
    return True


cdef bint read_bool(Input* inp, bint* value) noexcept nogil:
    if inp.bool_value >= 0:
        value[0] = inp.bool_value
        inp.bool_value = -1
        return True
    if inp.at >= inp.end:
        return fail(inp, "a truncated bool")
    value[0] = inp.at[0] == 1
    inp.at += 1
    return True


cdef bint read_text(Input* inp, Text* text) noexcept nogil:
    cdef uint64_t size = 0
    cdef int64_t signed_size
    if inp.is_compact:
        if not read_unsigned(inp, &size):
            return False
    else:
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a text is longer than the rest of the message")
    text.data, text.size = inp.at, <Py_ssize_t>size
    inp.at += size
    return True


cdef bint read_field(Input* inp, Field* field) noexcept nogil:
    """The head of the next field; ``field`` holds the one before. False at the end of the struct, and on an error."""
    cdef uint8_t head
    cdef int64_t number
    if inp.at >= inp.end:
        return fail(inp, "a struct is truncated")
    head = inp.at[0]
    inp.at += 1
    if not inp.is_compact:
        field.type = head
        if head == T_STOP:
            return False
        if not read_integer(inp, T_I16, &number):
            return False
        field.id = <int32_t>number
        return True
    inp.bool_value = -1
    if (head & 0x0F) == T_STOP:
        return False
    if (head & 0x0F) > 13:
        return fail(inp, "an unknown field type")
    if head & 0x0F <= 2:
        inp.bool_value = (head & 0x0F) == 1
    field.type = COMPACT_TYPES[head & 0x0F]
    if head >> 4:
        field.id += head >> 4
        return True
    if not read_integer(inp, T_I16, &number):
        return False
    field.id = <int32_t>number
    return True


cdef bint read_list(Input* inp, int* type, Py_ssize_t* count) noexcept nogil:
    """The head of a list or set. Each element has at least one byte, so the count is bounded by what is left."""
    cdef uint64_t size = 0
    cdef int64_t signed_size
    if inp.at >= inp.end:
        return fail(inp, "a list is truncated")
    if inp.is_compact:
        if (inp.at[0] & 0x0F) > 13:
            return fail(inp, "an unknown element type")
        type[0] = COMPACT_TYPES[inp.at[0] & 0x0F]
        size = inp.at[0] >> 4
        inp.at += 1
        if size == 15 and not read_unsigned(inp, &size):
            return False
    else:
        type[0] = inp.at[0]
        inp.at += 1
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a list has more elements than the rest of the message has bytes")
    count[0] = <Py_ssize_t>size
    return True


cdef bint skip(Input* inp, int type, int depth) noexcept nogil:
    """Skips a value."""
    cdef int64_t number
    cdef double real
    cdef bint flag
    cdef Text text
    cdef Field field
    cdef int first, second
    cdef Py_ssize_t count, i
    if depth > MAX_DEPTH:
        return fail(inp, "nested too deeply")
    if type == T_BOOL:
        return read_bool(inp, &flag)
    if type == T_BYTE or type == T_I16 or type == T_I32 or type == T_I64:
        return read_integer(inp, type, &number)
    if type == T_DOUBLE:
        return read_double(inp, &real)
    if type == T_TEXT:
        return read_text(inp, &text)
    if type == T_UUID:
        if inp.end - inp.at < 16:
            return fail(inp, "a truncated UUID")
        inp.at += 16
        return True
    if type == T_STRUCT:
        field.id = 0
        while read_field(inp, &field):
            if not skip(inp, field.type, depth + 1):
                return False
        return inp.problem == NULL
    if type == T_LIST or type == T_SET:
        if not read_list(inp, &first, &count):
            return False
        for i in range(count):
            if not skip(inp, first, depth + 1):
                return False
        return True
    if type == T_MAP:
        if not read_map(inp, &first, &second, &count):
            return False
        for i in range(count):
            if not (skip(inp, first, depth + 1) and skip(inp, second, depth + 1)):
                return False
        return True
    return fail(inp, "an unknown field type")


cdef bint read_map(Input* inp, int* key_type, int* value_type, Py_ssize_t* count) noexcept nogil:
    cdef uint64_t size = 0
    cdef int64_t signed_size
    count[0] = 0
    if inp.is_compact:
        if not read_unsigned(inp, &size):
            return False
        if size == 0:
            return True
        if inp.at >= inp.end or inp.at[0] >> 4 > 13 or (inp.at[0] & 0x0F) > 13:
            return fail(inp, "a map is truncated or has unknown types")
        key_type[0], value_type[0] = COMPACT_TYPES[inp.at[0] >> 4], COMPACT_TYPES[inp.at[0] & 0x0F]
        inp.at += 1
    else:
        if inp.end - inp.at < 6:
            return fail(inp, "a map is truncated")
        key_type[0], value_type[0] = inp.at[0], inp.at[1]
        inp.at += 2
        if not read_integer(inp, T_I32, &signed_size):
            return False
        size = <uint64_t>signed_size
    if size > <uint64_t>(inp.end - inp.at):
        return fail(inp, "a map has more entries than the rest of the message has bytes")
    count[0] = <Py_ssize_t>size
    return True


cdef inline bint ended(Input* inp, uint32_t seen, uint32_t required, const char* path) noexcept nogil:
    """At the end of a struct: whether all is well, and every required field was there."""
    if inp.problem == NULL and (seen & required) != required:
        fail(inp, "a required field is missing")
    if inp.problem != NULL and inp.path == NULL:
        inp.path = path
    return inp.problem == NULL


cdef inline bint structs(Input* inp, Field* field, Py_ssize_t* count) noexcept nogil:
    """The head of a list of structs."""
    cdef int type = 0
    if not read_list(inp, &type, count):
        return False
    if count[0] and type != T_STRUCT:
        return fail(inp, "a list has elements of another type")
    return True


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
    if inp.problem == NULL and spans != NULL and not out.written_count:
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
    return out.finish()


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
