# The JSON schema of a request as the reader and the writer use it.
from libc.stdint cimport uint32_t

cdef enum:
    MAX_NESTING = 256       # NESTING_MAX of schema.pyx
    MAX_FIELDS = 64         # per message: the writer keeps one bit for each

cdef enum Kind:             # how the values of a field are written in JSON and in protobuf
    K_TEXT
    K_BYTES
    K_HEX
    K_INT64                 # varint, signed
    K_UINT64
    K_INT32
    K_UINT32
    K_SINT32
    K_FIXED64
    K_SFIXED64
    K_FIXED32
    K_ENUM
    K_BOOL
    K_DOUBLE
    K_MESSAGE


cdef class Message:
    """A message type: its fields by name (in both spellings) and by number."""

    cdef dict by_name
    cdef list by_number


cdef class JsonField:
    """One field of a message."""

    cdef int kind
    cdef int wire_type
    cdef int index          # among the fields of its message
    cdef int id_bytes       # of K_HEX
    cdef uint32_t tag       # of one value
    cdef uint32_t packed_tag    # of a packed list of numbers
    cdef bint repeated, presence
    cdef Message message    # of K_MESSAGE
    cdef dict names         # of K_ENUM: the numbers by name
    cdef bytes key          # '"name":'


cdef Message request_schema(str signal)
