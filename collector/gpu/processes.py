"""What /proc tells about a process that uses a GPU: its container, its pod, the pid it sees itself, its start time.

The driver reports pids of the host's namespace (and inside a container often none at all), while SDKs report the pid
that they see themselves. The cgroup and ``NSpid`` connect the two.
Source: proc(5); the cgroup paths of Docker, containerd and CRI-O.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from collector.gpu.backend import Process

__all__ = ["ProcessTable"]

_CONTAINER_ID: Final = re.compile(r"([0-9a-f]{64})")
_POD_UID: Final = re.compile(r"pod([0-9a-f]{8}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{4}[-_]?[0-9a-f]{12})")
_CLOCK_TICKS_PER_S: Final = 100  # USER_HZ: 100 on every Linux architecture CUDA runs on
_MAX_FILE_BYTES: Final = 65536


class ProcessTable:
    """Looks up processes, each only once in its lifetime."""

    def __init__(self, proc: Path = Path("/proc")) -> None:
        self._proc = proc
        self._boot_unix_nano = 0
        self._known: dict[int, tuple[int, Process]] = {}

    def look_up(self, pids: Iterable[int]) -> dict[int, Process]:
        """Those of the processes that our /proc shows. A pid with a new start time is a new process."""
        found: dict[int, Process] = {}
        known: dict[int, tuple[int, Process]] = {}
        for pid in set(pids):
            ticks = self._start_ticks(pid)
            if ticks is None:
                continue
            entry = self._known.get(pid)
            process = entry[1] if entry is not None and entry[0] == ticks else self._read(pid, ticks)
            known[pid], found[pid] = (ticks, process), process
        self._known = known
        return found

    def _read(self, pid: int, start_ticks: int) -> Process:
        cgroup = self._text(pid, "cgroup")
        # In a nested path the innermost container is the one of the process.
        containers, pod = _CONTAINER_ID.findall(cgroup), _POD_UID.search(cgroup)
        namespace_pid, boot = pid, self._boot()
        for line in self._text(pid, "status").splitlines():
            if line.startswith("NSpid:"):
                pids = line.split()[1:]
                namespace_pid = int(pids[-1]) if pids and pids[-1].isdigit() else pid
        return Process(
            pid=pid,
            namespace_pid=namespace_pid,
            start_time_unix_nano=boot + start_ticks * (1_000_000_000 // _CLOCK_TICKS_PER_S) if boot else 0,
            container_id=containers[-1] if containers else "",
            pod_uid=pod[1].replace("_", "-") if pod else "",
        )

    def _start_ticks(self, pid: int) -> int | None:
        # Field 22; the second field is the command in parentheses and may itself contain parentheses.
        fields = self._text(pid, "stat").rpartition(")")[2].split()
        return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else None

    def _boot(self) -> int:
        if not self._boot_unix_nano:
            for line in self._text("stat").splitlines():
                if line.startswith("btime ") and line[6:].strip().isdigit():
                    self._boot_unix_nano = int(line[6:]) * 1_000_000_000
        return self._boot_unix_nano

    def _text(self, *parts: object) -> str:
        """The text of a file; empty if it cannot be read (it is gone or belongs to another user)."""
        try:
            with self._proc.joinpath(*map(str, parts)).open("rb") as file:
                return file.read(_MAX_FILE_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""
