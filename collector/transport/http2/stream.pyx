"""What a session holds of one stream: the body that comes in, what is left of the one that goes out, and what was told."""

cimport cython
from cpython.object cimport PyObject
from cpython.ref cimport Py_XDECREF
from libc.stdint cimport uint8_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    PyObject *_new_bytes "PyBytes_FromStringAndSize"(const char *, Py_ssize_t) except NULL
    int _PyBytes_Resize(PyObject **, Py_ssize_t) except -1
    char *_bytes_at "PyBytes_AS_STRING"(PyObject *)

cdef enum:
    FIRST_BYTES = 16 * 1024         # a body's buffer may be this large at once; later at most GROWTH times what came
    GROWTH = 4


@cython.freelist(64)
cdef class Stream:
    """Both directions of one stream. ``body`` has one owner, this object, until it is handed over."""

    def __dealloc__(self):
        Py_XDECREF(self.body)

    cdef int append(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t at_most) except -1:
        """Add to the body. Its buffer never has much more room than what came; ``at_most``: bytes it can come to."""
        cdef Py_ssize_t needed = self.size + size
        cdef Py_ssize_t room
        if needed > self.capacity:
            room = max(GROWTH * needed, <Py_ssize_t>FIRST_BYTES)
            room = max(min(room, at_most), needed)
            if self.body == NULL:
                self.body = _new_bytes(NULL, room)
            else:
                self.capacity = 0
                _PyBytes_Resize(&self.body, room)
            self.capacity = room
        memcpy(_bytes_at(self.body) + self.size, data, size)
        self.size = needed
        return 0

    cdef bytes take(self):
        """The body so far, and an empty one in its place."""
        cdef PyObject *body = self.body
        cdef Py_ssize_t size = self.size, capacity = self.capacity
        self.body, self.size, self.capacity = NULL, 0, 0
        if body == NULL:
            return b""
        if size != capacity:
            _PyBytes_Resize(&body, size)
        taken = <bytes>body
        Py_XDECREF(body)
        return taken
