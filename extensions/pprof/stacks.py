"""The stacks of the process as it is now: of its threads and of the tasks of its event loop."""

import asyncio
import sys
import threading
from collections.abc import Iterator
from types import CodeType, FrameType
from typing import Any, Final

from extensions.pprof.profile import Frame

__all__ = ["Position", "frame_of", "positions", "task_stacks", "thread_stacks"]

_DEPTH_MAX: Final = 256

Position = tuple[CodeType, int]
"""A code object and a line."""


def positions(frame: FrameType | None) -> tuple[Position, ...]:
    """The stack of ``frame``, which comes first."""
    found: list[Position] = []
    while frame is not None and len(found) < _DEPTH_MAX:
        found.append((frame.f_code, frame.f_lineno or 0))
        frame = frame.f_back
    return tuple(found)


def frame_of(position: Position) -> Frame:
    """The position with its names."""
    code, line = position
    return Frame(code.co_qualname, code.co_filename, line)


def thread_stacks() -> Iterator[tuple[str, list[Frame]]]:
    """Name and stack of each thread; the function that runs comes first."""
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in sys._current_frames().items():  # noqa: SLF001 - documented; the only way to other threads
        yield names.get(ident, f"thread {ident}"), [frame_of(position) for position in positions(frame)]


def task_stacks() -> Iterator[tuple[str, list[Frame]]]:
    """Name and stack of each task of the running event loop; the function that waits comes first."""
    for task in asyncio.all_tasks():
        found: list[Frame] = []
        awaited: Any = task.get_coro()
        while awaited is not None and len(found) < _DEPTH_MAX:
            # Coroutines, generators and asynchronous generators; a future has none of these and ends the chain.
            frame = _first(awaited, "cr_frame", "gi_frame", "ag_frame")
            if frame is not None:
                found.append(frame_of((frame.f_code, frame.f_lineno or 0)))
            awaited = _first(awaited, "cr_await", "gi_yieldfrom", "ag_await")
        yield task.get_name(), found[::-1]


def _first(value: Any, *names: str) -> Any:
    return next((found for name in names if (found := getattr(value, name, None)) is not None), None)
