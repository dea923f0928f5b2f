"""A CPU profile of the process, by sampling.

A thread looks at the stacks of all Python threads a hundred times per second, and adds to each stack the CPU time that
its thread has used since the last look; idle threads therefore add nothing. Where the kernel does not tell the CPU time
of a thread (other systems than Linux), every look counts as one period.

A stack can only be seen where the interpreter may switch threads. The time of a compiled kernel that keeps the GIL is
therefore attributed to the function that called it.
"""

import sys
import threading
import time
from pathlib import Path
from typing import Final

from extensions.pprof.profile import Frame, ProfileBuilder
from extensions.pprof.stacks import Position, frame_of, positions

__all__ = ["CPUSampler"]

_PERIOD_NS: Final = 10_000_000
_STACKS_MAX: Final = 10_000
_OTHER: Final = Frame("(stacks beyond the limit)", "", 0)


class CPUSampler:
    """Samples from ``start`` to ``stop``. The memory it uses is bounded by the number of distinct stacks."""

    def __init__(self, stacks_max: int = _STACKS_MAX) -> None:
        self._stacks_max = stacks_max
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pprof sampler", daemon=True)
        self._counts: dict[tuple[Position, ...], list[int]] = {}
        """Stack → number of samples, nanoseconds."""
        self._used_ns: dict[int, int] = {}
        self._began_unix_nano = self._began_ns = 0

    @property
    def sample_count(self) -> int:
        """Samples taken so far."""
        return sum(count for count, _ in self._counts.copy().values())

    def start(self) -> None:
        """Begin."""
        self._began_unix_nano, self._began_ns = time.time_ns(), time.monotonic_ns()
        self._thread.start()

    def stop(self) -> bytes:
        """End, and return the profile as a file."""
        self._stop.set()
        self._thread.join()
        builder = ProfileBuilder(("samples", "count"), ("cpu", "nanoseconds"))
        builder.period("cpu", "nanoseconds", _PERIOD_NS)
        for stack, values in self._counts.items():
            builder.add([frame_of(position) for position in stack] if stack else [_OTHER], values)
        return builder.build(time_unix_nano=self._began_unix_nano, duration_ns=time.monotonic_ns() - self._began_ns)

    def _run(self) -> None:
        own = threading.get_ident()
        while True:
            native_ids = {thread.ident: thread.native_id for thread in threading.enumerate()}
            # All stacks are read before anything lets other threads run: a frame that continues has another caller.
            frames = sys._current_frames()  # noqa: SLF001 - documented; the only way to other threads
            stacks = [(ident, positions(frame)) for ident, frame in frames.items() if ident != own]
            del frames
            for ident, stack in stacks:
                used_ns = self._cpu_time_ns(native_ids.get(ident))
                if used_ns > 0:
                    self._add(stack, used_ns)
            if self._stop.wait(_PERIOD_NS / 1e9):
                return

    def _add(self, stack: tuple[Position, ...], used_ns: int) -> None:
        if stack not in self._counts and len(self._counts) >= self._stacks_max:
            stack = ()
        values = self._counts.setdefault(stack, [0, 0])
        values[0] += 1
        values[1] += used_ns

    def _cpu_time_ns(self, native_id: int | None) -> int:
        """CPU time that the thread has used since the last look; 0 for the first one."""
        if native_id is None:  # not a thread of Python's own
            return 0
        try:
            now_ns = int(Path(f"/proc/self/task/{native_id}/schedstat").read_bytes().split(maxsplit=1)[0])
        except (OSError, ValueError, IndexError):  # it has ended, or this is not Linux
            return 0 if sys.platform == "linux" else _PERIOD_NS
        before_ns = self._used_ns.get(native_id, now_ns)
        self._used_ns[native_id] = now_ns
        return now_ns - before_ns
