"""The thread that writes the own log: an output that fails or blocks costs log lines and nothing else."""

import io
import os
import threading
import time

from collector.cli import _log_writer
from collector.cli._log_writer import LogWriter


class Failing(io.StringIO):
    """A stream that cannot be written while ``is_broken``."""

    is_broken = True

    def write(self, text):
        if self.is_broken:
            raise OSError(28, "No space left on device")
        return super().write(text)


def until(condition, timeout_s=5.0):
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_lines_reach_every_output_in_order():
    """Outputs without a file descriptor receive them as well."""
    outputs = [io.StringIO(), io.StringIO()]
    writer = LogWriter(outputs)
    for number in range(100):
        writer.write(f"{number}\n")
    writer.close()
    assert [output.getvalue().split() for output in outputs] == [[str(number) for number in range(100)]] * 2
    assert writer.lost_line_count == 0


def test_an_output_that_cannot_be_written_loses_lines_alone(monkeypatch):
    """The other output has all of them, and the failing one says later how many it lost."""
    monkeypatch.setattr(_log_writer, "_RETRY_S", 0.0)
    broken, sound = Failing(), io.StringIO()
    writer = LogWriter([broken, sound])
    writer.write("a\n")
    until(lambda: sound.getvalue() == "a\n")
    until(lambda: writer.lost_line_count == 1)
    broken.is_broken = False
    writer.write("b\n")
    writer.close()
    assert broken.getvalue() == "1 log lines could not be written\nb\n"
    assert sound.getvalue() == "a\nb\n"


def test_an_output_that_blocks_holds_up_nobody():
    """A pipe that nobody reads: writing returns, the queue is bounded, lines beyond it are counted."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream, os.fdopen(read_end, "rb") as reader:
        writer = LogWriter([stream], max_bytes=10_000)
        line = "x" * 99 + "\n"
        writing = threading.Thread(target=lambda: [writer.write(line) for _ in range(5_000)])
        writing.start()
        writing.join(5)
        assert not writing.is_alive()
        assert writer.lost_line_count > 0
        received = threading.Thread(target=lambda: writer.close() or stream.close())
        received.start()
        data = reader.read()
        received.join(5)
        assert line.encode() in data


def test_a_closed_pipe_is_no_error():
    """The reader ends, as `head` does: what is logged afterwards is lost and counted."""
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "w") as stream:
        writer = LogWriter([stream])
        os.close(read_end)
        writer.write("a\n")
        until(lambda: writer.lost_line_count == 1)
        writer.close()


def test_an_output_that_blocks_does_not_hold_up_the_others():
    """A terminal that does not read costs its own lines; a file has all of them."""
    read_end, write_end = os.pipe()
    sound = io.StringIO()
    with os.fdopen(write_end, "w") as stream, os.fdopen(read_end, "rb") as reader:
        writer = LogWriter([stream, sound])
        writer.write("x" * 200_000 + "\n")  # more than a pipe holds
        writer.write("a\n")
        until(lambda: sound.getvalue().endswith("a\n"))
        received = threading.Thread(target=lambda: writer.close() or stream.close())
        received.start()
        assert reader.read().endswith(b"a\n")
        received.join(5)


def test_a_non_blocking_output_is_waited_for():
    """A pipe that another process made non-blocking gets whole lines once it is read."""
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with os.fdopen(write_end, "w") as stream, os.fdopen(read_end, "rb") as reader:
        writer = LogWriter([stream])
        lines = [f"{number}" * 30_000 for number in range(5)]
        for line in lines:
            writer.write(line + "\n")
        received = threading.Thread(target=lambda: writer.close() or stream.close())
        received.start()
        assert reader.read().decode().split() == lines
        received.join(5)
        assert writer.lost_line_count == 0


def test_a_line_after_one_that_was_torn_starts_anew(monkeypatch, tmp_path):
    """A full disk can cut a line; the next line is not glued to its rest."""
    monkeypatch.setattr(_log_writer, "_RETRY_S", 0.0)
    answers = [5, OSError(28, "No space left on device")]
    write = os.write

    def fail_within_a_line(descriptor, data):
        if not answers:
            return write(descriptor, data)
        answer = answers.pop(0)
        if isinstance(answer, OSError):
            raise answer
        return write(descriptor, data[:answer])

    path = tmp_path / "log"
    with path.open("w") as stream:
        monkeypatch.setattr(_log_writer.os, "write", fail_within_a_line)
        writer = LogWriter([stream])
        writer.write("a long line\n")
        until(lambda: writer.lost_line_count == 1)
        writer.write("b\n")
        writer.close()
        monkeypatch.undo()
    assert path.read_text() == "a lon\n1 log lines could not be written\nb\n"
