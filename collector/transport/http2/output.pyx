"""The output of a session at one time, as pieces of bytes. Large pieces of bodies are not copied."""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.stdint cimport uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy

from collector.transport.http2.stream cimport Stream

cdef enum:
    BY_REFERENCE_BYTES = 8 * 1024  # shorter pieces of a body are copied: a reference would cost as much
    BUFFER_BYTES = 16 * 1024

cdef char *_spare = NULL  # a buffer of BUFFER_BYTES, kept for the next Output


@cython.freelist(8)
cdef class Output:
    """Collects frames in a buffer; a large piece of a body ends the buffer and becomes a piece of its own."""

    def __cinit__(self):
        global _spare
        self.pieces = []
        if _spare != NULL:
            self.buffer, self.capacity, _spare = _spare, BUFFER_BYTES, NULL

    def __dealloc__(self):
        global _spare
        if self.capacity == BUFFER_BYTES and _spare == NULL:
            _spare = self.buffer
        else:
            free(self.buffer)

    cdef int write(self, const uint8_t *data, size_t size) except -1:
        """Copy ``data``."""
        cdef size_t capacity
        cdef char *buffer
        if self.size + size > self.capacity:
            capacity = max(2 * self.capacity, self.size + size, <size_t>BUFFER_BYTES)
            buffer = <char *>realloc(self.buffer, capacity)
            if buffer == NULL:
                raise MemoryError
            self.buffer, self.capacity = buffer, capacity
        memcpy(self.buffer + self.size, data, size)
        self.size += size
        self.remaining -= size
        return 0

    cdef int write_body(self, Stream stream, Py_ssize_t size) except -1:
        """Add the next ``size`` bytes of the stream's body."""
        cdef bytes chunk
        cdef Py_ssize_t part
        stream.queued -= size
        while size:
            chunk = stream.chunks[stream.chunk_index]
            part = min(size, PyBytes_GET_SIZE(chunk) - stream.offset)
            if part < BY_REFERENCE_BYTES:
                self.write(<const uint8_t *>PyBytes_AS_STRING(chunk) + stream.offset, part)
            else:
                self._close_piece()
                self.remaining -= part
                if part == PyBytes_GET_SIZE(chunk):
                    self.pieces.append(chunk)
                else:
                    self.pieces.append(memoryview(chunk)[stream.offset : stream.offset + part])
            size -= part
            stream.offset += part
            if stream.offset == PyBytes_GET_SIZE(chunk):
                stream.chunks[stream.chunk_index] = None
                stream.chunk_index += 1
                stream.offset = 0
        if stream.chunk_index == len(stream.chunks):
            stream.chunks.clear()
            stream.chunk_index = 0
        return 0

    cdef list finish(self):
        """Return all pieces, in order."""
        self._close_piece()
        return self.pieces

    cdef int _close_piece(self) except -1:
        if self.size:
            self.pieces.append(PyBytes_FromStringAndSize(self.buffer, self.size))
            self.size = 0
        return 0
