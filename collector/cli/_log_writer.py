"""Writes the own log in threads, so that an output that fails or blocks never holds up the data.

Each output has a thread and a bounded queue of its own: one that blocks does not keep lines from the others. If an
output cannot be written (a closed pipe, a full disk, a terminal that does not read), lines are lost and counted; once
it can be written again, a line says how many were lost.
"""

import contextlib
import os
import select
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Final

__all__ = ["LogWriter"]

_QUEUE_MAX_BYTES: Final = 4 * 1024 * 1024
_LINES_PER_WRITE: Final = 64
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
        """``lost_line`` renders the line that says how many were lost, in the log's encoding.

        ``max_bytes`` bounds the queue of each output.
        """
        self._outputs = [_Output(stream, lost_line, max_bytes) for stream in outputs]

    @property
    def lost_line_count(self) -> int:
        """Lines that did not reach every output."""
        return max((output.lost_line_count for output in self._outputs), default=0)

    def write(self, text: str) -> int:
        """Queue ``text`` for each output, or count it as lost where the queue is full."""
        for output in self._outputs:
            output.add(text)
        return len(text)

    def flush(self) -> None:
        """Nothing: the threads write at once."""

    def close(self) -> None:
        """Write what is queued, for at most two seconds."""
        deadline_s = time.monotonic() + _CLOSE_TIMEOUT_S
        for output in self._outputs:
            output.end()
        for output in self._outputs:
            output.join(deadline_s - time.monotonic())


class _Output:
    """One output: its queue, the thread that writes it, and what it could not take."""

    def __init__(self, stream: IO[str], lost_line: Callable[[int], str], max_bytes: int) -> None:
        self._stream = stream
        self._lost_line = lost_line
        self._max_bytes = max_bytes
        self._file_descriptor: int | None = None
        # Written past the stream's own buffer: a thread that blocks while it holds the buffer's lock would keep the
        # interpreter from ending.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
            self._file_descriptor = stream.fileno()
        self._retry_at_s = 0.0
        self._is_torn = False  # a write ended within a line
        self._lost_in_queue = self._lost_in_write = self._reported_count = 0
        self._lines: deque[str] = deque()
        self._queued_bytes = 0
        self._is_ended = False
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="log-writer", daemon=True)
        self._thread.start()

    @property
    def lost_line_count(self) -> int:
        return self._lost_in_queue + self._lost_in_write

    def add(self, text: str) -> None:
        with self._wake:
            if self._queued_bytes + len(text) > self._max_bytes or self._is_ended:
                self._lost_in_queue += 1
            else:
                self._lines.append(text)
                self._queued_bytes += len(text)
                self._wake.notify()

    def end(self) -> None:
        with self._wake:
            self._is_ended = True
            self._wake.notify()

    def join(self, timeout_s: float) -> None:
        self._thread.join(max(0.0, timeout_s))

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._lines and not self._is_ended:
                    self._wake.wait()
                lines, self._lines = list(self._lines), deque()
                self._queued_bytes = 0
            if not lines:
                return
            self._write_lines(lines)

    def _write_lines(self, lines: Sequence[str]) -> None:
        if time.monotonic() < self._retry_at_s:
            self._lost_in_write += len(lines)
            return
        lost_count = self.lost_line_count
        notice = (
            [self._lost_line(lost_count - self._reported_count) + "\n"] if lost_count > self._reported_count else []
        )
        written_count = 0
        try:
            for text in _chunks([*notice, *lines]):
                self._write(("\n" if self._is_torn else "") + "".join(text))
                self._is_torn = False
                written_count += len(text)
        except (OSError, ValueError):  # closed pipe, full disk, closed stream
            self._retry_at_s = time.monotonic() + _RETRY_S
            self._lost_in_write += len(lines) - max(0, written_count - len(notice))
        if written_count >= len(notice):
            self._reported_count = lost_count

    def _write(self, text: str) -> None:
        if self._file_descriptor is None:
            self._stream.write(text)
            self._stream.flush()
            return
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        while rest:
            try:
                rest = rest[os.write(self._file_descriptor, rest) :]
            except BlockingIOError:  # another process has made a shared terminal or pipe non-blocking
                waiting = select.poll()
                waiting.register(self._file_descriptor, select.POLLOUT)
                waiting.poll()
            else:
                self._is_torn = bool(rest)


def _chunks(lines: Sequence[str]) -> Iterator[Sequence[str]]:
    """The lines in groups, so that few are lost with one that cannot be written."""
    return (lines[start : start + _LINES_PER_WRITE] for start in range(0, len(lines), _LINES_PER_WRITE))
