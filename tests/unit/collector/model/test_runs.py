"""Runs of sorted columns, compared with a plain loop."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from collector.model.runs import rank_in_run, run_ends, run_starts, running_sum_in_run


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9))).map(lambda rows: sorted(rows, key=lambda row: row[0])))
def test_agrees_with_a_loop(rows):
    """All functions agree with plain loops, even if there are no rows."""
    keys, values = (np.array([row[column] for row in rows], np.int64) for column in (0, 1))
    starts, ends, ranks, sums = [], [], [], []
    for _, run in itertools.groupby(rows, key=lambda row: row[0]):
        numbers = [value for _, value in run]
        starts += [True] + [False] * (len(numbers) - 1)
        ends += [False] * (len(numbers) - 1) + [True]
        ranks += range(len(numbers))
        sums += itertools.accumulate(numbers)
    assert run_starts(keys).tolist() == starts
    assert run_ends(keys).tolist() == ends
    assert rank_in_run(run_starts(keys)).tolist() == ranks
    assert running_sum_in_run(values, run_starts(keys)).tolist() == sums
