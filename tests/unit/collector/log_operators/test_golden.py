"""The operators make the records that the Go collector 0.156 made of the same lines.

``tests/e2e/test_log_operators_peer.py`` compares them with the Go collector itself, and writes the golden file with
``TAILRACE_WRITE_GOLDEN=1``.
"""

import json
from pathlib import Path

import pytest
from log_operator_cases import CASES
from log_operator_rig import comparable, run_case

GOLDEN = json.loads((Path(__file__).parents[3] / "data" / "log_operators.json").read_text())


@pytest.mark.parametrize("name", CASES)
def test_the_records_are_those_of_the_collector(name, monkeypatch):
    """Each configuration makes the same records, order and observed times aside."""
    monkeypatch.setenv("TZ", "UTC")  # of times without a zone
    assert comparable(run_case(name), name) == GOLDEN[name]


def test_there_are_golden_records_of_all_cases():
    """No case is missing, and none is left over."""
    assert GOLDEN.keys() == CASES.keys()
