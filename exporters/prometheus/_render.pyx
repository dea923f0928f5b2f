"""Writes series as lines of the Prometheus text format.

The kernel does not know label rules: pieces of labels arrive as finished text, each label with a comma at its end.

Exemplars are numbers of records (``exporters.prometheus.exemplars``); 0: none.

Source: Prometheus exposition formats, text format 0.0.4; OpenMetrics 1.0.
"""

from cpython.mem cimport PyMem_Free
from libc.math cimport isinf, isnan
from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from collector.wire.writer cimport Writer, close_writer, open_writer, put_byte, put_bytes, take

cdef extern from "Python.h":
    char *PyOS_double_to_string(double value, char format_code, int precision, int flags, int *type) except NULL

cdef extern from "stdio.h":
    int snprintf(char *buffer, size_t size, const char *format, ...) nogil

cdef Py_ssize_t INITIAL_BYTES = 65536
cdef uint8_t[16] HEX
HEX[:] = b"0123456789abcdef"


cdef packed struct ExemplarRecord:
    double value
    int64_t time_ms
    uint64_t trace_id_hi, trace_id_lo, span_id
    int64_t labels, labels_len


cdef class Page:
    """The text written so far."""

    cdef Writer out
    cdef const uint8_t[::1] exemplar_records
    cdef const uint8_t[::1] exemplar_arena

    def __cinit__(self):
        open_writer(&self.out, INITIAL_BYTES)

    def __dealloc__(self):
        close_writer(&self.out)

    def text(self, bytes text not None):
        """Append ``text`` as it is."""
        put_bytes(&self.out, <const char *>text, len(text))

    def set_exemplars(
        self,
        const uint8_t[::1] records not None,         # ExemplarRecord
        const uint8_t[::1] arena not None,           # the other labels of each exemplar
    ):
        """Set what the numbers of exemplars mean. Without it, no exemplars are written."""
        self.exemplar_records = records
        self.exemplar_arena = arena

    def numbers(
        self,
        bytes name not None,
        bint quoted,                                 # ``name`` is written within the braces
        const uint8_t[::1] arena not None,
        const int64_t[:, ::1] labels not None,       # (series, 2): start and size in ``arena``
        const double[::1] values not None,
        const int64_t[::1] times_ms not None,        # -1: the line has no timestamp
        const int32_t[::1] exemplars not None,       # (series,), or empty
        bint openmetrics,
    ):
        """Append one line per series."""
        cdef Py_ssize_t i
        cdef bint has_exemplars = exemplars.shape[0] > 0
        cdef const uint8_t *base = &arena[0] if arena.shape[0] else NULL
        for i in range(values.shape[0]):
            self._line(name, quoted, base + labels[i, 0], labels[i, 1], NULL, 0, values[i], times_ms[i], openmetrics,
                       exemplars[i] if has_exemplars else 0)

    def buckets(
        self,
        bytes name not None,
        bint quoted,
        bint is_summary,
        const uint8_t[::1] arena not None,
        const int64_t[:, ::1] labels not None,       # (series, 2): start and size in ``arena``
        const uint8_t[::1] extras not None,
        const int32_t[:, ::1] extra_slices not None, # (values, 2): start and size of the ``le`` or ``quantile`` label
        const double[:, ::1] values not None,        # (series, values): bucket counts are cumulative already
        const double[::1] sums not None,
        const uint8_t[::1] has_sum not None,
        const double[::1] counts not None,
        const int64_t[::1] times_ms not None,        # -1: the line has no timestamp
        const int32_t[:, ::1] exemplars not None,    # (series, values), or empty
        bint openmetrics,
    ):
        """Append the bucket or quantile lines of each series, then its ``_sum`` and ``_count``."""
        cdef Py_ssize_t i, j
        cdef const uint8_t *base = &arena[0] if arena.shape[0] else NULL
        cdef const uint8_t *at
        cdef bytes value_name = name if is_summary else name + b"_bucket"
        cdef bytes sum_name = name + b"_sum", count_name = name + b"_count"
        cdef bint has_exemplars = exemplars.shape[0] > 0
        for i in range(sums.shape[0]):
            at = base + labels[i, 0]
            for j in range(extra_slices.shape[0]):
                self._line(value_name, quoted, at, labels[i, 1], &extras[0] + extra_slices[j, 0], extra_slices[j, 1],
                           values[i, j], times_ms[i], openmetrics, exemplars[i, j] if has_exemplars else 0)
            if has_sum[i]:
                self._line(sum_name, quoted, at, labels[i, 1], NULL, 0, sums[i], times_ms[i], openmetrics, 0)
            self._line(count_name, quoted, at, labels[i, 1], NULL, 0, counts[i], times_ms[i], openmetrics, 0)

    def getvalue(self):
        """The page."""
        return take(&self.out)

    cdef int _line(
        self, bytes name, bint quoted, const uint8_t *labels, int64_t labels_size, const uint8_t *extra,
        int32_t extra_size, double value, int64_t time_ms, bint openmetrics, int32_t exemplar,
    ) except -1:
        """``name{labels,extra} value [time] [exemplar]``, without the comma that the last label piece ends with.

        A quoted name is within the braces: ``{"name",labels,extra}``.
        """
        if not quoted:
            put_bytes(&self.out, <const char *>name, len(name))
        if labels_size or extra_size or quoted:
            put_byte(&self.out, b"{")
            if quoted:
                put_byte(&self.out, b'"')
                put_bytes(&self.out, <const char *>name, len(name))
                put_bytes(&self.out, b'",', 2)
            put_bytes(&self.out, labels, labels_size)
            put_bytes(&self.out, extra, extra_size)
            if not self.out.failed and self.out.data[self.out.size - 1] == b",":
                self.out.size -= 1
            put_byte(&self.out, b"}")
        put_byte(&self.out, b" ")
        self._number(value)
        if time_ms >= 0:
            self._time(time_ms, openmetrics)
        if exemplar > 0 and self.exemplar_records is not None:
            self._exemplar(exemplar)
        put_byte(&self.out, b"\n")
        return 0

    cdef int _exemplar(self, int32_t number) except -1:
        """`` # {trace_id="...",span_id="...",labels} value time``, each label only if there is one."""
        cdef const ExemplarRecord *record
        cdef int64_t end
        if (number + 1) * <Py_ssize_t>sizeof(ExemplarRecord) > self.exemplar_records.shape[0]:
            raise IndexError("there is no such exemplar")
        record = &(<const ExemplarRecord *>&self.exemplar_records[0])[number]
        end = record.labels + record.labels_len
        if record.labels < 0 or record.labels_len < 0 or end > self.exemplar_arena.shape[0]:
            raise IndexError("the labels of an exemplar are not within the arena")
        put_bytes(&self.out, b" # {", 4)
        if record.trace_id_hi | record.trace_id_lo:
            put_bytes(&self.out, b'trace_id="', 10)
            self._hex(record.trace_id_hi)
            self._hex(record.trace_id_lo)
            put_bytes(&self.out, b'",', 2)
        if record.span_id:
            put_bytes(&self.out, b'span_id="', 9)
            self._hex(record.span_id)
            put_bytes(&self.out, b'",', 2)
        if record.labels_len:
            put_bytes(&self.out, &self.exemplar_arena[record.labels], record.labels_len)
        if not self.out.failed and self.out.data[self.out.size - 1] == b",":
            self.out.size -= 1
        put_bytes(&self.out, b"} ", 2)
        self._number(record.value)
        self._time(record.time_ms, True)
        return 0

    cdef int _hex(self, uint64_t word) except -1:
        cdef int i
        for i in range(16):
            put_byte(&self.out, HEX[(word >> (60 - 4 * i)) & 15])
        return 0

    cdef int _time(self, int64_t time_ms, bint openmetrics) except -1:
        """A space and the time: in milliseconds, or for OpenMetrics in seconds."""
        cdef char[32] digits
        cdef int written
        if openmetrics:
            written = snprintf(digits, 32, b" %lld.%03lld", <long long>(time_ms // 1000), <long long>(time_ms % 1000))
        else:
            written = snprintf(digits, 32, b" %lld", <long long>time_ms)
        put_bytes(&self.out, digits, written)
        return 0

    cdef int _number(self, double value) except -1:
        cdef char[32] digits
        cdef char *text
        if isnan(value):
            put_bytes(&self.out, b"NaN", 3)
        elif isinf(value):
            put_bytes(&self.out, b"+Inf" if value > 0 else b"-Inf", 4)
        elif -1e15 < value < 1e15 and <double><int64_t>value == value:
            put_bytes(&self.out, digits, snprintf(digits, 32, b"%lld", <long long>value))
        else:
            text = PyOS_double_to_string(value, b"r", 0, 0, NULL)
            put_bytes(&self.out, text, strlen(text))
            PyMem_Free(text)
        return 0
