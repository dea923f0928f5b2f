"""Attribution: which GPUs the work of a span or log record ran on.

The first step that decides is used (docs/reference/gpu.md, rules 14 to 20): an explicit UUID; then only if the item is
of this machine, its container or pod, its process, or the only GPU. Everything is decided once per distinct value and
resource, then spread over the rows.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Final, Self

import numpy as np

from collector.gpu import Process, Snapshot
from collector.model import KIND_INT, Batch, StringColumn
from collector.model.arrays import I32, U64, Indices, Mask
from collector.text.cache import TextCache
from processors.gpu.config import GpuProcessorConfig
from processors.gpu.locality import HostIdentity

__all__ = ["METHODS", "OTHER_HOST", "Assignment", "Attribution"]


METHODS: Final = ("explicit", "container", "process", "single", "host")
_EXPLICIT, _CONTAINER, _PROCESS, _SINGLE, _HOST = range(len(METHODS))

# A target is an index into Attribution.targets, or one of these:
UNDECIDED: Final = -1
OTHER_HOST: Final = -2
AMBIGUOUS: Final = -3

_PROCESS_START_TOLERANCE_NS: Final = 2_000_000_000  # btime has a resolution of one second, start ticks of hundredths
_MAX_TARGETS: Final = 4096  # sets of GPUs that items have named explicitly; bounds what a sender can make us remember
_MAX_CACHED_RESOURCE_BYTES: Final = 4096  # size of a resource whose placement is cached
_MAX_LOOKED_UP_RESOURCES: Final = 32  # with more, columns over all resources of a batch cost less than a lookup of each
# More than the UUIDs of 16 boards with 7 slices each: a longer text does not name devices of this machine.
_MAX_EXPLICIT_CHARS: Final = 8192


@dataclass(frozen=True, slots=True)
class Assignment:
    """Per row the target, and the method where the target is a set of GPUs."""

    target: I32
    method: I32


@dataclass(frozen=True, slots=True)
class _Placement:
    """Per resource: the assignment of items that name no GPU themselves."""

    target: I32
    method: I32
    pid_start: U64
    """Items that started before this are not of the process that has the pid now."""
    is_ours: Mask
    """The resource states the host of our devices."""

    def row(self, row: int) -> tuple[int, int, int, bool]:
        return int(self.target[row]), int(self.method[row]), int(self.pid_start[row]), bool(self.is_ours[row])

    @classmethod
    def from_rows(cls, rows: list[tuple[int, int, int, bool]]) -> Self:
        target, method, pid_start, is_ours = zip(*rows, strict=True)
        return cls(
            np.array(target, np.int32),
            np.array(method, np.int32),
            np.array(pid_start, np.uint64),
            np.array(is_ours, np.bool_),
        )


class Attribution:
    """Attribution to one set of devices and the processes on them."""

    def __init__(self, config: GpuProcessorConfig, host: HostIdentity, snapshot: Snapshot) -> None:
        self._config = config
        self.devices = snapshot.devices
        # Simulated devices with a host name belong only to that host.
        self._owner = HostIdentity.of(set(), {config.simulated.host_name}) if _has_owner(config) else None
        self._host = self._owner or host
        self._by_id = {device.id.lower(): number for number, device in enumerate(self.devices)}
        self.targets: list[tuple[int, ...]] = []
        self._target_codes: dict[tuple[int, ...], int] = {}
        self._usable = tuple(number for number, device in enumerate(self.devices) if not device.is_partitioned)
        self._all = self._target(self._usable) if self._usable else UNDECIDED
        self._explicit_cache = TextCache[int | None](max_entry_bytes=2 * _MAX_EXPLICIT_CHARS)
        self._placements = TextCache[tuple[int, int, int, bool] | None](max_entry_bytes=_MAX_CACHED_RESOURCE_BYTES)
        self._read_processes(snapshot)

    def is_current(self, snapshot: Snapshot) -> bool:
        """Whether the snapshot has the same devices with the same processes on them."""
        return snapshot.devices == self.devices and _processes(snapshot) == self._processes

    def assign(self, batch: Batch, rows: Indices, start_unix_nano: U64) -> Assignment:
        """The targets of ``rows``, items of the batch with these start times."""
        resource = batch.ancestor("resources")[rows]
        placement = self._placement(batch)
        target, method = placement.target[resource], placement.method[resource]
        is_stale_pid = (method == _PROCESS) & (placement.pid_start[resource] > start_unix_nano)
        if is_stale_pid.any():  # the pid belongs to another process by now
            target[is_stale_pid], method[is_stale_pid] = self._last_step()
        items = batch.attributes()
        for key in ("gpu.uuid", "hw.id"):  # hw.id takes precedence
            if items.code_of(key) >= 0:
                own = self._lookup(_text(batch, key).take(rows), self._explicit)
                decided = own != UNDECIDED
                target[decided], method[decided] = own[decided], _EXPLICIT
        if self._owner is not None:
            target[~placement.is_ours[resource]] = OTHER_HOST
        return Assignment(target, method)

    def _placement(self, batch: Batch) -> _Placement:
        """The placement of all resources, computed once per distinct one: the next batch of a service has the same."""
        found = batch.table("resources").rows
        if len(found) > _MAX_LOOKED_UP_RESOURCES:
            return self._place(batch)
        is_near = batch.context.local_peer is True
        spans = zip(found["inner_start"].tolist(), found["inner_end"].tolist(), strict=True)
        keys = [(batch.wire[begin:end] if begin >= 0 else b"", is_near) for begin, end in spans]
        known = [row for key in keys if (row := self._placements.get(key, None)) is not None]
        if len(known) == len(keys):
            return _Placement.from_rows(known)
        fresh = self._place(batch)
        for number, key in enumerate(keys):
            self._placements.put(key, fresh.row(number))
        return fresh

    def _place(self, batch: Batch) -> _Placement:
        is_local, is_ours = self._local(batch)
        explicit = _first(self._lookup(_text(batch, key, "resources"), self._explicit) for key in ("hw.id", "gpu.uuid"))
        container_ids = _text(batch, "container.id", "resources")
        container = _first(
            [
                self._lookup(container_ids, self._container),
                self._lookup(_text(batch, "k8s.pod.uid", "resources"), self._pod),
            ],
        )
        pid = self._pid_index(batch)
        process = np.append(self._pid_target, np.int32(UNDECIDED))[pid]
        # A container without a process on a GPU must not be taken for a process that happens to have the same pid.
        process[container_ids.present] = UNDECIDED
        last, last_method = self._last_step()
        steps = [
            (explicit != UNDECIDED, explicit, _EXPLICIT),
            (~is_local, np.full(len(explicit), OTHER_HOST, np.int32), 0),
            (container != UNDECIDED, container, _CONTAINER),
            (process != UNDECIDED, process, _PROCESS),
        ]
        conditions = [condition for condition, _, _ in steps]
        target = np.select(conditions, [values for _, values, _ in steps], np.int32(last)).astype(np.int32)
        method = np.select(conditions, [np.int32(method) for _, _, method in steps], np.int32(last_method)).astype(
            np.int32
        )
        return _Placement(target, method, np.append(self._pid_starts, np.uint64(0))[pid], is_ours)

    def _last_step(self) -> tuple[int, int]:
        if len(self._usable) == 1:
            return self._all, _SINGLE
        if self._config.ambiguous == "host" and self._usable:
            return self._all, _HOST
        return AMBIGUOUS, 0

    def _local(self, batch: Batch) -> tuple[Mask, Mask]:
        """Per resource: whether it is on the host of our devices, and whether its stated ``host.name`` says so."""
        ids, names = _text(batch, "host.id", "resources"), _text(batch, "host.name", "resources")
        stated = names.where(HostIdentity.states_name)
        same_name = names.where(self._host.has_name)
        if self._owner is not None:
            return same_name & (self._config.locality != "none"), same_name
        same_id = ids.where(self._host.has_id)
        if self._config.locality == "none":
            return np.zeros(len(stated), np.bool_), same_name
        is_near = self._config.locality == "all" or batch.context.local_peer is True
        unstated = np.where(ids.present, False, is_near)
        # A stated id cannot be compared if our own is unknown. Then the name decides; without a name it is not local.
        by_name = np.where(stated, same_name, unstated)
        local = np.where(ids.present, same_id, by_name) if self._host.ids else by_name
        return local.astype(np.bool_), same_name

    def _explicit(self, text: str) -> int:
        """The target that a ``hw.id`` or ``gpu.uuid`` names with one or several UUIDs, separated by commas."""
        if len(text) > _MAX_EXPLICIT_CHARS:
            return OTHER_HOST
        known = self._explicit_cache.get(text, None)
        if known is not None:
            return known
        # Device plug-ins append "::2" to the UUID for the third share of a time-sliced GPU.
        names = [part.strip().partition("::")[0].lower() for part in text.split(",")]
        names = [name for name in names if name]
        if not names or not all(name.startswith(("gpu-", "mig-")) for name in names):
            code = UNDECIDED
        elif not all(name in self._by_id for name in names):
            code = OTHER_HOST
        else:
            code = self._target(tuple(sorted({self._by_id[name] for name in names})))
        self._explicit_cache.put(text, code)
        return code

    def _container(self, text: str) -> int:
        return self._by_container.get(text.strip().rpartition("/")[2].lower(), UNDECIDED)

    def _pod(self, text: str) -> int:
        return self._by_pod.get(text.strip().lower(), UNDECIDED)

    def _pid_index(self, batch: Batch) -> Indices:
        """Per resource the index of the process with its pid; -1 if there is none."""
        column = batch.attribute("process.pid", "resources")
        index = np.minimum(np.searchsorted(self._pids, column.int), max(0, len(self._pids) - 1))
        if not len(self._pids):
            return np.full(len(column), -1)
        return np.where((column.kind == KIND_INT) & (self._pids[index] == column.int), index, -1)

    def _read_processes(self, snapshot: Snapshot) -> None:
        self._processes = _processes(snapshot)
        containers: dict[str, set[int]] = {}
        pods: dict[str, set[int]] = {}
        pids: dict[
            int, dict[int, tuple[set[int], int]]
        ] = {}  # pid that SDKs see → pid of the host → devices and start time
        for device, processes in enumerate(self._processes):
            for process in processes:
                if process.container_id:
                    containers.setdefault(process.container_id.lower(), set()).add(device)
                if process.pod_uid:
                    pods.setdefault(process.pod_uid.lower(), set()).add(device)
                owner = pids.setdefault(process.namespace_pid, {}).setdefault(
                    process.pid, (set(), process.start_time_unix_nano)
                )
                owner[0].add(device)
        self._by_container = {key: self._target(tuple(sorted(value))) for key, value in containers.items()}
        self._by_pod = {key: self._target(tuple(sorted(value))) for key, value in pods.items()}
        # Two containers can both have a process 1: such a pid identifies nothing.
        by_pid = sorted(
            (pid, self._target(tuple(sorted(devices))), max(0, start - _PROCESS_START_TOLERANCE_NS))
            for pid, owners in pids.items()
            if len(owners) == 1
            for devices, start in owners.values()
        )
        self._pids = np.array([pid for pid, _, _ in by_pid], np.int64)
        self._pid_target = np.array([target for _, target, _ in by_pid], np.int32)
        self._pid_starts = np.array([start for _, _, start in by_pid], np.uint64)

    def _target(self, devices: tuple[int, ...]) -> int:
        code = self._target_codes.get(devices)
        if code is None:
            if len(self.targets) >= _MAX_TARGETS:
                return AMBIGUOUS
            code = self._target_codes[devices] = len(self.targets)
            self.targets.append(devices)
        return code

    @staticmethod
    def _lookup(column: StringColumn, decide: Callable[[str], int]) -> I32:
        """``decide`` of the text of each row, called once per distinct value; UNDECIDED where there is no text."""
        table = np.fromiter((decide(text) for text in column.distinct), np.int32, len(column.distinct))
        result: I32 = np.append(table, np.int32(UNDECIDED))[column.codes]
        return result


def _has_owner(config: GpuProcessorConfig) -> bool:
    return config.backend == "simulated" and bool(config.simulated.host_name)


def _processes(snapshot: Snapshot) -> tuple[tuple[Process, ...], ...]:
    return tuple(reading.processes for reading in snapshot.readings)


def _text(batch: Batch, key: str, table: str = "item") -> StringColumn:
    return batch.attribute(key, table).text


def _first(columns: Iterable[I32]) -> I32:
    """The first decided value of each row."""
    return reduce(lambda first, other: np.where(first == UNDECIDED, other, first), columns)
