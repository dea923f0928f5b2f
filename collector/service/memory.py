"""How much memory this process may use: the container's limit, or the machine's memory."""

import contextlib
from pathlib import Path
from typing import Final

import psutil

__all__ = ["available_bytes"]

_ROOT: Final = Path("/")


def available_bytes(root: Path = _ROOT) -> int:
    """The lowest of the machine's memory and the limits of the cgroups (v2 and v1) this process is in.

    Source: cgroup-v2 "memory.max"; cgroup-v1 "memory.limit_in_bytes", which is a huge number if there is no limit.
    """
    limits = [int(psutil.virtual_memory().total)]
    for path in _limit_files(root):
        with contextlib.suppress(OSError, ValueError):  # no such file, or the word "max"
            limits.append(int(path.read_text(encoding="ascii")))
    return min(limit for limit in limits if limit > 0)


def _limit_files(root: Path) -> list[Path]:
    mount = root / "sys/fs/cgroup"
    files = [mount / "memory.max", mount / "memory/memory.limit_in_bytes"]
    with contextlib.suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text(encoding="utf-8").splitlines():
            number, controllers, path = line.split(":", 2)
            own = path.strip("/")
            groups = (Path(own), *Path(own).parents)  # every ancestor limits as well
            if number == "0" and own:
                files += [mount / group / "memory.max" for group in groups]
            elif "memory" in controllers.split(","):
                files += [mount / "memory" / group / "memory.limit_in_bytes" for group in groups]
    return files
