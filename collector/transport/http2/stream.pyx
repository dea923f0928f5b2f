"""A session's state of one stream: the body received, the body to send, and what was reported of it."""

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
    FIRST_BYTES = 16 * 1024  # a body's buffer may have this size at once; later at most GROWTH times what was received
    GROWTH = 4


@cython.freelist(64)
cdef class Stream:
    """Both directions of one stream. ``body`` is a bytes object that only this object refers to, until it is taken."""

    def __dealloc__(self):
        Py_XDECREF(self.body)

    cdef int append(self, const uint8_t *data, Py_ssize_t size, Py_ssize_t at_most) except -1:
        """Append to the body, whose buffer is never much larger than the input; ``at_most``: its largest size."""
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

    cdef bytes take_body(self):
        """Return the body received so far, and start an empty one."""
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
