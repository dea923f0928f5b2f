"""Writes the spans that the Jaeger decoders read as OTLP, in groups by process and scope.

The mapping is that of the Collector, including its order of precedence for the status of a span.
Source: open-telemetry/opentelemetry-collector-contrib pkg/translator/jaeger/jaeger{proto,thrift}_to_traces.go; the
OpenTelemetry specification, "Mapping to Non-OTLP Formats".
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memset

from collector.wire.encode.spans cimport GroupedSpans, put_span_id, put_trace_id, room_for
from collector.wire.proto cimport Ptr
from collector.wire.thrift cimport Text
from collector.wire.writer cimport (
    Writer, begin, close_writer, end, open_writer, put_bytes, put_fixed32, put_fixed64, put_number, put_slice, take,
)

cdef enum:
    FEW_TAGS = 16  # fewer are compared with each other; more go through a hash table
    KIND_INTERNAL = 1
    KIND_SERVER = 2
    KIND_CLIENT = 3
    KIND_PRODUCER = 4
    KIND_CONSUMER = 5
    STATUS_OK = 1
    STATUS_ERROR = 2
    # Field number << 3 | wire type of OTLP's messages.
    RESOURCE_ATTRIBUTES = 0x0A
    SPAN_TRACE_ID = 0x0A
    SPAN_ID = 0x12
    SPAN_TRACE_STATE = 0x1A
    SPAN_PARENT_ID = 0x22
    SPAN_NAME = 0x2A
    SPAN_KIND = 0x30
    SPAN_START = 0x39
    SPAN_END = 0x41
    SPAN_ATTRIBUTES = 0x4A
    SPAN_EVENTS = 0x5A
    SPAN_LINKS = 0x6A
    SPAN_STATUS = 0x7A
    SPAN_FLAGS = 0x85  # needs two bytes as a tag
    EVENT_TIME = 0x09
    EVENT_NAME = 0x12
    EVENT_ATTRIBUTES = 0x1A
    LINK_TRACE_ID = 0x0A
    LINK_SPAN_ID = 0x12
    LINK_ATTRIBUTES = 0x22
    STATUS_MESSAGE = 0x12
    STATUS_CODE = 0x18
    PAIR_KEY = 0x0A
    PAIR_VALUE = 0x12
    VALUE_TEXT = 0x0A
    VALUE_BOOL = 0x10
    VALUE_INT = 0x18
    VALUE_DOUBLE = 0x21
    VALUE_BYTES = 0x3A


cdef inline bint has_key(Tag* tag, const char* key, Py_ssize_t size) noexcept nogil:
    return tag.key.size == size and memcmp(tag.key.data, key, size) == 0


cdef Tag* find(Tag* tags, Py_ssize_t count, const char* key, Py_ssize_t size) noexcept nogil:
    """The tag with this key that is still there; NULL without one."""
    cdef Py_ssize_t i
    for i in range(count):
        if not tags[i].is_dropped and has_key(&tags[i], key, size):
            return &tags[i]
    return NULL


ctypedef struct Meanings:
    # The tags of a span that have a meaning; NULL where there is none.
    Tag* kind
    Tag* error
    Tag* status_code
    Tag* description
    Tag* http_code
    Tag* http_message
    Tag* trace_state


cdef void find_meanings(Tag* tags, Py_ssize_t count, Meanings* found) noexcept nogil:
    """Finds them in one pass. No key is there twice."""
    cdef Py_ssize_t i, size
    cdef Tag* tag
    memset(found, 0, sizeof(Meanings))
    for i in range(count):
        tag = &tags[i]
        if tag.is_dropped:
            continue
        size = tag.key.size
        if size == 5 and has_key(tag, b"error", 5):
            found.error = tag
        elif size == 9 and has_key(tag, b"span.kind", 9):
            found.kind = tag
        elif size == 14 and has_key(tag, b"w3c.tracestate", 14):
            found.trace_state = tag
        elif size == 16 and has_key(tag, b"http.status_code", 16):
            found.http_code = tag
        elif size == 16 and has_key(tag, b"otel.status_code", 16):
            found.status_code = tag
        elif size == 19 and has_key(tag, b"http.status_message", 19):
            found.http_message = tag
        elif size == 23 and has_key(tag, b"otel.status_description", 23):
            found.description = tag


cdef inline Text text_of(Tag* tag) noexcept nogil:
    """The value of a text tag; empty for all other types."""
    cdef Text nothing
    if tag.kind == TAG_TEXT:
        return tag.text
    nothing.data, nothing.size = NULL, 0
    return nothing


cdef inline bint equals(Text text, const char* other, Py_ssize_t size) noexcept nogil:
    return text.size == size and memcmp(text.data, other, size) == 0


cdef bint equals_upper(Text text, const char* other, Py_ssize_t size) noexcept nogil:
    """Whether ``text`` is ``other``, which is in capitals, whatever the case of its ASCII letters."""
    cdef Py_ssize_t i
    cdef uint8_t letter
    if text.size != size:
        return False
    for i in range(size):
        letter = text.data[i]
        if c"a" <= letter <= c"z":
            letter -= 32
        if letter != <uint8_t>other[i]:
            return False
    return True


cdef bint decimal(Text text, int64_t* value) noexcept nogil:
    """Reads an integer as Go's strconv.ParseInt(text, 10, 0) does."""
    cdef Py_ssize_t i = 0
    cdef uint64_t result = 0, limit = <uint64_t>0x7FFFFFFFFFFFFFFF
    cdef bint is_negative = False
    if text.size and (text.data[0] == c"-" or text.data[0] == c"+"):
        is_negative = text.data[0] == c"-"
        limit += is_negative
        i = 1
    if i == text.size:
        return False
    while i < text.size:
        if not c"0" <= text.data[i] <= c"9" or result > limit // 10:
            return False
        result = result * 10 + (text.data[i] - c"0")
        if result > limit:
            return False
        i += 1
    value[0] = <int64_t>(0 - result) if is_negative else <int64_t>result
    return True


cdef void put_unknown(Writer* w, bint is_thrift, int64_t number) noexcept nogil:
    """Writes a text instead of a value of an unknown type, as the Collector does."""
    cdef uint8_t[24] digits
    cdef int at = 24
    cdef bint is_negative = number < 0
    cdef uint64_t rest = <uint64_t>0 - <uint64_t>number if is_negative else <uint64_t>number
    cdef Py_ssize_t mark = begin(w, VALUE_TEXT)
    put_bytes(w, b'<Unknown Jaeger TagType "', 25)
    if is_thrift:
        put_bytes(w, b"<UNSET>", 7)
    else:
        while True:
            at -= 1
            digits[at] = <uint8_t>(c"0" + rest % 10)
            rest //= 10
            if rest == 0:
                break
        if is_negative:
            at -= 1
            digits[at] = c"-"
        put_bytes(w, &digits[at], 24 - at)
    put_bytes(w, b'">', 2)
    end(w, mark)


cdef void put_tag(Writer* w, uint32_t tag_of_pair, Tag* tag, bint is_thrift) noexcept nogil:
    """Writes a KeyValue."""
    cdef uint64_t bits
    cdef Py_ssize_t pair = begin(w, tag_of_pair), value
    put_slice(w, PAIR_KEY, tag.key.data, tag.key.size)
    value = begin(w, PAIR_VALUE)
    if tag.kind == TAG_TEXT:
        put_slice(w, VALUE_TEXT, tag.text.data, tag.text.size)
    elif tag.kind == TAG_BOOL:
        put_number(w, VALUE_BOOL, tag.number != 0)
    elif tag.kind == TAG_INT:
        put_number(w, VALUE_INT, <uint64_t>tag.number)
    elif tag.kind == TAG_DOUBLE:
        memcpy(&bits, &tag.real, 8)
        put_fixed64(w, VALUE_DOUBLE, bits)
    elif tag.kind == TAG_BYTES:
        put_slice(w, VALUE_BYTES, tag.text.data, tag.text.size)
    else:
        put_unknown(w, is_thrift, tag.number)
    end(w, value)
    end(w, pair)


cdef inline void put_tags(Writer* w, uint32_t tag_of_pair, Tag* tags, Py_ssize_t count, bint is_thrift) noexcept nogil:
    cdef Py_ssize_t i
    for i in range(count):
        if not tags[i].is_dropped:
            put_tag(w, tag_of_pair, &tags[i], is_thrift)


cdef int kind_of(Text text) noexcept nogil:
    if equals(text, b"client", 6):
        return KIND_CLIENT
    if equals(text, b"server", 6):
        return KIND_SERVER
    if equals(text, b"producer", 8):
        return KIND_PRODUCER
    if equals(text, b"consumer", 8):
        return KIND_CONSUMER
    if equals(text, b"internal", 8):
        return KIND_INTERNAL
    return 0


cdef int status_of_http(Tag* tag, int kind) noexcept nogil:
    """The status code that follows from ``http.status_code``; -1 if its value is not a number."""
    cdef int64_t code
    if tag.kind == TAG_INT:
        code = tag.number
    elif tag.kind != TAG_TEXT or not decimal(tag.text, &code):
        return -1
    if 400 <= code < 500 and kind == KIND_SERVER:
        return 0
    return 0 if 100 <= code < 399 else STATUS_ERROR


cdef class SpanWriter:
    """Collects one span at a time, and writes it.

    ``is_thrift``: whether tags that name a scope or a trace state stay attributes, as in the Collector.
    """

    def __cinit__(self, bint is_thrift, Py_ssize_t size_bytes):
        self.is_thrift = is_thrift
        self.groups = GroupedSpans(size_bytes + size_bytes // 2)

    def __dealloc__(self):
        free(self.tags)
        free(self.fields)
        free(self.references)
        free(self.logs)
        free(self.slots)

    cdef void begin_span(self) noexcept nogil:
        memset(&self.span, 0, sizeof(Span))
        self.tag_count = self.field_count = self.reference_count = self.log_count = 0

    cdef Tag* add_tag(self) noexcept nogil:
        """A new tag of the span or process, all zero; NULL without memory."""
        if not room_for(<void**>&self.tags, &self.tag_room, self.tag_count, sizeof(Tag)):
            self.failed = True
            return NULL
        memset(&self.tags[self.tag_count], 0, sizeof(Tag))
        self.tag_count += 1
        return &self.tags[self.tag_count - 1]

    cdef Tag* add_field(self) noexcept nogil:
        """A new field of the last log."""
        if not room_for(<void**>&self.fields, &self.field_room, self.field_count, sizeof(Tag)):
            self.failed = True
            return NULL
        memset(&self.fields[self.field_count], 0, sizeof(Tag))
        self.field_count += 1
        return &self.fields[self.field_count - 1]

    cdef Reference* add_reference(self) noexcept nogil:
        if not room_for(<void**>&self.references, &self.reference_room, self.reference_count, sizeof(Reference)):
            self.failed = True
            return NULL
        memset(&self.references[self.reference_count], 0, sizeof(Reference))
        self.reference_count += 1
        return &self.references[self.reference_count - 1]

    cdef Log* add_log(self) noexcept nogil:
        if not room_for(<void**>&self.logs, &self.log_room, self.log_count, sizeof(Log)):
            self.failed = True
            return NULL
        memset(&self.logs[self.log_count], 0, sizeof(Log))
        self.log_count += 1
        return &self.logs[self.log_count - 1]

    cdef void drop_duplicates(self, Tag* tags, Py_ssize_t count) noexcept nogil:
        """Of tags with one key, keep the place of the first and the value of the last, as a Go map would."""
        cdef Py_ssize_t i, j, size = 2 * FEW_TAGS
        cdef uint64_t hashed, seen = 0
        cdef Text key
        if count <= FEW_TAGS:
            for i in range(count):
                if tags[i].is_dropped:
                    continue
                # Keys that differ in size, first and last byte are told apart by one bit of a word.
                hashed = <uint64_t>tags[i].key.size
                if hashed:
                    hashed = hashed * 31 + tags[i].key.data[0] * 7 + tags[i].key.data[tags[i].key.size - 1]
                hashed = <uint64_t>1 << (hashed & 63)
                if seen & hashed:
                    for j in range(i):
                        if (
                            not tags[j].is_dropped and tags[j].key.size == tags[i].key.size
                            and memcmp(tags[j].key.data, tags[i].key.data, tags[i].key.size) == 0
                        ):
                            move_value(&tags[i], &tags[j])
                            break
                seen |= hashed
            return
        while size < 2 * count:
            size *= 2
        if size > self.slot_room:
            free(self.slots)
            self.slots = <int32_t*>realloc(NULL, size * sizeof(int32_t))
            self.slot_room = size if self.slots != NULL else 0
            if self.slots == NULL:
                self.failed = True
                return
        memset(self.slots, 0xFF, size * sizeof(int32_t))
        for i in range(count):
            if tags[i].is_dropped:
                continue
            hashed = <uint64_t>0xCBF29CE484222325
            for j in range(tags[i].key.size):
                hashed = (hashed ^ tags[i].key.data[j]) * <uint64_t>0x100000001B3
            j = <Py_ssize_t>((hashed ^ (hashed >> 32)) & <uint64_t>(size - 1))
            key = tags[i].key
            while self.slots[j] >= 0:
                if tags[self.slots[j]].key.size == key.size and memcmp(
                    tags[self.slots[j]].key.data, key.data, key.size
                ) == 0:
                    move_value(&tags[i], &tags[self.slots[j]])
                    break
                j = (j + 1) & (size - 1)
            if self.slots[j] < 0:
                self.slots[j] = <int32_t>i

    cdef int32_t add_resource(self, Text service_name) except -1:
        """Write the resource of the process whose tags have been read. Returns its index."""
        cdef Writer w
        cdef Tag* tag
        cdef Tag* version
        cdef Tag first
        cdef Tag host
        cdef Py_ssize_t value
        if service_name.size:
            if self.add_tag() == NULL:
                raise MemoryError
            memset(&first, 0, sizeof(Tag))
            first.key.data, first.key.size = <Ptr><const char*>b"service.name", 12
            first.kind, first.text = TAG_TEXT, service_name
            for i in range(self.tag_count - 1, 0, -1):
                self.tags[i] = self.tags[i - 1]
            self.tags[0] = first
        self.drop_duplicates(self.tags, self.tag_count)
        open_writer(&w, 256)
        try:
            tag = find(self.tags, self.tag_count, b"hostname", 8)
            if tag != NULL and find(self.tags, self.tag_count, b"host.name", 9) == NULL:
                tag.key.data, tag.key.size = <Ptr><const char*>b"host.name", 9
            version = find(self.tags, self.tag_count, b"jaeger.version", 14)
            if version != NULL and find(self.tags, self.tag_count, b"opencensus.exporterversion", 26) == NULL:
                version.is_dropped = True
                value = begin(&w, RESOURCE_ATTRIBUTES)
                put_slice(&w, PAIR_KEY, <const char*>b"opencensus.exporterversion", 26)
                host = version[0]
                with_prefix(&w, text_of(&host))
                end(&w, value)
            put_tags(&w, RESOURCE_ATTRIBUTES, self.tags, self.tag_count, self.is_thrift)
            return self.groups.add_resource(take(&w))
        finally:
            close_writer(&w)

    cdef int32_t add_scope(self, int32_t resource) except -1:
        """The index of the scope that the tags of the span name, in the resource; these tags are dropped."""
        cdef Text name, version
        cdef Tag* tag
        name.data = version.data = NULL
        name.size = version.size = 0
        tag = find(self.tags, self.tag_count, b"otel.scope.name", 15) if not self.is_thrift else NULL
        if tag != NULL:
            tag.is_dropped = True
            name = text_of(tag)
            tag = find(self.tags, self.tag_count, b"otel.scope.version", 18)
            if tag != NULL:
                tag.is_dropped = True
                version = text_of(tag)
        return self.groups.scope(
            resource,
            PyBytes_FromStringAndSize(<const char*>name.data, name.size),
            PyBytes_FromStringAndSize(<const char*>version.data, version.size),
        )

    cdef void end_span(self, int32_t scope) noexcept nogil:
        """Write the span that has been read."""
        cdef Writer* w = &self.groups.spans
        cdef Span* span = &self.span
        cdef Meanings its
        cdef Tag* message = NULL
        cdef Text text
        cdef Py_ssize_t i, mark
        cdef int kind = 0, status = 0, found
        cdef bint has_status = False
        self.groups.begin_span(scope)
        self.drop_duplicates(self.tags, self.tag_count)
        find_meanings(self.tags, self.tag_count, &its)
        if its.kind != NULL:
            its.kind.is_dropped = True
            kind = kind_of(text_of(its.kind))
        # A true "error" decides; then "otel.status_code"; then the HTTP status.
        if its.error != NULL and its.error.kind == TAG_BOOL and its.error.number:
            its.error.is_dropped = has_status = True
            status = STATUS_ERROR
            message = its.description if its.description != NULL else its.http_message
        if its.status_code != NULL:
            its.status_code.is_dropped = True
            if not has_status:
                has_status = True
                text = text_of(its.status_code)
                if equals_upper(text, b"OK", 2):
                    status = STATUS_OK
                elif equals_upper(text, b"ERROR", 5):
                    status = STATUS_ERROR
                message = its.description
        elif not has_status and its.http_code != NULL:
            found = status_of_http(its.http_code, kind)
            if found > 0:
                status = found
                message = its.http_message
        if has_status and its.description != NULL:
            its.description.is_dropped = True
        put_trace_id(w, SPAN_TRACE_ID, span.trace_high, span.trace_low)
        put_span_id(w, SPAN_ID, span.span_id)
        if its.trace_state != NULL and not self.is_thrift:
            its.trace_state.is_dropped = True
            text = text_of(its.trace_state)
            if text.size:
                put_slice(w, SPAN_TRACE_STATE, text.data, text.size)
        put_span_id(w, SPAN_PARENT_ID, span.parent_id)
        if span.name.size:
            put_slice(w, SPAN_NAME, span.name.data, span.name.size)
        if kind:
            put_number(w, SPAN_KIND, kind)
        put_fixed64(w, SPAN_START, span.start_unix_nano)
        put_fixed64(w, SPAN_END, span.end_unix_nano)
        put_tags(w, SPAN_ATTRIBUTES, self.tags, self.tag_count, self.is_thrift)
        for i in range(self.log_count):
            self.put_log(&self.logs[i])
        for i in range(self.reference_count):
            put_link(w, &self.references[i], span.parent_id)
        if status or (message != NULL and text_of(message).size):
            mark = begin(w, SPAN_STATUS)
            if message != NULL and text_of(message).size:
                text = text_of(message)
                put_slice(w, STATUS_MESSAGE, text.data, text.size)
            if status:
                put_number(w, STATUS_CODE, status)
            end(w, mark)
        if span.flags & 1:
            put_fixed32(w, SPAN_FLAGS, 1)
        self.groups.end_span()

    cdef void put_log(self, Log* log) noexcept nogil:
        cdef Writer* w = &self.groups.spans
        cdef Tag* fields = self.fields + log.first
        cdef Py_ssize_t count = log.last - log.first, mark = begin(w, SPAN_EVENTS)
        cdef Tag* tag
        cdef Text name
        self.drop_duplicates(fields, count)
        put_fixed64(w, EVENT_TIME, log.time_unix_nano)
        tag = find(fields, count, b"event", 5)
        if tag != NULL:
            tag.is_dropped = True
            name = text_of(tag)
            if name.size:
                put_slice(w, EVENT_NAME, name.data, name.size)
        put_tags(w, EVENT_ATTRIBUTES, fields, count, self.is_thrift)
        end(w, mark)


cdef inline void move_value(Tag* source, Tag* target) noexcept nogil:
    target.kind, target.text, target.number, target.real = source.kind, source.text, source.number, source.real
    source.is_dropped = True


cdef void with_prefix(Writer* w, Text version) noexcept nogil:
    cdef Py_ssize_t value = begin(w, PAIR_VALUE), text = begin(w, VALUE_TEXT)
    put_bytes(w, b"Jaeger-", 7)
    put_bytes(w, version.data, version.size)
    end(w, text)
    end(w, value)


cdef void put_link(Writer* w, Reference* reference, uint64_t parent_id) noexcept nogil:
    """Writes a link, unless the reference is the parent."""
    cdef Py_ssize_t link, pair, value
    if reference.is_child_of and reference.span_id == parent_id:
        return
    link = begin(w, SPAN_LINKS)
    put_trace_id(w, LINK_TRACE_ID, reference.trace_high, reference.trace_low)
    put_span_id(w, LINK_SPAN_ID, reference.span_id)
    pair = begin(w, LINK_ATTRIBUTES)
    put_slice(w, PAIR_KEY, <const char*>b"opentracing.ref_type", 20)
    value = begin(w, PAIR_VALUE)
    if reference.is_child_of:
        put_slice(w, VALUE_TEXT, <const char*>b"child_of", 8)
    else:
        put_slice(w, VALUE_TEXT, <const char*>b"follows_from", 12)
    end(w, value)
    end(w, pair)
    end(w, link)
