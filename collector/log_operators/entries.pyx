"""A block of log entries as rows in an arena, with the steps that operators are made of.

Each step takes the numbers of the rows to work on, and returns one code of a failure (0 is none) for each of them. No
Python object is made per row, except by the steps that call a Python function, once per distinct text.
"""

import numpy as np

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.unicode cimport PyUnicode_AsUTF8AndSize, PyUnicode_DecodeUTF8
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcmp, memcpy, memset

from collector.log_operators.json cimport JSON_TOO_DEEP, parse_json
from collector.log_operators.nodes cimport (
    Arena, K_BOOL, K_BYTES, K_DOUBLE, K_INT, K_LIST, K_MAP, K_NIL, K_TEXT, Node, append_member, copy_node, find_member,
    free_arena, keep_text, merge_members, new_int, new_node, new_text, put_member, put_named, remove_member,
    take_memory,
)

__all__ = ["FAILURES", "Entries", "Path"]

FAILURES = {
    MISSING: "the entry has no such field",
    WRONG_TYPE: "the field has a value of the wrong type",
    NOT_PARSED: "the text is not of the expected form",
    CANNOT_SET: "only a map can be written to the attributes or the resource as a whole",
    TOO_DEEP: "the value nests deeper than 24",
    NO_TIME: "the time is missing or is not of the layout",
    NO_SEVERITY: "the severity is missing or has a wrong type",
    NO_TRACE: "a trace id needs 32, a span id 16 and trace flags 2 hexadecimal digits",
    NO_SCOPE: "the name of the scope is missing or is not text",
    NOT_A_MAP: "the field is not a map",
    WRONG_COUNT: "the list does not have as many values as there are keys",
}

cdef enum:
    PYTHON_DEPTH_MAX = 28


cdef class Path:
    """A field: a root (``body``, ``attributes`` or ``resource``) and the keys below it. ``text`` is for messages."""

    def __cinit__(self, int root, parts, str text):
        cdef int i
        self.root = root
        self.text = text
        self.parts = [part.encode("utf-8", "replace") for part in parts]
        self.depth = len(self.parts)
        self.keys = <const char**>calloc(self.depth + 1, sizeof(char*))
        self.sizes = <uint32_t*>calloc(self.depth + 1, sizeof(uint32_t))
        if self.keys == NULL or self.sizes == NULL:
            raise MemoryError
        for i in range(self.depth):
            self.keys[i] = PyBytes_AS_STRING(self.parts[i])
            self.sizes[i] = <uint32_t>PyBytes_GET_SIZE(self.parts[i])

    def __dealloc__(self):
        free(self.keys)
        free(self.sizes)

    @property
    def is_root(self):
        """Whether the field is the whole body, all attributes or the whole resource."""
        return self.depth == 0


cdef object to_python(Node* node):
    """The value as a Python object."""
    cdef Node* member
    if node.kind == K_TEXT:
        return PyUnicode_DecodeUTF8(node.text, node.text_size, "replace")
    if node.kind == K_INT:
        return node.number
    if node.kind == K_DOUBLE:
        return node.real
    if node.kind == K_BOOL:
        return node.number != 0
    if node.kind == K_BYTES:
        return PyBytes_FromStringAndSize(node.text, node.text_size)
    if node.kind == K_MAP:
        made = {}
        member = node.first
        while member != NULL:
            made[PyUnicode_DecodeUTF8(member.key, member.key_size, "replace")] = to_python(member)
            member = member.next
        return made
    if node.kind == K_LIST:
        items = []
        member = node.first
        while member != NULL:
            items.append(to_python(member))
            member = member.next
        return items
    return None


cdef class Entries:
    """Rows: a body, attributes, a resource, and the fields of a log record."""

    def __cinit__(self):
        memset(&self.arena, 0, sizeof(Arena))
        self.rows = NULL
        self.row_count = self.room = 0
        self.kept = []

    def __dealloc__(self):
        free_arena(&self.arena)
        free(self.rows)

    @property
    def memory_bytes(self):
        """The size of the rows and of their values, without the texts that point into blocks."""
        return self.arena.total + self.room * sizeof(Row)

    cdef int check(self) except -1:
        if self.arena.failed:
            raise MemoryError
        return 0

    cdef Row* new_rows(self, Py_ssize_t count) except NULL:
        cdef Py_ssize_t room
        cdef Row* rows
        if self.row_count + count > self.room:
            room = max(2 * self.room, self.row_count + count, 16)
            rows = <Row*>realloc(self.rows, room * sizeof(Row))
            if rows == NULL:
                raise MemoryError
            self.rows, self.room = rows, room
        memset(self.rows + self.row_count, 0, count * sizeof(Row))
        self.row_count += count
        return self.rows + self.row_count - count

    # Bringing entries in, and taking them out.

    def add_block(self, bytes text, const int64_t[::1] starts, const int64_t[::1] ends, const int64_t[::1] observed,
                  list attribute_sets, const int32_t[::1] set_codes, dict numbers, resource, bint is_checked):
        """Adds one row for each slice of ``text``; their numbers follow those that are there already.

        ``attribute_sets``: mappings, of which ``set_codes`` has the one of each row. ``numbers``: further attributes, an
        int64 array for each key. ``is_checked``: the slices are known to be valid UTF-8; else invalid bytes in them
        are replaced.
        """
        cdef Py_ssize_t count = starts.shape[0], i, first = self.row_count, size = PyBytes_GET_SIZE(text)
        cdef const char* data = PyBytes_AS_STRING(text)
        cdef Node** templates
        cdef Node* shared
        cdef Node* member
        cdef Row* rows
        cdef const int64_t[::1] column
        cdef const char* key
        cdef bytes fixed
        if ends.shape[0] != count or observed.shape[0] != count or set_codes.shape[0] != count:
            raise ValueError("the columns of a block must have the same length")
        self.kept.append(text)
        shared = self.mapping(resource)
        templates = <Node**>calloc(len(attribute_sets) + 1, sizeof(Node*))
        if templates == NULL:
            raise MemoryError
        try:
            for i in range(len(attribute_sets)):
                templates[i] = self.mapping(attribute_sets[i])
            rows = self.new_rows(count)
            for i in range(count):
                if not 0 <= starts[i] <= ends[i] <= size or not 0 <= set_codes[i] < len(attribute_sets):
                    raise ValueError("a row of the block is out of range")
                rows[i].body = new_text(&self.arena, data + starts[i], ends[i] - starts[i])
                rows[i].attributes = copy_node(&self.arena, templates[set_codes[i]])
                rows[i].resource = shared
                rows[i].observed = observed[i]
            self.check()
        finally:
            free(templates)
        for name, values in numbers.items():
            column = values
            if column.shape[0] != count:
                raise ValueError("the columns of a block must have the same length")
            raw = name.encode("utf-8", "replace")
            self.kept.append(raw)
            key = PyBytes_AS_STRING(raw)
            for i in range(count):
                put_named(rows[i].attributes, key, PyBytes_GET_SIZE(raw), new_int(&self.arena, column[i]))
            self.check()
        if not is_checked:
            for i in range(count):
                fixed = rows[i].body.text[: rows[i].body.text_size]
                try:
                    fixed.decode()
                except UnicodeDecodeError:
                    fixed = fixed.decode("utf-8", "replace").encode()
                    rows[i].body.text = keep_text(&self.arena, PyBytes_AS_STRING(fixed), PyBytes_GET_SIZE(fixed))
                    rows[i].body.text_size = <uint32_t>PyBytes_GET_SIZE(fixed)
            self.check()
        return np.arange(first, first + count, dtype=np.int32)

    cdef Node* mapping(self, object values) except NULL:
        """A map of the arena with the items of a mapping."""
        cdef Node* made = self.from_python(dict(values), 0)
        return made

    cdef Node* from_python(self, object value, int depth) except NULL:
        """A value of the arena; it makes a copy of texts."""
        cdef Node* made
        cdef Node* member
        cdef const char* text
        cdef Py_ssize_t size = 0
        if depth > PYTHON_DEPTH_MAX:
            raise ValueError("the value nests too deep")
        if isinstance(value, str):
            try:
                text = PyUnicode_AsUTF8AndSize(value, &size)
            except UnicodeEncodeError:
                value = value.encode("utf-8", "replace").decode()
                text = PyUnicode_AsUTF8AndSize(value, &size)
            made = new_text(&self.arena, keep_text(&self.arena, text, size), size)
        elif isinstance(value, bool):
            made = new_node(&self.arena, K_BOOL)
            if made != NULL:
                made.number = 1 if value else 0
        elif isinstance(value, int):
            if not -(1 << 63) <= value < 1 << 63:
                raise ValueError("an integer does not fit into 64 bits")
            made = new_int(&self.arena, value)
        elif isinstance(value, float):
            made = new_node(&self.arena, K_DOUBLE)
            if made != NULL:
                made.real = value
        elif isinstance(value, bytes):
            made = new_text(&self.arena, keep_text(&self.arena, value, len(value)), len(value))
            if made != NULL:
                made.kind = K_BYTES
        elif isinstance(value, dict):
            made = new_node(&self.arena, K_MAP)
            if made != NULL:
                for key, item in value.items():
                    member = self.from_python(item, depth + 1)
                    text = PyUnicode_AsUTF8AndSize(key, &size)
                    member.key = keep_text(&self.arena, text, size)
                    member.key_size = <uint32_t>size
                    append_member(made, member)
        elif isinstance(value, (list, tuple)):
            made = new_node(&self.arena, K_LIST)
            if made != NULL:
                for item in value:
                    append_member(made, self.from_python(item, depth + 1))
        elif value is None:
            made = new_node(&self.arena, K_NIL)
        else:
            raise ValueError(f"a value of the type {type(value).__name__} cannot be in a log record")
        if made == NULL:
            raise MemoryError
        return made

    def export_row(self, int32_t number):
        """A row as a Python object that does not refer to this block, for :meth:`import_row`."""
        cdef Row* row = &self.rows[number]
        return (
            to_python(row.body), to_python(row.attributes), to_python(row.resource), row.time, row.observed,
            row.severity, row.severity_text[: row.severity_text_size] if row.severity_text_size else b"",
            row.scope[: row.scope_size] if row.scope_size else b"", row.flags,
            PyBytes_FromStringAndSize(<char*>row.trace_id, 16), PyBytes_FromStringAndSize(<char*>row.span_id, 8),
        )

    def import_row(self, exported):
        """Adds a row that :meth:`export_row` returned, and returns its number."""
        cdef Row* row = self.new_rows(1)
        cdef bytes severity_text, scope, trace_id, span_id
        body, attributes, resource, row.time, row.observed, row.severity, severity_text, scope, row.flags, trace_id, \
            span_id = exported
        row.body = self.from_python(body, 0)
        row.attributes = self.mapping(attributes)
        row.resource = self.mapping(resource)
        row.owns_resource = True
        row.severity_text = keep_text(&self.arena, severity_text, len(severity_text))
        row.severity_text_size = <uint32_t>len(severity_text)
        row.scope = keep_text(&self.arena, scope, len(scope))
        row.scope_size = <uint32_t>len(scope)
        memcpy(row.trace_id, PyBytes_AS_STRING(trace_id), 16)
        memcpy(row.span_id, PyBytes_AS_STRING(span_id), 8)
        self.check()
        return self.row_count - 1

    def copy_rows(self, const int32_t[::1] numbers):
        """Adds copies of rows, and returns their numbers."""
        cdef Py_ssize_t i, count = numbers.shape[0], first = self.row_count
        cdef Row* made = self.new_rows(count) if count else NULL
        for i in range(count):
            made[i] = self.rows[numbers[i]]
            made[i].body = copy_node(&self.arena, made[i].body)
            made[i].attributes = copy_node(&self.arena, made[i].attributes)
            made[i].resource = copy_node(&self.arena, made[i].resource)
            made[i].owns_resource = True
            self.check()
        return np.arange(first, first + count, dtype=np.int32)

    def observed_times(self, const int32_t[::1] numbers):
        """The observed time of each row."""
        cdef Py_ssize_t i
        made = np.zeros(numbers.shape[0], np.int64)
        cdef int64_t[::1] view = made
        for i in range(numbers.shape[0]):
            view[i] = self.rows[numbers[i]].observed
        return made

    # Fields.

    cdef Node* get(self, Row* row, Path path) noexcept nogil:
        cdef Node* node = row.body if path.root == BODY else row.attributes if path.root == ATTRIBUTES else row.resource
        cdef int i
        for i in range(path.depth):
            if node.kind != K_MAP:
                return NULL
            node = find_member(node, path.keys[i], path.sizes[i])
            if node == NULL:
                return NULL
        return node

    cdef bint set(self, Row* row, Path path, Node* value) noexcept nogil:
        """Sets a field, or merges a map into it; False if the field cannot have the value, or without memory."""
        cdef Node* map
        cdef Node* member
        cdef int i, last
        cdef bint is_map = value.kind == K_MAP
        if path.root == BODY:
            if path.depth == 0 and not is_map:
                row.body = value
                return True
            if row.body.kind != K_MAP:
                map = new_node(&self.arena, K_MAP)
                if map == NULL:
                    return False
                row.body = map
            map = row.body
        else:
            if path.depth == 0 and not is_map:
                return False
            if path.root == RESOURCE and not row.owns_resource:
                map = copy_node(&self.arena, row.resource)
                if map == NULL:
                    return False
                row.resource = map
                row.owns_resource = True
            map = row.attributes if path.root == ATTRIBUTES else row.resource
        last = path.depth - (not is_map)
        for i in range(last):
            member = find_member(map, path.keys[i], path.sizes[i])
            if member == NULL or member.kind != K_MAP:
                member = new_node(&self.arena, K_MAP)
                if member == NULL:
                    return False
                member.key, member.key_size = path.keys[i], path.sizes[i]
                put_member(map, member)
            map = member
        if is_map:
            merge_members(map, value)
        else:
            value.key, value.key_size = path.keys[last], path.sizes[last]
            put_member(map, value)
        return True

    cdef Node* remove(self, Row* row, Path path) noexcept nogil:
        """Takes a field out; NULL if there is none. The root of a body always is there."""
        cdef Node* node
        cdef int i
        if path.root == BODY and path.depth == 0:
            node = row.body
            row.body = new_node(&self.arena, K_NIL)
            return node if row.body != NULL else NULL
        if path.root == RESOURCE and not row.owns_resource:
            node = copy_node(&self.arena, row.resource)
            if node == NULL:
                return NULL
            row.resource = node
            row.owns_resource = True
        node = row.body if path.root == BODY else row.attributes if path.root == ATTRIBUTES else row.resource
        if path.depth == 0:
            if path.root == ATTRIBUTES:
                row.attributes = new_node(&self.arena, K_MAP)
                return node if row.attributes != NULL else NULL
            row.resource = new_node(&self.arena, K_MAP)
            return node if row.resource != NULL else NULL
        for i in range(path.depth - 1):
            if node.kind != K_MAP:
                return NULL
            node = find_member(node, path.keys[i], path.sizes[i])
            if node == NULL:
                return NULL
        return remove_member(node, path.keys[path.depth - 1], path.sizes[path.depth - 1]) if node.kind == K_MAP else NULL

    # Steps of operators. Each returns uint8[n]: the failures.

    def parse_json(self, const int32_t[::1] numbers, Path source, Path target, bint ints):
        """Parses a JSON object and writes it to ``target``."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef Node* made
        cdef int error
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        self.kept.append(target)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, source)
            if node == NULL:
                failed[i] = MISSING
            elif node.kind != K_TEXT:
                failed[i] = WRONG_TYPE
            else:
                error = parse_json(&self.arena, node.text, node.text_size, ints, &made)
                if error:
                    failed[i] = TOO_DEEP if error == JSON_TOO_DEEP else NOT_PARSED
                elif made.kind == K_NIL:
                    pass
                elif made.kind != K_MAP:
                    failed[i] = NOT_PARSED
                elif not self.set(row, target, made):
                    failed[i] = CANNOT_SET
        self.check()
        return failures

    def apply(self, const int32_t[::1] numbers, Path source, Path target, function, bint skips_missing=False):
        """Writes the results of a Python function of the value, called once per distinct text.

        The function raises ValueError if it cannot make anything of the text. ``skips_missing``: a field that is not
        there is no failure.
        """
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef Node* made
        cdef dict results = {}
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        self.kept.append(target)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, source)
            if node == NULL:
                if not skips_missing:
                    failed[i] = MISSING
                continue
            if node.kind != K_TEXT:
                failed[i] = WRONG_TYPE
                continue
            value = to_python(node)
            if value in results:
                result = results[value]
            else:
                try:
                    result = function(value)
                except ValueError:
                    result = ...
                results[value] = result
            if result is ...:
                failed[i] = NOT_PARSED
                continue
            made = self.from_python(result, 1)
            if not self.set(row, target, made):
                failed[i] = CANNOT_SET
        self.check()
        return failures

    def parse_groups(self, const int32_t[::1] numbers, Path source, Path target, match, list names):
        """Writes parts of a text that a function finds, as a map.

        ``match`` returns for the text, in UTF-8, a sequence of pairs of places, or None. ``names`` are pairs of the
        number of a pair and the key of its part; a pair of -1 is an empty text.
        """
        cdef Py_ssize_t i, j, begin, end
        cdef Row* row
        cdef Node* node
        cdef Node* map
        cdef bytes key
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        keys = [(number, name.encode("utf-8", "replace")) for number, name in names]
        self.kept.append(target)
        self.kept.append(keys)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, source)
            if node == NULL or node.kind != K_TEXT:
                failed[i] = MISSING if node == NULL else WRONG_TYPE
                continue
            found = match(PyBytes_FromStringAndSize(node.text, node.text_size))
            if found is None:
                failed[i] = NOT_PARSED
                continue
            map = new_node(&self.arena, K_MAP)
            if map == NULL:
                break
            for j, key in keys:
                begin, end = found[j]
                if not 0 <= begin <= end <= node.text_size:
                    begin = end = 0
                put_named(map, PyBytes_AS_STRING(key), PyBytes_GET_SIZE(key),
                          new_text(&self.arena, node.text + begin, end - begin))
            if not self.set(row, target, map):
                failed[i] = CANNOT_SET
        self.check()
        return failures

    def match_texts(self, const int32_t[::1] numbers, Path path, match, bytes prefix_masks):
        """uint8[n]: 1 if the function returns something else than None for the text, else 0; 2 and 3 as ``test_text``.

        ``prefix_masks``: 32 bytes for each of the first bytes of a text, a bit for each byte that may be there. If they
        are given, they are all that the function tests, unless one of these bytes is not ASCII.
        """
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef const uint8_t* masks = <const uint8_t*>PyBytes_AS_STRING(prefix_masks)
        cdef uint32_t count = <uint32_t>(PyBytes_GET_SIZE(prefix_masks) // 32), j
        cdef uint8_t byte
        cdef int decided
        made = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] view = made
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node == NULL:
                view[i] = 3 if path.root == BODY and row.body.kind != K_MAP else 0
                continue
            if node.kind != K_TEXT:
                view[i] = 0 if node.kind == K_NIL else 2
                continue
            decided = -1
            if count:
                decided = 1 if node.text_size >= count else -1 if not node.text_size else 0
                j = 0
                while j < count and j < node.text_size:
                    byte = <uint8_t>node.text[j]
                    if byte >= 128:
                        decided = -1
                        break
                    if not masks[32 * j + (byte >> 3)] >> (byte & 7) & 1:
                        decided = 0
                        break
                    j += 1
            if decided < 0:
                decided = match(PyBytes_FromStringAndSize(node.text, node.text_size)) is not None
            view[i] = decided
        return made

    def set_value(self, const int32_t[::1] numbers, Path target, value):
        """Sets a field of all rows to the same value."""
        cdef Py_ssize_t i
        cdef Node* template = self.from_python(value, 1)
        cdef Node* made
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        self.kept.append(target)
        for i in range(numbers.shape[0]):
            made = copy_node(&self.arena, template)
            if made == NULL or not self.set(&self.rows[numbers[i]], target, made):
                failed[i] = CANNOT_SET
        self.check()
        return failures

    def set_values(self, const int32_t[::1] numbers, Path target, list values):
        """Sets a field of each row to a value of its own; Ellipsis counts as a failure."""
        cdef Py_ssize_t i
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        self.kept.append(target)
        for i in range(numbers.shape[0]):
            if values[i] is ... or not self.set(&self.rows[numbers[i]], target, self.from_python(values[i], 1)):
                failed[i] = CANNOT_SET
        self.check()
        return failures

    def move(self, const int32_t[::1] numbers, Path source, Path target, bint keeps):
        """Moves a field, or copies it if ``keeps``."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        self.kept.append(target)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            if keeps:
                node = self.get(row, source)
                if node != NULL:
                    node = copy_node(&self.arena, node)
            else:
                node = self.remove(row, source)
            if node == NULL:
                failed[i] = MISSING
            elif not self.set(row, target, node):
                failed[i] = CANNOT_SET
        self.check()
        return failures

    def delete(self, const int32_t[::1] numbers, Path path):
        """Removes a field."""
        cdef Py_ssize_t i
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        for i in range(numbers.shape[0]):
            if self.remove(&self.rows[numbers[i]], path) == NULL:
                failed[i] = MISSING
        self.check()
        return failures

    def retain(self, const int32_t[::1] numbers, list paths):
        """Keeps only these fields below each of the roots that they have."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Row old
        cdef Path path
        cdef Node* node
        cdef bint has_body = False, has_attributes = False, has_resource = False
        failures = np.zeros(numbers.shape[0], np.uint8)
        for path in paths:
            has_body |= path.root == BODY
            has_attributes |= path.root == ATTRIBUTES
            has_resource |= path.root == RESOURCE
            self.kept.append(path)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            old = row[0]
            if has_body:
                row.body = new_node(&self.arena, K_NIL)
            if has_attributes:
                row.attributes = new_node(&self.arena, K_MAP)
            if has_resource:
                row.resource = new_node(&self.arena, K_MAP)
                row.owns_resource = True
            self.check()
            for path in paths:
                node = self.get(&old, path)
                if node != NULL:
                    node = copy_node(&self.arena, node)
                    if node != NULL:
                        self.set(row, path, node)
        self.check()
        return failures

    def flatten(self, const int32_t[::1] numbers, Path path, Path parent):
        """Moves the members of a map to the parent of the map."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef Node* holder
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node == NULL:
                failed[i] = MISSING
            elif node.kind != K_MAP:
                failed[i] = NOT_A_MAP
            else:
                node = self.remove(row, path)
                if node == NULL or not self.set(row, parent, node):
                    failed[i] = CANNOT_SET
        self.check()
        return failures

    def assign_keys(self, const int32_t[::1] numbers, Path path, list keys):
        """Makes a map of a list: its values get these keys."""
        cdef Py_ssize_t i, j
        cdef Row* row
        cdef Node* node
        cdef Node* map
        cdef Node* member
        cdef Node* following
        failures = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] failed = failures
        raw = [key.encode("utf-8", "replace") for key in keys]
        self.kept.append(raw)
        self.kept.append(path)
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node == NULL:
                failed[i] = MISSING
            elif node.kind != K_LIST:
                failed[i] = WRONG_TYPE
            elif node.count != len(raw):
                failed[i] = WRONG_COUNT
            else:
                map = new_node(&self.arena, K_MAP)
                if map == NULL:
                    break
                member = node.first
                for j in range(len(raw)):
                    following = member.next
                    put_named(map, PyBytes_AS_STRING(raw[j]), PyBytes_GET_SIZE(raw[j]), member)
                    member = following
                if not self.set(row, path, map):
                    failed[i] = CANNOT_SET
        self.check()
        return failures

    # Reading fields.

    def values(self, const int32_t[::1] numbers, Path path):
        """One Python object per row; None where the field is missing, Ellipsis where the body has no fields at all."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef list made = []
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node != NULL:
                made.append(to_python(node))
            else:
                made.append(... if path.root == BODY and row.body.kind != K_MAP else None)
        return made

    def text_sizes(self, const int32_t[::1] numbers, Path path):
        """int64[n]: the size of the text in bytes; -1 if the field is missing or has another type."""
        cdef Py_ssize_t i
        cdef Node* node
        made = np.zeros(numbers.shape[0], np.int64)
        cdef int64_t[::1] view = made
        for i in range(numbers.shape[0]):
            node = self.get(&self.rows[numbers[i]], path)
            view[i] = -1 if node == NULL or node.kind != K_TEXT else <int64_t>node.text_size
        return made

    def test_text(self, const int32_t[::1] numbers, Path path, int test, bytes wanted):
        """uint8[n]: 1 if the text is (0), begins with (1), ends with (2) or contains (3) ``wanted``, else 0.

        2: the field has a value that is not a text. 3: the body has no fields at all.
        """
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        cdef const char* text = PyBytes_AS_STRING(wanted)
        cdef uint32_t size = <uint32_t>PyBytes_GET_SIZE(wanted)
        made = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] view = made
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node == NULL:
                view[i] = 3 if path.root == BODY and row.body.kind != K_MAP else 0
            elif node.kind != K_TEXT:
                view[i] = 0 if node.kind == K_NIL else 2
            elif node.text_size < size:
                view[i] = 0
            elif test == 0:
                view[i] = node.text_size == size and memcmp(node.text, text, size) == 0
            elif test == 1:
                view[i] = memcmp(node.text, text, size) == 0
            elif test == 2:
                view[i] = memcmp(node.text + node.text_size - size, text, size) == 0
            else:
                view[i] = size == 0 or memmem(node.text, node.text_size, text, size) != NULL
        return made

    def is_nil(self, const int32_t[::1] numbers, Path path):
        """uint8[n]: 1 if the field is missing or has no value, else 0. 3: the body has no fields at all."""
        cdef Py_ssize_t i
        cdef Row* row
        cdef Node* node
        made = np.zeros(numbers.shape[0], np.uint8)
        cdef uint8_t[::1] view = made
        for i in range(numbers.shape[0]):
            row = &self.rows[numbers[i]]
            node = self.get(row, path)
            if node == NULL:
                view[i] = 3 if path.root == BODY and row.body.kind != K_MAP else 1
            else:
                view[i] = node.kind == K_NIL
        return made

    def join_texts(self, const int32_t[::1] numbers, Path path, bytes separator, bint continues):
        """The texts of a field of these rows, with a separator before each that has something in front of it.

        ``continues``: there is something in front of the first. Values that are no texts are left out.
        """
        cdef Py_ssize_t i
        cdef Node* node
        cdef list parts = []
        for i in range(numbers.shape[0]):
            node = self.get(&self.rows[numbers[i]], path)
            if node != NULL and node.kind == K_TEXT:
                if continues:
                    parts.append(separator)
                parts.append(PyBytes_FromStringAndSize(node.text, node.text_size))
                continues = continues or node.text_size > 0
        return b"".join(parts)

    def set_text(self, int32_t number, Path path, bytes text):
        """Sets a field of one row to a text, which is UTF-8."""
        cdef Node* node
        self.kept.append(text)
        self.kept.append(path)
        node = new_text(&self.arena, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text))
        self.check()
        self.set(&self.rows[number], path, node)


cdef extern from "string.h" nogil:
    void* memmem(const void* haystack, size_t haystack_size, const void* needle, size_t needle_size)
