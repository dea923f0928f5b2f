"""Statements do what they do in the Go collector, whose results are recorded."""

import pytest
from ottl_cases import cases, golden, ours

CASES = cases()
RECORDED = golden()


def test_every_case_is_recorded():
    """There are more than a thousand cases, and the Collector's result of each is known."""
    assert len(CASES) > 1000
    assert [case.line for case in CASES] == list(RECORDED)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.line)
def test_does_what_the_collector_does(case):
    """The same request and the same number of failures, or both refuse; what differs is stated with its reason."""
    outcome = ours(case)
    if outcome.refused and "which is not installed" in outcome.detail:
        pytest.skip("an optional package is not installed")
    recorded = RECORDED[case.line]
    if case.difference:
        assert outcome.key != recorded, "no longer a difference"
    else:
        assert outcome.key == recorded, outcome.detail
