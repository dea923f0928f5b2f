"""The figures of the GPUs over many time windows at once, one window per span or log record."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from collector.gpu import Snapshot, Windows
from collector.model.arrays import F64, I8, I32, I64, U64, Indices, Mask

__all__ = ["COVERED", "EXPIRED", "UNCOVERED", "Figures", "join"]


COVERED: Final = 0
EXPIRED: Final = 1
"""The window ended before the oldest sample."""
UNCOVERED: Final = 2
"""Nothing was sampled in the window: it starts after the newest sample and its hold, or is inside a gap."""


@dataclass(frozen=True, slots=True)
class Figures:
    """(n,) each; NaN where a device does not report it. Of several GPUs memory, power and energy are sums."""

    outcome: I8
    samples: I64
    coverage: F64
    utilization_mean: F64
    utilization_max: F64
    memory_used_max: F64
    power_mean: F64
    energy: F64


def join(snapshot: Snapshot, targets: list[tuple[int, ...]], target: I32, start: U64, end: U64) -> Figures:
    """The figures of the windows [start, end], each on the devices of its target (an index of ``targets``).

    Utilisation and memory are those of the devices; power and energy are those of their boards, each counted once.
    """
    devices = snapshot.devices
    count = len(target)
    board_of = _boards(snapshot)
    is_member = np.zeros((len(targets), len(devices)), np.bool_)
    is_board = np.zeros((len(targets), len(devices)), np.bool_)
    used = np.bincount(target, minlength=len(targets)).astype(np.bool_)
    for code in np.flatnonzero(used).tolist():
        is_member[code, list(targets[code])] = True
        is_board[code, [board_of[member] for member in targets[code]]] = True
    members_per_target = np.maximum(is_member.sum(axis=1), 1)

    outcome = np.zeros(count, np.int8)
    samples = np.full(count, np.iinfo(np.int64).max)
    coverage = np.ones(count)
    utilization_mean, utilization_max, memory = np.zeros(count), np.zeros(count), np.zeros(count)
    power, energy = np.zeros(count), np.zeros(count)
    for number in np.flatnonzero((is_member | is_board)[used].any(axis=0)).tolist():
        view = snapshot.views[number]
        for role, in_role in ((_MEMBER, is_member), (_BOARD, is_board)):
            rows = _rows(in_role[used, number], in_role[:, number], target)
            if rows is None:
                continue
            if not len(view):
                outcome[rows] = UNCOVERED
                continue
            windows = view.windows(start[rows], end[rows])
            share = windows.coverage()
            # Also for a board: it may be lost while its slice still answers.
            coverage[rows] = np.minimum(coverage[rows], share)
            if role == _MEMBER:
                outcome[rows] = np.maximum(outcome[rows], _outcome(windows, share))
                samples[rows] = np.minimum(samples[rows], windows.samples)
                utilization_mean[rows] += windows.mean("utilization")
                utilization_max[rows] = np.maximum(utilization_max[rows], windows.maximum("utilization"))
                memory[rows] += windows.maximum("memory_used")
            if role == _BOARD or (is_board[:, number] == is_member[:, number]).all():
                power[rows] += windows.mean("power")
                energy[rows] += windows.energy()
            if (is_board[:, number] == is_member[:, number]).all():
                break  # the device is its own board: its windows answer both
    return Figures(
        outcome,
        samples,
        coverage,
        utilization_mean / members_per_target[target],
        utilization_max,
        memory,
        power,
        energy,
    )


_MEMBER: Final = 0
_BOARD: Final = 1


def _boards(snapshot: Snapshot) -> list[int]:
    """For each device the number of the device that measures its power."""
    by_id = {device.id: number for number, device in enumerate(snapshot.devices)}
    return [by_id.get(device.parent_id, number) for number, device in enumerate(snapshot.devices)]


def _rows(in_used_targets: Mask, in_targets: Mask, target: I32) -> slice | Indices | None:
    """The rows whose target includes a device, None if there are none; a slice, without a copy, if all do."""
    if in_used_targets.all():
        return slice(None)
    rows = np.flatnonzero(in_targets[target])
    return rows if len(rows) else None


def _outcome(windows: Windows, coverage: F64) -> I8:
    covered = np.where(coverage > 0, np.int8(COVERED), np.int8(UNCOVERED))
    return np.where(windows.is_before, np.int8(EXPIRED), covered)
