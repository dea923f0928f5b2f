"""Lets one thread read another /proc than the rest of the process.

``psutil.PROCFS_PATH`` is a variable of the module: if a collection changed it, the memory limiter and whatever else
asks psutil meanwhile would read the host's /proc as well. So it becomes an attribute that each thread has for itself.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import psutil

__all__ = ["procfs_at"]


class _Place(threading.local):
    path: str | None = None


_PLACE = _Place()


class _Psutil(ModuleType):
    """The module ``psutil``, whose PROCFS_PATH is that of the current thread."""

    @property
    def PROCFS_PATH(self) -> str:  # noqa: N802 - its name in psutil
        """Where /proc is for the current thread."""
        own: str = self.__dict__["PROCFS_PATH"]
        return _PLACE.path or own

    @PROCFS_PATH.setter
    def PROCFS_PATH(self, path: str) -> None:  # noqa: N802
        """For all threads that have none of their own."""
        self.__dict__["PROCFS_PATH"] = path


@contextmanager
def procfs_at(path: str) -> Iterator[None]:
    """Psutil reads from this /proc while it is open, in this thread alone."""
    if not isinstance(psutil, _Psutil):
        psutil.__class__ = _Psutil
    before, _PLACE.path = _PLACE.path, path
    try:
        yield
    finally:
        _PLACE.path = before
