"""Series to lines of the Prometheus text format. Knows nothing of label rules: label pieces come as ready-made text.

Source: Prometheus exposition formats, text format 0.0.4; OpenMetrics 1.0.
"""

from cpython.mem cimport PyMem_Free
from libc.math cimport isinf, isnan
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, strlen

cdef extern from "Python.h":
    char* PyOS_double_to_string(double value, char format_code, int precision, int flags, int* type) except NULL

cdef extern from "stdio.h":
    int snprintf(char* buffer, size_t size, const char* format, ...) nogil


cdef class Page:
    """The text so far; grows as needed."""

    cdef uint8_t* bytes
    cdef size_t size, capacity

    def __dealloc__(self):
        free(self.bytes)

    cdef int _room(self, size_t more) except -1:
        cdef size_t capacity = self.capacity if self.capacity else 65536
        cdef uint8_t* moved
        if self.size + more <= self.capacity:
            return 0
        while capacity < self.size + more:
            capacity *= 2
        moved = <uint8_t*> realloc(self.bytes, capacity)
        if moved == NULL:
            raise MemoryError
        self.bytes = moved
        self.capacity = capacity
        return 0

    cdef int _put(self, const uint8_t* at, size_t size) except -1:
        self._room(size)
        if size:
            memcpy(self.bytes + self.size, at, size)
            self.size += size
        return 0

    cdef int _number(self, double value) except -1:
        cdef char[32] digits
        cdef char* text
        if isnan(value):
            return self._put(b"NaN", 3)
        if isinf(value):
            return self._put(b"+Inf" if value > 0 else b"-Inf", 4)
        if -1e15 < value < 1e15 and <double> <int64_t> value == value:
            return self._put(<uint8_t*> digits, snprintf(digits, 32, b"%lld", <long long> value))
        text = PyOS_double_to_string(value, b"r", 0, 0, NULL)
        try:
            self._put(<uint8_t*> text, strlen(text))
        finally:
            PyMem_Free(text)
        return 0

    cdef int _line(self, const uint8_t* name, size_t name_size, const uint8_t* labels, int64_t labels_size,
                   const uint8_t* extra, int32_t extra_size, double value, int64_t time_ms, bint openmetrics) except -1:
        """``name{labels,extra} value [time]``; pieces end with a comma, the last one is taken back."""
        cdef char[32] digits
        cdef int written
        self._put(name, name_size)
        if labels_size or extra_size:
            self._put(b"{", 1)
            self._put(labels, labels_size)
            self._put(extra, extra_size)
            if self.bytes[self.size - 1] == b",":
                self.size -= 1
            self._put(b"}", 1)
        self._put(b" ", 1)
        self._number(value)
        if time_ms >= 0:
            if openmetrics:
                written = snprintf(digits, 32, b" %lld.%03lld", <long long> (time_ms // 1000), <long long> (time_ms % 1000))
            else:
                written = snprintf(digits, 32, b" %lld", <long long> time_ms)
            self._put(<uint8_t*> digits, written)
        self._put(b"\n", 1)
        return 0

    def text(self, bytes text not None):
        """Append as it is."""
        self._put(text, len(text))

    def numbers(self, bytes name not None, const uint8_t[::1] arena not None, const int64_t[:, ::1] labels not None,
                const double[::1] values not None, const int64_t[::1] times_ms not None, bint openmetrics):
        """One line a series. ``labels`` (n, 2): start and size in ``arena``; time -1: none."""
        cdef Py_ssize_t i
        cdef const uint8_t* base = &arena[0] if arena.shape[0] else NULL
        for i in range(values.shape[0]):
            self._line(name, len(name), base + labels[i, 0], labels[i, 1], NULL, 0, values[i], times_ms[i], openmetrics)

    def buckets(self, bytes name not None, bint is_summary, const uint8_t[::1] arena not None, const int64_t[:, ::1] labels not None,
                const uint8_t[::1] extras not None, const int32_t[:, ::1] extra_slices not None, const double[:, ::1] values not None,
                const double[::1] sums not None, const uint8_t[::1] has_sum not None, const double[::1] counts not None,
                const int64_t[::1] times_ms not None, bint openmetrics):
        """Bucket or quantile lines, then ``_sum`` and ``_count``. ``values`` (n, labels) are cumulative already."""
        cdef Py_ssize_t i, j
        cdef const uint8_t* base = &arena[0] if arena.shape[0] else NULL
        cdef bytes bucket = name if is_summary else name + b"_bucket", total = name + b"_sum", count = name + b"_count"
        for i in range(sums.shape[0]):
            for j in range(extra_slices.shape[0]):
                self._line(bucket, len(bucket), base + labels[i, 0], labels[i, 1], &extras[0] + extra_slices[j, 0], extra_slices[j, 1],
                           values[i, j], times_ms[i], openmetrics)
            if has_sum[i]:
                self._line(total, len(total), base + labels[i, 0], labels[i, 1], NULL, 0, sums[i], times_ms[i], openmetrics)
            self._line(count, len(count), base + labels[i, 0], labels[i, 1], NULL, 0, counts[i], times_ms[i], openmetrics)

    def getvalue(self):
        """The page."""
        return self.bytes[:self.size] if self.size else b""
