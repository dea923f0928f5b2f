# The values of log entries as trees in an arena: what the Collector keeps in a map[string]any per entry is here a few
# structs that live as long as the block of entries. Texts point into the block or into the arena; nothing is freed
# before the arena is.
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t

cdef enum Kind:
    K_NIL
    K_TEXT
    K_INT
    K_DOUBLE
    K_BOOL
    K_MAP
    K_LIST
    K_BYTES

ctypedef struct Chunk:
    Chunk* next
    size_t size, used

ctypedef struct Arena:
    Chunk* chunk
    size_t total        # bytes taken from the system
    bint failed         # memory ran out; what was made since is not complete

ctypedef struct Node:
    const char* key         # of a member of a map
    const char* text        # of K_TEXT and K_BYTES
    Node* next              # among the members of the same map or list
    Node* first
    Node* last
    int64_t number          # of K_INT and K_BOOL
    double real             # of K_DOUBLE
    uint32_t key_size, text_size
    uint32_t count          # members of a map or list
    uint8_t kind

cdef void* take_memory(Arena* arena, size_t size) noexcept nogil
cdef void free_arena(Arena* arena) noexcept nogil
cdef Node* new_node(Arena* arena, uint8_t kind) noexcept nogil
cdef const char* keep_text(Arena* arena, const char* text, size_t size) noexcept nogil
cdef Node* find_member(Node* map, const char* key, uint32_t key_size) noexcept nogil
cdef void append_member(Node* parent, Node* member) noexcept nogil
cdef Node* remove_member(Node* map, const char* key, uint32_t key_size) noexcept nogil
cdef void put_member(Node* map, Node* member) noexcept nogil
cdef void merge_members(Node* target, Node* source) noexcept nogil
cdef void drop_duplicates(Node* map) noexcept nogil
cdef Node* copy_node(Arena* arena, Node* node) noexcept nogil


cdef inline Node* new_text(Arena* arena, const char* text, size_t size) noexcept nogil:
    cdef Node* node = new_node(arena, K_TEXT)
    if node != NULL:
        node.text = text
        node.text_size = <uint32_t>size
    return node


cdef inline Node* new_int(Arena* arena, int64_t number) noexcept nogil:
    cdef Node* node = new_node(arena, K_INT)
    if node != NULL:
        node.number = number
    return node


cdef inline void put_named(Node* map, const char* key, size_t key_size, Node* member) noexcept nogil:
    """Sets a member; a NULL member, without memory, is ignored."""
    if member != NULL:
        member.key = key
        member.key_size = <uint32_t>key_size
        put_member(map, member)
