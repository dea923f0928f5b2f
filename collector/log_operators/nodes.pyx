"""The values of log entries as trees in an arena. See ``nodes.pxd``."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcmp, memcpy, memset

cdef enum:
    CHUNK_BYTES = 65536
    PAIRWISE_MAX = 16       # maps up to this size are searched for duplicates pair by pair


cdef void* take_memory(Arena* arena, size_t size) noexcept nogil:
    """``size`` bytes, aligned to 8; NULL without memory."""
    cdef Chunk* chunk = arena.chunk
    cdef size_t room
    cdef char* found
    size = (size + 7) & ~<size_t>7
    if chunk == NULL or chunk.size - chunk.used < size:
        room = size + sizeof(Chunk)
        if room < CHUNK_BYTES:
            room = CHUNK_BYTES
        chunk = <Chunk*>malloc(room)
        if chunk == NULL:
            arena.failed = True
            return NULL
        chunk.size = room
        chunk.used = sizeof(Chunk)
        chunk.next = arena.chunk
        arena.chunk = chunk
        arena.total += room
    found = <char*>chunk + chunk.used
    chunk.used += size
    return found


cdef void free_arena(Arena* arena) noexcept nogil:
    cdef Chunk* chunk = arena.chunk
    cdef Chunk* following
    while chunk != NULL:
        following = chunk.next
        free(chunk)
        chunk = following
    arena.chunk = NULL
    arena.total = 0


cdef Node* new_node(Arena* arena, uint8_t kind) noexcept nogil:
    cdef Node* node = <Node*>take_memory(arena, sizeof(Node))
    if node != NULL:
        memset(node, 0, sizeof(Node))
        node.kind = kind
    return node


cdef const char* keep_text(Arena* arena, const char* text, size_t size) noexcept nogil:
    """A copy of the text, with a NUL behind it; the empty text without memory, and ``arena.failed`` is then set."""
    cdef char* kept = <char*>take_memory(arena, size + 1)
    if kept == NULL:
        return b""
    memcpy(kept, text, size)
    kept[size] = 0
    return kept


cdef Node* find_member(Node* map, const char* key, uint32_t key_size) noexcept nogil:
    cdef Node* member = map.first
    while member != NULL:
        if member.key_size == key_size and (
            key_size == 0 or (member.key[0] == key[0] and memcmp(member.key, key, key_size) == 0)
        ):
            return member
        member = member.next
    return NULL


cdef void append_member(Node* parent, Node* member) noexcept nogil:
    member.next = NULL
    if parent.last == NULL:
        parent.first = member
    else:
        parent.last.next = member
    parent.last = member
    parent.count += 1


cdef Node* remove_member(Node* map, const char* key, uint32_t key_size) noexcept nogil:
    """The member, which is no longer in the map; NULL if it was not."""
    cdef Node* before = NULL
    cdef Node* member = map.first
    while member != NULL:
        if member.key_size == key_size and memcmp(member.key, key, key_size) == 0:
            if before == NULL:
                map.first = member.next
            else:
                before.next = member.next
            if map.last == member:
                map.last = before
            map.count -= 1
            member.next = NULL
            return member
        before = member
        member = member.next
    return NULL


cdef void put_member(Node* map, Node* member) noexcept nogil:
    """Adds the member in place of one with the same key."""
    remove_member(map, member.key, member.key_size)
    append_member(map, member)


cdef void merge_members(Node* target, Node* source) noexcept nogil:
    """Moves the members of a map, which has no duplicates, to another; they replace those with the same keys."""
    if source.first == NULL or source == target:
        return
    if target.first == NULL:
        target.first, target.last, target.count = source.first, source.last, source.count
    else:
        target.last.next = source.first
        target.last = source.last
        target.count += source.count
        drop_duplicates(target)
    source.first = source.last = NULL
    source.count = 0


cdef inline uint64_t _hashed(const char* key, uint32_t size) noexcept nogil:
    cdef uint64_t value = 14695981039346656037ULL
    cdef uint32_t i
    for i in range(size):
        value = (value ^ <uint8_t>key[i]) * 1099511628211ULL
    return value ^ value >> 29


cdef void drop_duplicates(Node* map) noexcept nogil:
    """Keeps the last of the members with the same key, as a Go map does."""
    cdef Node** table
    cdef Node* member
    cdef Node* other
    cdef Node* following
    cdef uint64_t mask, place
    cdef uint32_t probes
    if map.count <= PAIRWISE_MAX:
        _drop_pairwise(map)
        return
    mask = 1
    while mask < 4 * <uint64_t>map.count:
        mask <<= 1
    table = <Node**>calloc(mask, sizeof(Node*))
    if table == NULL:
        _drop_pairwise(map)
        return
    mask -= 1
    member = map.first
    map.first = map.last = NULL
    map.count = 0
    while member != NULL:
        following = member.next
        place = _hashed(member.key, member.key_size) & mask
        probes = 0
        while True:
            other = table[place]
            if other == NULL:
                table[place] = member
                append_member(map, member)
                break
            if other.key_size == member.key_size and memcmp(other.key, member.key, member.key_size) == 0:
                _take_value(other, member)
                break
            place = (place + 1) & mask
            probes += 1
        member = following
    free(table)


cdef void _take_value(Node* target, Node* source) noexcept nogil:
    """Gives a member the value of another, in its place."""
    target.text, target.first, target.last = source.text, source.first, source.last
    target.number, target.real = source.number, source.real
    target.text_size, target.count, target.kind = source.text_size, source.count, source.kind


cdef void _drop_pairwise(Node* map) noexcept nogil:
    cdef Node* member = map.first
    cdef Node* other
    cdef Node* before
    while member != NULL:
        before = member
        other = member.next
        while other != NULL:
            if other.key_size == member.key_size and memcmp(other.key, member.key, member.key_size) == 0:
                _take_value(member, other)
                before.next = other.next
                if map.last == other:
                    map.last = before
                map.count -= 1
                other = before.next
            else:
                before = other
                other = other.next
        member = member.next


cdef Node* copy_node(Arena* arena, Node* node) noexcept nogil:
    """A copy of the tree; texts are shared. NULL without memory."""
    cdef Node* made = <Node*>take_memory(arena, sizeof(Node))
    cdef Node* member
    cdef Node* copied
    if made == NULL:
        return NULL
    memcpy(made, node, sizeof(Node))
    made.next = made.first = made.last = NULL
    made.count = 0
    member = node.first
    while member != NULL:
        copied = copy_node(arena, member)
        if copied == NULL:
            return NULL
        append_member(made, copied)
        member = member.next
    return made
