"""Runs of equal values in sorted columns, and ranks and running sums within each run."""

import numpy as np

from collector.model.arrays import I64, Array, Mask

__all__ = ["rank_in_run", "run_ends", "run_starts", "running_sum_in_run"]


def run_starts(values: Array) -> Mask:
    """bool[n]: the value differs from the one before it, or is the first.

    >>> run_starts(np.array([3, 3, 5])).tolist()
    [True, False, True]
    """
    starts = np.ones(len(values), np.bool_)
    starts[1:] = values[1:] != values[:-1]
    return starts


def run_ends(values: Array) -> Mask:
    """bool[n]: the value differs from the one after it, or is the last.

    >>> run_ends(np.array([3, 3, 5])).tolist()
    [False, True, True]
    """
    ends = np.ones(len(values), np.bool_)
    ends[:-1] = values[1:] != values[:-1]
    return ends


def rank_in_run(starts: Mask) -> I64:
    """I64[n]: how many rows of its run stand before each row. ``starts``: see :func:`run_starts`.

    >>> rank_in_run(run_starts(np.array([3, 3, 5]))).tolist()
    [0, 1, 0]
    """
    rows = np.arange(len(starts), dtype=np.int64)
    ranks: I64 = rows - np.maximum.accumulate(np.where(starts, rows, 0)) if len(rows) else rows
    return ranks


def running_sum_in_run(values: Array, starts: Mask) -> I64:
    """I64[n]: the sum of the values of its run up to and including each row. ``starts``: see :func:`run_starts`.

    >>> running_sum_in_run(np.array([1, 2, 4]), run_starts(np.array([3, 3, 5]))).tolist()
    [1, 3, 4]
    """
    totals = np.cumsum(values, dtype=np.int64)
    sums: I64 = totals - (totals - values)[starts][np.cumsum(starts) - 1] if len(totals) else totals
    return sums
