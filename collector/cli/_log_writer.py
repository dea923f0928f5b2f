"""Writes the own log in a thread, so that an output that fails or blocks never holds up the data.

Lines wait in a bounded queue. If an output cannot be written (a closed pipe, a full disk, a terminal that does not
read), lines are lost and counted; once it can be written again, a line says how many were lost.
"""

import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import IO, Final

__all__ = ["LogWriter"]

_QUEUE_MAX_BYTES: Final = 4 * 1024 * 1024
_CLOSE_TIMEOUT_S: Final = 2.0
_RETRY_S: Final = 1.0  # an output that failed is tried again after this long


class LogWriter:
    """A text stream that takes whole lines and writes each to every output. ``write`` never blocks and never raises."""

    def __init__(
        self,
        outputs: Sequence[IO[str]],
        *,
        lost_line: Callable[[int], str] = "{} log lines could not be written".format,
        max_bytes: int = _QUEUE_MAX_BYTES,
    ) -> None:
        """``lost_line`` renders the line that says how many were lost, in the log's encoding."""
        self._outputs = [_Output(stream, lost_line) for stream in outputs]
        self._max_bytes = max_bytes
        self._lines: deque[str] = deque()
        self._queued_bytes = 0
        self._lost_in_queue = 0
        self._wake = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def lost_line_count(self) -> int:
        """Lines that reached not all outputs."""
        return self._lost_in_queue + max((output.lost_line_count for output in self._outputs), default=0)

    def write(self, text: str) -> int:
        """Queue ``text``, or count it as lost if the queue is full."""
        with self._wake:
            if self._queued_bytes + len(text) > self._max_bytes or self._is_closed:
                self._lost_in_queue += 1
            else:
                self._lines.append(text)
                self._queued_bytes += len(text)
                self._wake.notify()
        return len(text)

    def flush(self) -> None:
        """Nothing: the thread writes at once."""

    def close(self) -> None:
        """Write what is queued, for at most two seconds."""
        with self._wake:
            self._is_closed = True
            self._wake.notify()
        self._thread.join(_CLOSE_TIMEOUT_S)

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._is_closed:
                    self._wake.wait()
                lines, self._lines = list(self._lines), deque()
                self._queued_bytes = 0
                if not lines and self._is_closed:
                    return
                lost, self._lost_in_queue = self._lost_in_queue, 0
            for output in self._outputs:
                output.lost_line_count += lost
                output.write(lines)


class _Output:
    """One output, and what it could not take."""

    def __init__(self, stream: IO[str], lost_line: Callable[[int], str]) -> None:
        self._stream = stream
        self._lost_line = lost_line
        self._file_descriptor: int | None = None
        # Written past the stream's own buffer: a thread that blocks while it holds the buffer's lock would keep the
        # interpreter from ending.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
            self._file_descriptor = stream.fileno()
        self._retry_at_s = 0.0
        self.lost_line_count = 0
        self._reported_count = 0

    def write(self, lines: Sequence[str]) -> None:
        if time.monotonic() < self._retry_at_s:
            self.lost_line_count += len(lines)
            return
        if self.lost_line_count > self._reported_count:
            lines = [self._lost_line(self.lost_line_count - self._reported_count) + "\n", *lines]
        try:
            self._write("".join(lines))
        except (OSError, ValueError):  # closed pipe, full disk, closed stream
            self._retry_at_s = time.monotonic() + _RETRY_S
            self.lost_line_count += len(lines)
        else:
            self._reported_count = self.lost_line_count

    def _write(self, text: str) -> None:
        if self._file_descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            rest = rest[os.write(self._file_descriptor, rest) :]
